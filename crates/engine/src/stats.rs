//! What the engine says about itself.

/// A snapshot taken at the end of a step. Totals count from the engine's start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EngineStats {
    /// Sequences in slots that take part in steps.
    pub running: usize,
    /// Sequences in slots that wait for an adapter.
    pub waiting_for_adapter: usize,
    /// Requests without a slot.
    pub queued: usize,
    /// Blocks in the KV cache.
    pub kv_blocks_total: usize,
    /// Blocks that hold nothing.
    pub kv_blocks_free: usize,
    /// Blocks that no sequence uses but that a later prompt may find; given up when a block is needed.
    pub kv_blocks_cached: usize,
    /// Adapters in memory.
    pub adapters_resident: usize,
    /// Their bytes.
    pub adapter_bytes: usize,
    /// Adapters read by the loader so far.
    pub adapter_loads_total: u64,
    /// Adapters dropped to make room so far.
    pub adapter_evictions_total: u64,
    /// Forward passes so far.
    pub steps_total: u64,
    /// Prompt tokens of admitted requests so far, found in the cache or not.
    pub prompt_tokens_total: u64,
    /// Of these, tokens whose keys and values came from the cache.
    pub cached_tokens_total: u64,
    /// Tokens generated so far.
    pub generated_tokens_total: u64,
}
