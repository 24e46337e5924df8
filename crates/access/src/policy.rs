//! The policy: who may do what, in one `match`.

use atelier_domain::{Role, TenantId};

use crate::caller::{Caller, Who};
use crate::right::Action;

/// What a caller is to the tenant that a right is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Standing {
    /// Showed no key.
    Anonymous,
    /// Belongs to another tenant, or to any tenant when the right is the installation's.
    Stranger,
    /// Showed the secret of an invite of the tenant's.
    Invited,
    /// Looks and changes nothing.
    Reader,
    /// A machine: completes, and gives code to learn from.
    Service,
    /// Uses the tenant's models.
    Member,
    /// Manages the tenant.
    Admin,
    /// Runs the installation.
    Operator,
    /// Runs the installation and said for which tenant: every such act is on record.
    OperatorActing,
    /// Work without a human.
    System,
}

impl Standing {
    /// Every standing.
    pub const ALL: [Self; 10] = [
        Self::Anonymous,
        Self::Stranger,
        Self::Invited,
        Self::Reader,
        Self::Service,
        Self::Member,
        Self::Admin,
        Self::Operator,
        Self::OperatorActing,
        Self::System,
    ];
}

/// What the caller is to this tenant, or to the installation when there is none.
pub(crate) fn standing(caller: &Caller, tenant: Option<TenantId>) -> Standing {
    match (&caller.0, tenant) {
        (Who::Anonymous, _) => Standing::Anonymous,
        (Who::System(_), _) => Standing::System,
        (Who::Operator { acting_for: None, .. }, _) | (Who::Operator { .. }, None) => Standing::Operator,
        (Who::Operator { acting_for: Some(one), .. }, Some(other)) if *one == other => Standing::OperatorActing,
        (Who::Tenant(holder), Some(other)) if holder.tenant == other => standing_of(holder.role),
        (Who::Invited { tenant: one, .. }, Some(other)) if *one == other => Standing::Invited,
        (Who::Operator { .. } | Who::Tenant(_) | Who::Invited { .. }, _) => Standing::Stranger,
    }
}

/// What a role is to its own tenant.
fn standing_of(role: Role) -> Standing {
    match role {
        // No key of an operator has a tenant; were there one, it would get nothing by it.
        Role::Operator => Standing::Stranger,
        Role::Admin => Standing::Admin,
        Role::Member => Standing::Member,
        Role::Service => Standing::Service,
        Role::Reader => Standing::Reader,
    }
}

/// Whether the caller may do this to this tenant, or to the installation: the action lies in a scope of the caller's
/// key, and the caller's standing allows it.
pub(crate) fn permits(caller: &Caller, tenant: Option<TenantId>, action: Action) -> bool {
    caller.scopes().contains(action.scope()) && allows(standing(caller, tenant), action)
}

/// Whether this standing may do this, given that the key's scopes do. The snapshot of the whole table lies beside this file.
#[must_use]
pub fn allows(standing: Standing, action: Action) -> bool {
    use Action as A;
    use Standing as S;
    match (standing, action) {
        (S::Anonymous | S::Stranger, _) => false,

        // Whoever is invited joins, and is somebody else from then on.
        (S::Invited, A::JoinOrganization) => true,
        (S::Invited, _) => false,

        // What everybody of a tenant sees.
        (
            S::Reader | S::Service | S::Member | S::Admin | S::OperatorActing,
            A::ReadModels | A::ReadRuns | A::ReadVersions | A::ReadTenant,
        ) => true,

        // Who looks after a tenant sees its books, its people and what was done, and touches none of it.
        (S::Reader | S::Admin | S::OperatorActing, A::ReadUsage | A::ReadAudit | A::ReadOrganization) => true,
        (S::Reader, _) => false,

        // What a member's editor does.
        (S::Service | S::Member | S::Admin | S::OperatorActing, A::CompleteAs | A::Meter) => true,
        (S::Member, _) => false,

        // A machine brings code and has it learned; it cannot take code away.
        (S::Service, A::WriteSources | A::StartRun | A::CancelRun) => true,
        (S::Service, _) => false,

        // What changes the tenant's model or shows its code is for its admins, and for an operator who says so.
        (
            S::Admin | S::OperatorActing,
            A::WriteSources
            | A::ReadSources
            | A::StartRun
            | A::CancelRun
            | A::Evaluate
            | A::MoveAlias
            | A::ManageKeys
            | A::ManageOrganization
            | A::Appoint
            | A::ReadSignOn
            | A::ManageSignOn,
        ) => true,
        (S::Admin, _) => false,

        // The server's own folders and the plan are the operator's to give.
        (S::OperatorActing, A::ReadServerFolder) => true,
        (S::Operator | S::OperatorActing, A::ManageTenant) => true,

        // An operator sees the books and the keys, never the code or the completions, without acting for the tenant.
        (S::Operator, A::ReadTenant | A::ManageKeys | A::ReadUsage) => true,
        (S::Operator, A::CreateTenant | A::ListTenants | A::ReadOperatorAudit | A::CorrectUsage) => true,
        (S::Operator | S::OperatorActing, _) => false,

        // A worker reads what it learns from and writes what it learned; loading adapters serves requests; signing in is
        // what nobody has a key for yet.
        (
            S::System,
            A::WorkJobs
            | A::RunJob
            | A::ReadSources
            | A::ReadRuns
            | A::ReadVersions
            | A::ReadTenant
            | A::LoadAdapter
            | A::JoinOrganization
            | A::SignIn
            | A::FindSignOn
            | A::Meter,
        ) => true,
        (S::System, _) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caller::Holder;
    use crate::right::{
        Appoint, CompleteAs, CreateTenant, JoinOrganization, ManageKeys, ManageTenant, ReadAudit, StartRun, WorkJobs,
    };
    use crate::{Denied, Right};
    use atelier_domain::{InviteId, KeyId, Scope, Scopes, Timestamp};

    fn tenant(byte: u8) -> TenantId {
        TenantId::generate(Timestamp::from_seconds(1), [byte; 10])
    }

    fn key() -> KeyId {
        KeyId::generate(Timestamp::from_seconds(1), [0; 10])
    }

    fn holder(role: Role, scopes: Scopes) -> Caller {
        Caller::of(Who::Tenant(Holder { key: key(), tenant: tenant(1), role, scopes, project: None, owner: None }))
    }

    fn callers() -> [Caller; 9] {
        [
            Caller::anonymous(),
            Caller::system("test"),
            Caller::of(Who::Operator { key: key(), acting_for: None }),
            Caller::of(Who::Operator { key: key(), acting_for: Some(tenant(1)) }),
            holder(Role::Admin, Scopes::ALL),
            holder(Role::Member, Scopes::ALL),
            holder(Role::Service, Scopes::ALL),
            holder(Role::Reader, Scopes::ALL),
            Caller::of(Who::Invited {
                invite: InviteId::generate(Timestamp::from_seconds(1), [0; 10]),
                tenant: tenant(1),
            }),
        ]
    }

    fn check<R: Right>(right: R, expected: [Result<(), Denied>; 9]) {
        assert_eq!(callers().map(|caller| caller.grant(right.clone()).map(|_| ())), expected, "{right:?}");
    }

    #[test]
    fn the_policy_reads_as_a_table() {
        let mut table = format!("{:<20} {:<8}", "", "Scope");
        for standing in Standing::ALL {
            table += &format!(" {:<14}", format!("{standing:?}"));
        }
        for action in Action::ALL {
            table += &format!("\n{:<20} {:<8}", action.as_str(), action.scope().as_str());
            for standing in Standing::ALL {
                table += &format!(" {:<14}", if allows(standing, *action) { "yes" } else { "-" });
            }
        }
        let table: Vec<&str> = table.lines().map(str::trim_end).collect();
        insta::assert_snapshot!(table.join("\n"));
    }

    #[test]
    fn a_stranger_is_told_nothing_and_nobody_is_asked_for_a_key() {
        let (yes, no_key, hidden) = (Ok(()), Err(Denied::NotAuthenticated), Err(Denied::Hidden));
        check(CompleteAs { tenant: tenant(1) }, [no_key, hidden, hidden, yes, yes, yes, yes, hidden, hidden]);
        check(
            CompleteAs { tenant: tenant(2) },
            [no_key, hidden, hidden, hidden, hidden, hidden, hidden, hidden, hidden],
        );
        check(ManageTenant { tenant: tenant(1) }, [no_key, hidden, yes, yes, hidden, hidden, hidden, hidden, hidden]);
        check(ReadAudit { tenant: tenant(1) }, [no_key, hidden, hidden, yes, yes, hidden, hidden, yes, hidden]);
        check(StartRun { tenant: tenant(1) }, [no_key, hidden, hidden, yes, yes, hidden, yes, hidden, hidden]);
        check(Appoint { tenant: tenant(1) }, [no_key, hidden, hidden, yes, yes, hidden, hidden, hidden, hidden]);
        check(
            JoinOrganization { tenant: tenant(1) },
            [no_key, yes, hidden, hidden, hidden, hidden, hidden, hidden, yes],
        );
        check(
            JoinOrganization { tenant: tenant(2) },
            [no_key, yes, hidden, hidden, hidden, hidden, hidden, hidden, hidden],
        );
        check(CreateTenant, [no_key, hidden, yes, yes, hidden, hidden, hidden, hidden, hidden]);
        check(WorkJobs, [no_key, yes, hidden, hidden, hidden, hidden, hidden, hidden, hidden]);
    }

    #[test]
    fn nobody_gains_a_right_by_being_a_stranger_or_nobody() {
        for action in Action::ALL {
            assert!(!allows(Standing::Anonymous, *action) && !allows(Standing::Stranger, *action));
            for lesser in [Standing::Member, Standing::Service, Standing::Reader] {
                assert!(!allows(lesser, *action) || allows(Standing::Admin, *action), "{lesser:?} {action:?}");
            }
            assert!(!allows(Standing::Admin, *action) || allows(Standing::OperatorActing, *action), "{action:?}");
        }
    }

    #[test]
    fn a_reader_changes_nothing_and_costs_nothing() {
        for action in Action::ALL.iter().filter(|action| allows(Standing::Reader, **action)) {
            assert!(action.as_str().starts_with("read_"), "{action:?}");
        }
    }

    #[test]
    fn a_scope_takes_rights_away_and_gives_none() {
        for role in [Role::Admin, Role::Member, Role::Service, Role::Reader] {
            for scope in Scope::ALL {
                let (narrow, whole) = (holder(role, Scopes::of(&[scope])), holder(role, Scopes::ALL));
                for action in Action::ALL {
                    let expected = permits(&whole, Some(tenant(1)), *action) && action.scope() == scope;
                    assert_eq!(permits(&narrow, Some(tenant(1)), *action), expected, "{role} {scope} {action:?}");
                }
            }
        }
        let editor = holder(Role::Admin, Scopes::of(&[Scope::Complete]));
        assert!(editor.grant(CompleteAs { tenant: tenant(1) }).is_ok());
        let denied = |caller: &Caller| caller.grant(ManageKeys { tenant: tenant(1) }).map(|_| ()).unwrap_err();
        assert!(editor.grant(StartRun { tenant: tenant(1) }).is_err());
        // Whose role would do hears what is missing; who would not be let in anyway hears nothing.
        assert_eq!(denied(&editor), Denied::OutOfScope(Scope::Manage));
        assert_eq!(denied(&holder(Role::Member, Scopes::of(&[Scope::Complete]))), Denied::Hidden);
        let elsewhere = editor.grant(ManageKeys { tenant: tenant(2) }).map(|_| ());
        assert_eq!(elsewhere, Err(Denied::Hidden));
        let administrator = holder(Role::Admin, Scopes::ADMINISTRATION);
        let completes = administrator.grant(CompleteAs { tenant: tenant(1) }).map(|_| ());
        assert_eq!(completes, Err(Denied::OutOfScope(Scope::Complete)));
        assert!(administrator.grant(Appoint { tenant: tenant(1) }).is_ok());
    }
}
