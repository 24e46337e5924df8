//! Claims jobs, keeps their leases alive and writes how they ended. What a job does is `pipeline`'s.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use atelier_access::{Caller, Granted, Right, right};
use atelier_domain::{Digest, RunId, TenantId, limits};
use atelier_store::{
    AdapterBlob, ClaimedJob, Lease, NewVersion, Progress, RunEnd, RunFailure, RunRecord, Store, StoreError,
};
use atelier_trainer::TrainError;
use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::error::{ErrorKind, PlatformError};
use crate::learn::{LearnOptions, RunKind, RunSpec};
use crate::pipeline::{self, JobError};
use crate::platform::Platform;

/// Why a job that runs must stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StopReason {
    /// Its tenant wants it so.
    Cancelled,
    /// Another worker may have it by now.
    LeaseLost,
    /// The server is closing; the job goes on at the next start.
    Closing,
    /// The tenant is suspended; the job goes on when the tenant does.
    Suspended,
}

/// Set once; the first reason stays.
#[derive(Debug, Default)]
struct StopFlag(AtomicU8);

impl StopFlag {
    fn set(&self, reason: StopReason) {
        let code = match reason {
            StopReason::Cancelled => 1,
            StopReason::LeaseLost => 2,
            StopReason::Closing => 3,
            StopReason::Suspended => 4,
        };
        // Already set: whatever came first is what stopped the job.
        let _earlier = self.0.compare_exchange(0, code, Ordering::AcqRel, Ordering::Acquire).is_err();
    }

    fn get(&self) -> Option<StopReason> {
        match self.0.load(Ordering::Acquire) {
            0 => None,
            1 => Some(StopReason::Cancelled),
            2 => Some(StopReason::LeaseLost),
            3 => Some(StopReason::Closing),
            _ => Some(StopReason::Suspended),
        }
    }
}

/// The jobs that this process works on, so that a cancellation need not wait for a heartbeat.
#[derive(Debug, Default)]
pub(crate) struct RunningJobs(Mutex<HashMap<RunId, Arc<StopFlag>>>);

impl RunningJobs {
    /// Does nothing if the run is not one of ours.
    pub(crate) fn cancel(&self, run: RunId) {
        if let Some(stop) = self.0.lock().get(&run) {
            stop.set(StopReason::Cancelled);
        }
    }

    pub(crate) fn stop_all(&self) {
        self.0.lock().values().for_each(|stop| stop.set(StopReason::Closing));
    }

    fn add(&self, run: RunId) -> Arc<StopFlag> {
        let stop = Arc::new(StopFlag::default());
        self.0.lock().insert(run, Arc::clone(&stop));
        stop
    }

    fn remove(&self, run: RunId) {
        self.0.lock().remove(&run);
    }
}

/// One worker: until the platform closes, claims the next job and carries it out.
pub(crate) async fn work(platform: Platform) {
    let grant = match Caller::system("worker").grant(right::WorkJobs) {
        Ok(grant) => grant,
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "the policy allows no workers");
            return;
        }
    };
    while !platform.stopped().is_cancelled() {
        // Never inside a `select!`: a claim that is dropped half-way would wait for its lease to end.
        match platform.store().claim_job(&grant).await {
            Ok(Some(claimed)) => run_job(&platform, claimed).await,
            Ok(None) => wait(&platform).await,
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "no job could be claimed");
                pause(&platform).await;
            }
        }
    }
}

async fn wait(platform: &Platform) {
    tokio::select! {
        () = platform.stopped().cancelled() => {}
        _ = platform.store().job_due(limits::JOB_POLL_INTERVAL) => {}
    }
}

async fn pause(platform: &Platform) {
    tokio::select! {
        () = platform.stopped().cancelled() => {}
        () = tokio::time::sleep(limits::JOB_POLL_INTERVAL) => {}
    }
}

async fn run_job(platform: &Platform, claimed: ClaimedJob) {
    let run = claimed.run.id;
    tracing::info!(%run, attempt = claimed.lease.attempt(), "job claimed");
    let job = Arc::new(Job {
        store: platform.store().clone(),
        grant: claimed.grant,
        lease: claimed.lease,
        run: claimed.run,
        stop: platform.running_jobs().add(run),
        runtime: Handle::current(),
    });
    if platform.stopped().is_cancelled() {
        job.stop.set(StopReason::Closing);
    }
    let done = CancellationToken::new();
    let heart = tokio::spawn(beat(Arc::clone(&job), done.clone()));
    let outcome = pipeline::carry_out(platform, &job).await;
    done.cancel();
    if heart.await.is_err() {
        tracing::error!(%run, "the heartbeat of a job failed");
    }
    match job.conclude(outcome).await {
        Ok(()) => tracing::info!(%run, "job ended"),
        Err(StoreError::LeaseLost) => tracing::warn!(%run, "a job was lost to another worker"),
        Err(error) => tracing::error!(%run, error = &error as &dyn std::error::Error, "a job's end was not written"),
    }
    platform.running_jobs().remove(run);
}

/// A task of its own, so that a busy trainer cannot starve it.
async fn beat(job: Arc<Job>, done: CancellationToken) {
    loop {
        tokio::select! {
            () = done.cancelled() => return,
            () = tokio::time::sleep(limits::JOB_HEARTBEAT) => {}
        }
        match job.store.heartbeat(&job.grant, &job.lease).await {
            Ok(heartbeat) if heartbeat.cancel_requested => job.stop.set(StopReason::Cancelled),
            Ok(heartbeat) if heartbeat.is_suspended => job.stop.set(StopReason::Suspended),
            Ok(_) => {}
            Err(StoreError::LeaseLost | StoreError::NotFound { .. }) => job.stop.set(StopReason::LeaseLost),
            // The lease outlives a missed beat; the next one tries again.
            Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "a heartbeat was not written"),
        }
    }
}

/// A claimed job: what it may touch and how it writes. Every write is fenced by the lease.
pub(crate) struct Job {
    store: Store,
    grant: Granted<right::RunJob>,
    lease: Lease,
    run: RunRecord,
    stop: Arc<StopFlag>,
    runtime: Handle,
}

impl Job {
    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    pub(crate) fn run(&self) -> &RunRecord {
        &self.run
    }

    pub(crate) fn tenant(&self) -> TenantId {
        self.grant.tenant()
    }

    pub(crate) fn kind(&self) -> Result<RunKind, PlatformError> {
        RunSpec::parse(&self.run.options).map(|spec| spec.kind)
    }

    pub(crate) fn options(&self) -> Result<LearnOptions, PlatformError> {
        RunSpec::parse(&self.run.options).map(|spec| spec.options)
    }

    /// Another right about the job's own tenant.
    pub(crate) fn narrow<R: Right>(&self, right: impl FnOnce(TenantId) -> R) -> Result<Granted<R>, PlatformError> {
        Ok(self.grant.narrow(right(self.tenant()))?)
    }

    pub(crate) fn stopped(&self) -> Option<StopReason> {
        self.stop.get()
    }

    /// Since the run first started, an earlier attempt included.
    pub(crate) fn seconds(&self) -> f64 {
        let started = self.run.started_at.unwrap_or(self.run.created_at);
        self.store.now().since(started).as_secs_f64()
    }

    /// Runs arithmetic off the runtime's threads; checks before and after whether it is still wanted.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, JobError> + Send + 'static,
    ) -> Result<T, JobError> {
        self.check_wanted()?;
        let made = tokio::task::spawn_blocking(work).await.map_err(PlatformError::task)??;
        self.check_wanted()?;
        Ok(made)
    }

    fn check_wanted(&self) -> Result<(), JobError> {
        self.stopped().map_or(Ok(()), |reason| Err(JobError::Stopped(reason)))
    }

    pub(crate) async fn event(&self, kind: &str, body: &Value) -> Result<(), StoreError> {
        self.store.append_event(&self.grant, &self.lease, kind, body).await
    }

    pub(crate) async fn message(&self, message: &str) -> Result<(), StoreError> {
        self.event("message", &json!({"message": message})).await
    }

    pub(crate) async fn progress(&self, stage: &str, done: u64, total: u64) -> Result<(), StoreError> {
        let progress = Progress { stage: stage.to_owned(), done, total };
        self.store.set_progress(&self.grant, &self.lease, &progress).await
    }

    /// As [`Job::event`], from a thread outside of the runtime; so the other `write_` functions.
    pub(crate) fn write_event(&self, kind: &str, body: &Value) -> Result<(), StoreError> {
        self.runtime.block_on(self.event(kind, body))
    }

    pub(crate) fn write_message(&self, message: &str) -> Result<(), StoreError> {
        self.runtime.block_on(self.message(message))
    }

    pub(crate) fn write_progress(&self, stage: &str, done: u64, total: u64) -> Result<(), StoreError> {
        self.runtime.block_on(self.progress(stage, done, total))
    }

    pub(crate) fn write_checkpoint(&self, state: Bytes) -> Result<(), StoreError> {
        self.runtime.block_on(self.store.put_checkpoint(&self.grant, &self.lease, state))?;
        Ok(())
    }

    pub(crate) async fn read_checkpoint(&self) -> Result<Option<Bytes>, StoreError> {
        self.store.read_checkpoint(&self.grant, &self.lease).await
    }

    pub(crate) async fn put_adapter(&self, digest: Digest, blob: &AdapterBlob) -> Result<(), StoreError> {
        self.store.put_adapter(&self.grant, &self.lease, digest, blob).await
    }

    pub(crate) async fn publish(&self, version: NewVersion) -> Result<(), JobError> {
        self.check_wanted()?;
        self.store.publish_version(&self.grant, &self.lease, version).await?;
        Ok(())
    }

    pub(crate) async fn finish(&self, end: RunEnd) -> Result<(), JobError> {
        Ok(self.store.finish_run(&self.grant, &self.lease, end).await?)
    }

    async fn conclude(&self, outcome: Result<(), JobError>) -> Result<(), StoreError> {
        let (grant, lease) = (&self.grant, &self.lease);
        match outcome {
            Ok(()) => Ok(()),
            Err(JobError::Refused { code, message, result }) => {
                let result = result.and_then(|result| serde_json::to_value(result).ok()).unwrap_or_default();
                self.store.finish_run(grant, lease, RunEnd::Refused { code: code.to_owned(), message, result }).await
            }
            Err(JobError::Stopped(StopReason::Cancelled)) => {
                self.store.finish_run(grant, lease, RunEnd::Cancelled).await
            }
            Err(JobError::Stopped(StopReason::Closing | StopReason::Suspended)) => {
                self.store.release_job(grant, lease).await
            }
            Err(JobError::Stopped(StopReason::LeaseLost)) => Err(StoreError::LeaseLost),
            // No fault of the run's: it waits for the storage to come back, however long that takes.
            Err(JobError::Failed(PlatformError::StorageAway)) => {
                tokio::time::sleep(limits::JOB_POLL_INTERVAL).await;
                self.store.release_job(grant, lease).await
            }
            Err(JobError::Failed(error)) => {
                tracing::error!(run = %self.run.id, error = &error as &dyn std::error::Error, "a job failed");
                let failure = RunFailure {
                    code: code_of(&error).to_owned(),
                    message: error.public_message(),
                    retry: is_worth_retrying(&error),
                };
                self.store.fail_run(grant, lease, failure).await.map(|_retried| ())
            }
        }
    }
}

fn code_of(error: &PlatformError) -> &'static str {
    match error.kind() {
        ErrorKind::InvalidRequest { code, .. } => code.unwrap_or("invalid_request"),
        ErrorKind::Forbidden { code } | ErrorKind::NotFound { code } | ErrorKind::Conflict { code } => code,
        ErrorKind::Overloaded { .. } => "overloaded",
        ErrorKind::NotAuthenticated | ErrorKind::TooManyRequests { .. } | ErrorKind::Internal => match error {
            PlatformError::Train(TrainError::Diverged { .. }) => "diverged",
            _ => "internal_error",
        },
    }
}

/// What the disk or the system does may be better next time; what the data do will not.
fn is_worth_retrying(error: &PlatformError) -> bool {
    matches!(error, PlatformError::Store(_) | PlatformError::Overloaded { .. } | PlatformError::Task(_))
}
