//! Attention.

use std::ops::Range;

use crate::compute::Compute;

/// One layer's keys and values in blocks of `block_tokens` tokens; slot s of block b begins at
/// `(b * block_tokens + s) * width`.
#[derive(Clone, Copy, Debug)]
pub struct PagedCache<'a> {
    /// Keys (blocks, block_tokens, width).
    pub keys: &'a [f32],
    /// Values (blocks, block_tokens, width).
    pub values: &'a [f32],
    /// Tokens in a block.
    pub block_tokens: usize,
    /// kv_heads · head_dim.
    pub width: usize,
}

impl PagedCache<'_> {
    /// Where the keys and values of one position of a row begin.
    pub(crate) fn offset(&self, row: &AttentionRow<'_>, position: usize) -> usize {
        let block = row.block_table[position / self.block_tokens] as usize;
        (block * self.block_tokens + position % self.block_tokens) * self.width
    }
}

/// One query row: attends to positions 0..=`position`, found through its block table.
#[derive(Clone, Copy, Debug)]
pub struct AttentionRow<'a> {
    /// Block of each `block_tokens` positions.
    pub block_table: &'a [u32],
    /// The row's own position, the last that it sees.
    pub position: u32,
}

/// out (rows, heads · head_dim): causal attention of each row over its own blocks, scale 1 / sqrt(head_dim).
pub fn attention_paged(
    _compute: &Compute,
    out: &mut [f32],
    q: &[f32],
    cache: PagedCache<'_>,
    rows: &[AttentionRow<'_>],
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
) {
    crate::naive::attention_paged(out, q, cache, rows, heads, kv_heads, head_dim);
}

/// out (rows, heads · head_dim) and lse (rows, heads) of packed sequences, for training.
pub fn attention_causal(
    _compute: &Compute,
    out: &mut [f32],
    lse: &mut [f32],
    q: &[f32],
    k: &[f32],
    v: &[f32],
    sequences: &[Range<usize>],
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
) {
    crate::naive::attention_causal(out, lse, q, k, v, sequences, heads, kv_heads, head_dim);
}

/// dq, dk, dv of [`attention_causal`], all overwritten within the sequences.
pub fn attention_causal_backward(
    _compute: &Compute,
    dq: &mut [f32],
    dk: &mut [f32],
    dv: &mut [f32],
    dout: &[f32],
    q: &[f32],
    k: &[f32],
    v: &[f32],
    out: &[f32],
    lse: &[f32],
    sequences: &[Range<usize>],
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
) {
    crate::naive::attention_causal_backward(
        dq, dk, dv, dout, q, k, v, out, lse, sequences, heads, kv_heads, head_dim,
    );
}
