//! How large an engine is.

use atelier_domain::limits;

/// The engine's sizes. `Default` takes them from the product's limits.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// Most rows (decode rows and prompt tokens together) in one forward pass; never below `slots`.
    pub step_token_budget: usize,
    /// Sequences that hold a slot at once.
    pub slots: usize,
    /// Most prompt tokens of one sequence in one step, so that a long prompt cannot delay others by more.
    pub prefill_chunk: usize,
    /// Blocks of `KV_BLOCK_TOKENS` tokens in the KV cache.
    pub kv_blocks: usize,
    /// Requests that may wait for a slot; the next one is refused.
    pub queue_length_max: usize,
    /// Bytes of adapter weights kept in memory. One more adapter, being loaded, lies outside of this.
    pub adapter_bytes_max: usize,
    /// Keep computed blocks for later requests with the same base, adapter set, salt and leading tokens.
    pub prefix_cache: bool,
    /// Generate `tokens_max` tokens even past an end-of-text token: for measurements with random weights.
    pub ignore_end_tokens: bool,
}

impl Default for EngineOptions {
    fn default() -> EngineOptions {
        EngineOptions {
            step_token_budget: limits::STEP_TOKEN_BUDGET,
            slots: limits::SLOTS_MAX,
            prefill_chunk: limits::PREFILL_CHUNK_TOKENS,
            kv_blocks: limits::KV_BLOCKS,
            queue_length_max: limits::QUEUE_LENGTH_MAX,
            adapter_bytes_max: limits::ADAPTER_BYTES_MAX,
            prefix_cache: true,
            ignore_end_tokens: false,
        }
    }
}

impl EngineOptions {
    /// The nearest sizes with which the loop can make progress: every decoding slot has a row in each step.
    pub(crate) fn made_workable(mut self) -> EngineOptions {
        self.slots = self.slots.max(1);
        self.step_token_budget = self.step_token_budget.max(self.slots);
        self.prefill_chunk = self.prefill_chunk.max(1);
        self.queue_length_max = self.queue_length_max.max(1);
        self
    }
}
