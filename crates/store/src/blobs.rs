//! Blobs: archives, checkpoints and adapters, under a prefix of their tenant's own, sealed with its key for the place
//! where they lie, and checked against their names.
//!
//! Layout: here is what a blob is and what it is called; `places` says where it is, `s3` opens buckets, `moving` brings
//! blobs from one place to another.

mod moving;
mod places;
mod s3;

use std::path::Path;
use std::sync::Arc;

use atelier_access::Granted;
use atelier_access::right::LoadAdapter;
use atelier_domain::limits::{ADAPTER_FILE_BYTES_MAX, SEAL_INLINE_BYTES_MAX};
use atelier_domain::{BucketName, Digest, JobId, SourceId, TenantId};
use bytes::Bytes;

use self::places::{BlobPlaces, location};
use crate::data_keys::{self, DataKeys};
use crate::error::StoreError;
use crate::open::Store;
use crate::sql::Database;
use atelier_seal::Bound;

pub use self::places::BlobOptions;
pub use self::s3::{S3_SETTINGS, S3Address, S3Options};

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

/// The blobs of all tenants.
#[derive(Debug)]
pub(crate) struct Blobs {
    places: BlobPlaces,
    /// Held by a move of blobs where there is no server of databases that several work on.
    pub(crate) moving: tokio::sync::Mutex<()>,
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
    /// Blobs in a folder unless they are elsewhere. Nobody is asked yet.
    pub(crate) fn open(folder: &Path, options: &BlobOptions, control: Database) -> Result<Self, StoreError> {
        Ok(Self { places: BlobPlaces::open(folder, options, control)?, moving: tokio::sync::Mutex::default() })
    }

    /// Whether they can be asked for, as was found at most some seconds ago.
    pub(crate) async fn check(&self) -> Result<(), StoreError> {
        self.places.check().await
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
        self.delete(tenant, &source_name(source, digest)).await
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
        self.delete(tenant, &checkpoint_name(job, digest)).await
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
        self.delete(tenant, &adapter_name(digest)).await
    }

    /// Removes everything of a tenant that is no more, wherever it may be. The erasure log may name a bucket that no row
    /// knows any more.
    pub(crate) async fn delete_all(&self, tenant: TenantId, logged: Option<&BucketName>) -> Result<(), StoreError> {
        // Whoever is putting something there is waited for; nobody begins to any more, since the tenant is not found.
        *self.places.pause(tenant).await = None;
        for place in self.places.of_erased(tenant, logged).await? {
            self.places.clear(&place, tenant).await?;
        }
        Ok(())
    }

    /// How many blobs a tenant has that is no more, and their bytes.
    pub(crate) async fn sum_of(&self, tenant: TenantId) -> Result<(u64, u64), StoreError> {
        let mut sum = (0, 0);
        for place in self.places.of_erased(tenant, None).await? {
            match place.list(tenant).await {
                Err(error) if s3::is_no_bucket(&error) && !self.places.is_home(&place) => {}
                listed => sum = listed?.iter().fold(sum, |(count, sum), (_, bytes)| (count + 1, sum + bytes)),
            }
        }
        Ok(sum)
    }

    /// The names of all blobs of a tenant.
    pub(crate) async fn names(&self, tenant: TenantId) -> Result<Vec<String>, StoreError> {
        let listed = self.places.enter(tenant).await?.list(tenant).await?;
        Ok(listed.into_iter().map(|(name, _)| name).collect())
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
        let tenant = keys.tenant();
        self.places.enter(tenant).await?.put(&location(tenant, name), sealed).await
    }

    /// The bytes as they lie there.
    async fn get_stored(&self, tenant: TenantId, name: &str, what: &'static str) -> Result<Bytes, StoreError> {
        self.places.enter(tenant).await?.get(&location(tenant, name), what).await
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

    async fn delete(&self, tenant: TenantId, name: &str) -> Result<(), StoreError> {
        self.places.enter(tenant).await?.delete(&location(tenant, name)).await
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
