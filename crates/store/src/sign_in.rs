//! Letting people in, for whom their tenant's issuer vouches, and out again.
//!
//! Who it is, is decided by the issuer's subject, which it gives to nobody else; by the address only the first time. What
//! a person gets is a key like any other, for a browser or for a program: it is found, believed and revoked as keys are.

use atelier_access::key::KEY_RANDOM_BYTES;
use atelier_access::right::{FindSignOn, JoinOrganization, SignIn};
use atelier_access::{ApiKey, Denied, Granted, KeyKind, KeyOwner, KeyPurpose, Pepper};
use atelier_domain::limits::{
    LOGIN_KEY_LIFETIME, SESSION_LIFETIME, SESSIONS_PER_USER_MAX, SIGN_IN_CODE_TIME_MAX, SIGN_IN_KEYS_KEPT,
};
use atelier_domain::{Email, KeyId, Label, PersonRole, ProjectId, Role, TenantId, Timestamp, UserId};
use atelier_seal::{self as seal, Bound, SecretKey};
use serde_json::json;

use crate::audit::Recorded;
use crate::audit::events::{ADD_USER, REFUSE_SIGN_IN, SIGN_IN, SIGN_OUT};
use crate::error::StoreError;
use crate::key_cache::announce;
use crate::keys::{CreatedKey, NewRow};
use crate::open::{Store, random_bytes};
use crate::organization::users::{self, UserRecord};
use crate::sign_on::{self, SignOnRecord};
use crate::sql::{Transaction, values};

/// Why somebody for whom the issuer vouches is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignInRefused {
    /// Nobody invited that address, and its domain is none of those whose people come uninvited.
    #[error("nobody of that address is invited")]
    NotInvited,
    /// Whoever was removed comes back by an invite only.
    #[error("the person was removed")]
    Removed,
    /// The address is that of a person whom the issuer knows by another subject.
    #[error("the address belongs to another person")]
    OtherPerson,
    /// The tenant trusts another issuer, or another client, by now.
    #[error("the sign-on was changed meanwhile")]
    Changed,
    /// What a program shows to fetch its key is nothing, was used, or is past its time.
    #[error("the code is not good")]
    BadCode,
}

impl SignInRefused {
    fn as_str(self) -> &'static str {
        match self {
            Self::NotInvited => "not_invited",
            Self::Removed => "removed",
            Self::OtherPerson => "other_person",
            Self::Changed => "changed",
            Self::BadCode => "bad_code",
        }
    }
}

/// Somebody for whom an issuer vouches.
#[derive(Debug, Clone)]
pub struct Vouched {
    /// The issuer, and what Atelier is to it.
    pub issuer: String,
    /// Its name for Atelier.
    pub client_id: String,
    /// Its name for the person.
    pub subject: String,
    /// The address that it has verified.
    pub email: Email,
    /// What the person is called.
    pub name: Option<Label>,
}

/// A session that was just made: the only time that its text is to be had.
#[derive(Debug, Clone)]
pub struct SessionMade {
    /// Who it is.
    pub user: UserRecord,
    /// The session.
    pub key: CreatedKey,
}

/// A code that was just made: the only time that its text is to be had.
#[derive(Debug, Clone)]
pub struct CodeMade {
    /// Who it is.
    pub user: UserRecord,
    /// What the program fetches its key with.
    pub code: ApiKey,
}

/// The key of a program for which somebody signed in.
#[derive(Debug, Clone)]
pub struct LoginKey {
    /// Whose people it belongs to.
    pub tenant: TenantId,
    /// Who it is.
    pub user: UserRecord,
    /// The key.
    pub key: CreatedKey,
}

impl Store {
    /// Lets a person in with a browser.
    ///
    /// # Errors
    /// [`SignInRefused`]; [`Denied::Suspended`]; [`StoreError::TooMany`] people.
    pub async fn sign_in(&self, grant: &Granted<SignIn>, person: &Vouched) -> Result<SessionMade, StoreError> {
        let tenant = grant.tenant();
        let hashes = self.identity_hashes(tenant, person).await?;
        let mut transaction = self.control_for(tenant).begin().await?;
        let user = self.identify(&mut transaction, grant, person, &hashes).await?;
        let purpose = KeyPurpose::Session;
        let (key, recorded) = self.give_key(&mut transaction, grant, &user, purpose).await?;
        self.commit(transaction, recorded).await?;
        self.inner.keys.forget_all();
        Ok(SessionMade { user, key })
    }

    /// Lets a person in for a program, which fetches its key with the code and what `challenge` is made of.
    ///
    /// # Errors
    /// As [`Store::sign_in`].
    pub async fn sign_in_program(
        &self,
        grant: &Granted<SignIn>,
        person: &Vouched,
        challenge: &str,
    ) -> Result<CodeMade, StoreError> {
        const PAST: &str = "DELETE FROM sign_in_codes WHERE tenant_id = $1 AND (expires_at <= $2 OR user_id = $3)";
        const SQL: &str =
            "INSERT INTO sign_in_codes (tenant_id, public_id, secret_hash, user_id, challenge, expires_at)
            VALUES ($1, $2, $3, $4, $5, $6)";
        let (tenant, now) = (grant.tenant(), self.now());
        let hashes = self.identity_hashes(tenant, person).await?;
        let mut transaction = self.control_for(tenant).begin().await?;
        let user = self.identify(&mut transaction, grant, person, &hashes).await?;
        let code = ApiKey::generate(KeyKind::Code, random_bytes::<KEY_RANDOM_BYTES>()?);
        let hash = code.secret_hash(&self.inner.pepper);
        // One at a time: whoever begins again has given up the one before.
        transaction.execute(PAST, values![tenant, now, user.id]).await?;
        let ends = now.plus(SIGN_IN_CODE_TIME_MAX);
        let row = values![tenant, code.public_id().as_str(), hash.as_slice(), user.id, challenge, ends];
        transaction.execute(SQL, row).await?;
        let event = SIGN_IN.of(user.id, json!({"for": "program"}));
        let recorded = self.record_administration(&mut transaction, grant, event).await?;
        self.commit(transaction, recorded).await?;
        Ok(CodeMade { user, code })
    }

    /// The key of a program, for its code and the challenge of what it shows. A code is good once: shown with something
    /// else, it is spent too.
    ///
    /// # Errors
    /// [`SignInRefused::BadCode`], whatever is wrong; [`Denied::Suspended`].
    pub async fn redeem_code(
        &self,
        grant: &Granted<FindSignOn>,
        code: &str,
        challenge: &str,
    ) -> Result<LoginKey, StoreError> {
        const FIND: &str = "SELECT tenant_id FROM sign_in_codes WHERE public_id = $1";
        let refused = StoreError::from(SignInRefused::BadCode);
        let code = ApiKey::parse(code).map_err(|_| refused.clone())?;
        if code.kind() != KeyKind::Code {
            return Err(refused);
        }
        let found = self.control().fetch_optional(FIND, values![code.public_id().as_str()]).await?;
        let tenant = found.ok_or_else(|| refused.clone())?.parsed("tenant_id")?;
        let grant = grant.narrow(SignIn { tenant })?;
        let mut transaction = self.control_for(tenant).begin().await?;
        let Some(user) = self.take_code(&mut transaction, tenant, &code, challenge).await? else {
            let event = REFUSE_SIGN_IN.of(tenant, json!({"why": SignInRefused::BadCode.as_str()}));
            let recorded = self.record_administration(&mut transaction, &grant, event).await?;
            self.commit(transaction, recorded).await?;
            return Err(refused);
        };
        if self.living_tenant(&mut transaction, tenant).await?.suspended_at.is_some() {
            return Err(Denied::Suspended.into());
        }
        let (key, recorded) = self.give_key(&mut transaction, &grant, &user, KeyPurpose::Login).await?;
        self.commit(transaction, recorded).await?;
        self.inner.keys.forget_all();
        Ok(LoginKey { tenant, user, key })
    }

    /// Spends a code: whose it was, if all about it is right.
    async fn take_code(
        &self,
        transaction: &mut Transaction,
        tenant: TenantId,
        code: &ApiKey,
        challenge: &str,
    ) -> Result<Option<UserRecord>, StoreError> {
        const READ: &str = "SELECT secret_hash, user_id, challenge, expires_at FROM sign_in_codes
            WHERE tenant_id = $1 AND public_id = $2";
        const SPEND: &str = "DELETE FROM sign_in_codes WHERE tenant_id = $1 AND public_id = $2";
        let named = values![tenant, code.public_id().as_str()];
        let Some(row) = transaction.fetch_optional(READ, named.clone()).await? else { return Ok(None) };
        if !code.has_hash(&row.bytes("secret_hash")?, &self.inner.pepper) {
            // Whoever has not the code does not spend it.
            return Ok(None);
        }
        transaction.execute(SPEND, named).await?;
        // A challenge is a hash of what is shown: to compare it tells nothing of that.
        let is_good = row.text("challenge")? == challenge && self.now() < row.time("expires_at")?;
        if !is_good {
            return Ok(None);
        }
        match users::present(transaction, tenant, row.parsed("user_id")?).await {
            Ok(user) => Ok(Some(user)),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Ends what signing in gave; false when it was nothing of that kind, or has ended.
    ///
    /// # Errors
    /// What the database says.
    pub async fn sign_out(&self, grant: &Granted<SignIn>, key: KeyId) -> Result<bool, StoreError> {
        const SQL: &str = "UPDATE keys SET revoked_at = $3
            WHERE tenant_id = $1 AND id = $2 AND purpose <> 'key' AND revoked_at IS NULL";
        let mut transaction = self.control_for(grant.tenant()).begin().await?;
        if transaction.execute(SQL, values![grant.tenant(), key, self.now()]).await? == 0 {
            return Ok(false);
        }
        let recorded = self.record_administration(&mut transaction, grant, SIGN_OUT.of(key, json!({}))).await?;
        announce(&mut transaction).await?;
        self.commit(transaction, recorded).await?;
        self.inner.keys.forget_all();
        Ok(true)
    }

    /// The person who holds a key or a session, if there.
    ///
    /// # Errors
    /// What the database says.
    pub async fn signed_in_person(
        &self,
        grant: &Granted<SignIn>,
        user: UserId,
    ) -> Result<Option<UserRecord>, StoreError> {
        users::find(&self.control_for(grant.tenant()), grant.tenant(), user).await
    }

    /// Writes into the trail that somebody was not let in, and why: a word of ours.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] once the tenant is deleted.
    pub async fn record_refused_sign_in(&self, grant: &Granted<SignIn>, why: &'static str) -> Result<(), StoreError> {
        let tenant = grant.tenant();
        let mut transaction = self.control_for(tenant).begin().await?;
        self.living_tenant(&mut transaction, tenant).await?;
        let event = REFUSE_SIGN_IN.of(tenant, json!({"why": why}));
        let recorded = self.record_administration(&mut transaction, grant, event).await?;
        self.commit(transaction, recorded).await
    }

    /// Seals what a browser keeps while somebody signs in: nobody else reads or makes it.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn seal_for_browser(&self, grant: &Granted<SignIn>, text: &str) -> Result<Vec<u8>, StoreError> {
        let key = browser_key(&self.inner.pepper);
        Ok(seal::seal(&key, BROWSER_GENERATION, grant.tenant(), &browser_bound(), text.as_bytes())?)
    }

    /// Opens it; nothing when it is not what was sealed for this tenant.
    #[must_use]
    pub fn open_from_browser(&self, grant: &Granted<SignIn>, mut sealed: Vec<u8>) -> Option<String> {
        let key = browser_key(&self.inner.pepper);
        let text = seal::open(&key, grant.tenant(), &browser_bound(), &mut sealed)?;
        String::from_utf8(text.to_vec()).ok()
    }

    /// What stands for an issuer and for a subject of it. Asks for keys: before a transaction begins.
    async fn identity_hashes(&self, tenant: TenantId, person: &Vouched) -> Result<Identity, StoreError> {
        let keys = self.data_keys(tenant).await?;
        Ok(Identity {
            issuer: keys.hash("identities.issuer", &person.issuer)?,
            subject: keys.hash("identities.subject", &format!("{}\n{}", person.issuer, person.subject))?,
        })
    }

    /// Which of the tenant's people it is; somebody new, where that may be.
    async fn identify(
        &self,
        transaction: &mut Transaction,
        grant: &Granted<SignIn>,
        person: &Vouched,
        identity: &Identity,
    ) -> Result<UserRecord, StoreError> {
        const KNOWN: &str = "SELECT user_id FROM identities WHERE tenant_id = $1 AND issuer = $2 AND subject = $3";
        const UNLINK: &str = "DELETE FROM identities WHERE tenant_id = $1 AND issuer = $2 AND subject = $3";
        let tenant = grant.tenant();
        if self.living_tenant(transaction, tenant).await?.suspended_at.is_some() {
            return Err(Denied::Suspended.into());
        }
        let row = transaction.fetch_optional(sign_on::READ, values![tenant]).await?.ok_or(SignInRefused::Changed)?;
        let trusted = sign_on::record_of(&row)?;
        if trusted.issuer != person.issuer || trusted.client_id != person.client_id {
            return Err(SignInRefused::Changed.into());
        }
        let named = values![tenant, identity.issuer.as_str(), identity.subject.as_str()];
        let mut was_removed = false;
        if let Some(row) = transaction.fetch_optional(KNOWN, named.clone()).await? {
            match users::present(transaction, tenant, row.parsed("user_id")?).await {
                Ok(user) => return Ok(user),
                Err(StoreError::NotFound { .. }) => was_removed = true,
                Err(error) => return Err(error),
            }
        }
        let user = self.meet(transaction, grant, person, &trusted, was_removed).await?;
        if was_removed {
            transaction.execute(UNLINK, named).await?;
        }
        self.link(transaction, tenant, identity, user.id).await?;
        Ok(user)
    }

    /// Somebody whose subject is not known: by the address.
    async fn meet(
        &self,
        transaction: &mut Transaction,
        grant: &Granted<SignIn>,
        person: &Vouched,
        trusted: &SignOnRecord,
        was_removed: bool,
    ) -> Result<UserRecord, StoreError> {
        let tenant = grant.tenant();
        let joins = grant.narrow(JoinOrganization { tenant })?;
        let found = self.invited_or_present(transaction, &joins, &person.email, person.name.clone()).await?;
        if let Some(user) = found {
            return Ok(user);
        }
        if was_removed {
            return Err(SignInRefused::Removed.into());
        }
        if !trusted.domains.contains(&person.email.domain()) {
            return Err(SignInRefused::NotInvited.into());
        }
        let (email, name) = (person.email.clone(), person.name.clone());
        let user = self.add_uninvited(transaction, tenant, email, name, trusted.role).await?;
        let event = ADD_USER.of(user.id, json!({"role": user.role.as_str()}));
        // The transaction is committed with what comes after it.
        let _ = self.record_administration(transaction, grant, event).await?;
        Ok(user)
    }

    /// From here on the subject is this person, and no other subject of the issuer's is.
    async fn link(
        &self,
        transaction: &mut Transaction,
        tenant: TenantId,
        identity: &Identity,
        user: UserId,
    ) -> Result<(), StoreError> {
        const SQL: &str = "INSERT INTO identities (tenant_id, issuer, subject, user_id, linked_at)
            VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING";
        let row = values![tenant, identity.issuer.as_str(), identity.subject.as_str(), user, self.now()];
        match transaction.execute(SQL, row).await? {
            0 => Err(SignInRefused::OtherPerson.into()),
            _ => Ok(()),
        }
    }

    /// A key of the person's own, with what the person is to the tenant; the oldest goes where there are too many.
    async fn give_key(
        &self,
        transaction: &mut Transaction,
        grant: &Granted<SignIn>,
        user: &UserRecord,
        purpose: KeyPurpose,
    ) -> Result<(CreatedKey, Recorded), StoreError> {
        const FORGET: &str = "DELETE FROM keys WHERE tenant_id = $1 AND user_id = $2 AND purpose <> 'key'
            AND expires_at < $3";
        const CROWD_OUT: &str = "UPDATE keys SET revoked_at = $5
            WHERE tenant_id = $1 AND user_id = $2 AND purpose = $3 AND revoked_at IS NULL AND id NOT IN
            (SELECT id FROM keys WHERE tenant_id = $1 AND user_id = $2 AND purpose = $3 AND revoked_at IS NULL
            ORDER BY id DESC LIMIT $4)";
        let (tenant, now) = (grant.tenant(), self.now());
        let (role, project) = standing_of(transaction, tenant, user).await?;
        let lifetime = if purpose == KeyPurpose::Session { SESSION_LIFETIME } else { LOGIN_KEY_LIFETIME };
        let row = NewRow {
            project,
            owner: Some(KeyOwner::User(user.id)),
            expires_at: Some(now.plus(lifetime)),
            purpose,
            ..NewRow::of(Some(tenant), role)
        };
        let key = self.insert_key(transaction, row).await?;
        let forgotten = Timestamp::from_micros(now.micros() - SIGN_IN_KEYS_KEPT.as_micros() as i64);
        transaction.execute(FORGET, values![tenant, user.id, forgotten]).await?;
        let crowd = values![tenant, user.id, purpose.as_str(), SESSIONS_PER_USER_MAX, now];
        if transaction.execute(CROWD_OUT, crowd).await? > 0 {
            announce(transaction).await?;
        }
        let detail = json!({"for": purpose.as_str(), "key": key.summary.id.to_string(), "role": role.as_str()});
        let recorded = self.record_administration(transaction, grant, SIGN_IN.of(user.id, detail)).await?;
        Ok((key, recorded))
    }
}

/// Keyed hashes that stand for an issuer and a subject of it.
struct Identity {
    issuer: String,
    subject: String,
}

/// What a browser keeps lives minutes: its key has one generation.
const BROWSER_GENERATION: u32 = 0;

fn browser_key(pepper: &Pepper) -> SecretKey {
    SecretKey::new(pepper.subkey("sign-in, kept by a browser"))
}

fn browser_bound() -> Bound {
    Bound::new("sign-in", &[])
}

/// What a person's own key may be, and in which project: an owner administers; others complete in the project that they
/// have belonged to longest, and look on where there is none.
async fn standing_of(
    transaction: &mut Transaction,
    tenant: TenantId,
    user: &UserRecord,
) -> Result<(Role, Option<ProjectId>), StoreError> {
    const SQL: &str = "SELECT project_id FROM project_users
        JOIN projects ON projects.tenant_id = project_users.tenant_id AND projects.id = project_id
        WHERE project_users.tenant_id = $1 AND user_id = $2 AND archived_at IS NULL
        ORDER BY project_users.added_at, project_id LIMIT 1";
    if user.role == PersonRole::Owner {
        return Ok((Role::Admin, None));
    }
    match transaction.fetch_optional(SQL, values![tenant, user.id]).await? {
        Some(row) => Ok((Role::Member, Some(row.parsed("project_id")?))),
        None => Ok((Role::Reader, None)),
    }
}
