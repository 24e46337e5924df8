//! One step of many sequences: every row is one token of one sequence, and the batch mixes prefill chunks and decode
//! rows of any of them. Reads like the papers: Llama (Touvron et al. 2023) with Qwen's biases and norms, LoRA beside
//! every projection, keys and values in a paged cache.

use std::ops::Range;

use atelier_kernels::{
    AttentionRow, PagedCache, add, add_bias, attention_paged, lora_add, matmul, rms_norm, rope, silu_mul,
};

use crate::weights::Layer;
use crate::{Adapter, AdapterPair, Config, KV_BLOCK_TOKENS, KvCache, LoraPair, Model, ModelError, Projection};

/// Adapters that one row can carry: the tenant's, then the user's.
pub const ADAPTERS_PER_ROW_MAX: usize = 2;

/// One token of one sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Its id, below the vocabulary's size.
    pub token: u32,
    /// Its position in the sequence, below the model's context.
    pub position: u32,
    /// Index of the sequence's block table in [`Batch::tables`].
    pub table: u32,
}

/// Consecutive rows that run with the same adapters.
#[derive(Debug, Clone)]
pub struct AdapterGroup<'a, P = LoraPair> {
    /// Which rows.
    pub rows: Range<usize>,
    /// At most [`ADAPTERS_PER_ROW_MAX`], all applied to the same input of each projection.
    pub adapters: &'a [&'a Adapter<P>],
}

/// What one call of [`Model::forward`] computes.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'a, P = LoraPair> {
    /// The rows. Earlier tokens of a row's sequence are in the cache already or are rows of this batch.
    pub rows: &'a [Row],
    /// Block tables, each long enough for the highest position of its rows.
    pub tables: &'a [&'a [u32]],
    /// Groups in ascending order that do not overlap; a row in no group runs on the base alone and pays nothing.
    pub groups: &'a [AdapterGroup<'a, P>],
    /// Indexes of the rows whose logits are wanted, in the order they are wanted.
    pub logits_for: &'a [usize],
}

/// Memory for the values between two projections; grows to the largest batch it has seen and is used again.
#[derive(Debug, Default)]
pub struct Scratch {
    x: Vec<f32>,         // (rows, hidden), the residual stream
    normed: Vec<f32>,    // (rows, hidden)
    q: Vec<f32>,         // (rows, q_width)
    k: Vec<f32>,         // (rows, kv_width)
    v: Vec<f32>,         // (rows, kv_width)
    attention: Vec<f32>, // (rows, q_width)
    head_norm: Vec<f32>, // (rows, max(q_width, kv_width)), Qwen3
    projected: Vec<f32>, // (rows, hidden), back into the residual stream
    gate: Vec<f32>,      // (rows, intermediate)
    up: Vec<f32>,        // (rows, intermediate)
    inner: Vec<f32>,     // (rows, intermediate)
    lora: Vec<f32>,      // (rows, largest rank)
    last: Vec<f32>,      // (logits_for, hidden)
    positions: Vec<u32>, // (rows)
    /// Empty between two steps; kept for its memory.
    attention_rows: Vec<AttentionRow<'static>>,
}

impl Scratch {
    /// Empty scratch memory.
    pub fn new() -> Self {
        Self::default()
    }

    fn fit<P: AdapterPair>(&mut self, config: &Config, batch: &Batch<'_, P>) {
        let rows = batch.rows.len();
        for buffer in [&mut self.x, &mut self.normed, &mut self.projected] {
            buffer.resize(rows * config.hidden_size, 0.0);
        }
        for buffer in [&mut self.q, &mut self.attention] {
            buffer.resize(rows * config.q_width(), 0.0);
        }
        for buffer in [&mut self.k, &mut self.v] {
            buffer.resize(rows * config.kv_width(), 0.0);
        }
        for buffer in [&mut self.gate, &mut self.up, &mut self.inner] {
            buffer.resize(rows * config.intermediate_size, 0.0);
        }
        if config.qk_norm {
            self.head_norm.resize(rows * config.q_width().max(config.kv_width()), 0.0);
        }
        let ranks = batch.groups.iter().flat_map(|group| group.adapters).map(|adapter| adapter.rank());
        self.lora.resize(rows * ranks.max().unwrap_or(0), 0.0);
        self.last.resize(batch.logits_for.len() * config.hidden_size, 0.0);
        self.positions.clear();
        self.positions.extend(batch.rows.iter().map(|row| row.position));
    }
}

impl Model {
    /// Computes one step: writes keys and values of all rows into `cache`, and the logits of the rows in
    /// `batch.logits_for` into `logits`, resized to (logits_for, vocab).
    ///
    /// # Errors
    /// A token that the vocabulary does not have, or a position beyond the model's context.
    ///
    /// # Panics
    /// If the parts of the batch do not fit each other, the cache, or the model: these are the caller's mistakes.
    pub fn forward<P: AdapterPair>(
        &self,
        cache: &mut KvCache,
        scratch: &mut Scratch,
        batch: &Batch<'_, P>,
        logits: &mut Vec<f32>,
    ) -> Result<(), ModelError> {
        self.check(cache, batch)?;
        let (config, compute) = (&self.config, &*self.compute);
        let hidden = config.hidden_size;
        scratch.fit(config, batch);
        let mut attention_rows = recycle(std::mem::take(&mut scratch.attention_rows));
        attention_rows.extend(
            batch
                .rows
                .iter()
                .map(|row| AttentionRow { block_table: batch.tables[row.table as usize], position: row.position }),
        );

        for (row, x) in batch.rows.iter().zip(scratch.x.chunks_exact_mut(hidden)) {
            self.weights.embed(compute, x, row.token);
        }
        for (index, layer) in self.weights.layers.iter().enumerate() {
            self.attention(index, layer, cache, scratch, batch, &attention_rows);
            self.feed_forward(index, layer, scratch, batch);
        }
        scratch.attention_rows = recycle(attention_rows);

        let wanted = batch.logits_for.len();
        for (&row, last) in batch.logits_for.iter().zip(scratch.last.chunks_exact_mut(hidden)) {
            last.copy_from_slice(&scratch.x[row * hidden..][..hidden]);
        }
        let normed = &mut scratch.projected;
        normed.resize(wanted * hidden, 0.0);
        rms_norm(compute, normed, &scratch.last, &self.weights.final_norm, config.rms_norm_eps, wanted, hidden);
        logits.resize(wanted * config.vocab_size, 0.0);
        matmul(compute, logits, normed, &self.weights.head.weight, wanted);
        Ok(())
    }

    /// x += O(attention(Q(norm x), K(norm x), V(norm x)))
    fn attention<P: AdapterPair>(
        &self,
        index: usize,
        layer: &Layer,
        cache: &mut KvCache,
        scratch: &mut Scratch,
        batch: &Batch<'_, P>,
        attention_rows: &[AttentionRow],
    ) {
        let (config, compute, rows) = (&self.config, &*self.compute, batch.rows.len());
        let (heads, kv_heads, head_dim) = (config.head_count, config.kv_head_count, config.head_dim);
        let Scratch { x, normed, q, k, v, attention, head_norm, projected, lora, positions, .. } = scratch;

        rms_norm(compute, normed, x, &layer.attention_norm, config.rms_norm_eps, rows, config.hidden_size);
        self.project_groups((index, layer, Projection::Q), q, normed, lora, batch);
        self.project_groups((index, layer, Projection::K), k, normed, lora, batch);
        self.project_groups((index, layer, Projection::V), v, normed, lora, batch);
        for (y, weight, heads) in [(&mut *q, &layer.q_norm, heads), (&mut *k, &layer.k_norm, kv_heads)] {
            if let Some(weight) = weight {
                let before = &mut head_norm[..y.len()];
                before.copy_from_slice(y);
                rms_norm(compute, y, before, weight, config.rms_norm_eps, rows * heads, head_dim);
            }
        }
        rope(compute, q, positions, &self.rope, rows, heads);
        rope(compute, k, positions, &self.rope, rows, kv_heads);

        let width = cache.width();
        for (row, (k, v)) in attention_rows.iter().zip(k.chunks_exact(width).zip(v.chunks_exact(width))) {
            let offset = cache.offset(row.block_table, row.position as usize);
            let layer = &mut cache.layers[index];
            layer.keys[offset..][..width].copy_from_slice(k);
            layer.values[offset..][..width].copy_from_slice(v);
        }
        let cache = &cache.layers[index];
        let cache = PagedCache { keys: &cache.keys, values: &cache.values, block_tokens: KV_BLOCK_TOKENS, width };
        attention_paged(compute, attention, q, cache, attention_rows, heads, kv_heads, head_dim);

        self.project_groups((index, layer, Projection::O), projected, attention, lora, batch);
        add(compute, x, projected, rows * config.hidden_size);
    }

    /// x += Down(silu(Gate(norm x)) * Up(norm x))
    fn feed_forward<P: AdapterPair>(&self, index: usize, layer: &Layer, scratch: &mut Scratch, batch: &Batch<'_, P>) {
        let (config, compute, rows) = (&self.config, &*self.compute, batch.rows.len());
        let Scratch { x, normed, gate, up, inner, projected, lora, .. } = scratch;

        rms_norm(compute, normed, x, &layer.mlp_norm, config.rms_norm_eps, rows, config.hidden_size);
        self.project_groups((index, layer, Projection::Gate), gate, normed, lora, batch);
        self.project_groups((index, layer, Projection::Up), up, normed, lora, batch);
        silu_mul(compute, inner, gate, up, rows * config.intermediate_size);
        self.project_groups((index, layer, Projection::Down), projected, inner, lora, batch);
        add(compute, x, projected, rows * config.hidden_size);
    }

    /// y = x Wᵀ (+ bias) for all rows at once; then each group adds `scale · (x Aᵀ) Bᵀ` of each of its adapters, at
    /// the adapter's own rank.
    fn project_groups<P: AdapterPair>(
        &self,
        (index, layer, projection): (usize, &Layer, Projection),
        y: &mut [f32],
        x: &[f32],
        lora: &mut [f32],
        batch: &Batch<'_, P>,
    ) {
        let (compute, rows) = (&*self.compute, batch.rows.len());
        let (n_out, n_in) = projection.shape(&self.config);
        let linear = layer.linear(projection);
        matmul(compute, y, x, &linear.weight, rows);
        if let Some(bias) = &linear.bias {
            add_bias(compute, y, bias, rows, n_out);
        }
        let mut products = Vec::with_capacity(batch.groups.len() * ADAPTERS_PER_ROW_MAX);
        for group in batch.groups {
            let pairs = group.adapters.iter().filter_map(|adapter| adapter.pair(index, projection));
            products.extend(pairs.map(|pair| pair.product(group.rows.clone())));
        }
        lora_add(compute, y, lora, x, &products, n_in, n_out);
    }

    /// Every relation between the shapes, once, at the entry.
    fn check<P: AdapterPair>(&self, cache: &KvCache, batch: &Batch<'_, P>) -> Result<(), ModelError> {
        let config = &self.config;
        assert_eq!(cache.layers.len(), config.layer_count, "the cache was made for another model");
        assert_eq!(cache.width(), config.kv_width(), "the cache was made for another model");
        let mut free_from = 0;
        for group in batch.groups {
            assert!(group.rows.start >= free_from, "adapter groups overlap or are out of order");
            assert!(group.rows.start <= group.rows.end && group.rows.end <= batch.rows.len(), "group beyond the batch");
            assert!(group.adapters.len() <= ADAPTERS_PER_ROW_MAX, "more than {ADAPTERS_PER_ROW_MAX} adapters a row");
            for adapter in group.adapters {
                assert_eq!(adapter.layer_count(), config.layer_count, "the adapter was made for another model");
            }
            free_from = group.rows.end;
        }
        assert!(batch.logits_for.iter().all(|&row| row < batch.rows.len()), "logits for a row beyond the batch");
        for (index, row) in batch.rows.iter().enumerate() {
            let problem = if row.token as usize >= config.vocab_size {
                format!("token {} is not in the vocabulary of {}", row.token, config.vocab_size)
            } else if row.position as usize >= config.context_tokens_max {
                format!("position {} is beyond the context of {} tokens", row.position, config.context_tokens_max)
            } else {
                let table = batch.tables[row.table as usize];
                let used = &table[..row.position as usize / KV_BLOCK_TOKENS + 1];
                let block = used[used.len() - 1] as usize;
                assert!(block < cache.blocks(), "row {index}: block {block} of a cache of {}", cache.blocks());
                continue;
            };
            return Err(ModelError::Row { row: index, problem });
        }
        Ok(())
    }
}

/// An empty vector in the memory of `rows`, for rows of another lifetime: collecting a vector's own iterator back into
/// a vector of elements of the same size reuses its memory.
fn recycle<'a>(mut rows: Vec<AttentionRow<'_>>) -> Vec<AttentionRow<'a>> {
    rows.clear();
    rows.into_iter().map(|_| -> AttentionRow<'a> { unreachable!("the vector is empty") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recycling_keeps_the_memory() {
        let table = [0];
        let mut rows = Vec::with_capacity(100);
        rows.push(AttentionRow { block_table: &table, position: 0 });
        let recycled: Vec<AttentionRow<'static>> = recycle(rows);
        assert!(recycled.is_empty());
        assert_eq!(recycled.capacity(), 100);
    }
}
