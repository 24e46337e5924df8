//! API keys: making, checking, revoking.

use std::collections::HashMap;

use atelier_access::key::KEY_RANDOM_BYTES;
use atelier_access::right::ManageKeys;
use atelier_access::{ApiKey, Caller, Denied, Granted, KeyKind, KeyRecord, PublicId, verify};
use atelier_domain::limits::{KEY_CACHE_RECORDS_MAX, KEY_LAST_USED_INTERVAL, KEYS_PER_TENANT_MAX};
use atelier_domain::{KeyId, Role, TenantId, Timestamp};
use parking_lot::Mutex;
use serde_json::json;

use crate::audit;
use crate::error::StoreError;
use crate::open::{Store, random_bytes};
use crate::sql::{Row, Transaction, values};

/// What may be shown of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySummary {
    /// The key's id.
    pub id: KeyId,
    /// The part of its text that names it.
    pub public_id: PublicId,
    /// What it may be.
    pub role: Role,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last used, to the minute.
    pub last_used_at: Option<Timestamp>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
}

impl Store {
    /// Who shows this key.
    ///
    /// # Errors
    /// [`Denied::NotAuthenticated`] when the text is no key, or one that is unknown or revoked.
    pub async fn authenticate(&self, text: &str) -> Result<Caller, StoreError> {
        let key = ApiKey::parse(text).map_err(|_| Denied::NotAuthenticated)?;
        let record = match self.inner.keys.get(key.public_id()) {
            Some(record) => record,
            None => self.load_key(key.public_id()).await?.ok_or(Denied::NotAuthenticated)?,
        };
        let now = self.now();
        let caller = verify(&key, &record, &self.inner.pepper, now)?;
        if self.inner.keys.is_touch_due(key.public_id(), now) {
            self.inner.ledger.touch_key(record.id, now);
        }
        Ok(caller)
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
        let (record, key) = self.insert_key(&mut transaction, None, Role::Operator).await?;
        let detail = json!({"role": Role::Operator.as_str()});
        let subject = record.id.to_string();
        audit::append_operator(&mut transaction, self.now(), None, &Self::system(), "bootstrap", &subject, &detail)
            .await?;
        transaction.commit().await?;
        Ok(Some(key))
    }

    /// A new operator's key in place of all others: for an operator who lost it and holds the data folder.
    ///
    /// # Errors
    /// What the database says.
    pub async fn replace_operator_key(&self) -> Result<ApiKey, StoreError> {
        const REVOKE: &str = "UPDATE keys SET revoked_at = $2 WHERE role = $1 AND revoked_at IS NULL";
        let mut transaction = self.control().begin().await?;
        transaction.execute(REVOKE, values![Role::Operator, self.now()]).await?;
        let (record, key) = self.insert_key(&mut transaction, None, Role::Operator).await?;
        let (subject, detail) = (record.id.to_string(), json!({}));
        audit::append_operator(
            &mut transaction,
            self.now(),
            None,
            &Self::system(),
            "replace_operator_key",
            &subject,
            &detail,
        )
        .await?;
        transaction.commit().await?;
        self.inner.keys.forget_all();
        Ok(key)
    }

    /// A new key of the tenant; its text is in the answer and nowhere else.
    ///
    /// # Errors
    /// [`Denied::Hidden`] for an operator's role; [`StoreError::TooMany`].
    pub async fn create_key(&self, grant: &Granted<ManageKeys>, role: Role) -> Result<(KeyRecord, ApiKey), StoreError> {
        if role == Role::Operator {
            return Err(Denied::Hidden.into());
        }
        let mut transaction = self.control_for(grant.tenant()).begin().await?;
        self.living_tenant(&mut transaction, grant.tenant()).await?;
        const COUNT: &str = "SELECT COUNT(*) AS living FROM keys WHERE tenant_id = $1 AND revoked_at IS NULL";
        let living = transaction.fetch_one(COUNT, values![grant.tenant()]).await?.count("living")?;
        if living >= KEYS_PER_TENANT_MAX as u64 {
            return Err(StoreError::TooMany { what: "keys", limit: KEYS_PER_TENANT_MAX });
        }
        let made = self.insert_key(&mut transaction, Some(grant.tenant()), role).await?;
        record_change(&mut transaction, self.now(), grant, "create_key", &made.0.id.to_string(), role).await?;
        transaction.commit().await?;
        Ok(made)
    }

    /// The tenant's keys, oldest first, revoked ones included.
    ///
    /// # Errors
    /// What the database says.
    pub async fn keys(&self, grant: &Granted<ManageKeys>) -> Result<Vec<KeySummary>, StoreError> {
        const SQL: &str = "SELECT id, public_id, role, created_at, last_used_at, revoked_at FROM keys
            WHERE tenant_id = $1 ORDER BY created_at, id";
        let rows = self.control_for(grant.tenant()).fetch_all(SQL, values![grant.tenant()]).await?;
        rows.iter().map(summary_of).collect()
    }

    /// Makes a key worthless, from now on and everywhere.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when the tenant has no such key, or it is revoked already.
    pub async fn revoke_key(&self, grant: &Granted<ManageKeys>, key: KeyId) -> Result<(), StoreError> {
        const SQL: &str = "UPDATE keys SET revoked_at = $3 WHERE tenant_id = $1 AND id = $2 AND revoked_at IS NULL";
        let mut transaction = self.control_for(grant.tenant()).begin().await?;
        if transaction.execute(SQL, values![grant.tenant(), key, self.now()]).await? == 0 {
            return Err(StoreError::NotFound { what: "key" });
        }
        let (now, detail) = (self.now(), json!({}));
        let (tenant, subject) = (Some(grant.tenant()), key.to_string());
        audit::append_operator(&mut transaction, now, tenant, grant.actor(), "revoke_key", &subject, &detail).await?;
        transaction.commit().await?;
        self.inner.keys.forget_all();
        Ok(())
    }

    /// A new admin key in place of all the tenant's admin keys; members' keys stay.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when the tenant is deleted.
    pub async fn rotate_key(&self, grant: &Granted<ManageKeys>) -> Result<ApiKey, StoreError> {
        const REVOKE: &str =
            "UPDATE keys SET revoked_at = $3 WHERE tenant_id = $1 AND role = $2 AND revoked_at IS NULL";
        let mut transaction = self.control_for(grant.tenant()).begin().await?;
        self.living_tenant(&mut transaction, grant.tenant()).await?;
        transaction.execute(REVOKE, values![grant.tenant(), Role::Admin, self.now()]).await?;
        let (record, key) = self.insert_key(&mut transaction, Some(grant.tenant()), Role::Admin).await?;
        record_change(&mut transaction, self.now(), grant, "rotate_key", &record.id.to_string(), Role::Admin).await?;
        transaction.commit().await?;
        self.inner.keys.forget_all();
        Ok(key)
    }

    pub(crate) async fn insert_key(
        &self,
        transaction: &mut Transaction,
        tenant: Option<TenantId>,
        role: Role,
    ) -> Result<(KeyRecord, ApiKey), StoreError> {
        const SQL: &str = "INSERT INTO keys (id, public_id, tenant_id, role, secret_hash, created_at)
            VALUES ($1, $2, $3, $4, $5, $6)";
        let now = self.now();
        let key = ApiKey::generate(KeyKind::of(role), random_bytes::<KEY_RANDOM_BYTES>()?);
        let record = KeyRecord {
            id: KeyId::generate(now, random_bytes()?),
            public_id: key.public_id().clone(),
            tenant,
            role,
            secret_hash: key.secret_hash(&self.inner.pepper),
            created_at: now,
            revoked_at: None,
        };
        let hash = record.secret_hash.as_slice();
        transaction.execute(SQL, values![record.id, record.public_id.as_str(), tenant, role, hash, now]).await?;
        Ok((record, key))
    }

    /// Reads a key's record and remembers it, unless keys changed meanwhile.
    async fn load_key(&self, public_id: &PublicId) -> Result<Option<KeyRecord>, StoreError> {
        const SQL: &str = "SELECT id, public_id, tenant_id, role, secret_hash, created_at, last_used_at, revoked_at
            FROM keys WHERE public_id = $1";
        let generation = self.inner.keys.generation();
        let Some(row) = self.control().fetch_optional(SQL, values![public_id.as_str()]).await? else { return Ok(None) };
        let record = record_of(&row)?;
        self.inner.keys.remember(generation, record.clone(), row.optional_time("last_used_at")?);
        Ok(Some(record))
    }
}

async fn record_change(
    transaction: &mut Transaction,
    now: Timestamp,
    grant: &Granted<ManageKeys>,
    action: &str,
    subject: &str,
    role: Role,
) -> Result<(), StoreError> {
    let detail = json!({"role": role.as_str()});
    audit::append_operator(transaction, now, Some(grant.tenant()), grant.actor(), action, subject, &detail).await
}

fn record_of(row: &Row) -> Result<KeyRecord, StoreError> {
    Ok(KeyRecord {
        id: row.parsed("id")?,
        public_id: row.parsed("public_id")?,
        tenant: row.optional_parsed("tenant_id")?,
        role: row.parsed("role")?,
        secret_hash: row.bytes("secret_hash")?,
        created_at: row.time("created_at")?,
        revoked_at: row.optional_time("revoked_at")?,
    })
}

fn summary_of(row: &Row) -> Result<KeySummary, StoreError> {
    Ok(KeySummary {
        id: row.parsed("id")?,
        public_id: row.parsed("public_id")?,
        role: row.parsed("role")?,
        created_at: row.time("created_at")?,
        last_used_at: row.optional_time("last_used_at")?,
        revoked_at: row.optional_time("revoked_at")?,
    })
}

/// Records of keys in use. Every revocation goes through this store and empties it, so it is never stale.
#[derive(Debug, Default)]
pub(crate) struct KeyCache(Mutex<CachedKeys>);

#[derive(Debug, Default)]
struct CachedKeys {
    /// Counts the times that keys were forgotten: a record read before must not be remembered after.
    generation: u64,
    by_public_id: HashMap<PublicId, CachedKey>,
}

#[derive(Debug)]
struct CachedKey {
    record: KeyRecord,
    last_used_at: Option<Timestamp>,
}

impl KeyCache {
    fn generation(&self) -> u64 {
        self.0.lock().generation
    }

    fn get(&self, public_id: &PublicId) -> Option<KeyRecord> {
        self.0.lock().by_public_id.get(public_id).map(|cached| cached.record.clone())
    }

    fn remember(&self, generation: u64, record: KeyRecord, last_used_at: Option<Timestamp>) {
        let mut keys = self.0.lock();
        if keys.generation != generation {
            return;
        }
        if keys.by_public_id.len() >= KEY_CACHE_RECORDS_MAX {
            keys.by_public_id.clear();
        }
        keys.by_public_id.insert(record.public_id.clone(), CachedKey { record, last_used_at });
    }

    /// Whether `last used` on disk is older than it may be; if so it counts as written from now on.
    fn is_touch_due(&self, public_id: &PublicId, now: Timestamp) -> bool {
        let mut keys = self.0.lock();
        let Some(cached) = keys.by_public_id.get_mut(public_id) else { return false };
        let due = cached.last_used_at.is_none_or(|last| now.since(last) >= KEY_LAST_USED_INTERVAL);
        if due {
            cached.last_used_at = Some(now);
        }
        due
    }

    pub(crate) fn forget_all(&self) {
        let mut keys = self.0.lock();
        keys.generation += 1;
        keys.by_public_id.clear();
    }
}
