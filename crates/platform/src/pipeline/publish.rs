//! The end of learning: adapter files by digest, then one transaction that makes the version live and ends the run.
//!
//! A version that does not pass the gate is not recorded: nothing would ever serve it, and its adapter is tenant code
//! in another form, which is not kept without a use. Its eval card stays with the run.

use std::sync::Arc;

use atelier_domain::Digest;
use atelier_store::{AdapterBlob, NewVersion};
use atelier_trainer::Split;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::evaluate::Verdict;
use super::{JobError, RunResult};
use crate::adapters::domain_digest;
use crate::error::PlatformError;
use crate::platform::Platform;
use crate::worker::Job;

/// What a version learned from, stored with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataManifest {
    /// The seed of the split.
    pub split_seed: u64,
    /// Paths learned from.
    pub train: Vec<String>,
    /// Paths that decided when to stop.
    pub validation: Vec<String>,
    /// Paths that it was judged by.
    pub test: Vec<String>,
    /// Paths left out of the held-out parts because they nearly equal one that was learned from.
    pub near_duplicates: Vec<String>,
}

impl DataManifest {
    fn of(parts: &Split, split_seed: u64) -> Self {
        let paths = |files: &[atelier_trainer::SourceFile]| files.iter().map(|file| file.path.clone()).collect();
        Self {
            split_seed,
            train: paths(&parts.train),
            validation: paths(&parts.validation),
            test: paths(&parts.test),
            near_duplicates: parts.near_duplicates.clone(),
        }
    }
}

pub(crate) async fn publish(
    platform: &Platform,
    job: &Arc<Job>,
    parts: &Split,
    verdict: Verdict,
    samples: usize,
) -> Result<(), JobError> {
    let result = RunResult { seconds: job.seconds(), samples, eval: verdict.card.clone() };
    if !verdict.goes_live() {
        return Err(JobError::Refused {
            code: "not_better",
            message: verdict.refusal(),
            result: Some(Box::new(result)),
        });
    }
    job.progress("publish", 0, 0).await?;
    let (base, base_name) = (Arc::clone(platform.base()), platform.base_name().to_owned());
    let adapter = verdict.adapter;
    let files = job.blocking(move || Ok(adapter.to_peft(base.digest(), &base_name))).await?;
    let digest: Digest = domain_digest(files.digest());
    let blob = AdapterBlob { config: Bytes::from(files.config), weights: Bytes::from(files.weights) };
    job.put_adapter(digest, &blob).await?;
    let version = NewVersion {
        digest,
        base_digest: domain_digest(platform.base().digest()),
        parent: verdict.parent,
        manifest: to_json(&DataManifest::of(parts, job.options()?.seed()))?,
        eval: to_json(&verdict.card)?,
        result: to_json(&result)?,
    };
    job.publish(version).await?;
    Ok(())
}

pub(crate) fn to_json<T: Serialize>(value: &T) -> Result<Value, PlatformError> {
    serde_json::to_value(value).map_err(|source| PlatformError::Stored { what: "document", source: source.into() })
}
