//! Keys and values of everything that is being generated: one pool of fixed-size blocks, shared by all sequences.

use crate::Config;

/// Tokens in one block of the cache. 16 wastes at most 15 slots a sequence and keeps block tables short.
pub const KV_BLOCK_TOKENS: usize = 16;

/// Paged keys and values of all layers, in f32. A sequence owns blocks through a table of block indexes: its token at
/// position `p` lies in slot `p % KV_BLOCK_TOKENS` of block `table[p / KV_BLOCK_TOKENS]`. Which block belongs to whom
/// is the caller's knowledge.
#[derive(Debug)]
pub struct KvCache {
    pub(crate) layers: Vec<LayerCache>,
    blocks: usize,
    width: usize, // kv_head_count * head_dim
}

/// Keys and values of one layer, each (blocks, KV_BLOCK_TOKENS, width).
#[derive(Debug)]
pub(crate) struct LayerCache {
    pub(crate) keys: Vec<f32>,
    pub(crate) values: Vec<f32>,
}

impl KvCache {
    pub(crate) fn new(config: &Config, blocks: usize) -> Self {
        let width = config.kv_width();
        // Zeroed memory is mapped lazily: a large cache costs what has been used of it.
        let layer = || LayerCache {
            keys: vec![0.0; blocks * KV_BLOCK_TOKENS * width],
            values: vec![0.0; blocks * KV_BLOCK_TOKENS * width],
        };
        Self { layers: (0..config.layer_count).map(|_| layer()).collect(), blocks, width }
    }

    /// Number of blocks in the pool.
    pub fn blocks(&self) -> usize {
        self.blocks
    }

    /// Bytes that one block takes over all layers, keys and values together.
    pub fn bytes_per_block(&self) -> usize {
        2 * self.layers.len() * KV_BLOCK_TOKENS * self.width * size_of::<f32>()
    }

    /// Copies block `from` over block `to` in every layer (a sequence that leaves a shared prefix).
    ///
    /// # Panics
    /// If a block index is not below [`KvCache::blocks`].
    pub fn copy_block(&mut self, from: u32, to: u32) {
        let (from, to) = (from as usize, to as usize);
        assert!(from < self.blocks && to < self.blocks, "block {from} or {to} of {} blocks", self.blocks);
        let len = KV_BLOCK_TOKENS * self.width;
        for layer in &mut self.layers {
            for rows in [&mut layer.keys, &mut layer.values] {
                rows.copy_within(from * len..(from + 1) * len, to * len);
            }
        }
    }

    /// Row of keys or values where `position` of a sequence lies, as an offset in elements.
    pub(crate) fn offset(&self, table: &[u32], position: usize) -> usize {
        let block = table[position / KV_BLOCK_TOKENS] as usize;
        (block * KV_BLOCK_TOKENS + position % KV_BLOCK_TOKENS) * self.width
    }

    pub(crate) fn width(&self) -> usize {
        self.width
    }
}
