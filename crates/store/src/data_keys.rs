//! Data keys: what each tenant's data is sealed with, wrapped with the root key in the control database.
//!
//! A tenant's newest generation seals, every one that is not destroyed opens. Keys are fetched before a transaction
//! begins and handed to what reads or writes sealed data, so that none is asked for inside one: on PostgreSQL that
//! would take a second connection while holding the first. Destroying them is the end of a tenant's data, wherever
//! copies of it lie.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use atelier_domain::limits::DATA_KEYS_CACHED_MAX;
use atelier_domain::{TenantId, Timestamp};
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use serde_json::Value as Json;
use zeroize::Zeroizing;

use crate::audit::Unrecorded;
use crate::error::StoreError;
use crate::open::Store;
use crate::root_key::RootKey;
use crate::sql::{Row, Transaction, values};
use crate::text_enum;
use atelier_seal::{self as seal, Bound, KEY_BYTES, SecretKey};

/// The generation that a tenant begins with.
pub(crate) const FIRST_GENERATION: u32 = 1;
/// The generation that the envelope of a wrapped key names: the fingerprint says which root key it is.
const WRAP_GENERATION: u32 = 0;
/// A wrapped key holds the data key and, the same in all generations, the key of keyed hashes.
const WRAPPED_KEYS_BYTES: usize = 2 * KEY_BYTES;
const NOT_FOUND: StoreError = StoreError::NotFound { what: "tenant" };

text_enum! {
    /// What a generation says of the data that was there before it. The wrap is bound to it: nobody without the root
    /// key can make the store take plain data for its own again.
    SealingState {
        /// It may still be as it was.
        Sealing => "sealing",
        /// Everything is sealed with this generation or a later one.
        Sealed => "sealed",
    }
}

/// A tenant's data keys, unwrapped.
pub(crate) struct DataKeys {
    tenant: TenantId,
    by_generation: BTreeMap<u32, SecretKey>,
    hashing: SecretKey,
    state: SealingState,
}

impl fmt::Debug for DataKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataKeys").field("tenant", &self.tenant).finish_non_exhaustive()
    }
}

impl DataKeys {
    /// Whose keys they are.
    pub(crate) fn tenant(&self) -> TenantId {
        self.tenant
    }

    /// The generation that seals.
    pub(crate) fn newest(&self) -> u32 {
        self.by_generation.last_key_value().map_or(FIRST_GENERATION, |(generation, _)| *generation)
    }

    /// Whether something may be stored that was never sealed: before all of an older version's data is.
    pub(crate) fn may_be_plain(&self) -> bool {
        self.newest() == FIRST_GENERATION && self.state == SealingState::Sealing
    }

    fn newest_key(&self) -> Result<(u32, &SecretKey), StoreError> {
        self.by_generation.last_key_value().map(|(generation, key)| (*generation, key)).ok_or(NOT_FOUND)
    }

    /// Seals a text for a column.
    ///
    /// # Errors
    /// [`StoreError::NulInText`]: what no column takes plain, none takes sealed.
    pub(crate) fn seal_text(&self, bound: &Bound, text: &str) -> Result<String, StoreError> {
        check_text(text)?;
        let (generation, key) = self.newest_key()?;
        let sealed = seal::seal(key, generation, self.tenant, bound, text.as_bytes())?;
        Ok(STANDARD_NO_PAD.encode(sealed))
    }

    /// Seals JSON for a column.
    pub(crate) fn seal_json(&self, bound: &Bound, json: &Json) -> Result<String, StoreError> {
        self.seal_text(bound, &json.to_string())
    }

    /// Opens what a column holds.
    ///
    /// # Errors
    /// [`StoreError::DoesNotOpen`].
    pub(crate) fn open_text(&self, bound: &Bound, stored: &str) -> Result<String, StoreError> {
        self.try_open_text(bound, stored).map(|(text, _)| text).ok_or_else(|| does_not_open(bound))
    }

    /// Opens JSON that a column holds.
    ///
    /// # Errors
    /// [`StoreError::DoesNotOpen`].
    pub(crate) fn open_json(&self, bound: &Bound, stored: &str) -> Result<Json, StoreError> {
        serde_json::from_str(&self.open_text(bound, stored)?)
            .map_err(|error| StoreError::corrupt(format!("{bound}: {error}")))
    }

    /// The same with the generation that it was sealed with; none when it does not open.
    pub(crate) fn try_open_text(&self, bound: &Bound, stored: &str) -> Option<(String, u32)> {
        let mut sealed = STANDARD_NO_PAD.decode(stored).ok()?;
        let generation = seal::generation_of(&sealed)?;
        let key = self.by_generation.get(&generation)?;
        let content = seal::open(key, self.tenant, bound, &mut sealed)?;
        Some((std::str::from_utf8(content).ok()?.to_owned(), generation))
    }

    /// Seals the content of a blob.
    pub(crate) fn seal_blob(&self, bound: &Bound, content: &[u8]) -> Result<Bytes, StoreError> {
        let (generation, key) = self.newest_key()?;
        Ok(seal::seal(key, generation, self.tenant, bound, content)?.into())
    }

    /// Opens a blob, with the generation that it was sealed with; the blob as it was when it does not open.
    pub(crate) fn try_open_blob(&self, bound: &Bound, sealed: Bytes) -> Result<(Bytes, u32), Bytes> {
        let Some((generation, key)) = seal::generation_of(&sealed)
            .and_then(|generation| Some((generation, self.by_generation.get(&generation)?)))
        else {
            return Err(sealed);
        };
        // Nobody else holds what was just read, so this copies nothing.
        let mut bytes = sealed.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
        if seal::open(key, self.tenant, bound, &mut bytes).is_none() {
            return Err(bytes.freeze());
        }
        let content = seal::content_range(bytes.len());
        Ok((bytes.freeze().slice(content), generation))
    }

    /// What stands in the place of a text that is only ever looked for. The same in all generations.
    ///
    /// # Errors
    /// [`StoreError::NulInText`].
    pub(crate) fn hash(&self, kind: &'static str, text: &str) -> Result<String, StoreError> {
        check_text(text)?;
        Ok(seal::keyed_hash(&self.hashing, kind, text.as_bytes()))
    }
}

fn check_text(text: &str) -> Result<(), StoreError> {
    if text.contains('\0') { Err(StoreError::NulInText) } else { Ok(()) }
}

/// The error of what does not open.
pub(crate) fn does_not_open(bound: &Bound) -> StoreError {
    StoreError::DoesNotOpen { what: bound.to_string() }
}

/// Keys of tenants that are in use.
#[derive(Debug, Default)]
pub(crate) struct DataKeyCache(Mutex<CachedKeys>);

#[derive(Debug, Default)]
struct CachedKeys {
    /// Counts the times that keys were forgotten: keys that were read before must not be remembered after.
    forgotten: u64,
    by_tenant: HashMap<TenantId, Arc<DataKeys>>,
}

impl DataKeyCache {
    fn get(&self, tenant: TenantId) -> Result<Arc<DataKeys>, u64> {
        let cached = self.0.lock();
        cached.by_tenant.get(&tenant).cloned().ok_or(cached.forgotten)
    }

    fn remember(&self, forgotten: u64, keys: &Arc<DataKeys>) {
        let mut cached = self.0.lock();
        if cached.forgotten != forgotten {
            return;
        }
        if cached.by_tenant.len() >= DATA_KEYS_CACHED_MAX {
            cached.by_tenant.clear();
        }
        cached.by_tenant.insert(keys.tenant, Arc::clone(keys));
    }

    fn forget(&self, tenant: TenantId) {
        let mut cached = self.0.lock();
        cached.forgotten += 1;
        cached.by_tenant.remove(&tenant);
    }

    pub(crate) fn forget_all(&self) {
        let mut cached = self.0.lock();
        cached.forgotten += 1;
        cached.by_tenant.clear();
    }
}

impl Store {
    /// A tenant's keys. Ask before a transaction begins.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when it has none: once it is deleted, they are destroyed.
    pub(crate) async fn data_keys(&self, tenant: TenantId) -> Result<Arc<DataKeys>, StoreError> {
        const SQL: &str = "SELECT generation, state, wrapped FROM data_keys
            WHERE tenant_id = $1 AND wrapped IS NOT NULL ORDER BY generation";
        let forgotten = match self.inner.data_keys.get(tenant) {
            Ok(keys) => return Ok(keys),
            Err(forgotten) => forgotten,
        };
        let rows = self.control_for(tenant).fetch_all(SQL, values![tenant]).await?;
        let keys = Arc::new(unwrap_all(&self.inner.root_key, tenant, &rows)?);
        self.inner.data_keys.remember(forgotten, &keys);
        Ok(keys)
    }

    /// Destroys a tenant's keys: nothing that was sealed with them opens again, be it here or in a copy. The last step
    /// of erasing a tenant. Done again, it changes nothing.
    pub(crate) async fn destroy_data_keys(&self, tenant: TenantId) -> Result<(), StoreError> {
        const SQL: &str = "UPDATE data_keys SET wrapped = NULL, destroyed_at = $2
            WHERE tenant_id = $1 AND wrapped IS NOT NULL";
        let mut transaction = self.control_for(tenant).begin().await?;
        let destroyed = transaction.execute(SQL, values![tenant, self.now()]).await?;
        transaction.commit(Unrecorded::Keys.permit()).await?;
        self.inner.data_keys.forget(tenant);
        if destroyed > 0 {
            self.scour_keys().await;
        }
        Ok(())
    }

    /// A further generation, with which the tenant's data is then to be sealed anew.
    pub(crate) async fn add_generation(&self, tenant: TenantId) -> Result<(), StoreError> {
        let keys = self.data_keys(tenant).await?;
        let generation = keys
            .newest()
            .checked_add(1)
            .ok_or(StoreError::TooMany { what: "generations of a tenant's keys", limit: u32::MAX as usize })?;
        let made = NewGeneration { tenant, generation, state: SealingState::Sealing, hashing: keys.hashing.clone() };
        let mut transaction = self.control_for(tenant).begin().await?;
        insert(&mut transaction, &self.inner.root_key, made, self.now()).await?;
        transaction.commit(Unrecorded::Keys.permit()).await?;
        self.inner.data_keys.forget(tenant);
        Ok(())
    }

    /// Says that everything is sealed with the newest generation, and destroys the ones before.
    pub(crate) async fn mark_sealed(&self, keys: &DataKeys) -> Result<(), StoreError> {
        const SEALED: &str = "UPDATE data_keys SET state = $3, wrapped = $4 WHERE tenant_id = $1 AND generation = $2";
        const DESTROY: &str = "UPDATE data_keys SET wrapped = NULL, destroyed_at = $3
            WHERE tenant_id = $1 AND generation < $2 AND wrapped IS NOT NULL";
        let (tenant, state) = (keys.tenant, SealingState::Sealed);
        let (generation, key) = keys.newest_key()?;
        let wrapped = wrap(&self.inner.root_key, tenant, generation, state, key, &keys.hashing)?;
        let mut transaction = self.control_for(tenant).begin().await?;
        transaction.execute(SEALED, values![tenant, generation, state.as_str(), wrapped.as_slice()]).await?;
        transaction.execute(DESTROY, values![tenant, generation, self.now()]).await?;
        transaction.commit(Unrecorded::Keys.permit()).await?;
        self.inner.data_keys.forget(tenant);
        Ok(())
    }

    /// Sees that what was overwritten among the keys does not stay behind in the database's files. Only helps: where it
    /// cannot be done now, the database does it in its own time.
    pub(crate) async fn scour_keys(&self) {
        if let Err(error) = self.control().checkpoint().await {
            tracing::debug!(error = &error as &dyn std::error::Error, "the database's log was not emptied");
        }
        if let Some(side) = &self.inner.server
            && let Err(error) = side.server.rewrite_tables(&[DATA_KEYS_TABLE]).await
        {
            tracing::debug!(error = &error as &dyn std::error::Error, "the table of data keys was not rewritten");
        }
    }
}

/// Where PostgreSQL keeps the rows of keys.
const DATA_KEYS_TABLE: &str = "atelier.data_keys";

/// A generation to be made.
pub(crate) struct NewGeneration {
    tenant: TenantId,
    generation: u32,
    state: SealingState,
    hashing: SecretKey,
}

impl NewGeneration {
    /// A tenant's first one.
    pub(crate) fn first(tenant: TenantId, state: SealingState) -> Result<Self, StoreError> {
        Ok(Self { tenant, generation: FIRST_GENERATION, state, hashing: SecretKey::generate()? })
    }
}

/// Makes a data key and stores it wrapped.
pub(crate) async fn insert(
    transaction: &mut Transaction,
    root_key: &RootKey,
    made: NewGeneration,
    now: Timestamp,
) -> Result<(), StoreError> {
    const SQL: &str = "INSERT INTO data_keys (tenant_id, generation, state, wrapped, created_at)
        VALUES ($1, $2, $3, $4, $5)";
    let NewGeneration { tenant, generation, state, hashing } = made;
    let wrapped = wrap(root_key, tenant, generation, state, &SecretKey::generate()?, &hashing)?;
    transaction.execute(SQL, values![tenant, generation, state.as_str(), wrapped.as_slice(), now]).await.map(|_| ())
}

/// Wraps every key with another root key.
pub(crate) async fn rewrap_all(transaction: &mut Transaction, from: &RootKey, to: &RootKey) -> Result<(), StoreError> {
    const ALL: &str = "SELECT tenant_id, generation, state, wrapped FROM data_keys WHERE wrapped IS NOT NULL";
    const SET: &str = "UPDATE data_keys SET wrapped = $3 WHERE tenant_id = $1 AND generation = $2";
    for row in transaction.fetch_all(ALL, values![]).await? {
        let tenant = row.parsed("tenant_id")?;
        let (generation, state, key, hashing) = unwrap(from, tenant, &row)?;
        let wrapped = wrap(to, tenant, generation, state, &key, &hashing)?;
        transaction.execute(SET, values![tenant, generation, wrapped.as_slice()]).await?;
    }
    Ok(())
}

fn wrap_bound(generation: u32, state: SealingState) -> Bound {
    Bound::new("data key", &[&generation, &state])
}

fn wrap(
    root_key: &RootKey,
    tenant: TenantId,
    generation: u32,
    state: SealingState,
    key: &SecretKey,
    hashing: &SecretKey,
) -> Result<Vec<u8>, StoreError> {
    let both = Zeroizing::new([key.expose().as_slice(), hashing.expose().as_slice()].concat());
    Ok(seal::seal(&root_key.wrapping(), WRAP_GENERATION, tenant, &wrap_bound(generation, state), &both)?)
}

fn unwrap_all(root_key: &RootKey, tenant: TenantId, rows: &[Row]) -> Result<DataKeys, StoreError> {
    let mut newest = None;
    let mut by_generation = BTreeMap::new();
    for row in rows {
        let (generation, state, key, hashing) = unwrap(root_key, tenant, row)?;
        by_generation.insert(generation, key);
        newest = Some((state, hashing));
    }
    let (state, hashing) = newest.ok_or(NOT_FOUND)?;
    Ok(DataKeys { tenant, by_generation, hashing, state })
}

fn unwrap(
    root_key: &RootKey,
    tenant: TenantId,
    row: &Row,
) -> Result<(u32, SealingState, SecretKey, SecretKey), StoreError> {
    let generation = u32::try_from(row.count("generation")?)
        .map_err(|_| StoreError::corrupt("a generation of data keys is beyond any"))?;
    let state = row.parsed("state")?;
    let bound = wrap_bound(generation, state);
    let mut wrapped = Zeroizing::new(row.blob("wrapped")?);
    let both = seal::open(&root_key.wrapping(), tenant, &bound, &mut wrapped);
    let Some((key, hashing)) = both
        .filter(|both| both.len() == WRAPPED_KEYS_BYTES)
        .and_then(|both| Some((both[..KEY_BYTES].try_into().ok()?, both[KEY_BYTES..].try_into().ok()?)))
    else {
        return Err(StoreError::DoesNotOpen { what: format!("{bound} of {tenant}") });
    };
    Ok((generation, state, SecretKey::new(key), SecretKey::new(hashing)))
}
