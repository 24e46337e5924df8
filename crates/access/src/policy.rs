//! The policy: who may do what, in one `match`.

use atelier_domain::{Role, TenantId};

use crate::Denied;
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

/// What a tenant's own key lacks for this, where saying so tells nothing that it does not know: about its own tenant and
/// about the installation, of which nothing was looked up. None for everybody else.
pub(crate) fn shortfall(caller: &Caller, tenant: Option<TenantId>, action: Action) -> Option<Denied> {
    let Who::Tenant(holder) = &caller.0 else { return None };
    if tenant.is_some_and(|tenant| tenant != holder.tenant) {
        return None;
    }
    if allows(standing(caller, tenant), action) {
        Some(Denied::OutOfScope(action.scope()))
    } else {
        Some(Denied::BeyondRole { role: holder.role, action })
    }
}

/// The roles of a tenant's keys that may do this, least first; the operator's where there is none.
#[must_use]
pub fn roles_for(action: Action) -> Vec<Role> {
    let mut roles = vec![Role::Reader, Role::Service, Role::Member, Role::Admin];
    roles.retain(|role| action.is_of_a_tenant() && allows(standing_of(*role), action));
    if roles.is_empty() { vec![Role::Operator] } else { roles }
}

/// Whether this standing may do this, given that the key's scopes do. The snapshot of the whole table lies beside this file.
#[must_use]
pub fn allows(standing: Standing, action: Action) -> bool {
    use Action as A;
    use Standing as S;
    match (standing, action) {
        (S::Anonymous | S::Stranger, _) => false,
        // Whoever is invited joins, and is somebody else from then on.
        (S::Invited, action) => action == A::JoinOrganization,

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
        (S::System, action) => matches!(
            action,
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
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Right;
    use crate::caller::Holder;
    use crate::right::{
        Appoint, CompleteAs, CreateTenant, JoinOrganization, ManageKeys, ManageTenant, ReadAudit, StartRun, WorkJobs,
    };
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
    fn a_stranger_is_told_nothing_and_ones_own_key_what_it_lacks() {
        let (yes, no_key, hidden) = (Ok(()), Err(Denied::NotAuthenticated), Err(Denied::Hidden));
        let of = |role, action| Err(Denied::BeyondRole { role, action });
        let all = |action| [Role::Admin, Role::Member, Role::Service, Role::Reader].map(|role| of(role, action));
        check(
            CompleteAs { tenant: tenant(2) },
            [no_key, hidden, hidden, hidden, hidden, hidden, hidden, hidden, hidden],
        );
        let reader = of(Role::Reader, Action::CompleteAs);
        check(CompleteAs { tenant: tenant(1) }, [no_key, hidden, hidden, yes, yes, yes, yes, reader, hidden]);
        let [admin, member, service, reader] = all(Action::ManageTenant);
        check(ManageTenant { tenant: tenant(1) }, [no_key, hidden, yes, yes, admin, member, service, reader, hidden]);
        let [_, member, service, _] = all(Action::ReadAudit);
        check(ReadAudit { tenant: tenant(1) }, [no_key, hidden, hidden, yes, yes, member, service, yes, hidden]);
        let [_, member, _, reader] = all(Action::StartRun);
        check(StartRun { tenant: tenant(1) }, [no_key, hidden, hidden, yes, yes, member, yes, reader, hidden]);
        let [_, member, service, reader] = all(Action::Appoint);
        check(Appoint { tenant: tenant(1) }, [no_key, hidden, hidden, yes, yes, member, service, reader, hidden]);
        let [admin, member, service, reader] = all(Action::JoinOrganization);
        check(
            JoinOrganization { tenant: tenant(1) },
            [no_key, yes, hidden, hidden, admin, member, service, reader, yes],
        );
        check(
            JoinOrganization { tenant: tenant(2) },
            [no_key, yes, hidden, hidden, hidden, hidden, hidden, hidden, hidden],
        );
        let [admin, member, service, reader] = all(Action::CreateTenant);
        check(CreateTenant, [no_key, hidden, yes, yes, admin, member, service, reader, hidden]);
        let [admin, member, service, reader] = all(Action::WorkJobs);
        check(WorkJobs, [no_key, yes, hidden, hidden, admin, member, service, reader, hidden]);
    }

    #[test]
    fn who_may_do_what_is_said_with_the_least_role_first() {
        for (action, expected) in [
            (Action::ReadModels, vec![Role::Reader, Role::Service, Role::Member, Role::Admin]),
            (Action::StartRun, vec![Role::Service, Role::Admin]),
            (Action::ManageKeys, vec![Role::Admin]),
            (Action::ManageTenant, vec![Role::Operator]),
            (Action::CreateTenant, vec![Role::Operator]),
        ] {
            assert_eq!(roles_for(action), expected, "{action:?}");
        }
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
        let lacks = |scope| Err(Denied::OutOfScope(scope));
        assert_eq!(editor.grant(StartRun { tenant: tenant(1) }).map(|_| ()), lacks(Scope::Learn));
        assert_eq!(editor.grant(ManageKeys { tenant: tenant(1) }).map(|_| ()), lacks(Scope::Manage));
        assert_eq!(editor.grant(ManageKeys { tenant: tenant(2) }).map(|_| ()), Err(Denied::Hidden));
        let administrator = holder(Role::Admin, Scopes::ADMINISTRATION);
        assert_eq!(administrator.grant(CompleteAs { tenant: tenant(1) }).map(|_| ()), lacks(Scope::Complete));
        assert!(administrator.grant(Appoint { tenant: tenant(1) }).is_ok());
    }
}
