//! Turns a tenant's files into a LoRA adapter on a frozen base, and judges the result on files it has not seen.
//! Knows files, tokens and adapters; nothing of tenants, storage or the network. Blocks the calling thread.
//!
//! Layout, in reading order: [`split_files`] parts the files; `scopes` finds places to complete with the grammars of
//! `language`; `samples` cuts windows and fill-in-the-middle samples; [`TrainOptions`] holds the recipe; [`train`] runs
//! it with `optimiser` and writes `checkpoint`s; [`evaluate`] compares base and adapter with the `statistics`.
//!
//! Invariants:
//! - the same base, files, options and instruction tier give the same adapter, byte for byte, also when resumed from
//!   any checkpoint: every random choice is a function of (seed, purpose, index), and nothing depends on the clock;
//! - untrusted text is only ever tokenised as plain text: it cannot bring special tokens into a sample;
//! - validation decides when to stop, test decides whether to publish, and neither shares near-duplicates with training.

mod checkpoint;
mod error;
mod evaluate;
mod language;
mod optimiser;
mod random;
mod recipe;
mod samples;
mod scopes;
mod split;
mod statistics;
mod train;

pub use error::{CheckpointError, TrainError};
pub use evaluate::{Arms, EvalCard, EvalOptions, evaluate, first_line_matches, window_losses};
pub use language::Language;
pub use recipe::{EPOCHS_MAX, RANK_MAX, ROWS_PER_STEP_MAX, TrainOptions, WINDOW_TOKENS_MAX, WINDOW_TOKENS_MIN};
pub use samples::{
    CompletionItem, Sample, SampleKind, SampleOptions, TARGET_TOKENS_MAX, completion_items, held_out_windows,
    training_samples,
};
pub use scopes::{PARSE_BYTES_MAX, SCOPE_BYTES_MAX, Scope, ScopeKind, scopes};
pub use split::{SourceFile, Split, SplitShares, split_files};
pub use statistics::{Interval, ItemLoss, bits_per_byte, mean_loss, paired_ci95};
pub use train::{CurvePoint, Observer, StopReason, TrainEvent, Trained, train};
