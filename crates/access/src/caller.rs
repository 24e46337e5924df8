//! Who calls.

use std::fmt;

use atelier_domain::{KeyId, Role, TenantId, Timestamp};
use subtle::ConstantTimeEq;

use crate::key::{ApiKey, KeyKind, KeyRecord, Pepper};
use crate::right::Right;
use crate::{Denied, Granted, policy};

/// Somebody, or something, that asks. Made only by [`verify`], [`Caller::anonymous`] and [`Caller::system`].
/// Its `Display` is what the audit trail records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller(pub(crate) Who);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Who {
    Anonymous,
    /// Work without a human, and its reason.
    System(&'static str),
    Operator {
        key: KeyId,
        acting_for: Option<TenantId>,
    },
    Tenant {
        key: KeyId,
        tenant: TenantId,
        administers: bool,
    },
}

/// Checks a key against what is stored of it.
///
/// # Errors
/// [`Denied::NotAuthenticated`] when the secret is another, the key is revoked, or text and record disagree. It does
/// not say which, and the comparison of the secret takes the same time wherever it differs.
pub fn verify(key: &ApiKey, record: &KeyRecord, pepper: &Pepper, now: Timestamp) -> Result<Caller, Denied> {
    let same_secret = bool::from(key.secret_hash(pepper).ct_eq(&record.secret_hash));
    let same_key = *key.public_id() == record.public_id && key.kind() == KeyKind::of(record.role);
    let living = record.revoked_at.is_none_or(|revoked_at| now < revoked_at);
    if !(same_secret && same_key && living) {
        return Err(Denied::NotAuthenticated);
    }
    match (record.role, record.tenant) {
        (Role::Operator, None) => Ok(Caller(Who::Operator { key: record.id, acting_for: None })),
        (Role::Admin, Some(tenant)) => Ok(Caller(Who::Tenant { key: record.id, tenant, administers: true })),
        (Role::Member, Some(tenant)) => Ok(Caller(Who::Tenant { key: record.id, tenant, administers: false })),
        (Role::Operator, Some(_)) | (Role::Admin | Role::Member, None) => Err(Denied::NotAuthenticated),
    }
}

impl Caller {
    /// Nobody in particular.
    #[must_use]
    pub fn anonymous() -> Self {
        Self(Who::Anonymous)
    }

    /// Work without a human; the reason goes into the audit trail.
    #[must_use]
    pub fn system(why: &'static str) -> Self {
        Self(Who::System(why))
    }

    /// The operator in a tenant's place, recorded as such. A tenant's own caller may name its own tenant and stays
    /// who it is.
    ///
    /// # Errors
    /// [`Denied`] for everybody else.
    pub fn acting_for(&self, tenant: TenantId) -> Result<Self, Denied> {
        match self.0 {
            Who::Operator { key, .. } => Ok(Self(Who::Operator { key, acting_for: Some(tenant) })),
            Who::Tenant { tenant: own, .. } if own == tenant => Ok(self.clone()),
            Who::Anonymous => Err(Denied::NotAuthenticated),
            Who::Tenant { .. } | Who::System(_) => Err(Denied::Hidden),
        }
    }

    /// Asks for a right.
    ///
    /// # Errors
    /// [`Denied`] when the policy says no.
    pub fn grant<R: Right>(&self, right: R) -> Result<Granted<R>, Denied> {
        if policy::allows(policy::standing(self, right.tenant()), R::ACTION) {
            return Ok(Granted::new(right, self.clone()));
        }
        match self.0 {
            Who::Anonymous => Err(Denied::NotAuthenticated),
            Who::System(_) | Who::Operator { .. } | Who::Tenant { .. } => Err(Denied::Hidden),
        }
    }

    /// The tenant that the caller belongs to or acts for.
    #[must_use]
    pub fn tenant(&self) -> Option<TenantId> {
        match self.0 {
            Who::Anonymous | Who::System(_) => None,
            Who::Operator { acting_for, .. } => acting_for,
            Who::Tenant { tenant, .. } => Some(tenant),
        }
    }

    /// The key that the caller showed.
    #[must_use]
    pub fn key(&self) -> Option<KeyId> {
        match self.0 {
            Who::Anonymous | Who::System(_) => None,
            Who::Operator { key, .. } | Who::Tenant { key, .. } => Some(key),
        }
    }

    /// Whether the caller showed an operator's key.
    #[must_use]
    pub fn is_operator(&self) -> bool {
        matches!(self.0, Who::Operator { .. })
    }

    /// Whether the caller showed no key.
    #[must_use]
    pub fn is_anonymous(&self) -> bool {
        self.0 == Who::Anonymous
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Who::Anonymous => f.write_str("anonymous"),
            Who::System(why) => write!(f, "system ({why})"),
            Who::Operator { key, acting_for: None } => write!(f, "operator {key}"),
            Who::Operator { key, acting_for: Some(tenant) } => write!(f, "operator {key} for {tenant}"),
            Who::Tenant { key, administers: true, .. } => write!(f, "admin {key}"),
            Who::Tenant { key, administers: false, .. } => write!(f, "member {key}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::KEY_RANDOM_BYTES;

    const NOW: Timestamp = Timestamp::from_seconds(1_000);

    fn pepper() -> Pepper {
        Pepper::new([3; 32])
    }

    fn tenant() -> TenantId {
        TenantId::generate(NOW, [1; 10])
    }

    fn record(key: &ApiKey, role: Role, tenant: Option<TenantId>) -> KeyRecord {
        KeyRecord {
            id: KeyId::generate(NOW, [2; 10]),
            public_id: key.public_id().clone(),
            tenant,
            role,
            secret_hash: key.secret_hash(&pepper()),
            created_at: NOW,
            revoked_at: None,
        }
    }

    fn check(change: impl FnOnce(&mut KeyRecord), expected: bool) {
        let key = ApiKey::generate(KeyKind::Tenant, [5; KEY_RANDOM_BYTES]);
        let mut record = record(&key, Role::Admin, Some(tenant()));
        change(&mut record);
        assert_eq!(verify(&key, &record, &pepper(), NOW).is_ok(), expected, "{record:?}");
    }

    #[test]
    fn only_the_whole_truth_verifies() {
        check(|_| {}, true);
        check(|record| record.role = Role::Member, true);
        check(|record| record.secret_hash[31] ^= 1, false);
        check(|record| record.revoked_at = Some(NOW), false);
        check(|record| record.revoked_at = Some(Timestamp::from_seconds(1_001)), true);
        check(|record| record.tenant = None, false);
        check(|record| record.role = Role::Operator, false);
        check(|record| (record.role, record.tenant) = (Role::Operator, None), false);
        check(|record| record.public_id = "0000000000000000".parse().unwrap(), false);
    }

    #[test]
    fn another_pepper_verifies_nothing() {
        let key = ApiKey::generate(KeyKind::Tenant, [5; KEY_RANDOM_BYTES]);
        let record = record(&key, Role::Admin, Some(tenant()));
        assert_eq!(verify(&key, &record, &Pepper::new([4; 32]), NOW), Err(Denied::NotAuthenticated));
    }

    #[test]
    fn only_the_operator_acts_for_others() {
        let key = ApiKey::generate(KeyKind::Operator, [5; KEY_RANDOM_BYTES]);
        let operator = verify(&key, &record(&key, Role::Operator, None), &pepper(), NOW).unwrap();
        let acting = operator.acting_for(tenant()).unwrap();
        assert_eq!(acting.tenant(), Some(tenant()));
        assert_eq!(acting.to_string(), format!("operator {} for {}", acting.key().unwrap(), tenant()));

        let key = ApiKey::generate(KeyKind::Tenant, [6; KEY_RANDOM_BYTES]);
        let admin = verify(&key, &record(&key, Role::Admin, Some(tenant())), &pepper(), NOW).unwrap();
        assert_eq!(admin.acting_for(tenant()), Ok(admin.clone()));
        assert_eq!(admin.acting_for(TenantId::generate(NOW, [9; 10])), Err(Denied::Hidden));
        assert_eq!(Caller::anonymous().acting_for(tenant()), Err(Denied::NotAuthenticated));
        assert_eq!(Caller::system("test").acting_for(tenant()), Err(Denied::Hidden));
    }
}
