//! Sources: archives of code that a tenant gave to learn from.

use atelier_access::Granted;
use atelier_access::right::{ReadSources, WriteSources};
use atelier_domain::limits::{SOURCE_ARCHIVE_BYTES_MAX, SOURCE_NAME_BYTES_MAX, SOURCES_PER_TENANT_MAX};
use atelier_domain::{Digest, SourceId, TenantId, Timestamp};
use bytes::Bytes;
use serde_json::json;

use crate::audit::Recorded;
use crate::audit::events::{CREATE_SOURCE, DELETE_SOURCE};
use crate::data_keys::DataKeys;
use crate::error::StoreError;
use crate::open::{Store, random_bytes};
use crate::sql::{Database, Row, Transaction, values};
use crate::text_enum;
use atelier_seal::Bound;

text_enum! {
    /// How a source came.
    SourceOrigin {
        /// As an uploaded archive.
        Upload => "upload",
        /// From a folder of the server's own.
        Folder => "folder",
    }
}

/// A source to be stored.
#[derive(Debug, Clone)]
pub struct NewSource {
    /// What people call it.
    pub name: String,
    /// How it came.
    pub origin: SourceOrigin,
    /// A gzipped tar archive; the store keeps it as it is.
    pub archive: Bytes,
}

/// A stored source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceRecord {
    /// Its id.
    pub id: SourceId,
    /// What people call it.
    pub name: String,
    /// How it came.
    pub origin: SourceOrigin,
    /// The digest of the archive.
    pub digest: Digest,
    /// Bytes of the archive.
    pub bytes: u64,
    /// Who gave it, as the audit trail names callers.
    pub created_by: String,
    /// When it was given.
    pub created_at: Timestamp,
}

const NOT_FOUND: StoreError = StoreError::NotFound { what: "source" };

impl Store {
    /// Stores a source.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`], [`StoreError::TooMany`], [`StoreError::DiskFull`].
    pub async fn create_source(
        &self,
        grant: &Granted<WriteSources>,
        source: NewSource,
    ) -> Result<SourceRecord, StoreError> {
        let (store, grant) = (self.clone(), grant.clone());
        // In a task of its own: whoever gives code and goes away leaves no blob behind that no row counts.
        let created = tokio::spawn(async move { store.create_source_alone(&grant, source).await }).await;
        created.map_err(|_| StoreError::ShuttingDown)?
    }

    async fn create_source_alone(
        &self,
        grant: &Granted<WriteSources>,
        source: NewSource,
    ) -> Result<SourceRecord, StoreError> {
        if source.archive.len() > SOURCE_ARCHIVE_BYTES_MAX {
            return Err(StoreError::TooLarge { what: "the archive", limit: SOURCE_ARCHIVE_BYTES_MAX });
        }
        if source.name.len() > SOURCE_NAME_BYTES_MAX {
            return Err(StoreError::TooLarge { what: "the source's name", limit: SOURCE_NAME_BYTES_MAX });
        }
        let (tenant, now) = (grant.tenant(), self.now());
        let (database, keys) = (self.tenant_database(tenant).await?, self.data_keys(tenant).await?);
        let id = SourceId::generate(now, random_bytes()?);
        let bytes = source.archive.len() as u64;
        // The blob first: a blob without a row is only litter, and is removed with the tenant.
        let digest = self.inner.blobs.put_source(&keys, id, source.archive).await?;
        let (name, origin, created_by) = (source.name, source.origin, grant.actor().to_string());
        let record = SourceRecord { id, name, origin, digest, bytes, created_by, created_at: now };
        match self.insert_source(&database, grant, &keys, &record).await {
            // Whether a commit was done whose answer is lost, nobody knows: the blob stays.
            Ok((transaction, recorded)) => self.commit(transaction, recorded).await.map(|()| record),
            Err(error) => {
                if let Err(left) = self.inner.blobs.delete_source(tenant, id, digest).await {
                    tracing::warn!(%tenant, error = &left as &dyn std::error::Error, "a blob without a row is left over");
                }
                Err(error)
            }
        }
    }

    async fn insert_source(
        &self,
        database: &Database,
        grant: &Granted<WriteSources>,
        keys: &DataKeys,
        record: &SourceRecord,
    ) -> Result<(Transaction, Recorded), StoreError> {
        const COUNT: &str = "SELECT COUNT(*) AS known FROM sources WHERE tenant_id = $1";
        const INSERT: &str = "INSERT INTO sources (tenant_id, id, name, origin, digest, bytes, created_by, created_at)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
        let (tenant, id, digest, bytes) = (grant.tenant(), record.id, record.digest, record.bytes);
        let mut transaction = database.begin().await?;
        let known = transaction.fetch_one(COUNT, values![tenant]).await?.count("known")?;
        if known >= SOURCES_PER_TENANT_MAX as u64 {
            return Err(StoreError::TooMany { what: "sources", limit: SOURCES_PER_TENANT_MAX });
        }
        let name = keys.seal_text(&name_bound(id, digest), &record.name)?;
        let (origin, created_by) = (record.origin.as_str(), record.created_by.as_str());
        let row = values![tenant, id, name, origin, digest, bytes, created_by, record.created_at];
        transaction.execute(INSERT, row).await?;
        let detail = json!({"origin": origin, "bytes": bytes, "digest": digest.to_string()});
        let recorded = self.record_work(&mut transaction, grant, CREATE_SOURCE.of(id, detail)).await?;
        Ok((transaction, recorded))
    }

    /// One source of the tenant.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn source(&self, grant: &Granted<ReadSources>, source: SourceId) -> Result<SourceRecord, StoreError> {
        const SQL: &str = "SELECT id, name, origin, digest, bytes, created_by, created_at FROM sources
            WHERE tenant_id = $1 AND id = $2";
        let tenant = grant.tenant();
        let (database, keys) = (self.tenant_database(tenant).await?, self.data_keys(tenant).await?);
        let row = database.fetch_optional(SQL, values![tenant, source]).await?.ok_or(NOT_FOUND)?;
        record_of(&keys, &row)
    }

    /// The tenant's sources, newest first.
    ///
    /// # Errors
    /// What the database says.
    pub async fn sources(&self, grant: &Granted<ReadSources>) -> Result<Vec<SourceRecord>, StoreError> {
        const SQL: &str = "SELECT id, name, origin, digest, bytes, created_by, created_at FROM sources
            WHERE tenant_id = $1 ORDER BY created_at DESC, id DESC";
        let tenant = grant.tenant();
        let (database, keys) = (self.tenant_database(tenant).await?, self.data_keys(tenant).await?);
        let rows = database.fetch_all(SQL, values![tenant]).await?;
        rows.iter().map(|row| record_of(&keys, row)).collect()
    }

    /// The archive of a source of the tenant, as it came.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::DoesNotOpen`] or [`StoreError::Corrupt`] when it is no longer what came.
    pub async fn source_archive(&self, grant: &Granted<ReadSources>, source: SourceId) -> Result<Bytes, StoreError> {
        let record = self.source(grant, source).await?;
        let keys = self.data_keys(grant.tenant()).await?;
        self.inner.blobs.get_source(&keys, source, record.digest).await
    }

    /// Deletes a source, its archive first: while that cannot be removed, the source is there and can be deleted again.
    /// Versions that learned from it stay.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::SourceInUse`] while a run of it has not ended;
    /// [`StoreError::BlobsUnreachable`].
    pub async fn delete_source(&self, grant: &Granted<WriteSources>, source: SourceId) -> Result<(), StoreError> {
        const DIGEST: &str = "SELECT digest FROM sources WHERE tenant_id = $1 AND id = $2";
        const DELETE: &str = "DELETE FROM sources WHERE tenant_id = $1 AND id = $2";
        let tenant = grant.tenant();
        let database = self.tenant_database(tenant).await?;
        let mut transaction = database.begin().await?;
        must_be_unused(&mut transaction, tenant, source).await?;
        let row = transaction.fetch_optional(DIGEST, values![tenant, source]).await?.ok_or(NOT_FOUND)?;
        // Nothing waits for a bucket inside a transaction. A run that begins meanwhile finds no archive, and says so.
        drop(transaction);
        self.inner.blobs.delete_source(tenant, source, row.parsed("digest")?).await?;
        let mut transaction = database.begin().await?;
        must_be_unused(&mut transaction, tenant, source).await?;
        if transaction.execute(DELETE, values![tenant, source]).await? == 0 {
            return Err(NOT_FOUND);
        }
        let recorded = self.record_work(&mut transaction, grant, DELETE_SOURCE.of(source, json!({}))).await?;
        self.commit(transaction, recorded).await
    }
}

/// Refuses while a run learns from the source, or will.
async fn must_be_unused(transaction: &mut Transaction, tenant: TenantId, source: SourceId) -> Result<(), StoreError> {
    const IN_USE: &str = "SELECT id FROM runs
        WHERE tenant_id = $1 AND source_id = $2 AND state IN ('queued', 'running') LIMIT 1";
    match transaction.fetch_optional(IN_USE, values![tenant, source]).await? {
        Some(_) => Err(StoreError::SourceInUse),
        None => Ok(()),
    }
}

/// A name is sealed for its source and for what the source holds.
pub(crate) fn name_bound(source: SourceId, digest: Digest) -> Bound {
    Bound::new("sources.name", &[&source, &digest])
}

fn record_of(keys: &DataKeys, row: &Row) -> Result<SourceRecord, StoreError> {
    let (id, digest) = (row.parsed("id")?, row.parsed("digest")?);
    Ok(SourceRecord {
        id,
        name: keys.open_text(&name_bound(id, digest), &row.text("name")?)?,
        origin: row.parsed("origin")?,
        digest,
        bytes: row.count("bytes")?,
        created_by: row.text("created_by")?,
        created_at: row.time("created_at")?,
    })
}
