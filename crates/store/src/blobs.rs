//! Blobs: archives, checkpoints and adapters, under a prefix of their tenant's own, sealed with its key for the place
//! where they lie, and checked against their names.

use std::path::Path;
use std::sync::Arc;

use atelier_access::Granted;
use atelier_access::right::LoadAdapter;
use atelier_domain::limits::{ADAPTER_FILE_BYTES_MAX, SEAL_INLINE_BYTES_MAX};
use atelier_domain::{Digest, JobId, SourceId, TenantId};
use bytes::Bytes;
use futures_util::TryStreamExt;
use object_store::local::LocalFileSystem;
use object_store::path::Path as Location;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};

use crate::data_keys::{self, DataKeys};
use crate::error::StoreError;
use crate::open::Store;
use atelier_seal::Bound;

/// Begins every stored adapter; the last character is the version of the layout.
const ADAPTER_MAGIC: &[u8; 8] = b"ATLADPT1";
/// Separates the hash of a stored adapter from any other use of blake3.
const ADAPTER_CONTEXT: &str = "atelier 2026-11-23 stored adapter v1";
const LENGTH_BYTES: usize = size_of::<u64>();
const SEAL_BYTES: usize = 32;

/// An adapter's files in PEFT layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdapterBlob {
    /// `adapter_config.json`.
    pub config: Bytes,
    /// `adapter_model.safetensors`.
    pub weights: Bytes,
}

impl Store {
    /// The files of the tenant's adapter of this digest.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when the tenant has no such adapter; [`StoreError::DoesNotOpen`] or
    /// [`StoreError::Corrupt`] when the files are not what was put there for this tenant under this digest.
    pub async fn adapter(&self, grant: &Granted<LoadAdapter>, digest: Digest) -> Result<AdapterBlob, StoreError> {
        let keys = match self.data_keys(grant.tenant()).await {
            Err(StoreError::NotFound { .. }) => return Err(StoreError::NotFound { what: "adapter" }),
            keys => keys?,
        };
        self.inner.blobs.get_adapter(&keys, digest).await
    }
}

/// The object store under the databases.
#[derive(Debug)]
pub(crate) struct Blobs {
    objects: Arc<dyn ObjectStore>,
}

/// What became of a blob that was to be sealed with the newest key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resealed {
    /// It was already.
    Was,
    /// It is now.
    Is,
    /// It is nothing that was ever stored under this name, and was left as it is.
    Damaged,
}

impl Blobs {
    /// Blobs in a folder, each on disk before its put returns.
    pub(crate) fn open(folder: &Path) -> Result<Self, StoreError> {
        let objects = LocalFileSystem::new_with_prefix(folder).map_err(StoreError::blob)?;
        Ok(Self { objects: Arc::new(objects.with_fsync(true).with_automatic_cleanup(true)) })
    }

    pub(crate) async fn put_source(
        &self,
        keys: &Arc<DataKeys>,
        source: SourceId,
        archive: Bytes,
    ) -> Result<Digest, StoreError> {
        let digest = Digest::of(&archive);
        self.put(keys, &source_name(source, digest), archive).await?;
        Ok(digest)
    }

    pub(crate) async fn get_source(
        &self,
        keys: &Arc<DataKeys>,
        source: SourceId,
        digest: Digest,
    ) -> Result<Bytes, StoreError> {
        self.get_checked(keys, &source_name(source, digest), digest, "source").await
    }

    pub(crate) async fn delete_source(
        &self,
        tenant: TenantId,
        source: SourceId,
        digest: Digest,
    ) -> Result<(), StoreError> {
        self.delete(&location(tenant, &source_name(source, digest))).await
    }

    pub(crate) async fn put_checkpoint(
        &self,
        keys: &Arc<DataKeys>,
        job: JobId,
        state: Bytes,
    ) -> Result<Digest, StoreError> {
        let digest = Digest::of(&state);
        self.put(keys, &checkpoint_name(job, digest), state).await?;
        Ok(digest)
    }

    pub(crate) async fn get_checkpoint(
        &self,
        keys: &Arc<DataKeys>,
        job: JobId,
        digest: Digest,
    ) -> Result<Bytes, StoreError> {
        self.get_checked(keys, &checkpoint_name(job, digest), digest, "checkpoint").await
    }

    pub(crate) async fn delete_checkpoint(
        &self,
        tenant: TenantId,
        job: JobId,
        digest: Digest,
    ) -> Result<(), StoreError> {
        self.delete(&location(tenant, &checkpoint_name(job, digest))).await
    }

    pub(crate) async fn put_adapter(
        &self,
        keys: &Arc<DataKeys>,
        digest: Digest,
        files: &AdapterBlob,
    ) -> Result<(), StoreError> {
        if files.config.len() + files.weights.len() > ADAPTER_FILE_BYTES_MAX {
            return Err(StoreError::TooLarge { what: "the adapter", limit: ADAPTER_FILE_BYTES_MAX });
        }
        self.put(keys, &adapter_name(digest), seal_adapter(keys.tenant(), digest, files)).await
    }

    pub(crate) async fn get_adapter(&self, keys: &Arc<DataKeys>, digest: Digest) -> Result<AdapterBlob, StoreError> {
        let stored = self.get(keys, &adapter_name(digest), "adapter").await?;
        unseal_adapter(keys.tenant(), digest, &stored).ok_or_else(|| StoreError::corrupt(format!("adapter {digest}")))
    }

    pub(crate) async fn delete_adapter(&self, tenant: TenantId, digest: Digest) -> Result<(), StoreError> {
        self.delete(&location(tenant, &adapter_name(digest))).await
    }

    /// Removes everything under the tenant's prefix.
    pub(crate) async fn delete_all(&self, tenant: TenantId) -> Result<(), StoreError> {
        for object in self.list(tenant).await? {
            self.delete(&object).await?;
        }
        Ok(())
    }

    /// How many blobs a tenant has, and their bytes.
    pub(crate) async fn sum_of(&self, tenant: TenantId) -> Result<(u64, u64), StoreError> {
        let prefix = Location::from(tenant.hex());
        let sum = self
            .objects
            .list(Some(&prefix))
            .try_fold((0, 0), async |(count, bytes), object| Ok((count + 1, bytes + object.size)));
        sum.await.map_err(StoreError::blob)
    }

    /// The names of all blobs of a tenant.
    pub(crate) async fn names(&self, tenant: TenantId) -> Result<Vec<String>, StoreError> {
        let prefix = format!("{}/", tenant.hex());
        let locations = self.list(tenant).await?;
        Ok(locations.iter().filter_map(|at| at.as_ref().strip_prefix(&prefix)).map(str::to_owned).collect())
    }

    /// Seals a blob with the newest key, be it sealed with an older one or, where that may still be, plain.
    pub(crate) async fn seal_anew(&self, keys: &Arc<DataKeys>, name: &str) -> Result<Resealed, StoreError> {
        let stored = self.get_stored(keys.tenant(), name, "blob").await?;
        let content = match open_apart(keys, name, stored).await? {
            Ok((_, generation)) if generation == keys.newest() => return Ok(Resealed::Was),
            Ok((content, _)) => content,
            Err(plain) if keys.may_be_plain() && is_whole(keys.tenant(), name, &plain) => plain,
            Err(_) => return Ok(Resealed::Damaged),
        };
        self.put(keys, name, content).await.map(|()| Resealed::Is)
    }

    async fn put(&self, keys: &Arc<DataKeys>, name: &str, content: Bytes) -> Result<(), StoreError> {
        let sealed = {
            let (keys, bound) = (Arc::clone(keys), bound_of(name));
            apart(content.len(), move || keys.seal_blob(&bound, &content)).await??
        };
        let at = location(keys.tenant(), name);
        self.objects.put(&at, PutPayload::from_bytes(sealed)).await.map(|_| ()).map_err(StoreError::blob)
    }

    /// The bytes as they lie there.
    async fn get_stored(&self, tenant: TenantId, name: &str, what: &'static str) -> Result<Bytes, StoreError> {
        let found = match self.objects.get(&location(tenant, name)).await {
            Err(object_store::Error::NotFound { .. }) => return Err(StoreError::NotFound { what }),
            found => found.map_err(StoreError::blob)?,
        };
        found.bytes().await.map_err(StoreError::blob)
    }

    async fn get(&self, keys: &Arc<DataKeys>, name: &str, what: &'static str) -> Result<Bytes, StoreError> {
        let stored = self.get_stored(keys.tenant(), name, what).await?;
        match open_apart(keys, name, stored).await? {
            Ok((content, _)) => Ok(content),
            Err(_) => Err(data_keys::does_not_open(&bound_of(name))),
        }
    }

    async fn get_checked(
        &self,
        keys: &Arc<DataKeys>,
        name: &str,
        digest: Digest,
        what: &'static str,
    ) -> Result<Bytes, StoreError> {
        let bytes = self.get(keys, name, what).await?;
        if Digest::of(&bytes) == digest { Ok(bytes) } else { Err(StoreError::corrupt(format!("{what} {digest}"))) }
    }

    async fn list(&self, tenant: TenantId) -> Result<Vec<Location>, StoreError> {
        let prefix = Location::from(tenant.hex());
        let objects = self.objects.list(Some(&prefix)).map_ok(|object| object.location);
        objects.try_collect().await.map_err(StoreError::blob)
    }

    async fn delete(&self, location: &Location) -> Result<(), StoreError> {
        match self.objects.delete(location).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(StoreError::blob(error)),
        }
    }
}

// Names: `<kind>/...`, below the tenant's prefix. They hold ids and digests only, so nothing that a client chose can lead
// elsewhere.

const SOURCES: &str = "sources";
const CHECKPOINTS: &str = "checkpoints";
const ADAPTERS: &str = "adapters";

fn source_name(source: SourceId, digest: Digest) -> String {
    format!("{SOURCES}/{}/{digest}", source.hex())
}

fn checkpoint_name(job: JobId, digest: Digest) -> String {
    format!("{CHECKPOINTS}/{}/{digest}", job.hex())
}

fn adapter_name(digest: Digest) -> String {
    format!("{ADAPTERS}/{digest}")
}

fn location(tenant: TenantId, name: &str) -> Location {
    Location::from(format!("{}/{name}", tenant.hex()))
}

/// What a blob is sealed for: the tenant is part of every binding, the name says the rest.
fn bound_of(name: &str) -> Bound {
    Bound::new("blob", &[&name])
}

/// Whether this is, unsealed, what belongs under the name.
fn is_whole(tenant: TenantId, name: &str, plain: &Bytes) -> bool {
    let Some((kind, rest)) = name.split_once('/') else { return false };
    let Some(digest) = rest.rsplit('/').next().and_then(|last| last.parse::<Digest>().ok()) else { return false };
    match kind {
        SOURCES | CHECKPOINTS => Digest::of(plain) == digest,
        ADAPTERS => unseal_adapter(tenant, digest, plain).is_some(),
        _ => false,
    }
}

async fn open_apart(
    keys: &Arc<DataKeys>,
    name: &str,
    stored: Bytes,
) -> Result<Result<(Bytes, u32), Bytes>, StoreError> {
    let (keys, bound) = (Arc::clone(keys), bound_of(name));
    apart(stored.len(), move || keys.try_open_blob(&bound, stored)).await
}

/// Works on so many bytes where it holds up nobody.
async fn apart<T: Send + 'static>(bytes: usize, work: impl FnOnce() -> T + Send + 'static) -> Result<T, StoreError> {
    if bytes <= SEAL_INLINE_BYTES_MAX {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work).await.map_err(|_| StoreError::ShuttingDown)
}

/// Magic, length of the config, config, weights, and a hash over all of it with the tenant and the digest that names it:
/// a file that was cut, changed or moved does not open.
fn seal_adapter(tenant: TenantId, digest: Digest, files: &AdapterBlob) -> Bytes {
    let mut sealed =
        Vec::with_capacity(ADAPTER_MAGIC.len() + LENGTH_BYTES + files.config.len() + files.weights.len() + SEAL_BYTES);
    sealed.extend_from_slice(ADAPTER_MAGIC);
    sealed.extend_from_slice(&(files.config.len() as u64).to_le_bytes());
    sealed.extend_from_slice(&files.config);
    sealed.extend_from_slice(&files.weights);
    let seal = seal_of(tenant, digest, &sealed);
    sealed.extend_from_slice(&seal);
    Bytes::from(sealed)
}

fn unseal_adapter(tenant: TenantId, digest: Digest, sealed: &Bytes) -> Option<AdapterBlob> {
    let content = sealed.slice(..sealed.len().checked_sub(SEAL_BYTES)?);
    if seal_of(tenant, digest, &content) != sealed[content.len()..] || !content.starts_with(ADAPTER_MAGIC) {
        return None;
    }
    let config_from = ADAPTER_MAGIC.len() + LENGTH_BYTES;
    let length = content.get(ADAPTER_MAGIC.len()..config_from)?.try_into().ok()?;
    let config_to = config_from.checked_add(usize::try_from(u64::from_le_bytes(length)).ok()?)?;
    if config_to > content.len() {
        return None;
    }
    Some(AdapterBlob { config: content.slice(config_from..config_to), weights: content.slice(config_to..) })
}

fn seal_of(tenant: TenantId, digest: Digest, content: &[u8]) -> [u8; SEAL_BYTES] {
    let mut hasher = blake3::Hasher::new_derive_key(ADAPTER_CONTEXT);
    hasher.update(tenant.as_bytes()).update(digest.as_bytes()).update(content);
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use atelier_domain::Timestamp;
    use proptest::prelude::*;

    fn tenant(byte: u8) -> TenantId {
        TenantId::generate(Timestamp::from_seconds(1), [byte; 10])
    }

    proptest! {
        #[test]
        fn an_adapter_opens_as_it_was_or_not_at_all(
            config in proptest::collection::vec(any::<u8>(), 0..40),
            weights in proptest::collection::vec(any::<u8>(), 0..80),
            at in any::<prop::sample::Index>(),
            bit in 0u8..8,
        ) {
            let digest = Digest([7; 32]);
            let files = AdapterBlob { config: config.into(), weights: weights.into() };
            let sealed = seal_adapter(tenant(1), digest, &files);
            prop_assert_eq!(unseal_adapter(tenant(1), digest, &sealed), Some(files));
            prop_assert_eq!(unseal_adapter(tenant(2), digest, &sealed), None);
            prop_assert_eq!(unseal_adapter(tenant(1), Digest([8; 32]), &sealed), None);
            let mut changed = sealed.to_vec();
            changed[at.index(sealed.len())] ^= 1 << bit;
            prop_assert_eq!(unseal_adapter(tenant(1), digest, &changed.into()), None);
            let cut = sealed.slice(..at.index(sealed.len()));
            prop_assert_eq!(unseal_adapter(tenant(1), digest, &cut), None);
        }
    }
}
