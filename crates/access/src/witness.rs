//! Who is told of what the policy answers, so that the check itself keeps the record and no caller of it can forget to.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Weak;

use crate::caller::Caller;
use crate::right::Action;

/// Told of answers of the policy that leave no other trace. Called while somebody waits: it must not block.
pub trait Witness: fmt::Debug + Send + Sync {
    /// A known caller asked for what is not for it.
    fn refused(&self, caller: &Caller, action: Action);

    /// An operator may look at what is a tenant's, in the tenant's place.
    fn acted(&self, caller: &Caller, action: Action);
}

/// A caller's witness, if it has one that still lives. It is no part of who the caller is.
#[derive(Clone, Default)]
pub(crate) struct Watched(Option<Weak<dyn Witness>>);

impl Watched {
    pub(crate) fn by(witness: Weak<dyn Witness>) -> Self {
        Self(Some(witness))
    }

    pub(crate) fn tell(&self, what: impl FnOnce(&dyn Witness)) {
        if let Some(witness) = self.0.as_ref().and_then(Weak::upgrade) {
            what(&*witness);
        }
    }
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "watched" } else { "unwatched" })
    }
}

impl PartialEq for Watched {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Watched {}

impl Hash for Watched {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::caller::{Holder, Who};
    use crate::right::{CompleteAs, CreateTenant, ManageKeys, ReadSources, StartRun};
    use atelier_domain::{KeyId, Role, Scopes, TenantId, Timestamp};

    #[derive(Debug, Default)]
    struct Notes(Mutex<Vec<String>>);

    impl Witness for Notes {
        fn refused(&self, caller: &Caller, action: Action) {
            self.0.lock().unwrap().push(format!("{caller} refused {}", action.as_str()));
        }

        fn acted(&self, caller: &Caller, action: Action) {
            self.0.lock().unwrap().push(format!("{caller} acted {}", action.as_str()));
        }
    }

    #[test]
    fn refusals_and_an_operators_looks_are_told_and_nothing_else() {
        let notes = Arc::new(Notes::default());
        let as_witness: Arc<dyn Witness> = Arc::clone(&notes) as _;
        let tenant = TenantId::generate(Timestamp::from_seconds(1), [1; 10]);
        let other = TenantId::generate(Timestamp::from_seconds(1), [2; 10]);
        let key = KeyId::generate(Timestamp::from_seconds(1), [0; 10]);
        let holder = Holder { key, tenant, role: Role::Member, scopes: Scopes::ALL, project: None, owner: None };
        let member = Caller::of(Who::Tenant(holder)).watched_by(Arc::downgrade(&as_witness));
        let operator = Caller::of(Who::Operator { key, acting_for: None }).watched_by(Arc::downgrade(&as_witness));
        let acting = operator.acting_for(tenant).unwrap();

        drop(member.grant(CompleteAs { tenant }).unwrap());
        let denied = member.grant(ManageKeys { tenant }).map(|_| ());
        let hidden = member.acting_for(other).map(|_| ());
        assert!(denied.is_err() && hidden.is_err());
        drop(operator.grant(CreateTenant).unwrap());
        operator.grant(ReadSources { tenant }).map(|_| ()).unwrap_err();
        drop(acting.grant(ReadSources { tenant }).unwrap());
        // What changes something has an event of its own.
        drop(acting.grant(StartRun { tenant }).unwrap());
        let told = notes.0.lock().unwrap().clone();
        assert_eq!(
            told,
            [
                format!("member {key} refused manage_keys"),
                format!("member {key} refused read_tenant"),
                format!("operator {key} refused read_sources"),
                format!("operator {key} for {tenant} acted read_sources"),
            ]
        );
        // Whom nobody watches any more goes on.
        drop((notes, as_witness));
        assert!(member.grant(ManageKeys { tenant }).is_err());
    }
}
