//! Versions: immutable rows that name an adapter and where it came from; and aliases, which point to one of them.

use atelier_access::Granted;
use atelier_access::right::{MoveAlias, ReadVersions, RunJob};
use atelier_domain::{Digest, RunId, SourceId, Suffix, TenantId, Timestamp, VersionNumber};
use serde_json::{Value as Json, json};

use crate::audit::events::{MOVE_ALIAS, PUBLISH_VERSION};
use crate::data_keys::DataKeys;
use crate::error::StoreError;
use crate::jobs::{self, JobState, Lease};
use crate::open::Store;
use crate::runs::{self, RunState};
use crate::sql::{Row, Transaction, values};
use atelier_seal::Bound;

/// A version to be published.
#[derive(Debug, Clone)]
pub struct NewVersion {
    /// The adapter, whose files `put_adapter` stored.
    pub digest: Digest,
    /// The base that the adapter is for.
    pub base_digest: Digest,
    /// The version that training began from.
    pub parent: Option<VersionNumber>,
    /// What it learned from: files, counts, options.
    pub manifest: Json,
    /// How good it is.
    pub eval: Json,
    /// What the run found out, for its record.
    pub result: Json,
}

/// A version.
#[derive(Debug, Clone, PartialEq)]
pub struct VersionRecord {
    /// Its number in the tenant.
    pub number: VersionNumber,
    /// What it was trained for.
    pub suffix: Suffix,
    /// The adapter.
    pub digest: Digest,
    /// The base that the adapter is for.
    pub base_digest: Digest,
    /// The version that training began from.
    pub parent: Option<VersionNumber>,
    /// The run that made it.
    pub run: RunId,
    /// What it learned from.
    pub source: SourceId,
    /// More about that.
    pub manifest: Json,
    /// How good it is.
    pub eval: Json,
    /// When it was published.
    pub created_at: Timestamp,
}

/// Where the tenant's aliases point.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Aliases {
    /// What answers.
    pub live: Option<VersionNumber>,
    /// What answered before.
    pub previous: Option<VersionNumber>,
    /// What is being tried out.
    pub candidate: Option<VersionNumber>,
}

const LIVE: &str = "live";
const PREVIOUS: &str = "previous";
const CANDIDATE: &str = "candidate";
const NOT_FOUND: StoreError = StoreError::NotFound { what: "version" };
const READ_ALIASES: &str = "SELECT name, number FROM aliases WHERE tenant_id = $1";

macro_rules! columns {
    () => {
        "number, suffix, digest, base_digest, parent, run_id, source_id, manifest, eval, created_at"
    };
}

impl Store {
    /// Publishes what a job made: the version's row, `live` and `previous`, the end of run and job, and the audit entry
    /// in one transaction, by the holder of the lease only. The same lease again gives the same version.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`]: what was made must be thrown away. [`StoreError::NotFound`] when the adapter's files
    /// were not stored.
    pub async fn publish_version(
        &self,
        grant: &Granted<RunJob>,
        lease: &Lease,
        version: NewVersion,
    ) -> Result<VersionRecord, StoreError> {
        if self.finished_by(grant, lease).await? {
            return self.version_of_run(lease).await;
        }
        let tenant = lease.tenant();
        self.inner.blobs.get_adapter(&self.data_keys(tenant).await?, version.digest).await?;
        let (mut transaction, keys, now) = self.fenced(grant, lease).await?;
        let run = runs::find(&mut transaction, &keys, lease.run()).await?;
        let record = VersionRecord {
            number: next_number(&mut transaction, tenant).await?,
            suffix: run.suffix,
            digest: version.digest,
            base_digest: version.base_digest,
            parent: version.parent,
            run: run.id,
            source: run.source,
            manifest: version.manifest,
            eval: version.eval,
            created_at: now,
        };
        insert(&mut transaction, &keys, &record).await?;
        let aliases = move_live(&mut transaction, tenant, record.number, now).await?;
        let checkpoint = jobs::find(&mut transaction, tenant, lease.job()).await?.and_then(|row| row.checkpoint);
        runs::set_result(&mut transaction, &keys, run.id, &version.result).await?;
        set_run_version(&mut transaction, lease, record.number).await?;
        jobs::end(&mut transaction, tenant, lease.job(), JobState::Done, now).await?;
        runs::finish(&mut transaction, &keys, run.id, RunState::Live, now).await?;
        let event = PUBLISH_VERSION.of(record.number, publish_detail(&record, aliases));
        let recorded = self.record_work(&mut transaction, grant, event).await?;
        self.commit(transaction, recorded).await?;
        self.forget_job(lease, checkpoint).await?;
        Ok(record)
    }

    /// The tenant's versions, newest first.
    ///
    /// # Errors
    /// What the database says.
    pub async fn versions(&self, grant: &Granted<ReadVersions>) -> Result<Vec<VersionRecord>, StoreError> {
        self.read_versions(grant.tenant()).await
    }

    /// One version of the tenant.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn version(
        &self,
        grant: &Granted<ReadVersions>,
        number: VersionNumber,
    ) -> Result<VersionRecord, StoreError> {
        self.read_version(grant.tenant(), number).await
    }

    /// Where the tenant's aliases point.
    ///
    /// # Errors
    /// What the database says.
    pub async fn aliases(&self, grant: &Granted<ReadVersions>) -> Result<Aliases, StoreError> {
        self.read_aliases(grant.tenant()).await
    }

    /// Moves `live` to another version, the previous one when none is named; `previous` then points to what was live.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when the tenant has no such version; [`StoreError::NoPreviousVersion`].
    pub async fn roll_back(
        &self,
        grant: &Granted<MoveAlias>,
        to: Option<VersionNumber>,
    ) -> Result<Aliases, StoreError> {
        const KNOWN: &str = "SELECT number FROM versions WHERE tenant_id = $1 AND number = $2";
        let (tenant, now) = (grant.tenant(), self.now());
        let mut transaction = self.tenant_database(tenant).await?.begin().await?;
        let before = aliases_of(&transaction.fetch_all(READ_ALIASES, values![tenant]).await?)?;
        let target = to.or(before.previous).ok_or(StoreError::NoPreviousVersion)?;
        if transaction.fetch_optional(KNOWN, values![tenant, target]).await?.is_none() {
            return Err(NOT_FOUND);
        }
        if before.live == Some(target) {
            return Ok(before);
        }
        let after = move_live(&mut transaction, tenant, target, now).await?;
        let event = MOVE_ALIAS.of(target, json!({"live": {"from": before.live, "to": after.live}}));
        let recorded = self.record_work(&mut transaction, grant, event).await?;
        self.commit(transaction, recorded).await?;
        Ok(after)
    }

    pub(crate) async fn read_versions(&self, tenant: TenantId) -> Result<Vec<VersionRecord>, StoreError> {
        const SQL: &str = concat!("SELECT ", columns!(), " FROM versions WHERE tenant_id = $1 ORDER BY number DESC");
        let (database, keys) = (self.tenant_database(tenant).await?, self.data_keys(tenant).await?);
        let rows = database.fetch_all(SQL, values![tenant]).await?;
        rows.iter().map(|row| record_of(&keys, row)).collect()
    }

    pub(crate) async fn read_version(
        &self,
        tenant: TenantId,
        number: VersionNumber,
    ) -> Result<VersionRecord, StoreError> {
        const SQL: &str = concat!("SELECT ", columns!(), " FROM versions WHERE tenant_id = $1 AND number = $2");
        let (database, keys) = (self.tenant_database(tenant).await?, self.data_keys(tenant).await?);
        let row = database.fetch_optional(SQL, values![tenant, number]).await?.ok_or(NOT_FOUND)?;
        record_of(&keys, &row)
    }

    pub(crate) async fn read_aliases(&self, tenant: TenantId) -> Result<Aliases, StoreError> {
        let rows = self.tenant_database(tenant).await?.fetch_all(READ_ALIASES, values![tenant]).await?;
        aliases_of(&rows)
    }

    /// What `live` points to and the adapter behind it, in one read.
    pub(crate) async fn read_live(&self, tenant: TenantId) -> Result<Option<(VersionNumber, Digest)>, StoreError> {
        const SQL: &str = "SELECT versions.number AS number, digest FROM aliases JOIN versions
            ON versions.tenant_id = aliases.tenant_id AND versions.number = aliases.number
            WHERE aliases.tenant_id = $1 AND aliases.name = $2";
        let row = self.tenant_database(tenant).await?.fetch_optional(SQL, values![tenant, LIVE]).await?;
        row.map(|row| Ok((row.version("number")?, row.parsed("digest")?))).transpose()
    }

    async fn version_of_run(&self, lease: &Lease) -> Result<VersionRecord, StoreError> {
        const SQL: &str = concat!("SELECT ", columns!(), " FROM versions WHERE tenant_id = $1 AND run_id = $2");
        let tenant = lease.tenant();
        let (database, keys) = (self.tenant_database(tenant).await?, self.data_keys(tenant).await?);
        let row = database.fetch_optional(SQL, values![tenant, lease.run()]).await?;
        // The lease ended the run, but with no version: as refused.
        record_of(&keys, &row.ok_or(StoreError::AlreadyFinished)?)
    }
}

async fn next_number(transaction: &mut Transaction, tenant: TenantId) -> Result<VersionNumber, StoreError> {
    const SQL: &str = "SELECT MAX(number) AS last FROM versions WHERE tenant_id = $1";
    match transaction.fetch_one(SQL, values![tenant]).await?.optional_version("last")? {
        None => Ok(VersionNumber::FIRST),
        Some(last) => last.next().ok_or(StoreError::TooMany { what: "versions", limit: u32::MAX as usize }),
    }
}

pub(crate) const INSERT: &str = "INSERT INTO versions
    (tenant_id, number, suffix, digest, base_digest, parent, run_id, source_id, manifest, eval, created_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)";

async fn insert(transaction: &mut Transaction, keys: &DataKeys, version: &VersionRecord) -> Result<(), StoreError> {
    let VersionRecord { number, suffix, digest, base_digest, parent, run, source, manifest, eval, created_at } =
        version;
    let manifest = keys.seal_json(&bound(MANIFEST, *number, *run, *digest), manifest)?;
    let eval = keys.seal_json(&bound(EVAL, *number, *run, *digest), eval)?;
    let tenant = keys.tenant();
    let row =
        values![tenant, *number, suffix, *digest, *base_digest, *parent, *run, *source, manifest, eval, *created_at];
    transaction.execute(INSERT, row).await.map(|_| ())
}

pub(crate) const MANIFEST: &str = "versions.manifest";
pub(crate) const EVAL: &str = "versions.eval";

/// What a version's column is sealed for: whoever puts another adapter under a version makes it unreadable.
pub(crate) fn bound(column: &'static str, number: VersionNumber, run: RunId, digest: Digest) -> Bound {
    Bound::new(column, &[&number, &run, &digest])
}

async fn set_run_version(
    transaction: &mut Transaction,
    lease: &Lease,
    number: VersionNumber,
) -> Result<(), StoreError> {
    const SQL: &str = "UPDATE runs SET version = $3, error_code = NULL, error_message = NULL
        WHERE tenant_id = $1 AND id = $2";
    transaction.execute(SQL, values![lease.tenant(), lease.run(), number]).await.map(|_| ())
}

/// Points `live` to this version and `previous` to what was live.
async fn move_live(
    transaction: &mut Transaction,
    tenant: TenantId,
    to: VersionNumber,
    now: Timestamp,
) -> Result<Aliases, StoreError> {
    const SQL: &str = "INSERT INTO aliases (tenant_id, name, number, moved_at) VALUES ($1, $2, $3, $4)
        ON CONFLICT (tenant_id, name) DO UPDATE SET number = excluded.number, moved_at = excluded.moved_at";
    let before = aliases_of(&transaction.fetch_all(READ_ALIASES, values![tenant]).await?)?;
    if let Some(live) = before.live {
        transaction.execute(SQL, values![tenant, PREVIOUS, live, now]).await?;
    }
    transaction.execute(SQL, values![tenant, LIVE, to, now]).await?;
    Ok(Aliases { live: Some(to), previous: before.live.or(before.previous), ..before })
}

fn publish_detail(version: &VersionRecord, aliases: Aliases) -> Json {
    json!({
        "run": version.run.to_string(),
        "digest": version.digest.to_string(),
        "base_digest": version.base_digest.to_string(),
        "previous": aliases.previous,
    })
}

fn aliases_of(rows: &[Row]) -> Result<Aliases, StoreError> {
    let mut aliases = Aliases::default();
    for row in rows {
        let number = Some(row.version("number")?);
        match row.text("name")?.as_str() {
            LIVE => aliases.live = number,
            PREVIOUS => aliases.previous = number,
            CANDIDATE => aliases.candidate = number,
            other => return Err(StoreError::corrupt(format!("alias {other} is unknown"))),
        }
    }
    Ok(aliases)
}

fn record_of(keys: &DataKeys, row: &Row) -> Result<VersionRecord, StoreError> {
    let (number, run, digest) = (row.version("number")?, row.parsed("run_id")?, row.parsed("digest")?);
    let open = |column| bound(column, number, run, digest);
    Ok(VersionRecord {
        number,
        suffix: row.parsed("suffix")?,
        digest,
        base_digest: row.parsed("base_digest")?,
        parent: row.optional_version("parent")?,
        run,
        source: row.parsed("source_id")?,
        manifest: keys.open_json(&open(MANIFEST), &row.text("manifest")?)?,
        eval: keys.open_json(&open(EVAL), &row.text("eval")?)?,
        created_at: row.time("created_at")?,
    })
}
