//! Runs: starting to learn from a source, following, stopping, and what came of it.

use atelier_access::{Caller, right};
use atelier_domain::{Plan, RunId, SourceId, Suffix, VersionNumber, limits};
use atelier_model::Adapter;
use atelier_store::{NewRun, RunEvent, RunPage, RunRecord};
use atelier_trainer::{SourceFile, TrainError, TrainOptions};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::PlatformError;
use crate::limits::Admission;
use crate::models::tenant_of;
use crate::pipeline::ingest;
use crate::pipeline::publish::DataManifest;
use crate::pipeline::split;
use crate::platform::Platform;

/// What a run does with its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunKind {
    /// Trains an adapter and makes it live if it is better than what is served.
    Learn,
    /// Measures base and what is served on the source; changes nothing.
    Evaluate,
}

impl RunKind {
    /// The kind's name on every interface.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Learn => "learn",
            Self::Evaluate => "evaluate",
        }
    }
}

/// What to do otherwise than the recipe for the source's size says.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LearnOptions {
    /// LoRA rank.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rank: Option<usize>,
    /// LoRA alpha.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alpha: Option<f32>,
    /// Share of LoRA inputs set to zero in each step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dropout: Option<f32>,
    /// Peak of the learning rate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub learning_rate: Option<f32>,
    /// Passes over the data at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epochs: Option<usize>,
    /// Target tokens of one window.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window_tokens: Option<usize>,
    /// Share of windows rearranged to fill-in-the-middle.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fim_share: Option<f32>,
    /// Decides every random choice, that of the split too; 0 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Optimiser steps at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps_max: Option<usize>,
    /// What the version is for, part of its model name; `code` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suffix: Option<Suffix>,
}

impl LearnOptions {
    pub(crate) fn seed(&self) -> u64 {
        self.seed.unwrap_or_default()
    }

    /// The recipe with these options in their places.
    pub(crate) fn over(&self, recipe: TrainOptions) -> TrainOptions {
        TrainOptions {
            rank: self.rank.unwrap_or(recipe.rank),
            alpha: self.alpha.unwrap_or(recipe.alpha),
            dropout: self.dropout.unwrap_or(recipe.dropout),
            learning_rate: self.learning_rate.unwrap_or(recipe.learning_rate),
            epochs: self.epochs.unwrap_or(recipe.epochs),
            window_tokens: self.window_tokens.unwrap_or(recipe.window_tokens),
            fim_share: self.fim_share.unwrap_or(recipe.fim_share),
            seed: self.seed(),
            steps_max: self.steps_max.or(recipe.steps_max),
            ..recipe
        }
    }
}

/// A run to start.
#[derive(Debug, Clone, PartialEq)]
pub struct StartRun {
    /// What to learn from, or to measure on.
    pub source: SourceId,
    /// Which of the two.
    pub kind: RunKind,
    /// How.
    pub options: LearnOptions,
}

/// What a run's record keeps of its start, as JSON.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RunSpec {
    pub(crate) kind: RunKind,
    pub(crate) options: LearnOptions,
}

/// The field of the stored options that holds the kind.
const KIND_FIELD: &str = "kind";

impl RunSpec {
    fn to_json(&self) -> Result<Value, PlatformError> {
        let stored = |source: serde_json::Error| PlatformError::Stored { what: "run", source: source.into() };
        let mut fields = serde_json::to_value(&self.options).map_err(stored)?;
        fields[KIND_FIELD] = serde_json::to_value(self.kind).map_err(stored)?;
        Ok(fields)
    }

    pub(crate) fn parse(stored: &Value) -> Result<Self, PlatformError> {
        let unreadable = |source: serde_json::Error| PlatformError::Stored { what: "run", source: source.into() };
        let mut fields = stored.clone();
        let kind = fields.as_object_mut().and_then(|fields| fields.remove(KIND_FIELD)).unwrap_or_default();
        Ok(Self {
            kind: serde_json::from_value(kind).map_err(unreadable)?,
            options: serde_json::from_value(fields).map_err(unreadable)?,
        })
    }
}

/// The kind of a stored run.
#[must_use]
pub fn run_kind(run: &RunRecord) -> RunKind {
    // Only this crate writes runs; one that cannot be read would have failed at its start.
    RunSpec::parse(&run.options).map_or(RunKind::Learn, |spec| spec.kind)
}

impl Platform {
    /// Starts a run: writes its durable job, which a worker takes up.
    ///
    /// # Errors
    /// When the caller may not, the source is not there, an option is out of range, or the plan has no model of its
    /// own to teach.
    pub async fn start_run(&self, caller: &Caller, start: StartRun) -> Result<RunRecord, PlatformError> {
        self.check_open()?;
        let tenant = tenant_of(caller)?;
        let grant = caller.grant(right::StartRun { tenant })?;
        let plan = self.store().tenant(&grant.narrow(right::ReadTenant { tenant })?).await?.plan;
        if start.kind == RunKind::Learn && !plan.has_own_model() {
            let message = format!(
                "The plan `{plan}` is served by the base alone, which never learns from a tenant's code. Move to the \
                 plan `{}` first.",
                Plan::Tuned
            );
            return Err(PlatformError::Conflict { message, code: "plan_without_learning" });
        }
        self.check_options(&start.options)?;
        let suffix = start.options.suffix.clone().unwrap_or_default();
        let options = RunSpec { kind: start.kind, options: start.options }.to_json()?;
        let run = NewRun { source: start.source, suffix, options, idempotency_key: None };
        Ok(self.store().create_run(&grant, run).await?)
    }

    /// One run.
    ///
    /// # Errors
    /// When the caller may not, or there is none.
    pub async fn get_run(&self, caller: &Caller, run: RunId) -> Result<RunRecord, PlatformError> {
        let grant = caller.grant(right::ReadRuns { tenant: tenant_of(caller)? })?;
        Ok(self.store().run(&grant, run).await?)
    }

    /// The tenant's newest runs, newest first.
    ///
    /// # Errors
    /// When the caller may not.
    pub async fn list_runs(&self, caller: &Caller) -> Result<Vec<RunRecord>, PlatformError> {
        let grant = caller.grant(right::ReadRuns { tenant: tenant_of(caller)? })?;
        Ok(self.store().runs(&grant, RunPage { limit: limits::PAGE_ROWS_MAX, after: None }).await?)
    }

    /// A run's events with a greater number than `after`, oldest first, as many as fit a page.
    ///
    /// # Errors
    /// When the caller may not, or there is no such run.
    pub async fn run_events(&self, caller: &Caller, run: RunId, after: u64) -> Result<Vec<RunEvent>, PlatformError> {
        let grant = caller.grant(right::ReadRuns { tenant: tenant_of(caller)? })?;
        Ok(self.store().run_events(&grant, run, after, limits::PAGE_ROWS_MAX).await?)
    }

    /// The right to follow a run for as long as this is held.
    ///
    /// # Errors
    /// When the caller may not, or as many follow already as may.
    pub fn follow(&self, caller: &Caller) -> Result<Admission, PlatformError> {
        let tenant = tenant_of(caller)?;
        let _allowed = caller.grant(right::ReadRuns { tenant })?;
        self.followers().admit(tenant)
    }

    /// Stops a run; what is served stays.
    ///
    /// # Errors
    /// When the caller may not, there is no such run, or it has ended.
    pub async fn cancel_run(&self, caller: &Caller, run: RunId) -> Result<RunRecord, PlatformError> {
        let grant = caller.grant(right::CancelRun { tenant: tenant_of(caller)? })?;
        let record = self.store().cancel_run(&grant, run).await?;
        self.running_jobs().cancel(run);
        Ok(record)
    }

    /// The test part of the run that made a version, cut again from its source: text that the version did not learn
    /// from. For the demo and measurements.
    ///
    /// # Errors
    /// When the caller may not, the run made no version, or its source is gone.
    pub async fn held_out(&self, caller: &Caller, run: RunId) -> Result<Vec<SourceFile>, PlatformError> {
        let tenant = tenant_of(caller)?;
        let sources = caller.grant(right::ReadSources { tenant })?;
        let run = self.get_run(caller, run).await?;
        let number = run.version.ok_or_else(PlatformError::not_found)?;
        let version = self.store().version(&caller.grant(right::ReadVersions { tenant })?, number).await?;
        let manifest: DataManifest = serde_json::from_value(version.manifest)
            .map_err(|source| PlatformError::Stored { what: "manifest", source: source.into() })?;
        let archive = self.store().source_archive(&sources, run.source).await?;
        let cut_again = move || {
            let (files, _) = ingest::unpack(&archive)?;
            Ok(split::select(files, manifest.split_seed, &manifest.test))
        };
        tokio::task::spawn_blocking(cut_again)
            .await
            .map_err(PlatformError::task)?
            .map_err(|source: std::io::Error| PlatformError::Stored { what: "source", source: source.into() })
    }

    /// A version's adapter in memory. For the demo and measurements.
    ///
    /// # Errors
    /// When the caller may not, there is no such version, or it is of another base.
    pub async fn adapter(&self, caller: &Caller, number: VersionNumber) -> Result<Adapter, PlatformError> {
        let version = self.version_to_export(caller, number).await?;
        self.adapters().read(tenant_of(caller)?, version.digest).await
    }

    fn check_options(&self, options: &LearnOptions) -> Result<(), PlatformError> {
        let config = self.base().config();
        let checked = options.over(TrainOptions::recipe(0, config.hidden_size));
        if checked.window_tokens > config.context_tokens_max {
            let message =
                format!("The option 'window_tokens' must not exceed this model's {}.", config.context_tokens_max);
            return Err(PlatformError::invalid(message, "options", "invalid_value"));
        }
        match checked.check() {
            Ok(()) => Ok(()),
            Err(TrainError::Option { option }) => {
                let message = format!("The option '{option}' is out of range. Leave it out to use the recipe.");
                Err(PlatformError::invalid(message, "options", "invalid_value"))
            }
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_reads_back_as_it_was_started() {
        let options = LearnOptions { rank: Some(4), seed: Some(7), suffix: "style".parse().ok(), ..Default::default() };
        for kind in [RunKind::Learn, RunKind::Evaluate] {
            let spec = RunSpec { kind, options: options.clone() };
            assert_eq!(RunSpec::parse(&spec.to_json().unwrap()).unwrap(), spec);
        }
        let empty = RunSpec { kind: RunKind::Learn, options: LearnOptions::default() };
        assert_eq!(empty.to_json().unwrap(), serde_json::json!({"kind": "learn"}));
        assert!(RunSpec::parse(&serde_json::json!({"kind": "learn", "rnak": 3})).is_err());
        assert!(RunSpec::parse(&serde_json::json!({})).is_err());
    }

    #[test]
    fn options_override_the_recipe_and_nothing_else() {
        let recipe = TrainOptions::recipe(10_000, 320);
        let options = LearnOptions { rank: Some(3), steps_max: Some(5), ..Default::default() };
        assert_eq!(options.over(recipe.clone()), TrainOptions { rank: 3, steps_max: Some(5), ..recipe });
    }
}
