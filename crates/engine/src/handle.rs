//! The way into the engine: checks a job, gives it a stream, and hands it to the loop.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use atelier_domain::limits;
use atelier_model::{KV_BLOCK_TOKENS, Model};
use parking_lot::Mutex;
use thiserror::Error;

use crate::event::{self, Generation};
use crate::job::CompletionJob;
use crate::loader::AdapterSource;
use crate::mailbox::{Mailbox, Submission};
use crate::options::EngineOptions;
use crate::run::EngineLoop;
use crate::stats::EngineStats;

/// Why a job was not accepted. Nothing was computed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum SubmitError {
    /// As many requests wait as may wait.
    #[error("{queue_length_max} requests wait already: try again in a moment")]
    QueueFull {
        /// The bound.
        queue_length_max: usize,
    },
    /// Prompt and completion together are longer than the model's context.
    #[error(
        "the prompt has {prompt_tokens} tokens and the completion may have {tokens_max}: \
         together more than the model's context of {context_tokens_max}"
    )]
    PromptTooLong {
        /// Tokens of the prompt.
        prompt_tokens: usize,
        /// Tokens asked for.
        tokens_max: usize,
        /// The model's context.
        context_tokens_max: usize,
    },
    /// The KV cache is too small for this request even when it is empty.
    #[error("the request needs {blocks_needed} KV blocks of {kv_blocks} that there are: it can never be served")]
    NeverFits {
        /// Blocks for prompt and completion.
        blocks_needed: usize,
        /// Blocks in the cache.
        kv_blocks: usize,
    },
    /// A prompt without a token.
    #[error("the prompt is empty")]
    EmptyPrompt,
    /// A token id outside of the vocabulary.
    #[error("token {id} is outside of the vocabulary of {vocab_size}")]
    InvalidToken {
        /// The token.
        id: u32,
        /// The vocabulary's size.
        vocab_size: usize,
    },
    /// A parameter out of range.
    #[error("{0}")]
    InvalidParameter(&'static str),
    /// The engine takes no more jobs.
    #[error("the engine is shutting down")]
    ShuttingDown,
}

/// What handles and loop share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// Requests that were submitted and have no slot yet, in the mailbox or in the queue.
    pub queued: AtomicUsize,
    pub stats: Mutex<EngineStats>,
}

/// A handle to an engine; clones are the same engine. When the last is gone, the engine stops.
#[derive(Clone, Debug)]
pub struct Engine {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    limits: JobLimits,
    mailbox: Mailbox,
    shared: Arc<Shared>,
    next_id: AtomicU64,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What a job is checked against.
#[derive(Debug)]
struct JobLimits {
    context_tokens_max: usize,
    vocab_size: usize,
    kv_blocks: usize,
    queue_length_max: usize,
}

impl Engine {
    /// Starts the loop on a thread of its own.
    pub fn start(model: Arc<Model>, source: Arc<dyn AdapterSource>, options: EngineOptions) -> Engine {
        let (engine_loop, engine) = EngineLoop::new(model, source, options);
        let thread = thread::Builder::new()
            .name("atelier-engine".to_owned())
            .spawn(move || engine_loop.run())
            .expect("the operating system gives a thread at start");
        *engine.inner.thread.lock() = Some(thread);
        engine
    }

    pub(crate) fn new(model: &Model, options: &EngineOptions, mailbox: Mailbox, shared: Arc<Shared>) -> Engine {
        let limits = JobLimits {
            context_tokens_max: model.config().context_tokens_max,
            vocab_size: model.config().vocab_size,
            kv_blocks: options.kv_blocks,
            queue_length_max: options.queue_length_max,
        };
        let (next_id, thread) = (AtomicU64::new(1), Mutex::new(None));
        Engine { inner: Arc::new(Inner { limits, mailbox, shared, next_id, thread }) }
    }

    /// Checks the job and puts it into the queue.
    ///
    /// # Errors
    /// If the job can never be served, or not now; nothing has been computed then.
    pub fn submit(&self, job: CompletionJob) -> Result<Generation, SubmitError> {
        let inner = &*self.inner;
        inner.limits.check(&job)?;
        let queue_length_max = inner.limits.queue_length_max;
        let one_more = |queued: usize| (queued < queue_length_max).then_some(queued + 1);
        if inner.shared.queued.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more).is_err() {
            return Err(SubmitError::QueueFull { queue_length_max });
        }
        let id = inner.next_id.fetch_add(1, Ordering::Relaxed);
        let (reporter, generation) = event::generation(job.tokens_max, inner.mailbox.clone());
        if inner.mailbox.submit(Submission { id, job, reporter }).is_err() {
            inner.shared.queued.fetch_sub(1, Ordering::AcqRel);
            return Err(SubmitError::ShuttingDown);
        }
        Ok(generation)
    }

    /// How the engine stood at the end of its last step; the queue's length is of now.
    pub fn stats(&self) -> EngineStats {
        let mut stats = self.inner.shared.stats.lock().clone();
        stats.queued = self.inner.shared.queued.load(Ordering::Acquire);
        stats
    }

    /// True while the loop's thread runs. False after a shutdown, or after a defect of ours ended it.
    pub fn is_alive(&self) -> bool {
        self.inner.thread.lock().as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// Stops the loop and waits for it. Requests that are not finished end with `Failed(Stopped)`.
    pub fn shutdown(self) {
        self.inner.mailbox.shut_down();
        let thread = self.inner.thread.lock().take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the engine loop had panicked");
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.mailbox.shut_down();
    }
}

impl JobLimits {
    fn check(&self, job: &CompletionJob) -> Result<(), SubmitError> {
        let prompt_tokens = job.prompt.len();
        if prompt_tokens == 0 {
            return Err(SubmitError::EmptyPrompt);
        }
        let (tokens_max, context_tokens_max) = (job.tokens_max, self.context_tokens_max);
        if prompt_tokens.saturating_add(tokens_max) > context_tokens_max {
            return Err(SubmitError::PromptTooLong { prompt_tokens, tokens_max, context_tokens_max });
        }
        if let Some(&id) = job.prompt.iter().find(|id| **id as usize >= self.vocab_size) {
            return Err(SubmitError::InvalidToken { id, vocab_size: self.vocab_size });
        }
        let (blocks_needed, kv_blocks) = (job.positions_max().div_ceil(KV_BLOCK_TOKENS), self.kv_blocks);
        if blocks_needed > kv_blocks {
            return Err(SubmitError::NeverFits { blocks_needed, kv_blocks });
        }
        let stop_fault = |stop: &String| stop.is_empty() || stop.len() > limits::STOP_STRING_BYTES_MAX;
        if job.stop.len() > limits::STOP_STRINGS_MAX || job.stop.iter().any(stop_fault) {
            return Err(SubmitError::InvalidParameter("too many stop strings, or one is empty or too long"));
        }
        if job.logprobs.is_some_and(|count| count > limits::LOGPROBS_MAX) {
            return Err(SubmitError::InvalidParameter("too many logprobs asked for"));
        }
        job.sampling.fault().map_or(Ok(()), |fault| Err(SubmitError::InvalidParameter(fault)))
    }
}
