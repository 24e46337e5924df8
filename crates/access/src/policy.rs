//! The policy: who may do what, in one `match`.

use atelier_domain::TenantId;

use crate::caller::{Caller, Who};
use crate::right::Action;

/// What a caller is to the tenant that a right is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Standing {
    /// Showed no key.
    Anonymous,
    /// Belongs to another tenant, or to any tenant when the right is the installation's.
    Stranger,
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
    pub const ALL: [Self; 7] = [
        Self::Anonymous,
        Self::Stranger,
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
        (Who::Tenant { tenant: one, administers, .. }, Some(other)) if *one == other => {
            if *administers {
                Standing::Admin
            } else {
                Standing::Member
            }
        }
        (Who::Operator { .. } | Who::Tenant { .. }, _) => Standing::Stranger,
    }
}

/// Whether this standing may do this. The snapshot of the whole table lies beside this file.
#[must_use]
pub fn allows(standing: Standing, action: Action) -> bool {
    use Action as A;
    use Standing as S;
    match (standing, action) {
        (S::Anonymous | S::Stranger, _) => false,

        // What a member's editor does.
        (
            S::Member | S::Admin | S::OperatorActing,
            A::CompleteAs | A::Meter | A::ReadModels | A::ReadRuns | A::ReadVersions | A::ReadTenant,
        ) => true,
        (S::Member, _) => false,

        // What changes the tenant's model or shows its code is for its admins, and for an operator who says so.
        (
            S::Admin | S::OperatorActing,
            A::WriteSources
            | A::ReadSources
            | A::StartRun
            | A::CancelRun
            | A::Evaluate
            | A::MoveAlias
            | A::ReadUsage
            | A::ReadAudit
            | A::ManageKeys,
        ) => true,
        (S::Admin, _) => false,

        // The server's own folders and the plan are the operator's to give.
        (S::OperatorActing, A::ReadServerFolder) => true,
        (S::Operator | S::OperatorActing, A::ManageTenant) => true,

        // An operator sees the books and the keys, never the code or the completions, without acting for the tenant.
        (S::Operator, A::ReadTenant | A::ManageKeys | A::ReadUsage) => true,
        (S::Operator, A::CreateTenant | A::ListTenants | A::ReadOperatorAudit | A::CorrectUsage) => true,
        (S::Operator | S::OperatorActing, _) => false,

        // A worker reads what it learns from and writes what it learned; loading adapters serves requests.
        (
            S::System,
            A::WorkJobs
            | A::RunJob
            | A::ReadSources
            | A::ReadRuns
            | A::ReadVersions
            | A::ReadTenant
            | A::LoadAdapter
            | A::Meter,
        ) => true,
        (S::System, _) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::right::{CompleteAs, CreateTenant, ManageTenant, WorkJobs};
    use crate::{Denied, Right};
    use atelier_domain::{KeyId, Timestamp};

    fn tenant(byte: u8) -> TenantId {
        TenantId::generate(Timestamp::from_seconds(1), [byte; 10])
    }

    fn key() -> KeyId {
        KeyId::generate(Timestamp::from_seconds(1), [0; 10])
    }

    fn callers() -> [Caller; 6] {
        [
            Caller::anonymous(),
            Caller::system("test"),
            Caller(Who::Operator { key: key(), acting_for: None }),
            Caller(Who::Operator { key: key(), acting_for: Some(tenant(1)) }),
            Caller(Who::Tenant { key: key(), tenant: tenant(1), administers: true }),
            Caller(Who::Tenant { key: key(), tenant: tenant(1), administers: false }),
        ]
    }

    fn check<R: Right>(right: R, expected: [Result<(), Denied>; 6]) {
        assert_eq!(callers().map(|caller| caller.grant(right.clone()).map(|_| ())), expected, "{right:?}");
    }

    #[test]
    fn the_policy_reads_as_a_table() {
        let mut table = format!("{:<20}", "");
        for standing in Standing::ALL {
            table += &format!(" {:<14}", format!("{standing:?}"));
        }
        for action in Action::ALL {
            table += &format!("\n{:<20}", action.as_str());
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
        check(CompleteAs { tenant: tenant(1) }, [no_key, hidden, hidden, yes, yes, yes]);
        check(CompleteAs { tenant: tenant(2) }, [no_key, hidden, hidden, hidden, hidden, hidden]);
        check(ManageTenant { tenant: tenant(1) }, [no_key, hidden, yes, yes, hidden, hidden]);
        check(CreateTenant, [no_key, hidden, yes, yes, hidden, hidden]);
        check(WorkJobs, [no_key, yes, hidden, hidden, hidden, hidden]);
    }

    #[test]
    fn nobody_gains_a_right_by_being_a_stranger_or_nobody() {
        for action in Action::ALL {
            assert!(!allows(Standing::Anonymous, *action) && !allows(Standing::Stranger, *action));
            assert!(!allows(Standing::Member, *action) || allows(Standing::Admin, *action), "{action:?}");
            assert!(!allows(Standing::Admin, *action) || allows(Standing::OperatorActing, *action), "{action:?}");
        }
    }
}
