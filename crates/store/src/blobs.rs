//! Blobs: archives, checkpoints and adapters, under a prefix of their tenant's own, checked against their names.

use std::path::Path;
use std::sync::Arc;

use atelier_access::Granted;
use atelier_access::right::LoadAdapter;
use atelier_domain::limits::ADAPTER_FILE_BYTES_MAX;
use atelier_domain::{Digest, JobId, SourceId, TenantId};
use bytes::Bytes;
use futures_util::TryStreamExt;
use object_store::local::LocalFileSystem;
use object_store::path::Path as Location;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};

use crate::error::StoreError;
use crate::open::Store;

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
    /// [`StoreError::NotFound`] when the tenant has no such adapter; [`StoreError::Corrupt`] when the files are not what
    /// was put there for this tenant under this digest.
    pub async fn adapter(&self, grant: &Granted<LoadAdapter>, digest: Digest) -> Result<AdapterBlob, StoreError> {
        self.inner.blobs.get_adapter(grant.tenant(), digest).await
    }
}

/// The object store under the databases.
#[derive(Debug)]
pub(crate) struct Blobs {
    objects: Arc<dyn ObjectStore>,
}

impl Blobs {
    /// Blobs in a folder, each on disk before its put returns.
    pub(crate) fn open(folder: &Path) -> Result<Self, StoreError> {
        let objects = LocalFileSystem::new_with_prefix(folder).map_err(StoreError::blob)?;
        Ok(Self { objects: Arc::new(objects.with_fsync(true).with_automatic_cleanup(true)) })
    }

    pub(crate) async fn put_source(
        &self,
        tenant: TenantId,
        source: SourceId,
        archive: Bytes,
    ) -> Result<Digest, StoreError> {
        let digest = Digest::of(&archive);
        self.put(&source_location(tenant, source, digest), archive).await?;
        Ok(digest)
    }

    pub(crate) async fn get_source(
        &self,
        tenant: TenantId,
        source: SourceId,
        digest: Digest,
    ) -> Result<Bytes, StoreError> {
        self.get_checked(&source_location(tenant, source, digest), digest, "source").await
    }

    pub(crate) async fn delete_source(
        &self,
        tenant: TenantId,
        source: SourceId,
        digest: Digest,
    ) -> Result<(), StoreError> {
        self.delete(&source_location(tenant, source, digest)).await
    }

    pub(crate) async fn put_checkpoint(
        &self,
        tenant: TenantId,
        job: JobId,
        state: Bytes,
    ) -> Result<Digest, StoreError> {
        let digest = Digest::of(&state);
        self.put(&checkpoint_location(tenant, job, digest), state).await?;
        Ok(digest)
    }

    pub(crate) async fn get_checkpoint(
        &self,
        tenant: TenantId,
        job: JobId,
        digest: Digest,
    ) -> Result<Bytes, StoreError> {
        self.get_checked(&checkpoint_location(tenant, job, digest), digest, "checkpoint").await
    }

    pub(crate) async fn delete_checkpoint(
        &self,
        tenant: TenantId,
        job: JobId,
        digest: Digest,
    ) -> Result<(), StoreError> {
        self.delete(&checkpoint_location(tenant, job, digest)).await
    }

    pub(crate) async fn put_adapter(
        &self,
        tenant: TenantId,
        digest: Digest,
        files: &AdapterBlob,
    ) -> Result<(), StoreError> {
        if files.config.len() + files.weights.len() > ADAPTER_FILE_BYTES_MAX {
            return Err(StoreError::TooLarge { what: "the adapter", limit: ADAPTER_FILE_BYTES_MAX });
        }
        self.put(&adapter_location(tenant, digest), seal_adapter(tenant, digest, files)).await
    }

    pub(crate) async fn get_adapter(&self, tenant: TenantId, digest: Digest) -> Result<AdapterBlob, StoreError> {
        let sealed = self.get(&adapter_location(tenant, digest), "adapter").await?;
        unseal_adapter(tenant, digest, &sealed).ok_or_else(|| StoreError::corrupt(format!("adapter {digest}")))
    }

    pub(crate) async fn delete_adapter(&self, tenant: TenantId, digest: Digest) -> Result<(), StoreError> {
        self.delete(&adapter_location(tenant, digest)).await
    }

    /// Removes everything under the tenant's prefix.
    pub(crate) async fn delete_all(&self, tenant: TenantId) -> Result<(), StoreError> {
        let objects: Vec<_> =
            self.objects.list(Some(&Location::from(tenant.hex()))).try_collect().await.map_err(StoreError::blob)?;
        for object in objects {
            self.delete(&object.location).await?;
        }
        Ok(())
    }

    async fn put(&self, location: &Location, bytes: Bytes) -> Result<(), StoreError> {
        self.objects.put(location, PutPayload::from_bytes(bytes)).await.map(|_| ()).map_err(StoreError::blob)
    }

    async fn get(&self, location: &Location, what: &'static str) -> Result<Bytes, StoreError> {
        let found = match self.objects.get(location).await {
            Err(object_store::Error::NotFound { .. }) => return Err(StoreError::NotFound { what }),
            found => found.map_err(StoreError::blob)?,
        };
        found.bytes().await.map_err(StoreError::blob)
    }

    async fn get_checked(&self, location: &Location, digest: Digest, what: &'static str) -> Result<Bytes, StoreError> {
        let bytes = self.get(location, what).await?;
        if Digest::of(&bytes) == digest { Ok(bytes) } else { Err(StoreError::corrupt(format!("{what} {digest}"))) }
    }

    async fn delete(&self, location: &Location) -> Result<(), StoreError> {
        match self.objects.delete(location).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(StoreError::blob(error)),
        }
    }
}

// Locations: `<tenant>/<kind>/...`. They hold ids and digests only, so nothing that a client chose can lead elsewhere.

fn source_location(tenant: TenantId, source: SourceId, digest: Digest) -> Location {
    Location::from(format!("{}/sources/{}/{digest}", tenant.hex(), source.hex()))
}

fn checkpoint_location(tenant: TenantId, job: JobId, digest: Digest) -> Location {
    Location::from(format!("{}/checkpoints/{}/{digest}", tenant.hex(), job.hex()))
}

fn adapter_location(tenant: TenantId, digest: Digest) -> Location {
    Location::from(format!("{}/adapters/{digest}", tenant.hex()))
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
