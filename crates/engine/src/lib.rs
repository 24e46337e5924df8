//! Serves many adapters on one base model: one loop thread owns the model's KV cache and advances every running
//! sequence a step at a time, in batches that mix tenants. Adapters are known by content digest alone.
//!
//! Layout, in reading order: `job` (what is asked), `event` (what is answered), `options`, `handle` and
//! `mailbox` (the way in), `queue` (who is next), `run` (the loop), `schedule` (which rows go into a step), `step` (one
//! forward pass), `sequence` (one request in a slot), `kv` (paged blocks and prefix reuse), `residency` and `loader`
//! (adapters in memory), `sample`, `stop`, `stats`.
//!
//! Invariants:
//! - The same (base, adapter set, prompt, sampling) gives the same tokens whatever shares the batch.
//! - A cached block is found only by a key that commits to base, adapter set, tenant salt and every token before it.
//! - A sequence in a slot has all the blocks that it can ever need: nothing that runs is ever preempted.
//! - The loop never waits for a consumer, nor for an adapter while another sequence can run.

mod event;
mod handle;
mod job;
mod kv;
mod loader;
mod mailbox;
mod options;
mod queue;
mod residency;
mod run;
mod sample;
mod schedule;
mod sequence;
mod stats;
mod step;
mod stop;

pub use event::{EngineError, Event, FinishReason, GeneratedTokens, Generation, TokenLogprob};
pub use handle::{Engine, SubmitError};
pub use job::{AdapterSet, CompletionJob, Sampling};
pub use loader::AdapterSource;
pub use options::EngineOptions;
pub use queue::{Charge, FairQueue, Ticket};
pub use run::{EngineLoop, StepReport};
pub use stats::EngineStats;
