//! What a run does, from a source to a version: ingest → split → train → evaluate → publish.
//!
//! Each stage is a plain function from what the stage before made; `carry_out` is the only place that knows their
//! order. Everything that a stage writes goes through the `Job`, whose lease fences it.

pub mod evaluate;
pub mod ingest;
pub mod publish;
pub mod split;
pub mod train;

use std::path::Path;
use std::sync::Arc;

use atelier_access::right;
use atelier_model::Model;
use atelier_store::{RunEnd, StoreError};
use atelier_trainer::{EvalCard, SourceFile, TrainError};
use serde::{Deserialize, Serialize};

use crate::error::PlatformError;
use crate::learn::RunKind;
use crate::platform::Platform;
use crate::worker::{Job, StopReason};

/// What a run ends with: the `result` of its record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunResult {
    /// Time from its start to its end, waiting for a restarted server included.
    pub seconds: f64,
    /// Samples learned from, each as often as it was; files for an evaluation.
    pub samples: usize,
    /// Base against own on text that was not learned from.
    pub eval: EvalCard,
}

/// Why a job did not end well.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JobError {
    /// The data do not allow it: the run is refused, and trying again would change nothing.
    #[error("{message}")]
    Refused { code: &'static str, message: String, result: Option<Box<RunResult>> },
    /// Somebody or something said stop.
    #[error("stopped")]
    Stopped(StopReason),
    /// Something failed inside.
    #[error(transparent)]
    Failed(#[from] PlatformError),
}

impl From<StoreError> for JobError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::LeaseLost => Self::Stopped(StopReason::LeaseLost),
            other => Self::Failed(other.into()),
        }
    }
}

impl From<TrainError> for JobError {
    fn from(error: TrainError) -> Self {
        match error {
            TrainError::TooLittleText { .. } | TrainError::NothingHeldOut => Self::Refused {
                code: "too_little_text",
                message: format!("There is too little text to learn from and to judge by: {error}. Give more code."),
                result: None,
            },
            other => Self::Failed(other.into()),
        }
    }
}

/// Carries a job out; what it made is published, or its run ended, when this returns well.
pub(crate) async fn carry_out(platform: &Platform, job: &Arc<Job>) -> Result<(), JobError> {
    match job.kind()? {
        RunKind::Learn => learn(platform, job).await,
        RunKind::Evaluate => judge(platform, job).await,
    }
}

async fn learn(platform: &Platform, job: &Arc<Job>) -> Result<(), JobError> {
    let files = read_source(job).await?;
    job.progress("split", 0, 0).await?;
    let options = job.options()?;
    let parts = job.blocking(move || Ok(split::cut(files, options.seed()))).await?;
    split::check(&parts)?;
    job.message(&split::in_words(&parts)).await?;
    let model = training_base(platform).await?;
    let trained = train::train_adapter(job, &model, &parts).await?;
    job.progress("evaluate", 0, 0).await?;
    let served = served_adapter(platform, job).await?;
    let verdict = evaluate::judge_adapter(job, &model, trained.adapter, served, &parts).await?;
    publish::publish(platform, job, &parts, verdict, trained.samples).await
}

/// An evaluation changes nothing: base and what is served now, over every file of the source.
async fn judge(platform: &Platform, job: &Arc<Job>) -> Result<(), JobError> {
    let files = read_source(job).await?;
    job.progress("evaluate", 0, 0).await?;
    let served = served_adapter(platform, job).await?;
    let samples = files.len();
    let base = Arc::clone(platform.base());
    let seed = job.options()?.seed();
    let eval = job
        .blocking(move || Ok(evaluate::card(&base, served.map(|served| served.adapter).as_ref(), &files, seed)?))
        .await?;
    let result = RunResult { seconds: job.seconds(), samples, eval };
    job.finish(RunEnd::Succeeded { result: publish::to_json(&result)? }).await
}

/// The source's files, and a message about what was left out of it.
async fn read_source(job: &Arc<Job>) -> Result<Vec<SourceFile>, JobError> {
    job.progress("ingest", 0, 0).await?;
    let grant = job.narrow(|tenant| right::ReadSources { tenant })?;
    let archive = job.store().source_archive(&grant, job.run().source).await?;
    let (files, manifest) = job
        .blocking(move || {
            ingest::unpack(&archive)
                .map_err(|source| PlatformError::Stored { what: "source", source: source.into() }.into())
        })
        .await?;
    let mut message = format!("{} files with {} bytes of code", manifest.files, manifest.bytes);
    if !manifest.rejected.is_empty() {
        message += &format!("; left out: {}", manifest.rejected_words());
    }
    job.message(&message).await?;
    job.event("ingest", &publish::to_json(&manifest)?).await?;
    Ok(files)
}

/// The tenant's live adapter, if it fits the base that is served.
async fn served_adapter(platform: &Platform, job: &Job) -> Result<Option<evaluate::Served>, JobError> {
    let grant = job.narrow(|tenant| right::ReadVersions { tenant })?;
    let Some(number) = job.store().aliases(&grant).await?.live else { return Ok(None) };
    let version = job.store().version(&grant, number).await?;
    if version.base_digest != crate::adapters::domain_digest(platform.base().digest()) {
        return Ok(None);
    }
    let adapter = platform.adapters().read(job.tenant(), version.digest).await?;
    Ok(Some(evaluate::Served { number, adapter }))
}

async fn training_base(platform: &Platform) -> Result<Arc<Model>, JobError> {
    Ok(platform.base_model_for_training().await?)
}

/// Packs a folder, or one file, of the caller's own machine as a source: what the command line uploads.
///
/// # Errors
/// When there is nothing to learn from, or too much.
pub fn pack_folder(path: &Path) -> Result<Vec<u8>, PlatformError> {
    let path = path.canonicalize().map_err(|_| {
        PlatformError::invalid(format!("There is no file or folder {}.", path.display()), "path", "invalid_source")
    })?;
    Ok(ingest::pack_folder(&path, std::slice::from_ref(&path))?.archive)
}
