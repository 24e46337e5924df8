//! Runs: one pass of the learning pipeline each, with the events that tell its story.

use atelier_access::Granted;
use atelier_access::right::{CancelRun, ReadRuns, StartRun};
use atelier_domain::limits::{IDEMPOTENCY_KEY_BYTES_MAX, PAGE_ROWS_MAX, RUNS_OPEN_PER_TENANT_MAX};
use atelier_domain::{JobId, RunId, SourceId, Suffix, TenantId, Timestamp, VersionNumber};
use serde_json::{Value as Json, json};

use crate::audit::events::{CANCEL_RUN, START_RUN};
use crate::data_keys::DataKeys;
use crate::error::StoreError;
use crate::jobs;
use crate::open::{Store, random_bytes};
use crate::sql::{Row, Transaction, values};
use crate::text_enum;
use atelier_seal::Bound;

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
        let (database, keys) = (self.tenant_database(tenant).await?, self.data_keys(tenant).await?);
        let (id, job) = (RunId::generate(now, random_bytes()?), JobId::generate(now, random_bytes()?));
        // The hint before the job: one too many is dropped by the claim, one too few would leave the job unseen.
        self.put_job_hint(tenant, job, now).await?;
        let mut transaction = database.begin().await?;
        if let Some(known) = find_by_idempotency_key(&mut transaction, &keys, &run).await? {
            drop(transaction);
            self.remove_job_hint(tenant, job).await?;
            return Ok(known);
        }
        check_room(&mut transaction, tenant, run.source).await?;
        insert(&mut transaction, &keys, grant, &run, (id, job), now).await?;
        jobs::insert(&mut transaction, tenant, job, id, now).await?;
        append_state_event(&mut transaction, &keys, id, RunState::Queued, now).await?;
        let event = START_RUN.of(id, json!({"source": run.source.to_string()}));
        let recorded = self.record_work(&mut transaction, grant, event).await?;
        let record = find(&mut transaction, &keys, id).await?;
        self.commit(transaction, recorded).await?;
        self.inner.job_signal.notify_one();
        Ok(record)
    }

    /// One run of the tenant.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn run(&self, grant: &Granted<ReadRuns>, run: RunId) -> Result<RunRecord, StoreError> {
        let tenant = grant.tenant();
        let (database, keys) = (self.tenant_database(tenant).await?, self.data_keys(tenant).await?);
        let row = database.fetch_optional(FIND, values![tenant, run]).await?.ok_or(NOT_FOUND)?;
        record_of(&keys, &row)
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
        let tenant = grant.tenant();
        let (database, keys) = (self.tenant_database(tenant).await?, self.data_keys(tenant).await?);
        let rows = database.fetch_all(SQL, values![tenant, page.after, page.limit.min(PAGE_ROWS_MAX)]).await?;
        rows.iter().map(|row| record_of(&keys, row)).collect()
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
        let tenant = grant.tenant();
        let (database, keys) = (self.tenant_database(tenant).await?, self.data_keys(tenant).await?);
        let rows = database.fetch_all(SQL, values![tenant, run, after, limit.min(PAGE_ROWS_MAX)]).await?;
        if rows.is_empty() {
            self.run(grant, run).await?;
        }
        rows.iter().map(|row| event_of(&keys, run, row)).collect()
    }

    /// Stops a run: at once when no worker has it, else when its worker next gives a sign of life.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::AlreadyFinished`].
    pub async fn cancel_run(&self, grant: &Granted<CancelRun>, run: RunId) -> Result<RunRecord, StoreError> {
        const REQUEST: &str = "UPDATE runs SET cancel_requested = 1 WHERE tenant_id = $1 AND id = $2";
        let (tenant, now) = (grant.tenant(), self.now());
        let (database, keys) = (self.tenant_database(tenant).await?, self.data_keys(tenant).await?);
        let mut transaction = database.begin().await?;
        let before = find(&mut transaction, &keys, run).await?;
        if before.state.is_final() {
            return Err(StoreError::AlreadyFinished);
        }
        transaction.execute(REQUEST, values![tenant, run]).await?;
        if before.state == RunState::Queued {
            jobs::end(&mut transaction, tenant, before.job, jobs::JobState::Cancelled, now).await?;
            finish(&mut transaction, &keys, run, RunState::Cancelled, now).await?;
        }
        let recorded = self.record_work(&mut transaction, grant, CANCEL_RUN.of(run, json!({}))).await?;
        let after = find(&mut transaction, &keys, run).await?;
        self.commit(transaction, recorded).await?;
        if after.state.is_final() {
            self.remove_job_hint(tenant, before.job).await?;
        }
        Ok(after)
    }
}

const FIND: &str = concat!("SELECT ", columns!(), " FROM runs WHERE tenant_id = $1 AND id = $2");

pub(crate) async fn find(transaction: &mut Transaction, keys: &DataKeys, run: RunId) -> Result<RunRecord, StoreError> {
    let row = transaction.fetch_optional(FIND, values![keys.tenant(), run]).await?.ok_or(NOT_FOUND)?;
    record_of(keys, &row)
}

/// The run that this key started before.
async fn find_by_idempotency_key(
    transaction: &mut Transaction,
    keys: &DataKeys,
    run: &NewRun,
) -> Result<Option<RunRecord>, StoreError> {
    const SQL: &str = concat!("SELECT ", columns!(), " FROM runs WHERE tenant_id = $1 AND idempotency_key = $2");
    let Some(key) = &run.idempotency_key else { return Ok(None) };
    let key = idempotency_hash(keys, key)?;
    let Some(row) = transaction.fetch_optional(SQL, values![keys.tenant(), key]).await? else { return Ok(None) };
    let known = record_of(keys, &row)?;
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
    keys: &DataKeys,
    grant: &Granted<StartRun>,
    run: &NewRun,
    (id, job): (RunId, JobId),
    now: Timestamp,
) -> Result<(), StoreError> {
    const SQL: &str = "INSERT INTO runs
        (tenant_id, id, job_id, source_id, suffix, state, options, idempotency_key, created_by, created_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
    let (tenant, state, actor) = (grant.tenant(), RunState::Queued.as_str(), grant.actor().to_string());
    let options = keys.seal_json(&options_bound(id, job, run.source, &run.suffix), &run.options)?;
    let key = run.idempotency_key.as_deref().map(|key| idempotency_hash(keys, key)).transpose()?;
    let row = values![tenant, id, job, run.source, &run.suffix, state, options, key, actor, now];
    transaction.execute(SQL, row).await.map(|_| ())
}

/// Ends a run and says so in its events.
pub(crate) async fn finish(
    transaction: &mut Transaction,
    keys: &DataKeys,
    run: RunId,
    state: RunState,
    now: Timestamp,
) -> Result<(), StoreError> {
    const SQL: &str = "UPDATE runs SET state = $3, finished_at = $4 WHERE tenant_id = $1 AND id = $2";
    transaction.execute(SQL, values![keys.tenant(), run, state.as_str(), now]).await?;
    append_state_event(transaction, keys, run, state, now).await
}

/// Says why a run did not go live.
pub(crate) async fn set_error(
    transaction: &mut Transaction,
    keys: &DataKeys,
    run: RunId,
    code: &str,
    message: &str,
) -> Result<(), StoreError> {
    const SQL: &str = "UPDATE runs SET error_code = $3, error_message = $4 WHERE tenant_id = $1 AND id = $2";
    let message = keys.seal_text(&error_bound(run, code), message)?;
    transaction.execute(SQL, values![keys.tenant(), run, code, message]).await.map(|_| ())
}

/// Keeps what a run found out.
pub(crate) async fn set_result(
    transaction: &mut Transaction,
    keys: &DataKeys,
    run: RunId,
    result: &Json,
) -> Result<(), StoreError> {
    const SQL: &str = "UPDATE runs SET result = $3 WHERE tenant_id = $1 AND id = $2";
    let result = keys.seal_json(&result_bound(run), result)?;
    transaction.execute(SQL, values![keys.tenant(), run, result]).await.map(|_| ())
}

/// Whatever else a run's events hold, the changes of its state are always among them.
pub(crate) async fn append_state_event(
    transaction: &mut Transaction,
    keys: &DataKeys,
    run: RunId,
    state: RunState,
    now: Timestamp,
) -> Result<(), StoreError> {
    append_event(transaction, keys, run, "state", &json!({"state": state.as_str()}), now).await
}

pub(crate) async fn append_event(
    transaction: &mut Transaction,
    keys: &DataKeys,
    run: RunId,
    kind: &str,
    body: &Json,
    now: Timestamp,
) -> Result<(), StoreError> {
    const SQL: &str = "INSERT INTO run_events (tenant_id, run_id, sequence, kind, body, at)
        VALUES ($1, $2, $3, $4, $5, $6)";
    // What an event is sealed for names its place, so that is looked for first; writers of a tenant take turns.
    let sequence = last_sequence(transaction, keys.tenant(), run).await? + 1;
    let body = keys.seal_json(&event_bound(run, sequence, kind), body)?;
    transaction.execute(SQL, values![keys.tenant(), run, sequence, kind, body, now]).await.map(|_| ())
}

/// The place of a run's last event; 0 when there is none.
pub(crate) async fn last_sequence(
    transaction: &mut Transaction,
    tenant: TenantId,
    run: RunId,
) -> Result<u64, StoreError> {
    const SQL: &str = "SELECT COALESCE(MAX(sequence), 0) AS last FROM run_events WHERE tenant_id = $1 AND run_id = $2";
    transaction.fetch_one(SQL, values![tenant, run]).await?.count("last")
}

// What each column is sealed for: the run, and what of its row must not be changed beneath it.

/// Names job, source and suffix too: whoever changes what a waiting run learns from makes it unreadable.
pub(crate) fn options_bound(run: RunId, job: JobId, source: SourceId, suffix: &Suffix) -> Bound {
    Bound::new("runs.options", &[&run, &job, &source, suffix])
}

pub(crate) fn result_bound(run: RunId) -> Bound {
    Bound::new("runs.result", &[&run])
}

pub(crate) fn error_bound(run: RunId, code: &str) -> Bound {
    Bound::new("runs.error_message", &[&run, &code])
}

pub(crate) fn event_bound(run: RunId, sequence: u64, kind: &str) -> Bound {
    Bound::new("run_events.body", &[&run, &sequence, &kind])
}

/// What stands for an idempotency key: the same key is found again, and none can be read.
pub(crate) fn idempotency_hash(keys: &DataKeys, key: &str) -> Result<String, StoreError> {
    keys.hash("runs.idempotency_key", key)
}

fn record_of(keys: &DataKeys, row: &Row) -> Result<RunRecord, StoreError> {
    let progress = match row.optional_text("progress_stage")? {
        Some(stage) => Some(Progress {
            stage,
            done: row.optional_count("progress_done")?.unwrap_or(0),
            total: row.optional_count("progress_total")?.unwrap_or(0),
        }),
        None => None,
    };
    let (id, job, source): (RunId, _, _) = (row.parsed("id")?, row.parsed("job_id")?, row.parsed("source_id")?);
    let suffix = row.parsed("suffix")?;
    let error = match (row.optional_text("error_code")?, row.optional_text("error_message")?) {
        (Some(code), Some(message)) => {
            let message = keys.open_text(&error_bound(id, &code), &message)?;
            Some(RunError { code, message })
        }
        (Some(code), None) => Some(RunError { code, message: String::new() }),
        (None, _) => None,
    };
    let result = row.optional_text("result")?.map(|result| keys.open_json(&result_bound(id), &result)).transpose()?;
    Ok(RunRecord {
        id,
        job,
        source,
        options: keys.open_json(&options_bound(id, job, source, &suffix), &row.text("options")?)?,
        suffix,
        state: row.parsed("state")?,
        progress,
        version: row.optional_version("version")?,
        result,
        error,
        cancel_requested: row.flag("cancel_requested")?,
        created_by: row.text("created_by")?,
        created_at: row.time("created_at")?,
        started_at: row.optional_time("started_at")?,
        finished_at: row.optional_time("finished_at")?,
    })
}

fn event_of(keys: &DataKeys, run: RunId, row: &Row) -> Result<RunEvent, StoreError> {
    let (sequence, kind) = (row.count("sequence")?, row.text("kind")?);
    let body = keys.open_json(&event_bound(run, sequence, &kind), &row.text("body")?)?;
    Ok(RunEvent { sequence, kind, body, at: row.time("at")? })
}
