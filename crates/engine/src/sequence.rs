//! One request in a slot.

use std::sync::Arc;

use atelier_model::{KV_BLOCK_TOKENS, ServedAdapter, TextStream, Tokenizer};

use crate::event::{EngineError, Event, FinishReason, Reporter, TokenLogprob};
use crate::job::{AdapterSet, Sampling};
use crate::kv::{BlockKey, BlockPool, Prefix};
use crate::mailbox::Submission;
use crate::schedule::Demand;
use crate::stop::StopMatcher;

/// What a slot holds: the request, its blocks and how far it has come.
#[derive(Debug)]
pub(crate) struct Sequence {
    pub id: u64,
    pub client: u64,
    pub weight: u32,
    pub adapters: AdapterSet,
    pub sampling: Sampling,
    /// Alternatives to report with each token, if its log probability is asked for.
    pub logprobs: Option<u8>,
    /// The prompt and then what was generated.
    pub tokens: Vec<u32>,
    pub prompt_tokens: usize,
    tokens_max: usize,
    /// Leading tokens whose keys and values are in the cache.
    pub computed: usize,
    /// Every block that the sequence can ever need.
    pub table: Vec<u32>,
    /// The adapters, pinned, once the sequence takes part in steps; `None` while it waits for one.
    pub pinned: Option<Vec<Arc<ServedAdapter>>>,
    /// Leading blocks that were found or published.
    published: usize,
    /// The key of the last of these.
    prefix_key: BlockKey,
    /// What has been collected so far, if the job asks for it and it was not sent yet.
    prompt_logprobs: Option<Vec<Option<TokenLogprob>>>,
    text: TextStream,
    stop: StopMatcher,
    reporter: Reporter,
}

/// A sampled token.
#[derive(Debug)]
pub(crate) struct Sampled {
    pub id: u32,
    pub logprob: Option<TokenLogprob>,
}

/// What one step brought to one sequence.
#[derive(Debug)]
pub(crate) struct Advance {
    /// Index of the sequence among the slots.
    pub slot: usize,
    /// Rows that were computed for it.
    pub rows: usize,
    /// Of the prompt tokens that follow these rows, if the job asks for them.
    pub prompt_logprobs: Vec<TokenLogprob>,
    /// The next token, if the last row was the last known one.
    pub sampled: Option<Result<Sampled, EngineError>>,
}

/// Whether a sequence stays in its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// More is to come.
    Continues,
    /// Its last event has been sent.
    Finished,
    /// As `Finished`, with an error.
    Failed,
}

impl Sequence {
    /// Gives a request its slot. `table` begins with the blocks of `prefix`.
    pub(crate) fn new(submission: Submission, tokenizer: &Tokenizer, prefix: &Prefix, table: Vec<u32>) -> Sequence {
        let Submission { id, job, reporter } = submission;
        Sequence {
            id,
            client: job.client,
            weight: job.weight,
            adapters: job.adapters,
            sampling: job.sampling,
            logprobs: job.logprobs,
            prompt_tokens: job.prompt.len(),
            tokens_max: job.tokens_max,
            computed: prefix.blocks() * KV_BLOCK_TOKENS,
            table,
            pinned: None,
            published: prefix.blocks(),
            prefix_key: prefix.key,
            prompt_logprobs: job.prompt_logprobs.then(|| Vec::with_capacity(job.prompt.len())),
            tokens: job.prompt,
            text: TextStream::new(tokenizer),
            stop: StopMatcher::new(job.stop),
            reporter,
        }
    }

    /// Its adapters are pinned: from now on it takes part in steps.
    pub(crate) fn start(&mut self, pinned: Vec<Arc<ServedAdapter>>) {
        debug_assert_eq!(pinned.len(), self.adapters.digests().len());
        self.pinned = Some(pinned);
        let (prompt_tokens, cached_tokens) = (self.prompt_tokens, self.computed);
        self.reporter.send(Event::Started { prompt_tokens, cached_tokens });
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.reporter.is_cancelled()
    }

    pub(crate) fn is_prefilling(&self) -> bool {
        self.computed < self.prompt_tokens
    }

    pub(crate) fn generated(&self) -> usize {
        self.tokens.len() - self.prompt_tokens
    }

    /// Takes over blocks of its prompt that other sequences have computed since it was admitted: of several requests
    /// with one beginning, not every one reads it. Gives the number of tokens that need not be computed any more.
    pub(crate) fn adopt_computed_blocks(&mut self, pool: &mut BlockPool) -> usize {
        let computed_before = self.computed;
        // The last token of the prompt is always computed, since its logits are needed.
        while self.computed == self.published * KV_BLOCK_TOKENS
            && self.computed + KV_BLOCK_TOKENS < self.prompt_tokens
            && !self.wants_prompt_logprobs()
        {
            let key = self.prefix_key.then(&self.tokens[self.computed..self.computed + KV_BLOCK_TOKENS]);
            let Some(found) = pool.find(key) else { break };
            let own = std::mem::replace(&mut self.table[self.published], found);
            pool.exchange(own, found);
            self.prefix_key = key;
            self.published += 1;
            self.computed += KV_BLOCK_TOKENS;
        }
        self.computed - computed_before
    }

    /// What it asks of the next step.
    pub(crate) fn demand(&self) -> Demand {
        Demand { pending: self.tokens.len() - self.computed, logits_for_all: self.wants_prompt_logprobs() }
    }

    /// Prompt log probabilities were asked for and are not complete.
    pub(crate) fn wants_prompt_logprobs(&self) -> bool {
        self.prompt_logprobs.is_some()
    }

    /// True if a step that computes `rows` more tokens should choose the next one.
    pub(crate) fn samples_after(&self, rows: usize) -> bool {
        self.computed + rows == self.tokens.len() && self.tokens_max > 0
    }

    /// Takes over what a step computed, sends what follows from it, and publishes the blocks it filled.
    pub(crate) fn advance(&mut self, advance: Advance, pool: Option<&mut BlockPool>, ends: &[u32]) -> Progress {
        self.computed += advance.rows;
        if let Some(pool) = pool {
            self.publish_full_blocks(pool);
        }
        self.collect_prompt_logprobs(advance.prompt_logprobs);
        match advance.sampled {
            Some(Ok(sampled)) if ends.contains(&sampled.id) => self.finish(FinishReason::Stop),
            Some(Ok(sampled)) => self.take_token(sampled),
            Some(Err(error)) => self.fail(error),
            None if self.tokens_max == 0 && !self.is_prefilling() => self.finish(FinishReason::Length),
            None => Progress::Continues,
        }
    }

    fn publish_full_blocks(&mut self, pool: &mut BlockPool) {
        while (self.published + 1) * KV_BLOCK_TOKENS <= self.computed {
            let start = self.published * KV_BLOCK_TOKENS;
            self.prefix_key = self.prefix_key.then(&self.tokens[start..start + KV_BLOCK_TOKENS]);
            pool.publish(self.table[self.published], self.prefix_key, self.client);
            self.published += 1;
        }
    }

    fn collect_prompt_logprobs(&mut self, more: Vec<TokenLogprob>) {
        let complete = !self.is_prefilling();
        let Some(collected) = &mut self.prompt_logprobs else { return };
        if collected.is_empty() {
            // Nothing comes before the first token, so nothing predicts it.
            collected.push(None);
        }
        collected.extend(more.into_iter().map(Some));
        if complete {
            let all = std::mem::take(collected);
            debug_assert_eq!(all.len(), self.prompt_tokens);
            self.prompt_logprobs = None;
            self.reporter.send(Event::PromptLogprobs(all));
        }
    }

    fn take_token(&mut self, Sampled { id, logprob }: Sampled) -> Progress {
        self.tokens.push(id);
        let certain = self.text.push(id);
        let released = self.stop.push(&certain);
        self.reporter.send(Event::Token { id, text: released.text, logprob });
        if released.stopped {
            self.end(FinishReason::Stop, String::new())
        } else if self.generated() == self.tokens_max {
            self.finish(FinishReason::Length)
        } else {
            Progress::Continues
        }
    }

    /// Ends with what was held back: an incomplete character, and text that was not a stop string after all.
    fn finish(&mut self, reason: FinishReason) -> Progress {
        let rest = self.text.finish();
        let released = self.stop.push(&rest);
        if released.stopped {
            return self.end(FinishReason::Stop, released.text);
        }
        let held = self.stop.finish();
        self.end(reason, released.text + &held)
    }

    fn end(&mut self, reason: FinishReason, text: String) -> Progress {
        let completion_tokens = self.generated();
        self.reporter.send(Event::Finished { reason, text, completion_tokens });
        Progress::Finished
    }

    /// Ends early.
    pub(crate) fn fail(&mut self, error: EngineError) -> Progress {
        self.reporter.send(Event::Failed(error));
        Progress::Failed
    }
}
