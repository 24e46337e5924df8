//! Who calls.

use std::fmt;
use std::sync::Weak;

use atelier_domain::{InviteId, KeyId, ProjectId, Role, Scopes, TenantId, Timestamp};
use subtle::ConstantTimeEq;

use crate::key::{ApiKey, InviteSecret, KeyKind, KeyOwner, KeyRecord, Pepper};
use crate::policy::Standing;
use crate::right::{Action, Right};
use crate::witness::{Watched, Witness};
use crate::{Denied, Granted, policy};

/// Somebody, or something, that asks. Made only by [`verify`], [`verify_invite`], [`Caller::anonymous`] and
/// [`Caller::system`].
/// Its `Display` is what the audit trail records.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Caller(pub(crate) Who, Watched);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Who {
    Anonymous,
    /// Work without a human, and its reason.
    System(&'static str),
    Operator {
        key: KeyId,
        acting_for: Option<TenantId>,
    },
    Tenant(Holder),
    /// Showed the secret of an invite.
    Invited {
        invite: InviteId,
        tenant: TenantId,
    },
}

/// Who showed a tenant's key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Holder {
    pub(crate) key: KeyId,
    pub(crate) tenant: TenantId,
    pub(crate) role: Role,
    pub(crate) scopes: Scopes,
    pub(crate) project: Option<ProjectId>,
    pub(crate) owner: Option<KeyOwner>,
}

/// Checks a key against what is stored of it.
///
/// # Errors
/// [`Denied::NotAuthenticated`] when the secret is another, the key is revoked or past its time, or text and record
/// disagree. It does not say which, and the comparison of the secret takes the same time wherever it differs.
/// [`Denied::Suspended`] when all is right but the tenant is suspended.
pub fn verify(key: &ApiKey, record: &KeyRecord, pepper: &Pepper, now: Timestamp) -> Result<Caller, Denied> {
    let same_secret = bool::from(key.secret_hash(pepper).ct_eq(&record.secret_hash));
    let same_key = *key.public_id() == record.public_id && key.kind() == record.kind();
    if same_secret && same_key { stands_for(record, now) } else { Err(Denied::NotAuthenticated) }
}

/// Checks the secret of an invite against what is stored of it.
///
/// # Errors
/// As [`verify`].
pub fn verify_invite(
    secret: &ApiKey,
    record: &InviteSecret,
    pepper: &Pepper,
    now: Timestamp,
) -> Result<Caller, Denied> {
    let same_secret = bool::from(secret.secret_hash(pepper).ct_eq(&record.secret_hash));
    let same_invite = *secret.public_id() == record.public_id && secret.kind() == KeyKind::Invite;
    if !(same_secret && same_invite && now < record.expires_at) {
        return Err(Denied::NotAuthenticated);
    }
    if record.is_suspended {
        return Err(Denied::Suspended);
    }
    Ok(Caller::of(Who::Invited { invite: record.id, tenant: record.tenant }))
}

/// Who a record's key stands for.
fn stands_for(record: &KeyRecord, now: Timestamp) -> Result<Caller, Denied> {
    if !record.lives_at(now) {
        return Err(Denied::NotAuthenticated);
    }
    if record.is_suspended {
        return Err(Denied::Suspended);
    }
    match (record.role, record.tenant) {
        (Role::Operator, None) => Ok(Caller::of(Who::Operator { key: record.id, acting_for: None })),
        (Role::Admin | Role::Member | Role::Service | Role::Reader, Some(tenant)) => {
            Ok(Caller::of(Who::Tenant(Holder {
                key: record.id,
                tenant,
                role: record.role,
                scopes: record.scopes,
                project: record.project,
                owner: record.owner,
            })))
        }
        (Role::Operator, Some(_)) | (Role::Admin | Role::Member | Role::Service | Role::Reader, None) => {
            Err(Denied::NotAuthenticated)
        }
    }
}

impl Caller {
    /// Nobody in particular.
    #[must_use]
    pub fn anonymous() -> Self {
        Self::of(Who::Anonymous)
    }

    /// Work without a human; the reason goes into the audit trail.
    #[must_use]
    pub fn system(why: &'static str) -> Self {
        Self::of(Who::System(why))
    }

    pub(crate) fn of(who: Who) -> Self {
        Self(who, Watched::default())
    }

    /// The same caller, whose refusals, and whose looks in a tenant's place, this witness is told of.
    #[must_use]
    pub fn watched_by(self, witness: Weak<dyn Witness>) -> Self {
        Self(self.0, Watched::by(witness))
    }

    /// The operator in a tenant's place, recorded as such. A tenant's own caller may name its own tenant and stays
    /// who it is.
    ///
    /// # Errors
    /// [`Denied`] for everybody else.
    pub fn acting_for(&self, tenant: TenantId) -> Result<Self, Denied> {
        match self.0 {
            Who::Operator { key, .. } => Ok(Self(Who::Operator { key, acting_for: Some(tenant) }, self.1.clone())),
            Who::Tenant(ref holder) if holder.tenant == tenant => Ok(self.clone()),
            Who::Anonymous | Who::Tenant(_) | Who::System(_) | Who::Invited { .. } => {
                Err(self.refuse(Action::ReadTenant))
            }
        }
    }

    /// The same caller as its key stands now: for what goes on under a key that was checked when it began. The record
    /// is the key's own, read again.
    ///
    /// # Errors
    /// [`Denied::NotAuthenticated`] when the key is revoked or past its time meanwhile; [`Denied::Suspended`] when its
    /// tenant is suspended.
    pub fn renewed(&self, record: &KeyRecord, now: Timestamp) -> Result<Self, Denied> {
        if self.key() != Some(record.id) {
            return Err(Denied::NotAuthenticated);
        }
        let present = Self(stands_for(record, now)?.0, self.1.clone());
        match self.0 {
            Who::Operator { acting_for: Some(tenant), .. } => present.acting_for(tenant),
            _ => Ok(present),
        }
    }

    /// Asks for a right.
    ///
    /// # Errors
    /// [`Denied`] when the policy says no.
    pub fn grant<R: Right>(&self, right: R) -> Result<Granted<R>, Denied> {
        if !policy::permits(self, right.tenant(), R::ACTION) {
            let denied = self.refuse(R::ACTION);
            return Err(policy::shortfall(self, right.tenant(), R::ACTION).unwrap_or(denied));
        }
        if R::ACTION.shows_what_is_a_tenants() && policy::standing(self, right.tenant()) == Standing::OperatorActing {
            self.1.tell(|witness| witness.acted(self, R::ACTION));
        }
        Ok(Granted::new(right, self.clone()))
    }

    /// What a stranger hears, and whoever must not learn more; the witness hears of it too, for a caller who showed a key.
    #[must_use]
    pub fn refuse(&self, action: Action) -> Denied {
        match self.0 {
            Who::Anonymous => Denied::NotAuthenticated,
            Who::System(_) | Who::Invited { .. } => Denied::Hidden,
            Who::Operator { .. } | Who::Tenant(_) => {
                self.1.tell(|witness| witness.refused(self, action));
                Denied::Hidden
            }
        }
    }

    /// The tenant that the caller belongs to or acts for.
    #[must_use]
    pub fn tenant(&self) -> Option<TenantId> {
        match self.0 {
            Who::Anonymous | Who::System(_) => None,
            Who::Operator { acting_for, .. } => acting_for,
            Who::Tenant(ref holder) => Some(holder.tenant),
            Who::Invited { tenant, .. } => Some(tenant),
        }
    }

    /// The invite whose secret the caller showed.
    #[must_use]
    pub fn invite(&self) -> Option<InviteId> {
        match self.0 {
            Who::Invited { invite, .. } => Some(invite),
            Who::Anonymous | Who::System(_) | Who::Operator { .. } | Who::Tenant(_) => None,
        }
    }

    /// The key that the caller showed.
    #[must_use]
    pub fn key(&self) -> Option<KeyId> {
        match self.0 {
            Who::Anonymous | Who::System(_) | Who::Invited { .. } => None,
            Who::Operator { key, .. } => Some(key),
            Who::Tenant(ref holder) => Some(holder.key),
        }
    }

    /// What the caller is to its tenant, by its key.
    #[must_use]
    pub fn role(&self) -> Option<Role> {
        match self.0 {
            Who::Tenant(ref holder) => Some(holder.role),
            Who::Anonymous | Who::System(_) | Who::Operator { .. } | Who::Invited { .. } => None,
        }
    }

    /// The project that the key belongs to.
    #[must_use]
    pub fn project(&self) -> Option<ProjectId> {
        match self.0 {
            Who::Tenant(ref holder) => holder.project,
            Who::Anonymous | Who::System(_) | Who::Operator { .. } | Who::Invited { .. } => None,
        }
    }

    /// The person or machine that holds the key, where that is known.
    #[must_use]
    pub fn owner(&self) -> Option<KeyOwner> {
        match self.0 {
            Who::Tenant(ref holder) => holder.owner,
            Who::Anonymous | Who::System(_) | Who::Operator { .. } | Who::Invited { .. } => None,
        }
    }

    /// What of its role's rights the caller's key has; everything where there is no key to limit.
    #[must_use]
    pub fn scopes(&self) -> Scopes {
        match self.0 {
            Who::Tenant(ref holder) => holder.scopes,
            Who::Anonymous | Who::System(_) | Who::Operator { .. } | Who::Invited { .. } => Scopes::ALL,
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
            Who::Tenant(Holder { key, role, .. }) => write!(f, "{role} {key}"),
            Who::Invited { invite, .. } => write!(f, "invited {invite}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{KEY_RANDOM_BYTES, KeyPurpose};
    use atelier_domain::Scope;

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
            name: None,
            role,
            purpose: KeyPurpose::Key,
            scopes: Scopes::ALL,
            project: None,
            owner: None,
            secret_hash: key.secret_hash(&pepper()),
            created_at: NOW,
            expires_at: None,
            revoked_at: None,
            is_suspended: false,
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
        for role in [Role::Member, Role::Service, Role::Reader] {
            check(|record| record.role = role, true);
        }
        check(|record| record.secret_hash[31] ^= 1, false);
        check(|record| record.revoked_at = Some(NOW), false);
        check(|record| record.revoked_at = Some(Timestamp::from_seconds(1_001)), true);
        check(|record| record.expires_at = Some(NOW), false);
        check(|record| record.expires_at = Some(Timestamp::from_seconds(1_001)), true);
        check(|record| record.tenant = None, false);
        check(|record| record.role = Role::Operator, false);
        check(|record| (record.role, record.tenant) = (Role::Operator, None), false);
        check(|record| record.public_id = "0000000000000000".parse().unwrap(), false);
    }

    #[test]
    fn a_session_is_no_key_and_a_key_no_session() {
        let kinds = [KeyKind::Tenant, KeyKind::Session, KeyKind::Code, KeyKind::Invite];
        for kind in kinds {
            let text = ApiKey::generate(kind, [5; KEY_RANDOM_BYTES]);
            for purpose in KeyPurpose::ALL {
                let stored = KeyRecord { purpose, ..record(&text, Role::Member, Some(tenant())) };
                let expected = match purpose {
                    KeyPurpose::Session => kind == KeyKind::Session,
                    KeyPurpose::Key | KeyPurpose::Login => kind == KeyKind::Tenant,
                };
                assert_eq!(verify(&text, &stored, &pepper(), NOW).is_ok(), expected, "{kind:?} as {purpose:?}");
            }
            assert!(text.has_hash(&text.secret_hash(&pepper()), &pepper()));
            assert!(!text.has_hash(&text.secret_hash(&pepper()), &Pepper::new([4; 32])));
        }
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

    #[test]
    fn an_invite_is_as_good_as_its_secret_and_its_time() {
        let secret = ApiKey::generate(KeyKind::Invite, [5; KEY_RANDOM_BYTES]);
        let stored = InviteSecret {
            id: InviteId::generate(NOW, [2; 10]),
            public_id: secret.public_id().clone(),
            tenant: tenant(),
            secret_hash: secret.secret_hash(&pepper()),
            expires_at: Timestamp::from_seconds(1_001),
            is_suspended: false,
        };
        let check = |secret: &ApiKey, change: &dyn Fn(&mut InviteSecret), expected: Result<(), Denied>| {
            let mut record = stored.clone();
            change(&mut record);
            assert_eq!(verify_invite(secret, &record, &pepper(), NOW).map(|_| ()), expected, "{record:?}");
        };
        let refused = Err(Denied::NotAuthenticated);
        check(&secret, &|_| {}, Ok(()));
        check(&secret, &|record| record.secret_hash[0] ^= 1, refused);
        check(&secret, &|record| record.expires_at = NOW, refused);
        check(&secret, &|record| record.public_id = "0000000000000000".parse().unwrap(), refused);
        check(&secret, &|record| record.is_suspended = true, Err(Denied::Suspended));
        for kind in [KeyKind::Tenant, KeyKind::Operator] {
            let of_another_kind = ApiKey::generate(kind, [5; KEY_RANDOM_BYTES]);
            check(&of_another_kind, &|_| {}, refused);
            // Nor is the secret of an invite a key, whatever the key's record says.
            let role = if kind == KeyKind::Tenant { Role::Admin } else { Role::Operator };
            let key = record(&secret, role, (kind == KeyKind::Tenant).then(tenant));
            assert_eq!(verify(&secret, &key, &pepper(), NOW), refused.map(|()| Caller::anonymous()));
        }
        let invited = verify_invite(&secret, &stored, &pepper(), NOW).unwrap();
        assert_eq!((invited.invite(), invited.tenant(), invited.key()), (Some(stored.id), Some(tenant()), None));
        assert_eq!(invited.to_string(), format!("invited {}", stored.id));
        assert_eq!(invited.acting_for(tenant()), Err(Denied::Hidden));
    }

    #[test]
    fn a_caller_is_renewed_by_its_own_living_key_only() {
        let key = ApiKey::generate(KeyKind::Tenant, [5; KEY_RANDOM_BYTES]);
        let stored = record(&key, Role::Admin, Some(tenant()));
        let admin = verify(&key, &stored, &pepper(), NOW).unwrap();
        assert_eq!(admin.renewed(&stored, NOW), Ok(admin.clone()));
        let demoted = admin.renewed(&KeyRecord { role: Role::Reader, ..stored.clone() }, NOW).unwrap();
        assert_eq!(demoted.to_string(), format!("reader {}", stored.id));
        let narrowed = KeyRecord { scopes: Scopes::of(&[Scope::Read]), ..stored.clone() };
        assert_eq!(admin.renewed(&narrowed, NOW).unwrap().scopes(), Scopes::of(&[Scope::Read]));
        let suspended = KeyRecord { is_suspended: true, ..stored.clone() };
        assert_eq!(admin.renewed(&suspended, NOW), Err(Denied::Suspended));
        assert_eq!(verify(&key, &suspended, &pepper(), NOW), Err(Denied::Suspended));
        let guessed = ApiKey::generate(KeyKind::Tenant, [6; KEY_RANDOM_BYTES]);
        assert_eq!(
            verify(&guessed, &suspended, &pepper(), NOW),
            Err(Denied::NotAuthenticated),
            "who has no key learns nothing"
        );
        for ended in [
            KeyRecord { revoked_at: Some(NOW), ..stored.clone() },
            KeyRecord { expires_at: Some(NOW), ..stored.clone() },
            KeyRecord { id: KeyId::generate(NOW, [8; 10]), ..stored.clone() },
        ] {
            assert_eq!(admin.renewed(&ended, NOW), Err(Denied::NotAuthenticated));
        }

        let key = ApiKey::generate(KeyKind::Operator, [5; KEY_RANDOM_BYTES]);
        let stored = record(&key, Role::Operator, None);
        let acting = verify(&key, &stored, &pepper(), NOW).unwrap().acting_for(tenant()).unwrap();
        assert_eq!(acting.renewed(&stored, NOW), Ok(acting.clone()), "it still acts for the same tenant");
        assert_eq!(Caller::system("test").renewed(&stored, NOW), Err(Denied::NotAuthenticated));
    }
}
