//! What a process remembers of keys, so that a request costs no read, and how it learns that they changed.
//!
//! A change in this process empties the memory at once. One of another process raises the counter in the database,
//! which is read again before a key is believed, at most every [`KEY_CHANGES_INTERVAL`]; when it cannot be read, no key
//! is believed.

use std::collections::HashMap;
use std::time::Instant;

use atelier_access::{KeyRecord, PublicId};
use atelier_domain::limits::{KEY_CACHE_RECORDS_MAX, KEY_CHANGES_INTERVAL, KEY_LAST_USED_INTERVAL};
use atelier_domain::{KeyId, Timestamp};
use parking_lot::Mutex;

use crate::error::StoreError;
use crate::open::Store;
use crate::sql::{Transaction, values};

/// Records of keys in use.
#[derive(Debug, Default)]
pub(crate) struct KeyCache {
    keys: Mutex<CachedKeys>,
    /// When the counter of changes was last read, and what it said.
    seen: tokio::sync::Mutex<Option<Seen>>,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    at: Instant,
    epoch: u64,
}

#[derive(Debug, Default)]
struct CachedKeys {
    /// Counts the times that keys were forgotten: a record read before must not be remembered after.
    generation: u64,
    by_public_id: HashMap<PublicId, CachedKey>,
    public_ids: HashMap<KeyId, PublicId>,
}

#[derive(Debug)]
struct CachedKey {
    record: KeyRecord,
    last_used_at: Option<Timestamp>,
}

impl Store {
    /// Forgets what is remembered of keys if they changed anywhere, unless it was looked just now.
    pub(crate) async fn notice_key_changes(&self) -> Result<(), StoreError> {
        const SQL: &str = "SELECT epoch FROM key_changes WHERE one = 1";
        // Whoever comes while another looks waits for what that one sees.
        let mut seen = self.inner.keys.seen.lock().await;
        if seen.is_some_and(|seen| seen.at.elapsed() < KEY_CHANGES_INTERVAL) {
            return Ok(());
        }
        let at = Instant::now();
        let row = self.control().fetch_optional(SQL, values![]).await?;
        let epoch = row.ok_or_else(|| StoreError::corrupt("the counter of key changes is missing"))?.count("epoch")?;
        if seen.is_some_and(|seen| seen.epoch != epoch) {
            self.inner.keys.forget_all();
            // A tenant that another process deleted is among such changes.
            self.inner.data_keys.forget_all();
        }
        *seen = Some(Seen { at, epoch });
        Ok(())
    }
}

/// Tells every process that a key may do less than before, inside the transaction that makes it so.
pub(crate) async fn announce(transaction: &mut Transaction) -> Result<(), StoreError> {
    transaction.execute("UPDATE key_changes SET epoch = epoch + 1 WHERE one = 1", values![]).await.map(|_| ())
}

impl KeyCache {
    pub(crate) fn generation(&self) -> u64 {
        self.keys.lock().generation
    }

    pub(crate) fn get(&self, public_id: &PublicId) -> Option<KeyRecord> {
        self.keys.lock().by_public_id.get(public_id).map(|cached| cached.record.clone())
    }

    pub(crate) fn get_by_id(&self, id: KeyId) -> Option<KeyRecord> {
        let keys = self.keys.lock();
        keys.by_public_id.get(keys.public_ids.get(&id)?).map(|cached| cached.record.clone())
    }

    pub(crate) fn remember(&self, generation: u64, record: KeyRecord, last_used_at: Option<Timestamp>) {
        let mut keys = self.keys.lock();
        if keys.generation != generation {
            return;
        }
        if keys.by_public_id.len() >= KEY_CACHE_RECORDS_MAX {
            keys.by_public_id.clear();
            keys.public_ids.clear();
        }
        keys.public_ids.insert(record.id, record.public_id.clone());
        keys.by_public_id.insert(record.public_id.clone(), CachedKey { record, last_used_at });
    }

    /// When the key was last used, as far as is known here.
    pub(crate) fn last_used(&self, public_id: &PublicId) -> Option<Timestamp> {
        self.keys.lock().by_public_id.get(public_id)?.last_used_at
    }

    /// Whether `last used` on disk is older than it may be; if so it counts as written from now on.
    pub(crate) fn is_touch_due(&self, public_id: &PublicId, now: Timestamp) -> bool {
        let mut keys = self.keys.lock();
        let Some(cached) = keys.by_public_id.get_mut(public_id) else { return false };
        let due = cached.last_used_at.is_none_or(|last| now.since(last) >= KEY_LAST_USED_INTERVAL);
        if due {
            cached.last_used_at = Some(now);
        }
        due
    }

    pub(crate) fn forget_all(&self) {
        let mut keys = self.keys.lock();
        keys.generation += 1;
        keys.by_public_id.clear();
        keys.public_ids.clear();
    }
}
