//! Is it better than what is served now? Losses on text that neither has seen, paired by window.

use std::sync::Arc;

use atelier_domain::VersionNumber;
use atelier_model::{Adapter, Model};
use atelier_trainer::{
    EvalCard, EvalOptions, Interval, ItemLoss, SourceFile, Split, TrainError, evaluate, held_out_windows, paired_ci95,
    window_losses,
};

use super::JobError;
use crate::error::PlatformError;
use crate::worker::Job;

/// Windows wanted for an interval over them; small test parts get shorter windows.
const WINDOWS_WANTED: usize = 12;

/// Targets of the shortest window: below, most tokens have hardly any context.
const WINDOW_TOKENS_MIN: usize = 64;

/// Targets of the longest window, as long as those that adapters are trained on.
const WINDOW_TOKENS_MAX: usize = 512;

/// Tokens of held-out text for each completion item: about the longest item, so that items hardly overlap.
const TOKENS_PER_ITEM: usize = 50;

/// Items of a small and of a large test part; each costs about as much time as a training window.
const ITEMS: std::ops::RangeInclusive<usize> = 8..=200;

/// The adapter that answers the tenant today.
pub(crate) struct Served {
    pub(crate) number: VersionNumber,
    pub(crate) adapter: Adapter,
}

/// What the gate said.
pub(crate) struct Verdict {
    pub(crate) adapter: Adapter,
    /// Base against own.
    pub(crate) card: EvalCard,
    /// Loss of what is served now minus own loss; positive is better.
    pub(crate) gain: Interval,
    /// The version that `gain` is measured against; none for the base.
    pub(crate) parent: Option<VersionNumber>,
}

impl Verdict {
    /// A version goes live only if it is better than chance would have it.
    pub(crate) fn goes_live(&self) -> bool {
        self.gain.low > 0.0
    }

    /// Why it does not, in one sentence.
    pub(crate) fn refusal(&self) -> String {
        let against =
            self.parent.map_or_else(|| "the base".to_owned(), |number| format!("version {number}, which is live"));
        if self.card.windows < 2 {
            return format!("There is too little held-out text to tell whether it is better than {against}.");
        }
        format!(
            "On held-out text its loss is not reliably lower than that of {against}: the gain is {:.4} nats per token \
             with a 95 % interval from {:.4} to {:.4}.",
            self.gain.mean, self.gain.low, self.gain.high
        )
    }
}

/// Judges an adapter on the test part.
pub(crate) async fn judge_adapter(
    job: &Arc<Job>,
    model: &Arc<Model>,
    adapter: Adapter,
    served: Option<Served>,
    parts: &Split,
) -> Result<Verdict, JobError> {
    let (model, test, seed) = (Arc::clone(model), parts.test.clone(), job.options()?.seed());
    job.blocking(move || {
        let card = card(&model, Some(&adapter), &test, seed)?;
        let of_base =
            Interval { mean: card.paired_loss_gain, low: card.paired_loss_ci95[0], high: card.paired_loss_ci95[1] };
        let (gain, parent) = match served {
            None => (of_base, None),
            Some(served) => (gain_over(&model, &served.adapter, &adapter, &test, seed)?, Some(served.number)),
        };
        Ok(Verdict { adapter, card, gain, parent })
    })
    .await
}

/// Base against `own` on files that neither has seen.
///
/// # Errors
/// No text in the files, or what the model refuses.
pub fn card(model: &Model, own: Option<&Adapter>, files: &[SourceFile], seed: u64) -> Result<EvalCard, TrainError> {
    evaluate(model, own, files, &options(model, files, seed))
}

/// The losses of one arm over files that it has not seen, window by window, so that arms over the same files pair.
///
/// # Errors
/// What the model refuses.
pub fn held_out_losses(
    model: &Model,
    adapter: Option<&Adapter>,
    files: &[SourceFile],
) -> Result<Vec<ItemLoss>, PlatformError> {
    let windows = held_out_windows(model.tokenizer(), files, options(model, files, 0).window_tokens);
    let adapters: Vec<&Adapter> = adapter.into_iter().collect();
    Ok(window_losses(model, &adapters, &windows)?)
}

fn gain_over(
    model: &Model,
    served: &Adapter,
    own: &Adapter,
    files: &[SourceFile],
    seed: u64,
) -> Result<Interval, TrainError> {
    let options = options(model, files, seed);
    let windows = held_out_windows(model.tokenizer(), files, options.window_tokens);
    let served = window_losses(model, &[served], &windows)?;
    let own = window_losses(model, &[own], &windows)?;
    Ok(paired_ci95(&served, &own, seed))
}

fn options(model: &Model, files: &[SourceFile], seed: u64) -> EvalOptions {
    let tokens: usize = files.iter().map(|file| model.tokenizer().encode_plain(&file.text).len()).sum();
    let longest = WINDOW_TOKENS_MAX.min(model.config().context_tokens_max);
    let window_tokens = (tokens / WINDOWS_WANTED).clamp(WINDOW_TOKENS_MIN.min(longest), longest);
    let items_max = (tokens / TOKENS_PER_ITEM).clamp(*ITEMS.start(), *ITEMS.end());
    EvalOptions { window_tokens, items_max, seed }
}
