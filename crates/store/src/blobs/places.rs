//! Where tenants' blobs are: in a folder, in a bucket that they share with a prefix for each, or in one of a tenant's
//! own.
//!
//! Who works with a tenant's blobs is in its place as long as that takes; a move waits until nobody is, and lets nobody
//! in before the tenant's row says where they are from then on.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use atelier_domain::limits::{
    BLOB_CHECK_INTERVAL, BLOB_CHECK_TIMEOUT, BLOB_PART_BYTES, BLOB_PARTS_AT_ONCE, BLOB_REMOVALS_AT_ONCE,
    TENANT_PLACES_MAX,
};
use atelier_domain::{BucketName, TenantId};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::local::LocalFileSystem;
use object_store::path::Path as Location;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};
use tokio::time::Instant;

use super::s3::{self, S3, S3Options};
use crate::error::StoreError;
use crate::open::random_bytes;
use crate::sql::{Database, Scope, values};

/// Where the store tries whether it can write, read and list: no tenant's prefix is called so.
const CHECK_PREFIX: &str = "atelier-check";
/// Times that a prefix is emptied before it is said that somebody goes on writing there.
const CLEAR_PASSES: usize = 3;

/// Where blobs are.
#[derive(Debug, Clone, Default)]
pub enum BlobOptions {
    /// In the data folder.
    #[default]
    Folder,
    /// On an S3-compatible store.
    S3(S3Options),
}

/// All places.
#[derive(Debug)]
pub(crate) struct BlobPlaces {
    home: BlobPlace,
    s3: Option<S3>,
    control: Database,
    known: Mutex<HashMap<TenantId, Slot>>,
    checked: AsyncMutex<Option<(Instant, Result<(), StoreError>)>>,
}

/// A tenant's place, where it is known; to be locked by whoever is in it.
type Slot = Arc<RwLock<Option<BlobPlace>>>;

/// A tenant's place, and the promise that its blobs stay there meanwhile.
pub(crate) type Inside = OwnedRwLockReadGuard<Option<BlobPlace>, BlobPlace>;

impl BlobPlaces {
    pub(crate) fn open(folder: &Path, options: &BlobOptions, control: Database) -> Result<Self, StoreError> {
        let s3 = match options {
            BlobOptions::Folder => None,
            BlobOptions::S3(options) => Some(S3::new(options.clone())?),
        };
        let home = match &s3 {
            None => BlobPlace::in_folder(folder)?,
            Some(s3) => BlobPlace { objects: s3.home()?, is_remote: true, called: s3.address().to_string() },
        };
        Ok(Self { home, s3, control, known: Mutex::default(), checked: AsyncMutex::default() })
    }

    /// What tenants share that have no place of their own.
    pub(crate) fn home(&self) -> &BlobPlace {
        &self.home
    }

    /// Whether the place is what tenants share.
    pub(crate) fn is_home(&self, place: &BlobPlace) -> bool {
        Arc::ptr_eq(&self.home.objects, &place.objects)
    }

    /// Whether tenants may have buckets of their own.
    pub(crate) fn has_buckets(&self) -> bool {
        self.s3.is_some()
    }

    /// The shared bucket, where there is one.
    pub(crate) fn shared_bucket(&self) -> Option<&BucketName> {
        self.s3.as_ref().map(|s3| s3.address().bucket())
    }

    /// A bucket of a tenant's own, or what tenants share.
    pub(crate) fn of_bucket(&self, bucket: Option<&BucketName>) -> Result<BlobPlace, StoreError> {
        match (bucket, &self.s3) {
            (None, _) => Ok(self.home.clone()),
            (Some(bucket), Some(s3)) => {
                Ok(BlobPlace { objects: s3.bucket(bucket)?, is_remote: true, called: format!("s3://{bucket}") })
            }
            (Some(_), None) => Err(StoreError::BucketsUnsupported),
        }
    }

    /// Goes into the tenant's place. Not inside a transaction: where it is, is asked of the control database.
    pub(crate) async fn enter(&self, tenant: TenantId) -> Result<Inside, StoreError> {
        let slot = self.slot(tenant);
        loop {
            let held = Arc::clone(&slot).read_owned().await;
            match OwnedRwLockReadGuard::try_map(held, Option::as_ref) {
                Ok(inside) => return Ok(inside),
                Err(held) => drop(held),
            }
            let place = self.look_up(tenant).await?;
            // A move may have been faster.
            slot.write().await.get_or_insert(place);
        }
    }

    /// Waits until nobody is in the tenant's place, and lets nobody in meanwhile. What is put there is where they are
    /// from then on; with nothing there, it is looked up anew.
    pub(crate) async fn pause(&self, tenant: TenantId) -> OwnedRwLockWriteGuard<Option<BlobPlace>> {
        self.slot(tenant).write_owned().await
    }

    /// Every place where something of a tenant may be that is no more.
    pub(crate) async fn of_erased(
        &self,
        tenant: TenantId,
        logged: Option<&BucketName>,
    ) -> Result<Vec<BlobPlace>, StoreError> {
        const SQL: &str = "SELECT bucket, bucket_leftover FROM tenants WHERE id = $1";
        let mut buckets: Vec<BucketName> = logged.cloned().into_iter().collect();
        if let Some(row) = self.control.in_scope(Scope::Tenant(tenant)).fetch_optional(SQL, values![tenant]).await? {
            buckets.extend(row.optional_parsed("bucket")?);
            let leftover = row.optional_text("bucket_leftover")?.filter(|leftover| !leftover.is_empty());
            buckets.extend(leftover.and_then(|leftover| leftover.parse().ok()));
        }
        buckets.sort_by(|one, other| one.as_str().cmp(other.as_str()));
        buckets.dedup();
        let own = buckets.iter().map(|bucket| self.of_bucket(Some(bucket)));
        std::iter::once(Ok(self.home.clone())).chain(own).collect()
    }

    /// Removes everything of a tenant from a place. Whoever removed a bucket of a tenant's own removed what was in it.
    pub(crate) async fn clear(&self, place: &BlobPlace, tenant: TenantId) -> Result<(), StoreError> {
        match place.clear(tenant).await {
            Err(error) if s3::is_no_bucket(&error) && !self.is_home(place) => Ok(()),
            cleared => cleared,
        }
    }

    /// Whether the blob store answers, as it was found at most some seconds ago.
    pub(crate) async fn check(&self) -> Result<(), StoreError> {
        let mut checked = self.checked.lock().await;
        if let Some((at, found)) = &*checked
            && at.elapsed() < BLOB_CHECK_INTERVAL
        {
            return found.clone();
        }
        let found = match tokio::time::timeout(BLOB_CHECK_TIMEOUT, self.home.answers()).await {
            Ok(found) => found,
            Err(_) => Err(s3::failure("it does not answer in time")),
        };
        *checked = Some((Instant::now(), found.clone()));
        found
    }

    fn slot(&self, tenant: TenantId) -> Slot {
        let mut known = self.known.lock();
        if known.len() >= TENANT_PLACES_MAX && !known.contains_key(&tenant) {
            known.retain(|_, slot| Arc::strong_count(slot) > 1);
        }
        Arc::clone(known.entry(tenant).or_default())
    }

    async fn look_up(&self, tenant: TenantId) -> Result<BlobPlace, StoreError> {
        const SQL: &str = "SELECT bucket FROM tenants WHERE id = $1 AND deleted_at IS NULL";
        let row = self.control.in_scope(Scope::Tenant(tenant)).fetch_optional(SQL, values![tenant]).await?;
        let bucket: Option<BucketName> =
            row.ok_or(StoreError::NotFound { what: "tenant" })?.optional_parsed("bucket")?;
        self.of_bucket(bucket.as_ref())
    }
}

/// A place for blobs, of which each tenant has a prefix.
#[derive(Clone)]
pub(crate) struct BlobPlace {
    objects: Arc<dyn ObjectStore>,
    /// Whether it is on a store that a line leads to.
    is_remote: bool,
    called: String,
}

impl fmt::Debug for BlobPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.called)
    }
}

impl fmt::Display for BlobPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.called)
    }
}

impl BlobPlace {
    /// A folder, where each blob is on disk before its put returns.
    pub(crate) fn in_folder(folder: &Path) -> Result<Self, StoreError> {
        let objects = LocalFileSystem::new_with_prefix(folder).map_err(StoreError::blob)?;
        let objects = Arc::new(objects.with_fsync(true).with_automatic_cleanup(true));
        Ok(Self { objects, is_remote: false, called: folder.display().to_string() })
    }

    /// Puts a blob there whole, in place of one of the same name.
    pub(crate) async fn put(&self, at: &Location, content: Bytes) -> Result<(), StoreError> {
        if self.is_remote && content.len() > BLOB_PART_BYTES {
            return self.put_in_parts(at, content).await;
        }
        let done = self.objects.put(at, PutPayload::from_bytes(content)).await;
        done.map(|_| ()).map_err(|error| self.failed(error))
    }

    /// Nothing is there under the name before the last part is.
    async fn put_in_parts(&self, at: &Location, content: Bytes) -> Result<(), StoreError> {
        let mut upload = self.objects.put_multipart(at).await.map_err(|error| self.failed(error))?;
        let cuts = (0..content.len()).step_by(BLOB_PART_BYTES);
        let parts: Vec<_> = cuts
            .map(|from| content.slice(from..content.len().min(from + BLOB_PART_BYTES)))
            .map(|part| upload.put_part(PutPayload::from_bytes(part)))
            .collect();
        let sent = stream::iter(parts).buffer_unordered(BLOB_PARTS_AT_ONCE).try_collect::<()>().await;
        let done = match sent {
            Ok(()) => upload.complete().await.map(|_| ()),
            Err(error) => Err(error),
        };
        if let Err(error) = done {
            // Parts that stay all the same are sealed like the whole; a rule of the bucket's removes them in time.
            if let Err(error) = upload.abort().await {
                tracing::debug!(error = %s3::refused(&error), "parts of a blob may be left over");
            }
            return Err(self.failed(error));
        }
        Ok(())
    }

    /// The bytes as they lie there.
    pub(crate) async fn get(&self, at: &Location, what: &'static str) -> Result<Bytes, StoreError> {
        match self.objects.get(at).await {
            Err(error) if s3::is_missing(&error) => Err(StoreError::NotFound { what }),
            Err(error) => Err(self.failed(error)),
            Ok(found) => found.bytes().await.map_err(|error| self.failed(error)),
        }
    }

    /// Removes a blob, if it is there.
    pub(crate) async fn delete(&self, at: &Location) -> Result<(), StoreError> {
        match self.objects.delete(at).await {
            Err(error) if !s3::is_missing(&error) => Err(self.failed(error)),
            _ => Ok(()),
        }
    }

    /// Everything of a tenant: names below its prefix, and bytes.
    pub(crate) async fn list(&self, tenant: TenantId) -> Result<Vec<(String, u64)>, StoreError> {
        let prefix = prefix_of(tenant);
        let objects: Vec<_> =
            self.objects.list(Some(&prefix)).try_collect().await.map_err(|error| self.failed(error))?;
        let below = format!("{prefix}/");
        let named = objects.iter().filter_map(|object| {
            object.location.as_ref().strip_prefix(&below).map(|name| (name.to_owned(), object.size))
        });
        Ok(named.collect())
    }

    /// Removes everything of a tenant.
    pub(crate) async fn clear(&self, tenant: TenantId) -> Result<(), StoreError> {
        for _ in 0..CLEAR_PASSES {
            let found = self.list(tenant).await?;
            if found.is_empty() {
                return Ok(());
            }
            stream::iter(found)
                .map(|(name, _)| async move { self.delete(&location(tenant, &name)).await })
                .buffer_unordered(BLOB_REMOVALS_AT_ONCE)
                .try_collect::<()>()
                .await?;
        }
        match self.list(tenant).await?.len() {
            0 => Ok(()),
            left => Err(s3::failure(format!("{left} blobs are there again after they were removed"))),
        }
    }

    /// Whether it answers at all.
    pub(crate) async fn answers(&self) -> Result<(), StoreError> {
        let mut listed = self.objects.list(Some(&Location::from(CHECK_PREFIX)));
        listed.try_next().await.map(|_| ()).map_err(|error| self.failed(error))
    }

    /// Whether blobs can be put, listed, read and removed there.
    pub(crate) async fn try_out(&self) -> Result<(), StoreError> {
        // Some stores make a bucket of a put.
        self.answers().await?;
        let content: [u8; 16] = random_bytes()?;
        let name: [u8; 16] = random_bytes()?;
        let name = name.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let at = Location::from(format!("{CHECK_PREFIX}/{name}"));
        self.put(&at, Bytes::copy_from_slice(&content)).await?;
        let read = self.get(&at, "blob").await;
        let listed: Vec<_> = self
            .objects
            .list(Some(&Location::from(CHECK_PREFIX)))
            .map_ok(|object| object.location)
            .try_collect()
            .await
            .map_err(|error| self.failed(error))?;
        self.delete(&at).await?;
        if read.is_ok_and(|read| read[..] == content) && listed.contains(&at) {
            return Ok(());
        }
        Err(s3::failure("what was put there cannot be read or listed"))
    }

    fn failed(&self, error: object_store::Error) -> StoreError {
        if self.is_remote { s3::refused(&error) } else { StoreError::blob(error) }
    }
}

fn prefix_of(tenant: TenantId) -> Location {
    Location::from(tenant.hex())
}

/// Where a blob of a tenant is.
pub(crate) fn location(tenant: TenantId, name: &str) -> Location {
    Location::from(format!("{}/{name}", tenant.hex()))
}
