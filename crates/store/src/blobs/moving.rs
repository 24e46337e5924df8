//! Moving blobs: a tenant's to a bucket of its own and back, and all of them from the data folder to a bucket.
//!
//! Blobs are copied while the tenant works, once more what came meanwhile while it waits, and only then its row says the
//! new bucket. At each moment one of two buckets is the tenant's and the other is named as left over, to be emptied by
//! this move, the next or the next start.

use std::collections::HashMap;
use std::path::Path;

use atelier_access::Granted;
use atelier_access::right::ManageTenant;
use atelier_domain::{BucketName, TenantId};
use bytes::Bytes;
use object_store::path::Path as Location;
use serde_json::json;

use super::places::{BlobPlace, location};
use crate::audit::Unrecorded;
use crate::audit::events::MOVE_BLOBS;
use crate::error::StoreError;
use crate::open::Store;
use crate::places::unless_away;
use crate::sql::{Transaction, values};
use crate::tenants::TenantRecord;

/// What says, where blobs lie, whose they are.
const MARK: &str = "atelier-home";
const NOT_FOUND: StoreError = StoreError::NotFound { what: "tenant" };

impl Store {
    /// Moves the tenant's blobs to a bucket of its own, which must exist, or to the bucket that tenants share. Its clients
    /// notice a pause, no more.
    ///
    /// # Errors
    /// [`StoreError::BucketsUnsupported`] when blobs are in a folder; [`StoreError::BucketTaken`];
    /// [`StoreError::BucketUnusable`]; [`StoreError::OthersAtWork`]; [`StoreError::BlobsUnreachable`]. The blobs are
    /// where they were then.
    pub async fn move_blobs(
        &self,
        grant: &Granted<ManageTenant>,
        to: Option<BucketName>,
    ) -> Result<TenantRecord, StoreError> {
        let (store, grant) = (self.clone(), grant.clone());
        // In a task of its own: whoever asked may go away, a move that has begun ends one way or the other.
        let moved = tokio::spawn(async move { store.move_blobs_alone(&grant, to).await }).await;
        moved.map_err(|_| StoreError::ShuttingDown)?
    }

    async fn move_blobs_alone(
        &self,
        grant: &Granted<ManageTenant>,
        to: Option<BucketName>,
    ) -> Result<TenantRecord, StoreError> {
        let _turn = self.without_moves().await;
        // Not before it is this one's turn: a move that was asked for twice would empty the bucket that the first filled.
        let before = self.read_tenant(grant.tenant()).await?;
        if before.bucket == to {
            return Ok(before);
        }
        if let Some(bucket) = &to {
            self.check_bucket(bucket).await?;
        }
        let Some(side) = self.inner.server.as_ref() else {
            return self.move_to_bucket(&before, grant, to).await;
        };
        // Another server would go on writing to the old place.
        if !side.hold.take_alone().await? {
            return Err(StoreError::OthersAtWork);
        }
        let moved = self.move_to_bucket(&before, grant, to).await;
        side.hold.share().await?;
        moved
    }

    /// Whether a tenant could have this bucket: nobody else has it, and it does what is asked of it.
    pub(crate) async fn check_bucket(&self, bucket: &BucketName) -> Result<(), StoreError> {
        let places = &self.inner.blobs.places;
        if !places.has_buckets() {
            return Err(StoreError::BucketsUnsupported);
        }
        let mut transaction = self.control().begin().await?;
        self.bucket_is_free(&mut transaction, bucket).await?;
        drop(transaction);
        match places.of_bucket(Some(bucket))?.try_out().await {
            Err(StoreError::BlobsUnreachable { source }) => {
                Err(StoreError::BucketUnusable { bucket: bucket.clone(), source })
            }
            tried => tried,
        }
    }

    /// Whether nobody has the bucket, as long as the transaction lasts.
    pub(crate) async fn bucket_is_free(
        &self,
        transaction: &mut Transaction,
        bucket: &BucketName,
    ) -> Result<(), StoreError> {
        const TAKEN: &str = "SELECT id FROM tenants WHERE erased_at IS NULL AND (bucket = $1 OR bucket_leftover = $1)";
        let is_shared = self.inner.blobs.places.shared_bucket() == Some(bucket);
        if is_shared || transaction.fetch_optional(TAKEN, values![bucket]).await?.is_some() {
            return Err(StoreError::BucketTaken);
        }
        Ok(())
    }

    /// Waits until nothing is being moved, rows or blobs, and keeps it so.
    pub(crate) async fn without_moves(&self) -> tokio::sync::MutexGuard<'_, ()> {
        match &self.inner.server {
            Some(side) => side.moving.lock().await,
            None => self.inner.blobs.moving.lock().await,
        }
    }

    async fn move_to_bucket(
        &self,
        before: &TenantRecord,
        grant: &Granted<ManageTenant>,
        to: Option<BucketName>,
    ) -> Result<TenantRecord, StoreError> {
        let tenant = before.id;
        self.remove_left_blobs(tenant).await?;
        self.set_left_bucket(tenant, Some(to.as_ref())).await?;
        let moved = self.copy_and_point(before, grant, to.as_ref()).await;
        // Whichever bucket is not the tenant's now.
        if let Err(error) = self.remove_left_blobs(tenant).await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "blobs are left over; the next start removes them"
            );
        }
        moved?;
        tracing::info!(%tenant, "moved a tenant's blobs");
        Ok(TenantRecord { bucket: to, ..before.clone() })
    }

    async fn copy_and_point(
        &self,
        before: &TenantRecord,
        grant: &Granted<ManageTenant>,
        to: Option<&BucketName>,
    ) -> Result<(), StoreError> {
        let (tenant, places) = (before.id, &self.inner.blobs.places);
        let (source, target) = (places.of_bucket(before.bucket.as_ref())?, places.of_bucket(to)?);
        target.clear(tenant).await?;
        copy(&source, &target, tenant).await?;
        let mut pause = places.pause(tenant).await;
        // Where the answer to a commit is lost, it is looked up anew.
        *pause = None;
        copy(&source, &target, tenant).await?;
        self.point_to_bucket(before, grant, to).await?;
        *pause = Some(target);
        Ok(())
    }

    async fn point_to_bucket(
        &self,
        before: &TenantRecord,
        grant: &Granted<ManageTenant>,
        to: Option<&BucketName>,
    ) -> Result<(), StoreError> {
        const SQL: &str = "UPDATE tenants SET bucket = $2, bucket_leftover = $3
            WHERE id = $1 AND COALESCE(bucket, '') = $3 AND deleted_at IS NULL";
        let (tenant, from) = (before.id, before.bucket.as_ref());
        let mut transaction = self.control_for(tenant).begin().await?;
        if transaction.execute(SQL, values![tenant, to, as_leftover(from)]).await? == 0 {
            return Err(NOT_FOUND);
        }
        let event = MOVE_BLOBS.of(tenant, json!({"from": from, "to": to}));
        let recorded = self.record_administration(&mut transaction, grant, event).await?;
        self.commit(transaction, recorded).await
    }

    /// Empties what moves left over that a crash cut short.
    pub(crate) async fn finish_blob_moves(&self) -> Result<(), StoreError> {
        const SQL: &str = "SELECT id FROM tenants WHERE bucket_leftover IS NOT NULL AND deleted_at IS NULL";
        for row in self.control().fetch_all(SQL, values![]).await? {
            let tenant = row.parsed("id")?;
            unless_away(tenant, self.remove_left_blobs(tenant).await)?;
        }
        Ok(())
    }

    async fn remove_left_blobs(&self, tenant: TenantId) -> Result<(), StoreError> {
        // The bucket where the tenant's blobs are is never left over, whatever stands there.
        const SQL: &str = "SELECT bucket_leftover FROM tenants
            WHERE id = $1 AND bucket_leftover IS NOT NULL AND bucket_leftover <> COALESCE(bucket, '')";
        let Some(row) = self.control_for(tenant).fetch_optional(SQL, values![tenant]).await? else { return Ok(()) };
        let bucket: Option<BucketName> = match row.text("bucket_leftover")?.as_str() {
            "" => None,
            name => Some(name.parse().map_err(|_| StoreError::corrupt("the name of a bucket"))?),
        };
        let places = &self.inner.blobs.places;
        places.clear(&places.of_bucket(bucket.as_ref())?, tenant).await?;
        self.set_left_bucket(tenant, None).await
    }

    async fn set_left_bucket(&self, tenant: TenantId, left: Option<Option<&BucketName>>) -> Result<(), StoreError> {
        const SQL: &str =
            "UPDATE tenants SET bucket_leftover = $2 WHERE id = $1 AND COALESCE(COALESCE(bucket, '') <> $2, TRUE)";
        // Of all tenants: since it was looked, somebody may have been made with that bucket.
        let mut transaction = self.control().begin().await?;
        if let Some(Some(bucket)) = left {
            self.bucket_is_free(&mut transaction, bucket).await?;
        }
        if transaction.execute(SQL, values![tenant, left.map(as_leftover)]).await? == 0 {
            return Err(NOT_FOUND);
        }
        transaction.commit(Unrecorded::Place.permit()).await
    }

    /// Sees that blobs are where this installation has them, before anybody asks for one. The first start with a bucket
    /// marks it, and brings there what lies in the folder; so does a later one, with what was put there since.
    ///
    /// # Errors
    /// [`StoreError::BlobsElsewhere`]; [`StoreError::OthersAtWork`] when blobs are to be brought and another server may
    /// be putting more into a folder; [`StoreError::BlobsUnreachable`].
    pub(crate) async fn settle_blobs(&self, folder: &Path, is_alone: bool) -> Result<(), StoreError> {
        const READ: &str = "SELECT set_at FROM blob_home WHERE one = 1";
        let places = &self.inner.blobs.places;
        let is_set = self.control().fetch_optional(READ, values![]).await?.is_some();
        if !places.has_buckets() {
            return if is_set { Err(self.blobs_elsewhere()) } else { Ok(()) };
        }
        places.home().try_out().await?;
        match self.marked().await? {
            Some(true) => {}
            Some(false) => return Err(StoreError::BlobsOfOthers { place: places.home().to_string() }),
            None if is_set => return Err(self.blobs_elsewhere()),
            None => places.home().put(&Location::from(MARK), self.mark()).await?,
        }
        if !is_set && !is_alone {
            return Err(StoreError::OthersAtWork);
        }
        let litter = BlobPlace::in_folder(folder)?;
        for tenant in self.living_tenant_ids().await? {
            self.bring(&litter, tenant).await?;
        }
        if !is_set {
            self.set_home().await?;
        }
        empty(folder)
    }

    /// Copies what lies of a tenant in the folder and not yet where its blobs belong.
    async fn bring(&self, folder: &BlobPlace, tenant: TenantId) -> Result<(), StoreError> {
        let found = folder.list(tenant).await?;
        if found.is_empty() {
            return Ok(());
        }
        let place = self.inner.blobs.places.enter(tenant).await?;
        let there: HashMap<String, u64> = place.list(tenant).await?.into_iter().collect();
        for (name, bytes) in &found {
            if there.get(name) != Some(bytes) {
                let at = location(tenant, name);
                place.put(&at, folder.get(&at, "blob").await?).await?;
            }
        }
        tracing::info!(%tenant, blobs = found.len(), "blobs of the data folder are in the bucket now");
        Ok(())
    }

    /// What marks the place of this installation's blobs: the same wherever its secrets are.
    fn mark(&self) -> Bytes {
        let mark = self.inner.pepper.subkey("blobs of an installation");
        Bytes::from(mark.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
    }

    /// Whether the mark where blobs are is ours; none when there is none.
    async fn marked(&self) -> Result<Option<bool>, StoreError> {
        match self.inner.blobs.places.home().get(&Location::from(MARK), "mark").await {
            Ok(found) => Ok(Some(found == self.mark())),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn set_home(&self) -> Result<(), StoreError> {
        const INSERT: &str = "INSERT INTO blob_home (one, set_at) VALUES (1, $1) ON CONFLICT DO NOTHING";
        let mut transaction = self.control().begin().await?;
        transaction.execute(INSERT, values![self.now()]).await?;
        transaction.commit(Unrecorded::Place.permit()).await
    }

    fn blobs_elsewhere(&self) -> StoreError {
        StoreError::BlobsElsewhere { place: self.inner.blobs.places.home().to_string() }
    }
}

/// As the column has it: a name, or nothing at all for the bucket that tenants share.
fn as_leftover(bucket: Option<&BucketName>) -> &str {
    bucket.map_or("", BucketName::as_str)
}

/// Makes the target hold what the source holds. Blobs are named by their content, so one of the same name and length is
/// the same.
async fn copy(source: &BlobPlace, target: &BlobPlace, tenant: TenantId) -> Result<(), StoreError> {
    let mut there: HashMap<String, u64> = target.list(tenant).await?.into_iter().collect();
    for (name, bytes) in source.list(tenant).await? {
        if there.remove(&name) == Some(bytes) {
            continue;
        }
        let at = location(tenant, &name);
        match source.get(&at, "blob").await {
            Ok(blob) => target.put(&at, blob).await?,
            // Removed since it was listed.
            Err(StoreError::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    for name in there.keys() {
        target.delete(&location(tenant, name)).await?;
    }
    Ok(())
}

/// Removes all that is in a folder.
fn empty(folder: &Path) -> Result<(), StoreError> {
    let failed = |error| StoreError::io(format!("empty {}", folder.display()), error);
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let removed = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
        removed.map_err(failed)?;
    }
    Ok(())
}
