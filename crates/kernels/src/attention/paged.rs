//! Attention while serving: rows of any sequences, keys and values in blocks.

use std::ops::Range;

use crate::compute::Compute;
use crate::gemm::{Lanes, Product, run_part};
use crate::shared::SharedMut;
use crate::simd::{Kernel, Simd, slice};

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

/// out (rows, heads · head_dim): causal attention of each row of q over its own blocks, scale 1 / sqrt(head_dim).
///
/// The order of additions is a function of the position and of `block_tokens`, not of where blocks lie.
///
/// # Panics
/// If a shape does not fit, or a block table is too short or leads outside of the cache.
pub fn attention_paged(
    compute: &Compute,
    out: &mut [f32],
    q: &[f32],
    cache: PagedCache<'_>,
    rows: &[AttentionRow<'_>],
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
) {
    let elements = rows.len() * heads * head_dim;
    assert_eq!((out.len(), q.len()), (elements, elements), "out and q of {} rows", rows.len());
    assert!(kv_heads > 0 && heads.is_multiple_of(kv_heads), "{heads} heads do not share {kv_heads} evenly");
    assert_eq!(cache.width, kv_heads * head_dim, "the cache's width");
    assert!(cache.block_tokens > 0, "a block holds tokens");
    if elements == 0 {
        return;
    }
    let group = heads / kv_heads;
    let tokens_max = rows.iter().map(|row| row.position as usize + 1).max().unwrap_or(0);
    let out = SharedMut::new(out);
    compute.parallel_ranges(rows.len() * kv_heads, 2 * tokens_max * group * head_dim, &|items| {
        let mut scratch = compute.scratch(group + group * tokens_max);
        let scratch = scratch.f32s();
        compute.tier().run(Items { out: &out, q, cache, rows, kv_heads, group, head_dim, items, scratch });
    });
}

/// Pairs (row, key and value head) `items`, counted row by row.
struct Items<'a> {
    out: &'a SharedMut<'a, f32>,
    q: &'a [f32],
    cache: PagedCache<'a>,
    rows: &'a [AttentionRow<'a>],
    kv_heads: usize,
    group: usize,
    head_dim: usize,
    items: Range<usize>,
    scratch: &'a mut [f32], // (group), then (group, tokens)
}

impl Kernel for Items<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Items { cache, kv_heads, group, head_dim, .. } = self;
        let width = group * head_dim;
        for item in self.items {
            let row = &self.rows[item / kv_heads];
            let kv_start = item % kv_heads * head_dim;
            // An item's heads lie side by side, items in the order of q.
            let q = &self.q[item * width..(item + 1) * width];
            // SAFETY: each item belongs to one task.
            let out = unsafe { self.out.range(item * width..(item + 1) * width) };
            let tokens = row.position as usize + 1;
            let (sums, scores) = self.scratch.split_at_mut(group);
            let scores = &mut scores[..group * tokens];
            scores_of(s, scores, q, &cache, row, kv_start, head_dim);
            out.fill(0.0);
            for (scores, sum) in scores.chunks_exact_mut(tokens).zip(sums.iter_mut()) {
                let max = slice::max(s, scores);
                *sum = slice::exp_in_place(s, scores, max);
            }
            // Weights stay unnormalised until the end: dividing the few elements of out is less work.
            weigh_values(s, out, scores, &cache, row, kv_start, head_dim);
            for (out, sum) in out.chunks_exact_mut(head_dim).zip(sums.iter()) {
                slice::scale(s, out, 1.0 / sum);
            }
        }
    }
}

/// The parts of a row's positions that lie in one block each: (first position, tokens, offset in the cache).
#[inline(always)]
fn blocks<'a>(
    cache: &'a PagedCache<'_>,
    row: &'a AttentionRow<'_>,
) -> impl Iterator<Item = (usize, usize, usize)> + 'a {
    let tokens = row.position as usize + 1;
    (0..tokens)
        .step_by(cache.block_tokens)
        .map(move |first| (first, cache.block_tokens.min(tokens - first), cache.offset(row, first)))
}

/// scores (group, tokens) = q · key / sqrt(head_dim).
#[inline(always)]
fn scores_of<S: Simd>(
    s: S,
    scores: &mut [f32],
    q: &[f32],
    cache: &PagedCache<'_>,
    row: &AttentionRow<'_>,
    kv_start: usize,
    head_dim: usize,
) {
    let (group, tokens) = (q.len() / head_dim, row.position as usize + 1);
    assert_eq!(scores.len(), group * tokens);
    for (first, count, offset) in blocks(cache, row) {
        let keys = &cache.keys[offset..offset + count * cache.width];
        let product = Product {
            y: scores[first..].as_mut_ptr(),
            y_stride: tokens,
            x: q.as_ptr(),
            x_row: head_dim,
            x_step: 1,
            w: keys[kv_start..].as_ptr(),
            w_stride: cache.width,
            w_lanes: Lanes::Sum,
            k: head_dim,
            alpha: 1.0 / (head_dim as f32).sqrt(),
            accumulate: false,
        };
        // SAFETY: `keys` holds count rows, q a row for each head, and scores (group, tokens) ends with this block.
        unsafe { run_part(s, &product, 0..group, 0..count) };
    }
}

/// out (group, head_dim) += weights (group, tokens) · values.
#[inline(always)]
fn weigh_values<S: Simd>(
    s: S,
    out: &mut [f32],
    weights: &[f32],
    cache: &PagedCache<'_>,
    row: &AttentionRow<'_>,
    kv_start: usize,
    head_dim: usize,
) {
    let (group, tokens) = (out.len() / head_dim, row.position as usize + 1);
    assert_eq!(weights.len(), group * tokens);
    for (first, count, offset) in blocks(cache, row) {
        let values = &cache.values[offset..offset + count * cache.width];
        let product = Product {
            y: out.as_mut_ptr(),
            y_stride: head_dim,
            x: weights[first..].as_ptr(),
            x_row: tokens,
            x_step: 1,
            w: values[kv_start..].as_ptr(),
            w_stride: cache.width,
            w_lanes: Lanes::Columns,
            k: count,
            alpha: 1.0,
            accumulate: true,
        };
        // SAFETY: `values` holds count rows, weights (group, tokens) ends with this block, out is (group, head_dim).
        unsafe { run_part(s, &product, 0..group, 0..head_dim) };
    }
}
