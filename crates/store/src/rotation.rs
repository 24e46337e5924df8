//! Changing keys, with no server at work: another root key, which wraps every data key anew and touches no data; and,
//! where that is asked for, other data keys, with which all data is sealed anew.
//!
//! Data is sealed anew rather than only from then on: whoever changes a data key fears that somebody has it, and an old
//! key that must still open most of the data cannot be destroyed.

use std::path::PathBuf;

use atelier_domain::TenantId;
use serde_json::json;

use crate::audit::events::ROTATE_ROOT_KEY;
use crate::data_keys;
use crate::error::StoreError;
use crate::open::{OpenOptions, Store};
use crate::places::unless_away;
use crate::root_key::{self, RootKey};

/// What is to change.
#[derive(Debug, Clone, Default)]
pub struct KeyRotation {
    /// A file with the new root key, which the next start must be told of. Without it a new key takes the old one's
    /// place in the old one's file.
    pub next: Option<PathBuf>,
    /// Whether tenants get new data keys too.
    pub data_keys: bool,
}

/// Changes keys. Killed at any moment, it leaves data that the next start reads: with the old root key, or with the new
/// one, which it finds by itself when it is in the old one's place or beside it.
///
/// Gives the tenants whose data still needs their old data keys, because their bucket does not answer: those keys stay,
/// wrapped with the new root key, and the next start that finds the bucket seals the data anew and destroys them.
///
/// # Errors
/// What [`Store::open`] says; [`StoreError::OthersAtWork`] when a server runs on the database;
/// [`StoreError::RootKeyMissing`] or [`StoreError::RootKeyMalformed`] of the new key;
/// [`StoreError::NoPlaceForRootKey`] when the old key is in no file and no new one is named.
pub async fn rotate_keys(options: OpenOptions, rotation: &KeyRotation) -> Result<Vec<TenantId>, StoreError> {
    let file = options.root_key.file(&options.folder);
    let given = match &rotation.next {
        Some(next) => Some(root_key::read_file(next)?.ok_or_else(|| missing(next))?),
        None if file.is_none() => return Err(StoreError::NoPlaceForRootKey),
        None => None,
    };
    let store = Store::open(options).await?;
    let rotated = store.rotate(given, file, rotation.data_keys).await;
    store.close().await;
    rotated
}

fn missing(file: &std::path::Path) -> StoreError {
    StoreError::RootKeyMissing { place: file.display().to_string() }
}

impl Store {
    async fn rotate(
        &self,
        given: Option<RootKey>,
        file: Option<PathBuf>,
        with_data_keys: bool,
    ) -> Result<Vec<TenantId>, StoreError> {
        if let Some(side) = &self.inner.server
            && !side.hold.take_alone().await?
        {
            return Err(StoreError::OthersAtWork);
        }
        // The data first: its keys are wrapped with the root key that this store was opened with.
        let mut put_off = Vec::new();
        if with_data_keys {
            for tenant in self.living_tenant_ids().await? {
                self.add_generation(tenant).await?;
                if unless_away(tenant, self.seal_tenant(tenant).await)?.is_none() {
                    put_off.push(tenant);
                }
            }
        }
        match (given, file) {
            (Some(next), _) => self.change_root_key(&next).await?,
            (None, Some(file)) => {
                let next = root_key::begin_replacing(&file)?;
                self.change_root_key(&next).await?;
                root_key::finish_replacing(&file)?;
            }
            (None, None) => return Err(StoreError::NoPlaceForRootKey),
        }
        self.scour_keys().await;
        Ok(put_off)
    }

    /// All data keys and the fingerprint in one transaction: the database is of one root key or of the other.
    async fn change_root_key(&self, next: &RootKey) -> Result<(), StoreError> {
        let mut transaction = self.control().begin().await?;
        data_keys::rewrap_all(&mut transaction, &self.inner.root_key, next).await?;
        root_key::set(&mut transaction, next, self.now()).await?;
        let event = ROTATE_ROOT_KEY.of("root_key", json!({}));
        let recorded = self.record_own(&mut transaction, event).await?;
        self.commit(transaction, recorded).await
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::fs;
    use std::path::Path;
    use std::sync::Arc;

    use atelier_access::Caller;
    use atelier_access::right::CreateTenant;
    use atelier_domain::{ManualClock, Plan, TenantId, Timestamp};

    use super::*;
    use crate::open::DatabaseOptions;
    use crate::root_key::{ROOT_KEY_FILE, RootKeyOptions};

    fn options(folder: &Path) -> OpenOptions {
        OpenOptions {
            folder: folder.to_owned(),
            database: DatabaseOptions::Files,
            blobs: crate::blobs::BlobOptions::Folder,
            root_key: RootKeyOptions::InFolder,
            erasure_log: None,
            clock: Arc::new(ManualClock::at(Timestamp::from_seconds(1_800_000_000))),
        }
    }

    async fn with_tenant(folder: &Path) -> (Store, TenantId) {
        let (store, tenant, _) = with_tenant_and_operator(folder).await;
        (store, tenant)
    }

    pub(crate) async fn with_tenant_and_operator(folder: &Path) -> (Store, TenantId, Caller) {
        let store = Store::open(options(folder)).await.unwrap();
        let key = store.bootstrap_operator_key().await.unwrap().unwrap().reveal();
        let operator: Caller = store.authenticate(&key).await.unwrap();
        let create = operator.grant(CreateTenant).unwrap();
        let (tenant, _) = store.create_tenant(&create, "acme".parse().unwrap(), Plan::Tuned).await.unwrap();
        (store, tenant.id, operator)
    }

    /// Where a change of root keys may be cut short, and what the file and the one beside it hold then.
    #[tokio::test]
    async fn a_change_of_root_keys_that_is_cut_short_anywhere_is_no_loss() {
        for cut_after in ["nothing", "the new file", "the database", "everything"] {
            let folder = tempfile::tempdir().unwrap();
            let (store, tenant) = with_tenant(folder.path()).await;
            let hash = store.data_keys(tenant).await.unwrap().hash("a", "text").unwrap();
            let file = folder.path().join(ROOT_KEY_FILE);
            let before = fs::read(&file).unwrap();
            if cut_after != "nothing" {
                let next = root_key::begin_replacing(&file).unwrap();
                if cut_after != "the new file" {
                    store.change_root_key(&next).await.unwrap();
                }
            }
            if cut_after == "everything" {
                root_key::finish_replacing(&file).unwrap();
            }
            drop(store);
            let store = Store::open(options(folder.path())).await.unwrap();
            assert_eq!(store.data_keys(tenant).await.unwrap().hash("a", "text").unwrap(), hash, "{cut_after}");
            let is_old = matches!(cut_after, "nothing" | "the new file");
            assert_eq!(fs::read(&file).unwrap() == before, is_old, "{cut_after}");
            // And from there once more, as if nothing had been.
            store.close().await;
            drop(store);
            rotate_keys(options(folder.path()), &KeyRotation::default()).await.unwrap();
            let store = Store::open(options(folder.path())).await.unwrap();
            assert_eq!(store.data_keys(tenant).await.unwrap().hash("a", "text").unwrap(), hash, "{cut_after}");
            assert!(!file.with_extension("next").exists() && !folder.path().join("root-key.next").exists());
        }
    }

    #[tokio::test]
    async fn a_change_of_data_keys_that_is_cut_short_goes_on_at_the_next_start() {
        let folder = tempfile::tempdir().unwrap();
        let (store, tenant) = with_tenant(folder.path()).await;
        store.add_generation(tenant).await.unwrap();
        drop(store);
        let store = Store::open(options(folder.path())).await.unwrap();
        let keys = store.data_keys(tenant).await.unwrap();
        assert_eq!((keys.newest(), keys.may_be_plain()), (2, false));
        let sql = "SELECT generation, state FROM data_keys WHERE wrapped IS NOT NULL";
        let rows = store.control().fetch_all(sql, Vec::new()).await.unwrap();
        let left: Vec<_> =
            rows.iter().map(|row| (row.count("generation").unwrap(), row.text("state").unwrap())).collect();
        assert_eq!(left, [(2, "sealed".to_owned())], "the first one is destroyed");
    }

    /// The state is part of what a key is wrapped for: nobody makes the store take plain data for a tenant's own.
    #[tokio::test]
    async fn a_state_that_somebody_set_back_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let (store, tenant) = with_tenant(folder.path()).await;
        let mut transaction = store.control().begin().await.unwrap();
        transaction.execute("UPDATE data_keys SET state = 'sealing'", Vec::new()).await.unwrap();
        transaction.commit(crate::audit::Unrecorded::Test.permit()).await.unwrap();
        store.inner.data_keys.forget_all();
        assert!(matches!(store.data_keys(tenant).await, Err(StoreError::DoesNotOpen { .. })));
        drop(store);
        assert!(matches!(Store::open(options(folder.path())).await, Err(StoreError::DoesNotOpen { .. })));
    }
}
