//! The proof that a caller may do something.

use atelier_domain::{ProjectId, Role, Scope, Scopes, TenantId};

use crate::right::{Appoint, ManageKeys, Right, TenantRight};
use crate::{Caller, Denied};

/// A right that the policy gave to a caller. There is no other way to make one:
///
/// ```compile_fail
/// use atelier_access::{Caller, Granted, right::CreateTenant};
/// let forged = Granted { right: CreateTenant, caller: Caller::anonymous() };
/// ```
///
/// ```compile_fail
/// use atelier_access::{Caller, Granted, right::CreateTenant};
/// let forged = Granted::new(CreateTenant, Caller::anonymous());
/// ```
///
/// ```compile_fail
/// // Nor can a right be invented outside.
/// #[derive(Clone, Debug)]
/// struct Everything;
/// impl atelier_access::Right for Everything {
///     const ACTION: atelier_access::Action = atelier_access::Action::CreateTenant;
///     fn tenant(&self) -> Option<atelier_domain::TenantId> { None }
/// }
/// ```
///
/// A clone is a proof of the same right of the same caller about the same tenant.
#[derive(Debug, Clone)]
#[must_use]
pub struct Granted<R: Right> {
    right: R,
    caller: Caller,
}

impl<R: Right> Granted<R> {
    pub(crate) fn new(right: R, caller: Caller) -> Self {
        Self { right, caller }
    }

    /// What was granted.
    pub fn right(&self) -> &R {
        &self.right
    }

    /// Who it was granted to: what the audit trail records.
    pub fn actor(&self) -> &Caller {
        &self.caller
    }

    /// Another right of the same caller about the same tenant. A proof about the whole installation may narrow to any
    /// tenant. The policy is asked as for a fresh right.
    ///
    /// # Errors
    /// [`Denied::Hidden`] when it is about another tenant, or when the policy says no.
    pub fn narrow<S: Right>(&self, right: S) -> Result<Granted<S>, Denied> {
        let same_walls = self.right.tenant().is_none() || self.right.tenant() == right.tenant();
        if same_walls { self.caller.grant(right) } else { Err(Denied::Hidden) }
    }
}

impl<R: TenantRight> Granted<R> {
    /// The tenant that the right is about.
    pub fn tenant(&self) -> TenantId {
        self.right.tenant_id()
    }

    /// The only project whose things may be looked at: that of the caller's key. None for a key of the whole tenant,
    /// which looks at all of them.
    pub fn project(&self) -> Option<ProjectId> {
        self.caller.project()
    }
}

/// What a new or changed key may be. Made only by [`Granted::hand_out`] and [`Granted::hand_to_machine`]: nobody hands out
/// more than he has or may delegate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyRights {
    role: Role,
    scopes: Scopes,
}

impl KeyRights {
    /// What the key may be.
    #[must_use]
    pub fn role(self) -> Role {
        self.role
    }

    /// What of the role's rights it has.
    #[must_use]
    pub fn scopes(self) -> Scopes {
        self.scopes
    }
}

impl Granted<ManageKeys> {
    /// Rights for a key of the tenant.
    ///
    /// # Errors
    /// [`Denied::Exceeds`] for the operator's role; and for a scope that the caller's own key has not, unless it may
    /// delegate.
    pub fn hand_out(&self, role: Role, scopes: Scopes) -> Result<KeyRights, Denied> {
        let own = self.caller.scopes();
        let within = role != Role::Operator && (scopes.is_within(own) || own.contains(Scope::Delegate));
        if within { Ok(KeyRights { role, scopes }) } else { Err(Denied::Exceeds) }
    }
}

impl Granted<Appoint> {
    /// Rights for the first key of a machine that is appointed.
    #[must_use]
    pub fn hand_to_machine(&self) -> KeyRights {
        KeyRights { role: Role::Service, scopes: Scopes::ALL }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caller::{Holder, Who};
    use crate::right::{CreateTenant, ReadSources, RunJob, WorkJobs};
    use atelier_domain::{KeyId, Scope, Timestamp};

    #[test]
    fn a_grant_narrows_inside_its_walls_only() {
        let tenant = |byte| TenantId::generate(Timestamp::from_seconds(1), [byte; 10]);
        let worker = Caller::system("worker").grant(WorkJobs).unwrap();
        let job = worker.narrow(RunJob { tenant: tenant(1) }).unwrap();
        assert_eq!(job.narrow(ReadSources { tenant: tenant(1) }).unwrap().tenant(), tenant(1));
        assert_eq!(job.narrow(ReadSources { tenant: tenant(2) }).map(|_| ()), Err(Denied::Hidden));
        assert_eq!(job.narrow(CreateTenant).map(|_| ()), Err(Denied::Hidden));
        assert_eq!(job.actor().to_string(), "system (worker)");
    }

    #[test]
    fn nobody_hands_out_more_than_he_has() {
        let tenant = TenantId::generate(Timestamp::from_seconds(1), [1; 10]);
        let holder = |scopes| {
            let key = KeyId::generate(Timestamp::from_seconds(1), [0; 10]);
            Caller::of(Who::Tenant(Holder { key, tenant, role: Role::Admin, scopes, project: None, owner: None }))
        };
        let whole = holder(Scopes::ALL).grant(ManageKeys { tenant }).unwrap();
        let manager = holder(Scopes::of(&[Scope::Manage, Scope::Read])).grant(ManageKeys { tenant }).unwrap();
        for (role, scopes, by_whole, by_manager) in [
            (Role::Admin, Scopes::ALL, true, false),
            (Role::Reader, Scopes::of(&[Scope::Read]), true, true),
            (Role::Admin, Scopes::of(&[Scope::Manage]), true, true),
            (Role::Member, Scopes::of(&[Scope::Complete]), true, false),
            (Role::Operator, Scopes::of(&[Scope::Read]), false, false),
        ] {
            let expected = |allowed: bool| if allowed { Ok(KeyRights { role, scopes }) } else { Err(Denied::Exceeds) };
            assert_eq!(whole.hand_out(role, scopes), expected(by_whole), "{role} {scopes}");
            assert_eq!(manager.hand_out(role, scopes), expected(by_manager), "{role} {scopes}");
        }
        // An admin API key completes nothing, and makes the keys that do.
        let administrator = holder(Scopes::ADMINISTRATION).grant(ManageKeys { tenant }).unwrap();
        let scopes = Scopes::ALL;
        assert_eq!(administrator.hand_out(Role::Member, scopes), Ok(KeyRights { role: Role::Member, scopes }));
        assert_eq!(administrator.hand_out(Role::Operator, scopes), Err(Denied::Exceeds));
        assert!(holder(Scopes::of(&[Scope::Manage])).grant(Appoint { tenant }).is_err());
        let rights = holder(Scopes::ADMINISTRATION).grant(Appoint { tenant }).unwrap().hand_to_machine();
        assert_eq!((rights.role(), rights.scopes()), (Role::Service, Scopes::ALL));
    }
}
