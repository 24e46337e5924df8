//! Jobs: one durable row carries a run through the pipeline.
//!
//! A worker claims a job and holds it by a lease with a random token. Whatever it then does names the token, and does
//! nothing once the lease is over or the job is another's: execution happens at least once, its effect exactly once. A
//! job whose workers die again and again without reaching a further checkpoint is poison and is taken out of the queue.

use std::sync::Arc;
use std::time::Duration;

use atelier_access::Granted;
use atelier_access::right::{RunJob, WorkJobs};
use atelier_domain::limits::{
    CHECKPOINT_BYTES_MAX, JOB_CRASHES_MAX, JOB_FAILURES_MAX, JOB_LEASE, JOB_RETRY_DELAY, JOB_SUSPENDED_DELAY,
    RUN_ERROR_BYTES_MAX, RUN_EVENT_BYTES_MAX, RUN_EVENTS_MAX,
};
use atelier_domain::{Digest, JobId, RunId, TenantId, Timestamp};
use bytes::Bytes;
use serde_json::{Value as Json, json};

use crate::audit::events::{FINISH_RUN, QUARANTINE_JOB};
use crate::audit::{Recorded, Unrecorded};
use crate::blobs::AdapterBlob;
use crate::data_keys::DataKeys;
use crate::error::StoreError;
use crate::open::{Store, random_bytes};
use crate::places::unless_damaged;
use crate::runs::{self, Progress, RunRecord, RunState};
use crate::sql::{Row, Transaction, values};
use crate::text_enum;

/// The only kind of job so far: one run of the learning pipeline.
const KIND_LEARN: &str = "learn";
/// Hints that one claim looks at: more only matter when that many tenants' hints are stale at once.
const CLAIM_HINTS_MAX: usize = 32;
/// How long a job is left alone whose tenant's data is damaged: until a person may have looked at it.
const DAMAGED_DELAY: Duration = Duration::from_secs(60);
/// How long a hint may point to no job: its job's transaction may still be on its way.
const HINT_ORPHAN_AGE: Duration = Duration::from_secs(60);

text_enum! {
    /// Where a job stands.
    JobState {
        /// Waits for a worker.
        Queued => "queued",
        /// A worker holds it, or held it when its process died.
        Running => "running",
        /// Carried out.
        Done => "done",
        /// Given up.
        Failed => "failed",
        /// Its workers died: kept for a person to look at.
        Quarantined => "quarantined",
        /// Taken back.
        Cancelled => "cancelled",
    }
}

/// A worker's hold on a job: names the job, the attempt and the token that fences off whoever held it before.
#[derive(Debug, Clone)]
pub struct Lease {
    tenant: TenantId,
    job: JobId,
    run: RunId,
    attempt: u32,
    token: [u8; 16],
}

impl Lease {
    /// Whose job it is.
    #[must_use]
    pub fn tenant(&self) -> TenantId {
        self.tenant
    }

    /// The job.
    #[must_use]
    pub fn job(&self) -> JobId {
        self.job
    }

    /// The run that the job carries.
    #[must_use]
    pub fn run(&self) -> RunId {
        self.run
    }

    /// How often the job was claimed, this time included.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
    }
}

/// A job to be carried out.
#[derive(Debug)]
pub struct ClaimedJob {
    /// The right to carry it out.
    pub grant: Granted<RunJob>,
    /// The hold on it.
    pub lease: Lease,
    /// The run that it carries.
    pub run: RunRecord,
    /// The state that the last attempt left.
    pub checkpoint: Option<Digest>,
}

/// The answer to a sign of life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heartbeat {
    /// Until when the job is the worker's.
    pub until: Timestamp,
    /// Whether somebody asked the run to stop.
    pub cancel_requested: bool,
    /// Whether the tenant is suspended: give the job back, it goes on when the tenant does.
    pub is_suspended: bool,
}

/// How a run ends without a version and without a fault.
#[derive(Debug, Clone, PartialEq)]
pub enum RunEnd {
    /// The adapter is not good enough.
    Refused {
        /// A stable code.
        code: String,
        /// For people.
        message: String,
        /// What was measured.
        result: Json,
    },
    /// It did what it was for, which was not to make a version: an evaluation.
    Succeeded {
        /// What was measured.
        result: Json,
    },
    /// Somebody asked it to stop.
    Cancelled,
}

/// A fault of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunFailure {
    /// A stable code.
    pub code: String,
    /// For people.
    pub message: String,
    /// Whether another attempt may fare better.
    pub retry: bool,
}

/// What a claim found at one job.
enum Claim {
    Claimed(Box<ClaimedJob>, Timestamp),
    NotBefore(Timestamp),
    Ended,
    NoSuchJob,
}

impl Store {
    /// The next job that is due, of whatever tenant; none when there is none.
    ///
    /// # Errors
    /// What the database says.
    pub async fn claim_job(&self, grant: &Granted<WorkJobs>) -> Result<Option<ClaimedJob>, StoreError> {
        const HINTS: &str = "SELECT tenant_id, job_id, due_at FROM job_hints WHERE due_at <= $1
            ORDER BY due_at, job_id LIMIT $2";
        for hint in self.control().fetch_all(HINTS, values![self.now(), CLAIM_HINTS_MAX]).await? {
            let (tenant, job, due_at) = (hint.parsed("tenant_id")?, hint.parsed("job_id")?, hint.time("due_at")?);
            let Some(claim) = unless_damaged(tenant, self.claim_one(grant, tenant, job).await)? else {
                // The others' jobs are not held up by it.
                self.move_job_hint(tenant, job, self.now().plus(DAMAGED_DELAY)).await?;
                continue;
            };
            match claim {
                Claim::Claimed(claimed, until) => {
                    self.move_job_hint(tenant, job, until).await?;
                    return Ok(Some(*claimed));
                }
                Claim::NotBefore(due_at) => self.move_job_hint(tenant, job, due_at).await?,
                Claim::Ended => self.remove_job_hint(tenant, job).await?,
                Claim::NoSuchJob if self.now().since(due_at) < HINT_ORPHAN_AGE => {}
                Claim::NoSuchJob => self.remove_job_hint(tenant, job).await?,
            }
        }
        Ok(None)
    }

    /// Waits until a job may be due, at most this long.
    pub async fn job_due(&self, at_most: Duration) {
        // Both outcomes mean the same: look again.
        let _ = tokio::time::timeout(at_most, self.inner.job_signal.notified()).await;
    }

    async fn claim_one(&self, grant: &Granted<WorkJobs>, tenant: TenantId, job: JobId) -> Result<Claim, StoreError> {
        let database = match self.tenant_database(tenant).await {
            Err(StoreError::NotFound { .. }) => return Ok(Claim::NoSuchJob),
            database => database?,
        };
        let keys = match self.data_keys(tenant).await {
            Err(StoreError::NotFound { .. }) => return Ok(Claim::NoSuchJob),
            keys => keys?,
        };
        let now = self.now();
        if self.suspended_at(tenant).await?.is_some() {
            return Ok(Claim::NotBefore(now.plus(JOB_SUSPENDED_DELAY)));
        }
        let mut transaction = database.begin().await?;
        let Some(row) = find(&mut transaction, tenant, job).await? else { return Ok(Claim::NoSuchJob) };
        if !matches!(row.state, JobState::Queued | JobState::Running) {
            return Ok(Claim::Ended);
        }
        let not_before = row.lease_until.unwrap_or(row.due_at);
        if not_before > now {
            return Ok(Claim::NotBefore(not_before));
        }
        let crashes = row.crashes + u32::from(row.state == JobState::Running);
        let carry_out = grant.narrow(RunJob { tenant })?;
        let Some(run) = find_run_of(&mut transaction, &keys, &row).await? else {
            return self.take_out_changed(transaction, &keys, carry_out, &row, crashes, now).await;
        };
        let recorded = if run.cancel_requested {
            end(&mut transaction, tenant, job, JobState::Cancelled, now).await?;
            runs::finish(&mut transaction, &keys, row.run, RunState::Cancelled, now).await?;
            let detail = json!({"state": RunState::Cancelled.as_str(), "attempt": row.attempt});
            self.record_work(&mut transaction, &carry_out, FINISH_RUN.of(row.run, detail)).await?
        } else if crashes >= JOB_CRASHES_MAX {
            self.quarantine(&mut transaction, &keys, &carry_out, &row, crashes, Poison::Crashes, now).await?
        } else {
            let claimed = take(&mut transaction, &keys, carry_out, &row, crashes, now).await?;
            transaction.commit(Unrecorded::Job.permit()).await?;
            return Ok(Claim::Claimed(Box::new(claimed), now.plus(JOB_LEASE)));
        };
        self.commit(transaction, recorded).await?;
        self.drop_checkpoint(tenant, job, row.checkpoint).await?;
        Ok(Claim::Ended)
    }

    /// A sign of life: the lease begins anew.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`]: stop at once, the job is or will be another's.
    pub async fn heartbeat(&self, grant: &Granted<RunJob>, lease: &Lease) -> Result<Heartbeat, StoreError> {
        const SQL: &str = "UPDATE jobs SET lease_until = $3 WHERE tenant_id = $1 AND id = $2";
        let (mut transaction, keys, now) = self.fenced(grant, lease).await?;
        let until = now.plus(JOB_LEASE);
        transaction.execute(SQL, values![lease.tenant, lease.job, until]).await?;
        let run = runs::find(&mut transaction, &keys, lease.run).await?;
        transaction.commit(Unrecorded::Job.permit()).await?;
        let is_suspended = self.suspended_at(lease.tenant).await?.is_some();
        Ok(Heartbeat { until, cancel_requested: run.cancel_requested, is_suspended })
    }

    /// Tells something of the run's story. Past [`RUN_EVENTS_MAX`] events it is dropped: progress can be read from the
    /// run, and how the run ends is always written.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`]; [`StoreError::TooLarge`].
    pub async fn append_event(
        &self,
        grant: &Granted<RunJob>,
        lease: &Lease,
        kind: &str,
        body: &Json,
    ) -> Result<(), StoreError> {
        if kind.len() + body.to_string().len() > RUN_EVENT_BYTES_MAX {
            return Err(StoreError::TooLarge { what: "the event", limit: RUN_EVENT_BYTES_MAX });
        }
        let (mut transaction, keys, now) = self.fenced(grant, lease).await?;
        if runs::last_sequence(&mut transaction, lease.tenant, lease.run).await? < RUN_EVENTS_MAX as u64 {
            runs::append_event(&mut transaction, &keys, lease.run, kind, body, now).await?;
        }
        transaction.commit(Unrecorded::Job.permit()).await
    }

    /// Says how far the run is.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`].
    pub async fn set_progress(
        &self,
        grant: &Granted<RunJob>,
        lease: &Lease,
        progress: &Progress,
    ) -> Result<(), StoreError> {
        const SQL: &str = "UPDATE runs SET progress_stage = $3, progress_done = $4, progress_total = $5
            WHERE tenant_id = $1 AND id = $2";
        let (mut transaction, _, _) = self.fenced(grant, lease).await?;
        let (stage, done, total) = (progress.stage.as_str(), progress.done, progress.total);
        transaction.execute(SQL, values![lease.tenant, lease.run, stage, done, total]).await?;
        transaction.commit(Unrecorded::Job.permit()).await
    }

    /// Keeps a state from which a later attempt goes on, in place of the one before. Having got further, the job is no
    /// longer suspected to be poison.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`]; [`StoreError::TooLarge`].
    pub async fn put_checkpoint(
        &self,
        grant: &Granted<RunJob>,
        lease: &Lease,
        state: Bytes,
    ) -> Result<Digest, StoreError> {
        const SQL: &str = "UPDATE jobs SET checkpoint = $3, crashes = 0 WHERE tenant_id = $1 AND id = $2";
        if state.len() > CHECKPOINT_BYTES_MAX {
            return Err(StoreError::TooLarge { what: "the checkpoint", limit: CHECKPOINT_BYTES_MAX });
        }
        let keys = self.check_fence(grant, lease).await?;
        let digest = self.inner.blobs.put_checkpoint(&keys, lease.job, state).await?;
        let (mut transaction, _, _) = self.fenced(grant, lease).await?;
        let before = find(&mut transaction, lease.tenant, lease.job).await?.and_then(|row| row.checkpoint);
        transaction.execute(SQL, values![lease.tenant, lease.job, digest]).await?;
        transaction.commit(Unrecorded::Job.permit()).await?;
        self.drop_checkpoint(lease.tenant, lease.job, before.filter(|before| *before != digest)).await?;
        Ok(digest)
    }

    /// The state that was kept last.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`]; [`StoreError::DoesNotOpen`] or [`StoreError::Corrupt`] when it is no longer what was
    /// kept.
    pub async fn read_checkpoint(&self, grant: &Granted<RunJob>, lease: &Lease) -> Result<Option<Bytes>, StoreError> {
        let (mut transaction, keys, _) = self.fenced(grant, lease).await?;
        let row = find(&mut transaction, lease.tenant, lease.job).await?;
        drop(transaction);
        match row.and_then(|row| row.checkpoint) {
            Some(digest) => self.inner.blobs.get_checkpoint(&keys, lease.job, digest).await.map(Some),
            None => Ok(None),
        }
    }

    /// Stores an adapter's files under the digest that names them, to be published by `publish_version`.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`]; [`StoreError::TooLarge`]; [`StoreError::DiskFull`].
    pub async fn put_adapter(
        &self,
        grant: &Granted<RunJob>,
        lease: &Lease,
        digest: Digest,
        files: &AdapterBlob,
    ) -> Result<(), StoreError> {
        let keys = self.check_fence(grant, lease).await?;
        self.inner.blobs.put_adapter(&keys, digest, files).await
    }

    /// Removes an adapter's files again, unless a version names them.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`].
    pub async fn delete_adapter(
        &self,
        grant: &Granted<RunJob>,
        lease: &Lease,
        digest: Digest,
    ) -> Result<(), StoreError> {
        const PUBLISHED: &str = "SELECT number FROM versions WHERE tenant_id = $1 AND digest = $2 LIMIT 1";
        let (mut transaction, _, _) = self.fenced(grant, lease).await?;
        let published = transaction.fetch_optional(PUBLISHED, values![lease.tenant, digest]).await?.is_some();
        // The transaction stays open over the removal, so that no version of this digest appears meanwhile.
        if !published {
            self.inner.blobs.delete_adapter(lease.tenant, digest).await?;
        }
        transaction.commit(Unrecorded::Job.permit()).await
    }

    /// Gives the job back unharmed: for a server that stops in good order.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`].
    pub async fn release_job(&self, grant: &Granted<RunJob>, lease: &Lease) -> Result<(), StoreError> {
        let (mut transaction, keys, now) = self.fenced(grant, lease).await?;
        requeue(&mut transaction, &keys, lease, now, now).await?;
        transaction.commit(Unrecorded::Job.permit()).await?;
        self.put_job_hint(lease.tenant, lease.job, now).await?;
        self.inner.job_signal.notify_one();
        Ok(())
    }

    /// Ends the run without a version.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`].
    pub async fn finish_run(&self, grant: &Granted<RunJob>, lease: &Lease, how: RunEnd) -> Result<(), StoreError> {
        let (mut transaction, keys, now) = self.fenced(grant, lease).await?;
        let (run_state, job_state) = match &how {
            RunEnd::Refused { code, message, result } => {
                runs::set_result(&mut transaction, &keys, lease.run, result).await?;
                let message = truncated(message);
                runs::set_error(&mut transaction, &keys, lease.run, code, message).await?;
                (RunState::Refused, JobState::Done)
            }
            RunEnd::Succeeded { result } => {
                runs::set_result(&mut transaction, &keys, lease.run, result).await?;
                (RunState::Succeeded, JobState::Done)
            }
            RunEnd::Cancelled => (RunState::Cancelled, JobState::Cancelled),
        };
        let checkpoint = find(&mut transaction, lease.tenant, lease.job).await?.and_then(|row| row.checkpoint);
        end(&mut transaction, lease.tenant, lease.job, job_state, now).await?;
        runs::finish(&mut transaction, &keys, lease.run, run_state, now).await?;
        let recorded = self.record_end(&mut transaction, grant, lease, run_state).await?;
        self.commit(transaction, recorded).await?;
        self.forget_job(lease, checkpoint).await
    }

    /// Says that the run met a fault. True: it will be tried again, after a while. False: it has failed.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`].
    pub async fn fail_run(
        &self,
        grant: &Granted<RunJob>,
        lease: &Lease,
        failure: RunFailure,
    ) -> Result<bool, StoreError> {
        const COUNT: &str =
            "UPDATE jobs SET failures = failures + 1 WHERE tenant_id = $1 AND id = $2 RETURNING failures";
        let (mut transaction, keys, now) = self.fenced(grant, lease).await?;
        let failures = transaction.fetch_one(COUNT, values![lease.tenant, lease.job]).await?.count("failures")?;
        let message = truncated(&failure.message);
        let body = json!({"code": failure.code, "message": message});
        runs::append_event(&mut transaction, &keys, lease.run, "fault", &body, now).await?;
        if failure.retry && failures < u64::from(JOB_FAILURES_MAX) {
            let due_at = now.plus(retry_delay(failures));
            requeue(&mut transaction, &keys, lease, due_at, now).await?;
            transaction.commit(Unrecorded::Job.permit()).await?;
            self.put_job_hint(lease.tenant, lease.job, due_at).await?;
            return Ok(true);
        }
        let checkpoint = find(&mut transaction, lease.tenant, lease.job).await?.and_then(|row| row.checkpoint);
        runs::set_error(&mut transaction, &keys, lease.run, &failure.code, message).await?;
        end(&mut transaction, lease.tenant, lease.job, JobState::Failed, now).await?;
        runs::finish(&mut transaction, &keys, lease.run, RunState::Failed, now).await?;
        let recorded = self.record_end(&mut transaction, grant, lease, RunState::Failed).await?;
        self.commit(transaction, recorded).await?;
        self.forget_job(lease, checkpoint).await?;
        Ok(false)
    }

    /// Takes a job out of the queue whose rows somebody changed.
    async fn take_out_changed(
        &self,
        mut transaction: Transaction,
        keys: &DataKeys,
        grant: Granted<RunJob>,
        row: &JobRow,
        crashes: u32,
        now: Timestamp,
    ) -> Result<Claim, StoreError> {
        let recorded = self.quarantine(&mut transaction, keys, &grant, row, crashes, Poison::Changed, now).await?;
        self.commit(transaction, recorded).await?;
        self.drop_checkpoint(keys.tenant(), row.id, row.checkpoint).await?;
        Ok(Claim::Ended)
    }

    async fn quarantine(
        &self,
        transaction: &mut Transaction,
        keys: &DataKeys,
        grant: &Granted<RunJob>,
        row: &JobRow,
        crashes: u32,
        poison: Poison,
        now: Timestamp,
    ) -> Result<Recorded, StoreError> {
        const COUNT: &str = "UPDATE jobs SET crashes = $3 WHERE tenant_id = $1 AND id = $2";
        let tenant = keys.tenant();
        transaction.execute(COUNT, values![tenant, row.id, crashes]).await?;
        end(transaction, tenant, row.id, JobState::Quarantined, now).await?;
        let (code, message) = match poison {
            Poison::Crashes => {
                ("worker_crashed", format!("{crashes} workers in a row died on this run without reaching a checkpoint"))
            }
            Poison::Changed => ("run_changed", "what this run was asked for is not as it was written".to_owned()),
        };
        runs::set_error(transaction, keys, row.run, code, &message).await?;
        runs::finish(transaction, keys, row.run, RunState::Failed, now).await?;
        let event = QUARANTINE_JOB.of(row.run, json!({"crashes": crashes, "reason": code}));
        self.record_work(transaction, grant, event).await
    }

    async fn record_end(
        &self,
        transaction: &mut Transaction,
        grant: &Granted<RunJob>,
        lease: &Lease,
        state: RunState,
    ) -> Result<Recorded, StoreError> {
        let event = FINISH_RUN.of(lease.run, json!({"state": state.as_str(), "attempt": lease.attempt}));
        self.record_work(transaction, grant, event).await
    }

    /// Opens a transaction in which the lease holds: nobody can claim the job before it ends. With it the tenant's keys,
    /// which must be there before it begins, and the time at which the lease was looked at.
    pub(crate) async fn fenced(
        &self,
        grant: &Granted<RunJob>,
        lease: &Lease,
    ) -> Result<(Transaction, Arc<DataKeys>, Timestamp), StoreError> {
        if grant.tenant() != lease.tenant {
            return Err(StoreError::LeaseLost);
        }
        let (database, keys) = (self.tenant_database(lease.tenant).await?, self.data_keys(lease.tenant).await?);
        let mut transaction = database.begin().await?;
        let now = self.now();
        let row = find(&mut transaction, lease.tenant, lease.job).await?.ok_or(StoreError::LeaseLost)?;
        let holds = row.state == JobState::Running
            && row.lease_token == Some(lease.token)
            && row.lease_until.is_some_and(|until| now < until);
        if holds { Ok((transaction, keys, now)) } else { Err(StoreError::LeaseLost) }
    }

    /// For what is done outside the database: nothing is lost when the lease ends meanwhile, a blob is only litter then.
    async fn check_fence(&self, grant: &Granted<RunJob>, lease: &Lease) -> Result<Arc<DataKeys>, StoreError> {
        self.fenced(grant, lease).await.map(|(_, keys, _)| keys)
    }

    /// Whether this very lease finished the job before: the answer to a repeated publish.
    pub(crate) async fn finished_by(&self, grant: &Granted<RunJob>, lease: &Lease) -> Result<bool, StoreError> {
        if grant.tenant() != lease.tenant {
            return Ok(false);
        }
        let mut transaction = self.tenant_database(lease.tenant).await?.begin().await?;
        let row = find(&mut transaction, lease.tenant, lease.job).await?;
        Ok(row.is_some_and(|row| row.state == JobState::Done && row.lease_token == Some(lease.token)))
    }

    /// After the end: the hint and the checkpoint have no use any more.
    pub(crate) async fn forget_job(&self, lease: &Lease, checkpoint: Option<Digest>) -> Result<(), StoreError> {
        self.remove_job_hint(lease.tenant, lease.job).await?;
        self.drop_checkpoint(lease.tenant, lease.job, checkpoint).await
    }

    pub(crate) async fn drop_checkpoint(
        &self,
        tenant: TenantId,
        job: JobId,
        checkpoint: Option<Digest>,
    ) -> Result<(), StoreError> {
        match checkpoint {
            Some(digest) => self.inner.blobs.delete_checkpoint(tenant, job, digest).await,
            None => Ok(()),
        }
    }

    pub(crate) async fn put_job_hint(&self, tenant: TenantId, job: JobId, due_at: Timestamp) -> Result<(), StoreError> {
        const SQL: &str = "INSERT INTO job_hints (tenant_id, job_id, due_at) VALUES ($1, $2, $3)
            ON CONFLICT (tenant_id, job_id) DO UPDATE SET due_at = excluded.due_at";
        let mut transaction = self.control_for(tenant).begin_beside_others().await?;
        transaction.execute(SQL, values![tenant, job, due_at]).await?;
        transaction.commit(Unrecorded::Job.permit()).await
    }

    /// Unlike `put_job_hint` it makes none: the job may have ended meanwhile.
    async fn move_job_hint(&self, tenant: TenantId, job: JobId, due_at: Timestamp) -> Result<(), StoreError> {
        const SQL: &str = "UPDATE job_hints SET due_at = $3 WHERE tenant_id = $1 AND job_id = $2";
        let mut transaction = self.control_for(tenant).begin_beside_others().await?;
        transaction.execute(SQL, values![tenant, job, due_at]).await?;
        transaction.commit(Unrecorded::Job.permit()).await
    }

    pub(crate) async fn remove_job_hint(&self, tenant: TenantId, job: JobId) -> Result<(), StoreError> {
        let mut transaction = self.control_for(tenant).begin_beside_others().await?;
        transaction.execute("DELETE FROM job_hints WHERE tenant_id = $1 AND job_id = $2", values![tenant, job]).await?;
        transaction.commit(Unrecorded::Job.permit()).await
    }

    /// At the start: only one server has the folder, so whoever held a lease is dead. Their jobs are due now, and the
    /// hints are made anew from the jobs.
    pub(crate) async fn recover_jobs(&self) -> Result<(), StoreError> {
        const HINT: &str = "INSERT INTO job_hints (tenant_id, job_id, due_at) VALUES ($1, $2, $3)";
        let now = self.now();
        let mut hints = Vec::new();
        for tenant in self.living_tenant_ids().await? {
            let open = unless_damaged(tenant, self.expire_leases(tenant, now).await)?.unwrap_or_default();
            hints.extend(open.into_iter().map(|(job, due_at)| (tenant, job, due_at)));
        }
        let mut transaction = self.control().begin().await?;
        transaction.execute("DELETE FROM job_hints", values![]).await?;
        for (tenant, job, due_at) in hints {
            transaction.execute(HINT, values![tenant, job, due_at]).await?;
        }
        transaction.commit(Unrecorded::Job.permit()).await
    }

    /// Ends all leases of a tenant; its open jobs and since when they are due.
    async fn expire_leases(&self, tenant: TenantId, now: Timestamp) -> Result<Vec<(JobId, Timestamp)>, StoreError> {
        const EXPIRE: &str =
            "UPDATE jobs SET lease_until = $2 WHERE tenant_id = $1 AND state = 'running' AND lease_until > $2";
        const OPEN: &str =
            "SELECT id, due_at, lease_until FROM jobs WHERE tenant_id = $1 AND state IN ('queued', 'running')";
        let mut transaction = self.tenant_database(tenant).await?.begin().await?;
        transaction.execute(EXPIRE, values![tenant, now]).await?;
        let rows = transaction.fetch_all(OPEN, values![tenant]).await?;
        transaction.commit(Unrecorded::Job.permit()).await?;
        rows.iter()
            .map(|row| {
                let due_at = row.optional_time("lease_until")?.unwrap_or(row.time("due_at")?);
                Ok((row.parsed("id")?, due_at))
            })
            .collect()
    }
}

/// A row of the jobs table.
pub(crate) struct JobRow {
    id: JobId,
    run: RunId,
    state: JobState,
    due_at: Timestamp,
    attempt: u64,
    crashes: u32,
    lease_token: Option<[u8; 16]>,
    lease_until: Option<Timestamp>,
    pub(crate) checkpoint: Option<Digest>,
}

impl JobRow {
    /// Whether a worker has it whose lease is not over.
    pub(crate) fn is_held(&self, now: Timestamp) -> bool {
        self.state == JobState::Running && self.lease_until.is_some_and(|until| now < until)
    }
}

pub(crate) async fn find(
    transaction: &mut Transaction,
    tenant: TenantId,
    job: JobId,
) -> Result<Option<JobRow>, StoreError> {
    const SQL: &str =
        "SELECT id, run_id, state, due_at, attempt, crashes, lease_token, lease_until, checkpoint FROM jobs
        WHERE tenant_id = $1 AND id = $2";
    let row = transaction.fetch_optional(SQL, values![tenant, job]).await?;
    row.as_ref().map(row_of).transpose()
}

pub(crate) async fn insert(
    transaction: &mut Transaction,
    tenant: TenantId,
    job: JobId,
    run: RunId,
    now: Timestamp,
) -> Result<(), StoreError> {
    const SQL: &str = "INSERT INTO jobs (tenant_id, id, run_id, kind, state, due_at, created_at)
        VALUES ($1, $2, $3, $4, $5, $6, $6)";
    let row = values![tenant, job, run, KIND_LEARN, JobState::Queued.as_str(), now];
    transaction.execute(SQL, row).await.map(|_| ())
}

/// Hands the job to a new worker under a new token.
async fn take(
    transaction: &mut Transaction,
    keys: &DataKeys,
    grant: Granted<RunJob>,
    row: &JobRow,
    crashes: u32,
    now: Timestamp,
) -> Result<ClaimedJob, StoreError> {
    const TAKE: &str = "UPDATE jobs SET state = 'running', attempt = attempt + 1, crashes = $3, lease_token = $4,
        lease_until = $5 WHERE tenant_id = $1 AND id = $2";
    const START: &str = "UPDATE runs SET state = 'running', started_at = COALESCE(started_at, $3)
        WHERE tenant_id = $1 AND id = $2";
    let (tenant, token): (TenantId, [u8; 16]) = (grant.tenant(), random_bytes()?);
    transaction.execute(TAKE, values![tenant, row.id, crashes, token.as_slice(), now.plus(JOB_LEASE)]).await?;
    transaction.execute(START, values![tenant, row.run, now]).await?;
    runs::append_state_event(transaction, keys, row.run, RunState::Running, now).await?;
    let attempt = u32::try_from(row.attempt + 1).unwrap_or(u32::MAX);
    Ok(ClaimedJob {
        grant,
        lease: Lease { tenant, job: row.id, run: row.run, attempt, token },
        run: runs::find(transaction, keys, row.run).await?,
        checkpoint: row.checkpoint,
    })
}

/// Ends a job. Its last lease token stays, so that its holder can learn that it was the one who ended it.
pub(crate) async fn end(
    transaction: &mut Transaction,
    tenant: TenantId,
    job: JobId,
    state: JobState,
    now: Timestamp,
) -> Result<(), StoreError> {
    const SQL: &str = "UPDATE jobs SET state = $3, finished_at = $4, lease_until = NULL, checkpoint = NULL
        WHERE tenant_id = $1 AND id = $2";
    transaction.execute(SQL, values![tenant, job, state.as_str(), now]).await.map(|_| ())
}

/// Puts a job back into the queue, whoever held it.
async fn requeue(
    transaction: &mut Transaction,
    keys: &DataKeys,
    lease: &Lease,
    due_at: Timestamp,
    now: Timestamp,
) -> Result<(), StoreError> {
    const JOB: &str = "UPDATE jobs SET state = 'queued', due_at = $3, lease_token = NULL, lease_until = NULL
        WHERE tenant_id = $1 AND id = $2";
    const RUN: &str = "UPDATE runs SET state = 'queued' WHERE tenant_id = $1 AND id = $2";
    transaction.execute(JOB, values![lease.tenant, lease.job, due_at]).await?;
    transaction.execute(RUN, values![lease.tenant, lease.run]).await?;
    runs::append_state_event(transaction, keys, lease.run, RunState::Queued, now).await
}

/// The run of a job; none when it is not the one that the job was made for, or not as it was written.
async fn find_run_of(
    transaction: &mut Transaction,
    keys: &DataKeys,
    row: &JobRow,
) -> Result<Option<RunRecord>, StoreError> {
    match runs::find(transaction, keys, row.run).await {
        Ok(run) => Ok((run.job == row.id).then_some(run)),
        Err(error @ StoreError::DoesNotOpen { .. }) => {
            tracing::error!(error = &error as &dyn std::error::Error, "a run that waits is not as it was written");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Why a job is taken out of the queue for a person to look at.
#[derive(Debug, Clone, Copy)]
enum Poison {
    /// Its workers die.
    Crashes,
    /// Somebody changed its rows.
    Changed,
}

/// Doubles with every failure after the first.
fn retry_delay(failures: u64) -> Duration {
    let doublings = u32::try_from(failures.saturating_sub(1)).unwrap_or(u32::MAX).min(JOB_FAILURES_MAX);
    JOB_RETRY_DELAY * 2u32.pow(doublings)
}

fn truncated(message: &str) -> &str {
    &message[..message.floor_char_boundary(RUN_ERROR_BYTES_MAX)]
}

fn row_of(row: &Row) -> Result<JobRow, StoreError> {
    Ok(JobRow {
        id: row.parsed("id")?,
        run: row.parsed("run_id")?,
        state: row.parsed("state")?,
        due_at: row.time("due_at")?,
        attempt: row.count("attempt")?,
        crashes: u32::try_from(row.count("crashes")?).unwrap_or(u32::MAX),
        lease_token: row.optional_bytes("lease_token")?,
        lease_until: row.optional_time("lease_until")?,
        checkpoint: row.optional_parsed("checkpoint")?,
    })
}
