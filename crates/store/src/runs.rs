//! Runs: one pass of the learning pipeline each, with the events that tell its story.

use atelier_access::Granted;
use atelier_access::right::{CancelRun, ReadRuns, StartRun};
use atelier_domain::limits::{IDEMPOTENCY_KEY_BYTES_MAX, PAGE_ROWS_MAX, RUNS_OPEN_PER_TENANT_MAX};
use atelier_domain::{JobId, RunId, SourceId, Suffix, TenantId, Timestamp, VersionNumber};
use serde_json::{Value as Json, json};

use crate::audit::events::{CANCEL_RUN, START_RUN};
use crate::error::StoreError;
use crate::jobs;
use crate::open::{Store, random_bytes};
use crate::sql::{Row, Transaction, values};
use crate::text_enum;

text_enum! {
    /// Where a run stands.
    RunState {
        /// Waits for a worker.
        Queued => "queued",
        /// A worker has it.
        Running => "running",
        /// Ended with a version that went live.
        Live => "live",
        /// Ended with what it was for, which was no version: an evaluation.
        Succeeded => "succeeded",
        /// Ended with an adapter that was not good enough.
        Refused => "refused",
        /// Ended without an adapter.
        Failed => "failed",
        /// Ended because somebody said so.
        Cancelled => "cancelled",
    }
}

impl RunState {
    /// Whether the run has ended.
    #[must_use]
    pub fn is_final(self) -> bool {
        !matches!(self, Self::Queued | Self::Running)
    }
}

/// A run to be started.
#[derive(Debug, Clone)]
pub struct NewRun {
    /// What to learn from.
    pub source: SourceId,
    /// What its version will be called.
    pub suffix: Suffix,
    /// How to learn; the pipeline reads it, the store only keeps it.
    pub options: Json,
    /// The same key again gives the same run.
    pub idempotency_key: Option<String>,
}

/// How far a run is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// What it does now.
    pub stage: String,
    /// How much of that is done.
    pub done: u64,
    /// How much there is to do.
    pub total: u64,
}

/// Why a run did not go live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunError {
    /// A stable code.
    pub code: String,
    /// For people.
    pub message: String,
}

/// A run.
#[derive(Debug, Clone, PartialEq)]
pub struct RunRecord {
    /// Its id.
    pub id: RunId,
    /// The job that carries it.
    pub job: JobId,
    /// What it learns from.
    pub source: SourceId,
    /// What its version will be called.
    pub suffix: Suffix,
    /// Where it stands.
    pub state: RunState,
    /// How it learns.
    pub options: Json,
    /// How far it is.
    pub progress: Option<Progress>,
    /// The version that it made.
    pub version: Option<VersionNumber>,
    /// What it found out: the eval card and what belongs to it.
    pub result: Option<Json>,
    /// Why it did not go live.
    pub error: Option<RunError>,
    /// Whether somebody asked it to stop.
    pub cancel_requested: bool,
    /// Who started it, as the audit trail names callers.
    pub created_by: String,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When a worker first took it.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
}

/// A page of runs.
#[derive(Debug, Clone, Copy, Default)]
pub struct RunPage {
    /// At most this many.
    pub limit: usize,
    /// Those older than this one.
    pub after: Option<RunId>,
}

/// Something that happened in a run.
#[derive(Debug, Clone, PartialEq)]
pub struct RunEvent {
    /// Its place in the run, from 1 upwards.
    pub sequence: u64,
    /// What happened: `state`, or what the worker calls it.
    pub kind: String,
    /// More about it.
    pub body: Json,
    /// When it happened.
    pub at: Timestamp,
}

pub(crate) const NOT_FOUND: StoreError = StoreError::NotFound { what: "run" };

macro_rules! columns {
    () => {
        "id, job_id, source_id, suffix, state, options, progress_stage, progress_done, progress_total, version, result,
         error_code, error_message, cancel_requested, created_by, created_at, started_at, finished_at"
    };
}

impl Store {
    /// Starts a run: its row and its job's row, together or not at all.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when the tenant has no such source; [`StoreError::IdempotencyMismatch`];
    /// [`StoreError::TooMany`] runs that have not ended.
    pub async fn create_run(&self, grant: &Granted<StartRun>, run: NewRun) -> Result<RunRecord, StoreError> {
        if run.idempotency_key.as_ref().is_some_and(|key| key.len() > IDEMPOTENCY_KEY_BYTES_MAX) {
            return Err(StoreError::TooLarge { what: "the idempotency key", limit: IDEMPOTENCY_KEY_BYTES_MAX });
        }
        let (tenant, now) = (grant.tenant(), self.now());
        let database = self.tenant_database(tenant).await?;
        let (id, job) = (RunId::generate(now, random_bytes()?), JobId::generate(now, random_bytes()?));
        // The hint before the job: one too many is dropped by the claim, one too few would leave the job unseen.
        self.put_job_hint(tenant, job, now).await?;
        let mut transaction = database.begin().await?;
        if let Some(known) = find_by_idempotency_key(&mut transaction, tenant, &run).await? {
            drop(transaction);
            self.remove_job_hint(tenant, job).await?;
            return Ok(known);
        }
        check_room(&mut transaction, tenant, run.source).await?;
        insert(&mut transaction, grant, &run, (id, job), now).await?;
        jobs::insert(&mut transaction, tenant, job, id, now).await?;
        append_state_event(&mut transaction, tenant, id, RunState::Queued, now).await?;
        let event = START_RUN.of(id, json!({"source": run.source.to_string()}));
        let recorded = self.record_work(&mut transaction, grant, event).await?;
        let record = find(&mut transaction, tenant, id).await?;
        self.commit(transaction, recorded).await?;
        self.inner.job_signal.notify_one();
        Ok(record)
    }

    /// One run of the tenant.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn run(&self, grant: &Granted<ReadRuns>, run: RunId) -> Result<RunRecord, StoreError> {
        let database = self.tenant_database(grant.tenant()).await?;
        let row = database.fetch_optional(FIND, values![grant.tenant(), run]).await?.ok_or(NOT_FOUND)?;
        record_of(&row)
    }

    /// The tenant's runs, newest first.
    ///
    /// # Errors
    /// What the database says.
    pub async fn runs(&self, grant: &Granted<ReadRuns>, page: RunPage) -> Result<Vec<RunRecord>, StoreError> {
        const SQL: &str = concat!(
            "SELECT ",
            columns!(),
            " FROM runs
            WHERE tenant_id = $1 AND (CAST($2 AS TEXT) IS NULL OR id < $2) ORDER BY id DESC LIMIT $3"
        );
        let database = self.tenant_database(grant.tenant()).await?;
        let rows = database.fetch_all(SQL, values![grant.tenant(), page.after, page.limit.min(PAGE_ROWS_MAX)]).await?;
        rows.iter().map(record_of).collect()
    }

    /// What happened in a run after event `after`, oldest first.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when the tenant has no such run.
    pub async fn run_events(
        &self,
        grant: &Granted<ReadRuns>,
        run: RunId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<RunEvent>, StoreError> {
        const SQL: &str = "SELECT sequence, kind, body, at FROM run_events
            WHERE tenant_id = $1 AND run_id = $2 AND sequence > $3 ORDER BY sequence LIMIT $4";
        let database = self.tenant_database(grant.tenant()).await?;
        let rows = database.fetch_all(SQL, values![grant.tenant(), run, after, limit.min(PAGE_ROWS_MAX)]).await?;
        if rows.is_empty() {
            self.run(grant, run).await?;
        }
        rows.iter().map(event_of).collect()
    }

    /// Stops a run: at once when no worker has it, else when its worker next gives a sign of life.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::AlreadyFinished`].
    pub async fn cancel_run(&self, grant: &Granted<CancelRun>, run: RunId) -> Result<RunRecord, StoreError> {
        const REQUEST: &str = "UPDATE runs SET cancel_requested = 1 WHERE tenant_id = $1 AND id = $2";
        let (tenant, now) = (grant.tenant(), self.now());
        let mut transaction = self.tenant_database(tenant).await?.begin().await?;
        let before = find(&mut transaction, tenant, run).await?;
        if before.state.is_final() {
            return Err(StoreError::AlreadyFinished);
        }
        transaction.execute(REQUEST, values![tenant, run]).await?;
        if before.state == RunState::Queued {
            jobs::end(&mut transaction, tenant, before.job, jobs::JobState::Cancelled, now).await?;
            finish(&mut transaction, tenant, run, RunState::Cancelled, now).await?;
        }
        let recorded = self.record_work(&mut transaction, grant, CANCEL_RUN.of(run, json!({}))).await?;
        let after = find(&mut transaction, tenant, run).await?;
        self.commit(transaction, recorded).await?;
        if after.state.is_final() {
            self.remove_job_hint(tenant, before.job).await?;
        }
        Ok(after)
    }
}

const FIND: &str = concat!("SELECT ", columns!(), " FROM runs WHERE tenant_id = $1 AND id = $2");

pub(crate) async fn find(transaction: &mut Transaction, tenant: TenantId, run: RunId) -> Result<RunRecord, StoreError> {
    let row = transaction.fetch_optional(FIND, values![tenant, run]).await?.ok_or(NOT_FOUND)?;
    record_of(&row)
}

/// The run that this key started before.
async fn find_by_idempotency_key(
    transaction: &mut Transaction,
    tenant: TenantId,
    run: &NewRun,
) -> Result<Option<RunRecord>, StoreError> {
    const SQL: &str = concat!("SELECT ", columns!(), " FROM runs WHERE tenant_id = $1 AND idempotency_key = $2");
    let Some(key) = &run.idempotency_key else { return Ok(None) };
    let Some(row) = transaction.fetch_optional(SQL, values![tenant, key.as_str()]).await? else { return Ok(None) };
    let known = record_of(&row)?;
    let same = known.source == run.source && known.suffix == run.suffix && known.options == run.options;
    if same { Ok(Some(known)) } else { Err(StoreError::IdempotencyMismatch) }
}

async fn check_room(transaction: &mut Transaction, tenant: TenantId, source: SourceId) -> Result<(), StoreError> {
    const OPEN: &str = "SELECT COUNT(*) AS open FROM runs WHERE tenant_id = $1 AND state IN ('queued', 'running')";
    const SOURCE: &str = "SELECT id FROM sources WHERE tenant_id = $1 AND id = $2";
    if transaction.fetch_optional(SOURCE, values![tenant, source]).await?.is_none() {
        return Err(StoreError::NotFound { what: "source" });
    }
    let open = transaction.fetch_one(OPEN, values![tenant]).await?.count("open")?;
    if open >= RUNS_OPEN_PER_TENANT_MAX as u64 {
        return Err(StoreError::TooMany { what: "runs that have not ended", limit: RUNS_OPEN_PER_TENANT_MAX });
    }
    Ok(())
}

async fn insert(
    transaction: &mut Transaction,
    grant: &Granted<StartRun>,
    run: &NewRun,
    (id, job): (RunId, JobId),
    now: Timestamp,
) -> Result<(), StoreError> {
    const SQL: &str = "INSERT INTO runs
        (tenant_id, id, job_id, source_id, suffix, state, options, idempotency_key, created_by, created_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
    let (tenant, state, actor) = (grant.tenant(), RunState::Queued.as_str(), grant.actor().to_string());
    let key = run.idempotency_key.as_deref();
    let row = values![tenant, id, job, run.source, &run.suffix, state, &run.options, key, actor, now];
    transaction.execute(SQL, row).await.map(|_| ())
}

/// Ends a run and says so in its events.
pub(crate) async fn finish(
    transaction: &mut Transaction,
    tenant: TenantId,
    run: RunId,
    state: RunState,
    now: Timestamp,
) -> Result<(), StoreError> {
    const SQL: &str = "UPDATE runs SET state = $3, finished_at = $4 WHERE tenant_id = $1 AND id = $2";
    transaction.execute(SQL, values![tenant, run, state.as_str(), now]).await?;
    append_state_event(transaction, tenant, run, state, now).await
}

/// Says why a run did not go live.
pub(crate) async fn set_error(
    transaction: &mut Transaction,
    tenant: TenantId,
    run: RunId,
    code: &str,
    message: &str,
) -> Result<(), StoreError> {
    const SQL: &str = "UPDATE runs SET error_code = $3, error_message = $4 WHERE tenant_id = $1 AND id = $2";
    transaction.execute(SQL, values![tenant, run, code, message]).await.map(|_| ())
}

/// Whatever else a run's events hold, the changes of its state are always among them.
pub(crate) async fn append_state_event(
    transaction: &mut Transaction,
    tenant: TenantId,
    run: RunId,
    state: RunState,
    now: Timestamp,
) -> Result<(), StoreError> {
    append_event(transaction, tenant, run, "state", &json!({"state": state.as_str()}), now).await
}

pub(crate) async fn append_event(
    transaction: &mut Transaction,
    tenant: TenantId,
    run: RunId,
    kind: &str,
    body: &Json,
    now: Timestamp,
) -> Result<(), StoreError> {
    const SQL: &str = "INSERT INTO run_events (tenant_id, run_id, sequence, kind, body, at)
        SELECT $1, $2, COALESCE(MAX(sequence), 0) + 1, $3, $4, $5 FROM run_events WHERE tenant_id = $1 AND run_id = $2";
    transaction.execute(SQL, values![tenant, run, kind, body, now]).await.map(|_| ())
}

fn record_of(row: &Row) -> Result<RunRecord, StoreError> {
    let progress = match row.optional_text("progress_stage")? {
        Some(stage) => Some(Progress {
            stage,
            done: row.optional_count("progress_done")?.unwrap_or(0),
            total: row.optional_count("progress_total")?.unwrap_or(0),
        }),
        None => None,
    };
    let error = match row.optional_text("error_code")? {
        Some(code) => Some(RunError { code, message: row.optional_text("error_message")?.unwrap_or_default() }),
        None => None,
    };
    Ok(RunRecord {
        id: row.parsed("id")?,
        job: row.parsed("job_id")?,
        source: row.parsed("source_id")?,
        suffix: row.parsed("suffix")?,
        state: row.parsed("state")?,
        options: row.json("options")?,
        progress,
        version: row.optional_version("version")?,
        result: row.optional_json("result")?,
        error,
        cancel_requested: row.flag("cancel_requested")?,
        created_by: row.text("created_by")?,
        created_at: row.time("created_at")?,
        started_at: row.optional_time("started_at")?,
        finished_at: row.optional_time("finished_at")?,
    })
}

fn event_of(row: &Row) -> Result<RunEvent, StoreError> {
    Ok(RunEvent {
        sequence: row.count("sequence")?,
        kind: row.text("kind")?,
        body: row.json("body")?,
        at: row.time("at")?,
    })
}
