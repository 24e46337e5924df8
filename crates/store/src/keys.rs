//! API keys: making, checking, changing, revoking.

use atelier_access::key::KEY_RANDOM_BYTES;
use atelier_access::right::ManageKeys;
use atelier_access::{
    ApiKey, Caller, Denied, Granted, KeyKind, KeyOwner, KeyPurpose, KeyRecord, KeyRights, PublicId, verify,
};
use atelier_domain::limits::{KEYS_PER_TENANT_MAX, PAGE_ROWS_MAX, SESSION_IDLE_MAX};
use atelier_domain::{KeyId, Label, ProjectId, Role, Scope, Scopes, ServiceAccountId, TenantId, Timestamp, UserId};
use serde_json::{Value as Json, json};

use crate::audit::events::{BOOTSTRAP, CREATE_KEY, REPLACE_OPERATOR_KEY, REVOKE_KEY, ROTATE_KEY, UPDATE_KEY};
use crate::error::StoreError;
use crate::key_cache::announce;
use crate::open::{Store, random_bytes};
use crate::organization::belonging;
use crate::sql::{Row, Transaction, values};

/// What may be shown of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySummary {
    /// The key's id, the same wherever the key is spoken of.
    pub id: KeyId,
    /// The beginning of its text, by which whoever holds it knows it.
    pub redacted: String,
    /// What people call it.
    pub name: Option<Label>,
    /// What it may be.
    pub role: Role,
    /// What it is for.
    pub purpose: KeyPurpose,
    /// What of the role's rights it has.
    pub scopes: Scopes,
    /// The project that its use is counted for.
    pub project: Option<ProjectId>,
    /// Who holds it, where that is known.
    pub owner: Option<KeyOwner>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends by itself.
    pub expires_at: Option<Timestamp>,
    /// When it was last used, to the minute.
    pub last_used_at: Option<Timestamp>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
}

/// A key to be made.
#[derive(Debug, Clone)]
pub struct NewKey {
    /// What people call it.
    pub name: Option<Label>,
    /// What it may be, as the maker may hand it out.
    pub rights: KeyRights,
    /// The project that its use is counted for.
    pub project: Option<ProjectId>,
    /// Who will hold it.
    pub owner: Option<KeyOwner>,
    /// When it ends by itself.
    pub expires_at: Option<Timestamp>,
}

/// A key that was just made: the only time that its text is to be had.
#[derive(Debug, Clone)]
pub struct CreatedKey {
    /// What may be shown of it.
    pub summary: KeySummary,
    /// The key, secret and all.
    pub key: ApiKey,
}

/// What of a key is to be another.
#[derive(Debug, Clone, Default)]
pub struct KeyChange {
    /// What people call it.
    pub name: Option<Label>,
    /// What it may be.
    pub rights: Option<KeyRights>,
    /// When it ends by itself.
    pub expires_at: Option<Timestamp>,
    /// Who holds it from now on, where that was not known.
    pub owner: Option<KeyOwner>,
}

/// Which of a tenant's keys to list.
#[derive(Debug, Clone, Copy, Default)]
pub struct KeyQuery {
    /// Those that come after this one in the list.
    pub after: Option<KeyId>,
    /// Those of this project.
    pub project: Option<ProjectId>,
    /// Those of this role.
    pub role: Option<Role>,
    /// Those that are not revoked.
    pub living: bool,
}

impl Store {
    /// Who shows this key, or this secret of an invite.
    ///
    /// # Errors
    /// [`Denied::NotAuthenticated`] when the text is no key, or one that is unknown, revoked or past its time;
    /// [`Denied::Suspended`] when its tenant is. What the database says: a key that cannot be checked is not let in.
    pub async fn authenticate(&self, text: &str) -> Result<Caller, StoreError> {
        let key = ApiKey::parse(text).map_err(|_| Denied::NotAuthenticated)?;
        if key.kind() == KeyKind::Invite {
            return self.authenticate_invited(&key).await;
        }
        if key.kind() == KeyKind::Session {
            // What a cookie holds is no key: it comes with the browser's own protection, or not at all.
            return Err(Denied::NotAuthenticated.into());
        }
        self.notice_key_changes().await?;
        let record = self.key_record(&key).await?;
        self.let_in(&key, &record)
    }

    /// Who has this session of a browser.
    ///
    /// # Errors
    /// As [`Store::authenticate`]; also when it was not used for [`SESSION_IDLE_MAX`].
    pub async fn authenticate_session(&self, text: &str) -> Result<Caller, StoreError> {
        let key = ApiKey::parse(text).map_err(|_| Denied::NotAuthenticated)?;
        if key.kind() != KeyKind::Session {
            return Err(Denied::NotAuthenticated.into());
        }
        self.notice_key_changes().await?;
        let mut record = self.key_record(&key).await?;
        if self.is_idle(&record) {
            // Another process may have seen it since.
            record = self.load_key(key.public_id()).await?.ok_or(Denied::NotAuthenticated)?;
            if self.is_idle(&record) {
                return Err(Denied::NotAuthenticated.into());
            }
        }
        self.let_in(&key, &record)
    }

    async fn key_record(&self, key: &ApiKey) -> Result<KeyRecord, StoreError> {
        match self.inner.keys.get(key.public_id()) {
            Some(record) => Ok(record),
            None => Ok(self.load_key(key.public_id()).await?.ok_or(Denied::NotAuthenticated)?),
        }
    }

    fn is_idle(&self, record: &KeyRecord) -> bool {
        let used = self.inner.keys.last_used(&record.public_id).unwrap_or(record.created_at);
        self.now().since(used) >= SESSION_IDLE_MAX
    }

    fn let_in(&self, key: &ApiKey, record: &KeyRecord) -> Result<Caller, StoreError> {
        let now = self.now();
        let caller = verify(key, record, &self.inner.pepper, now)?.watched_by(self.inner.observer.witness());
        if self.inner.keys.is_touch_due(key.public_id(), now) {
            self.inner.ledger.touch_key(record.id, now);
        }
        Ok(caller)
    }

    /// The same caller as its key stands now, at most [`KEY_CHANGES_INTERVAL`](atelier_domain::limits) ago: for what
    /// goes on longer than that under a key which was checked when it began.
    ///
    /// # Errors
    /// [`Denied::NotAuthenticated`] when the key is revoked or past its time meanwhile.
    pub async fn renew(&self, caller: &Caller) -> Result<Caller, StoreError> {
        let Some(key) = caller.key() else { return Ok(caller.clone()) };
        self.notice_key_changes().await?;
        let record = match self.inner.keys.get_by_id(key) {
            Some(record) => record,
            None => self.load_key_by_id(key).await?.ok_or(Denied::NotAuthenticated)?,
        };
        Ok(caller.renewed(&record, self.now())?)
    }

    /// The operator's key, at the very first start only; show it, it cannot be had again.
    ///
    /// # Errors
    /// What the database says.
    pub async fn bootstrap_operator_key(&self) -> Result<Option<ApiKey>, StoreError> {
        let mut transaction = self.control().begin().await?;
        let known =
            transaction.fetch_optional("SELECT id FROM keys WHERE role = $1 LIMIT 1", values![Role::Operator]).await?;
        if known.is_some() {
            return Ok(None);
        }
        let made = self.insert_key(&mut transaction, NewRow::of(None, Role::Operator)).await?;
        let event = BOOTSTRAP.of(made.summary.id, json!({"role": Role::Operator.as_str()}));
        let recorded = self.record_own(&mut transaction, event).await?;
        self.commit(transaction, recorded).await?;
        Ok(Some(made.key))
    }

    /// A new operator's key in place of all others: for an operator who lost it and holds the data folder.
    ///
    /// # Errors
    /// What the database says.
    pub async fn replace_operator_key(&self) -> Result<ApiKey, StoreError> {
        const REVOKE: &str = "UPDATE keys SET revoked_at = $2 WHERE role = $1 AND revoked_at IS NULL";
        let mut transaction = self.control().begin().await?;
        transaction.execute(REVOKE, values![Role::Operator, self.now()]).await?;
        let made = self.insert_key(&mut transaction, NewRow::of(None, Role::Operator)).await?;
        let event = REPLACE_OPERATOR_KEY.of(made.summary.id, json!({}));
        let recorded = self.record_own(&mut transaction, event).await?;
        announce(&mut transaction).await?;
        self.commit(transaction, recorded).await?;
        self.inner.keys.forget_all();
        Ok(made.key)
    }

    /// A new key of the tenant; its text is in the answer and nowhere else.
    ///
    /// # Errors
    /// [`StoreError::TooMany`]; [`StoreError::NotFound`] when the tenant, the project or the holder is not there;
    /// [`Denied::Exceeds`] when the key would go beyond what its holder is.
    pub async fn create_key(&self, grant: &Granted<ManageKeys>, new: NewKey) -> Result<CreatedKey, StoreError> {
        let tenant = grant.tenant();
        let mut transaction = self.control_for(tenant).begin().await?;
        self.living_tenant(&mut transaction, tenant).await?;
        self.check_room_for_key(&mut transaction, tenant).await?;
        let role = new.rights.role();
        let project = belonging::project_for(tenant, role, new.project);
        belonging::check(&mut transaction, tenant, role, project, new.owner).await?;
        let row = NewRow {
            name: new.name,
            scopes: new.rights.scopes(),
            project,
            owner: new.owner,
            expires_at: new.expires_at,
            ..NewRow::of(Some(tenant), role)
        };
        let made = self.insert_key(&mut transaction, row).await?;
        let event = CREATE_KEY.of(made.summary.id, detail_of(&made.summary));
        let recorded = self.record_administration(&mut transaction, grant, event).await?;
        self.commit(transaction, recorded).await?;
        Ok(made)
    }

    /// Refuses one key more than a tenant may have.
    pub(crate) async fn check_room_for_key(
        &self,
        transaction: &mut Transaction,
        tenant: TenantId,
    ) -> Result<(), StoreError> {
        const COUNT: &str = "SELECT COUNT(*) AS living FROM keys
            WHERE tenant_id = $1 AND purpose = 'key' AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $2)";
        let living = transaction.fetch_one(COUNT, values![tenant, self.now()]).await?.count("living")?;
        if living >= KEYS_PER_TENANT_MAX as u64 {
            return Err(StoreError::TooMany { what: "keys", limit: KEYS_PER_TENANT_MAX });
        }
        Ok(())
    }

    /// The tenant's keys, oldest first, a page of them.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when the page is to begin after a key that the tenant has not: another's id tells no
    /// more than one that nobody has.
    pub async fn keys(&self, grant: &Granted<ManageKeys>, query: KeyQuery) -> Result<Vec<KeySummary>, StoreError> {
        // An id begins with the millisecond of its making, so that their order is that of age.
        const SQL: &str = "SELECT id, public_id, name, role, purpose, scopes, project_id, user_id, service_account_id,
            created_at, expires_at, last_used_at, revoked_at FROM keys
            WHERE tenant_id = $1 AND id > $2 AND (project_id = $3 OR $3 = '') AND (role = $4 OR $4 = '')
            AND ($5 = 0 OR revoked_at IS NULL) ORDER BY id LIMIT $6";
        const KNOWN: &str = "SELECT id FROM keys WHERE tenant_id = $1 AND id = $2";
        let text = |value: Option<String>| value.unwrap_or_default();
        let control = self.control_for(grant.tenant());
        if let Some(after) = query.after {
            control.fetch_optional(KNOWN, values![grant.tenant(), after]).await?.ok_or(NOT_FOUND)?;
        }
        let filter = values![
            grant.tenant(),
            text(query.after.map(|after| after.to_string())),
            text(query.project.map(|project| project.to_string())),
            text(query.role.map(|role| role.to_string())),
            i64::from(query.living),
            PAGE_ROWS_MAX
        ];
        let rows = control.fetch_all(SQL, filter).await?;
        rows.iter().map(summary_of).collect()
    }

    /// One of the tenant's keys.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when the tenant has no such key.
    pub async fn key(&self, grant: &Granted<ManageKeys>, key: KeyId) -> Result<KeySummary, StoreError> {
        let control = self.control_for(grant.tenant());
        let row = control.fetch_optional(READ, values![grant.tenant(), key]).await?.ok_or(NOT_FOUND)?;
        summary_of(&row)
    }

    /// Changes a living key; what it may no longer do, it may no longer do within a second, everywhere.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when the tenant has no such key, it is revoked, past its time or came by signing in;
    /// [`Denied::Exceeds`] when it would go beyond what its holder is.
    pub async fn update_key(
        &self,
        grant: &Granted<ManageKeys>,
        key: KeyId,
        change: KeyChange,
    ) -> Result<KeySummary, StoreError> {
        const SQL: &str = "UPDATE keys SET name = $3, role = $4, scopes = $5, expires_at = $6, project_id = $7,
            user_id = $8, service_account_id = $9 WHERE tenant_id = $1 AND id = $2 AND purpose = 'key'
            AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $10)";
        let tenant = grant.tenant();
        let mut transaction = self.control_for(tenant).begin().await?;
        let row = transaction.fetch_optional(READ, values![tenant, key]).await?.ok_or(NOT_FOUND)?;
        let before = summary_of(&row)?;
        let role = change.rights.map_or(before.role, KeyRights::role);
        let project = belonging::project_for(tenant, role, before.project);
        let owner = before.owner.or(change.owner);
        if role != before.role || owner != before.owner {
            belonging::check(&mut transaction, tenant, role, project, owner).await?;
        }
        let after = KeySummary {
            name: change.name.or(before.name),
            role,
            project,
            owner,
            scopes: change.rights.map_or(before.scopes, KeyRights::scopes),
            expires_at: change.expires_at.or(before.expires_at),
            ..before
        };
        let scopes = stored_scopes(after.scopes);
        let (user, account) = holders(after.owner);
        let (name, now) = (after.name.as_ref(), self.now());
        let values =
            values![tenant, key, name, after.role, scopes, after.expires_at, after.project, user, account, now];
        if transaction.execute(SQL, values).await? == 0 {
            return Err(NOT_FOUND);
        }
        let event = UPDATE_KEY.of(key, detail_of(&after));
        let recorded = self.record_administration(&mut transaction, grant, event).await?;
        announce(&mut transaction).await?;
        self.commit(transaction, recorded).await?;
        self.inner.keys.forget_all();
        Ok(after)
    }

    /// Makes a key worthless, within a second and everywhere.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when the tenant has no such key, or it is revoked already.
    pub async fn revoke_key(&self, grant: &Granted<ManageKeys>, key: KeyId) -> Result<(), StoreError> {
        const SQL: &str = "UPDATE keys SET revoked_at = $3 WHERE tenant_id = $1 AND id = $2 AND revoked_at IS NULL";
        let mut transaction = self.control_for(grant.tenant()).begin().await?;
        if transaction.execute(SQL, values![grant.tenant(), key, self.now()]).await? == 0 {
            return Err(NOT_FOUND);
        }
        let recorded = self.record_administration(&mut transaction, grant, REVOKE_KEY.of(key, json!({}))).await?;
        announce(&mut transaction).await?;
        self.commit(transaction, recorded).await?;
        self.inner.keys.forget_all();
        Ok(())
    }

    /// A new admin key in place of all the tenant's admin keys; other keys stay.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when the tenant is deleted; [`Denied::Exceeds`] for a key without every scope.
    pub async fn rotate_key(&self, grant: &Granted<ManageKeys>) -> Result<CreatedKey, StoreError> {
        const REVOKE: &str =
            "UPDATE keys SET revoked_at = $3 WHERE tenant_id = $1 AND role = $2 AND revoked_at IS NULL";
        let (tenant, rights) = (grant.tenant(), grant.hand_out(Role::Admin, Scopes::ALL)?);
        let mut transaction = self.control_for(tenant).begin().await?;
        self.living_tenant(&mut transaction, tenant).await?;
        transaction.execute(REVOKE, values![tenant, rights.role(), self.now()]).await?;
        let made = self.insert_key(&mut transaction, NewRow::of(Some(tenant), rights.role())).await?;
        let event = ROTATE_KEY.of(made.summary.id, detail_of(&made.summary));
        let recorded = self.record_administration(&mut transaction, grant, event).await?;
        announce(&mut transaction).await?;
        self.commit(transaction, recorded).await?;
        self.inner.keys.forget_all();
        Ok(made)
    }

    pub(crate) async fn insert_key(
        &self,
        transaction: &mut Transaction,
        row: NewRow,
    ) -> Result<CreatedKey, StoreError> {
        const SQL: &str = "INSERT INTO keys (id, public_id, tenant_id, name, role, scopes, project_id, user_id,
            service_account_id, secret_hash, created_at, expires_at, purpose)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)";
        let now = self.now();
        let kind = if row.purpose == KeyPurpose::Session { KeyKind::Session } else { KeyKind::of(row.role) };
        let key = ApiKey::generate(kind, random_bytes::<KEY_RANDOM_BYTES>()?);
        let id = KeyId::generate(now, random_bytes()?);
        let (user, account) = holders(row.owner);
        let hash = key.secret_hash(&self.inner.pepper);
        let values = values![
            id,
            key.public_id().as_str(),
            row.tenant,
            row.name.as_ref(),
            row.role,
            stored_scopes(row.scopes),
            row.project,
            user,
            account,
            hash.as_slice(),
            now,
            row.expires_at,
            row.purpose.as_str()
        ];
        transaction.execute(SQL, values).await?;
        let summary = KeySummary {
            id,
            redacted: key.redacted(),
            name: row.name,
            role: row.role,
            purpose: row.purpose,
            scopes: row.scopes,
            project: row.project,
            owner: row.owner,
            created_at: now,
            expires_at: row.expires_at,
            last_used_at: None,
            revoked_at: None,
        };
        Ok(CreatedKey { summary, key })
    }

    /// Reads a key's record and remembers it, unless keys changed meanwhile.
    async fn load_key(&self, public_id: &PublicId) -> Result<Option<KeyRecord>, StoreError> {
        const SQL: &str = "SELECT id, public_id, tenant_id, name, role, purpose, scopes, project_id, user_id,
            service_account_id, secret_hash, created_at, expires_at, last_used_at, revoked_at,
            (SELECT suspended_at FROM tenants WHERE tenants.id = keys.tenant_id) AS suspended_at FROM keys
            WHERE public_id = $1 AND (tenant_id IS NULL OR EXISTS
                (SELECT 1 FROM tenants WHERE tenants.id = keys.tenant_id AND tenants.deleted_at IS NULL))";
        let generation = self.inner.keys.generation();
        let row = self.control().fetch_optional(SQL, values![public_id.as_str()]).await?;
        self.remember(generation, row.as_ref())
    }

    async fn load_key_by_id(&self, id: KeyId) -> Result<Option<KeyRecord>, StoreError> {
        const SQL: &str = "SELECT id, public_id, tenant_id, name, role, purpose, scopes, project_id, user_id,
            service_account_id, secret_hash, created_at, expires_at, last_used_at, revoked_at,
            (SELECT suspended_at FROM tenants WHERE tenants.id = keys.tenant_id) AS suspended_at FROM keys
            WHERE id = $1 AND (tenant_id IS NULL OR EXISTS
                (SELECT 1 FROM tenants WHERE tenants.id = keys.tenant_id AND tenants.deleted_at IS NULL))";
        let generation = self.inner.keys.generation();
        let row = self.control().fetch_optional(SQL, values![id]).await?;
        self.remember(generation, row.as_ref())
    }

    fn remember(&self, generation: u64, row: Option<&Row>) -> Result<Option<KeyRecord>, StoreError> {
        let Some(row) = row else { return Ok(None) };
        let record = record_of(row)?;
        self.inner.keys.remember(generation, record.clone(), row.optional_time("last_used_at")?);
        Ok(Some(record))
    }
}

/// The columns that say who holds a key.
fn holders(owner: Option<KeyOwner>) -> (Option<UserId>, Option<ServiceAccountId>) {
    match owner {
        Some(KeyOwner::User(user)) => (Some(user), None),
        Some(KeyOwner::ServiceAccount(account)) => (None, Some(account)),
        None => (None, None),
    }
}

pub(crate) const NOT_FOUND: StoreError = StoreError::NotFound { what: "key" };

const READ: &str = "SELECT id, public_id, name, role, purpose, scopes, project_id, user_id, service_account_id,
    created_at, expires_at, last_used_at, revoked_at FROM keys WHERE tenant_id = $1 AND id = $2";

/// A key's row, but for what is made up for it.
#[derive(Debug)]
pub(crate) struct NewRow {
    pub(crate) tenant: Option<TenantId>,
    pub(crate) name: Option<Label>,
    pub(crate) role: Role,
    pub(crate) scopes: Scopes,
    pub(crate) project: Option<ProjectId>,
    pub(crate) owner: Option<KeyOwner>,
    pub(crate) expires_at: Option<Timestamp>,
    pub(crate) purpose: KeyPurpose,
}

impl NewRow {
    /// A nameless key of a role, with all that the role may, for ever.
    pub(crate) fn of(tenant: Option<TenantId>, role: Role) -> Self {
        let (scopes, purpose) = (Scopes::ALL, KeyPurpose::Key);
        Self { tenant, name: None, role, scopes, project: None, owner: None, expires_at: None, purpose }
    }
}

/// What the trail says about a key that was made or changed.
fn detail_of(key: &KeySummary) -> Json {
    json!({
        "role": key.role.as_str(),
        "scopes": key.scopes.iter().map(Scope::as_str).collect::<Vec<_>>(),
        "project": key.project.map(|project| project.to_string()),
        "expires_at": key.expires_at.map(Timestamp::seconds),
    })
}

/// All of them are stored as nothing: a scope that comes later belongs to them too.
fn stored_scopes(scopes: Scopes) -> Option<Scopes> {
    (scopes != Scopes::ALL).then_some(scopes)
}

fn record_of(row: &Row) -> Result<KeyRecord, StoreError> {
    Ok(KeyRecord {
        id: row.parsed("id")?,
        public_id: row.parsed("public_id")?,
        tenant: row.optional_parsed("tenant_id")?,
        name: row.optional_parsed("name")?,
        role: row.parsed("role")?,
        purpose: row.parsed("purpose")?,
        scopes: row.optional_parsed("scopes")?.unwrap_or(Scopes::ALL),
        project: row.optional_parsed("project_id")?,
        owner: owner_of(row)?,
        secret_hash: row.bytes("secret_hash")?,
        created_at: row.time("created_at")?,
        expires_at: row.optional_time("expires_at")?,
        revoked_at: row.optional_time("revoked_at")?,
        is_suspended: row.optional_time("suspended_at")?.is_some(),
    })
}

fn owner_of(row: &Row) -> Result<Option<KeyOwner>, StoreError> {
    let user = row.optional_parsed("user_id")?.map(KeyOwner::User);
    let account = row.optional_parsed("service_account_id")?.map(KeyOwner::ServiceAccount);
    Ok(user.or(account))
}

pub(crate) fn summary_of(row: &Row) -> Result<KeySummary, StoreError> {
    let (public_id, role): (PublicId, Role) = (row.parsed("public_id")?, row.parsed("role")?);
    let purpose = row.parsed("purpose")?;
    let kind = if purpose == KeyPurpose::Session { KeyKind::Session } else { KeyKind::of(role) };
    Ok(KeySummary {
        id: row.parsed("id")?,
        redacted: public_id.redacted(kind),
        name: row.optional_parsed("name")?,
        role,
        purpose,
        scopes: row.optional_parsed("scopes")?.unwrap_or(Scopes::ALL),
        project: row.optional_parsed("project_id")?,
        owner: owner_of(row)?,
        created_at: row.time("created_at")?,
        expires_at: row.optional_time("expires_at")?,
        last_used_at: row.optional_time("last_used_at")?,
        revoked_at: row.optional_time("revoked_at")?,
    })
}
