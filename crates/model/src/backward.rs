//! Losses of packed sequences, and LoRA gradients by a hand-written backward pass through the frozen base.
//!
//! A step goes micro-batch by micro-batch, so memory is bounded whatever the batch: forward keeps what backward
//! cannot cheaply compute again (`layer.rs` says what), the head turns a few rows at a time into losses and their
//! gradient, backward walks the layers in reverse and stops at the first one with an adapter. Only dX passes
//! through the base; dA and dB of each pair are summed over the micro-batches in a fixed order.

mod dropout;
mod layer;

use std::ops::Range;

use atelier_kernels as kernels;

use crate::{Adapter, AdapterGradients, Config, Model, ModelError, Projection};

pub use dropout::Dropout;
use layer::{LayerPass, SavedLayer, Work};

/// Bytes of kept activations of one micro-batch, unless a single sequence needs more. The products are at full speed
/// from a few hundred rows, and buffers of more rows than this only leave the caches sooner: on `models/atelier-base`
/// a step of 4,096 tokens is some 15 % faster than in one piece.
const ACTIVATION_BYTES_MAX: usize = 128 << 20;

/// Logits computed at a time: 16 MB, about half of a last-level cache.
const LOGITS_MAX: usize = 4 << 20;

/// Rows of logits computed at a time, at least: under this the head's weights are read too often for their size.
const HEAD_ROWS_MIN: usize = 64;

/// Rows of logits computed at a time, at most.
const HEAD_ROWS_MAX: usize = 512;

/// Packed sequences to learn from or to be judged on.
#[derive(Debug, Clone, Copy)]
pub struct TrainBatch<'a> {
    /// Inputs of all sequences, one after another.
    pub tokens: &'a [u32],
    /// What follows each input; -1 where nothing is asked.
    pub targets: &'a [i32],
    /// Rows of each sequence: from 0 on without gaps, none empty.
    pub sequences: &'a [Range<usize>],
}

/// Loss of a batch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LossSum {
    /// Nats, summed over the counted targets.
    pub total: f64,
    /// Counted targets.
    pub tokens: usize,
}

impl LossSum {
    /// Nats per counted target.
    pub fn mean(&self) -> f64 {
        self.total / self.tokens.max(1) as f64
    }
}

/// Memory of a pass, reused from one to the next; grows to the largest batch it has seen.
#[derive(Default)]
pub struct TrainScratch {
    saved: Vec<SavedLayer>,
    work: Work,
    head: HeadWork,
    positions: Vec<u32>,
}

impl TrainScratch {
    /// Empty; the first pass allocates.
    pub fn new() -> Self {
        Self::default()
    }
}

impl std::fmt::Debug for TrainScratch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TrainScratch").field("layers", &self.saved.len()).finish_non_exhaustive()
    }
}

#[derive(Default)]
struct HeadWork {
    normed: Vec<f32>,   // (chunk, hidden)
    d_normed: Vec<f32>, // (chunk, hidden)
    logits: Vec<f32>,   // (chunk, vocab), then their gradients
    losses: Vec<f32>,   // (chunk)
}

/// Sequences computed together: a range of the batch's sequences and the rows they cover.
struct MicroBatch {
    sequences: Vec<Range<usize>>, // rows within the micro-batch
    rows: Range<usize>,           // rows of the batch
}

impl Model {
    /// The loss of each row's target under the base with `adapters` (both applied to the same inputs), into
    /// `losses` (rows); 0 where nothing is asked.
    ///
    /// # Errors
    /// A batch with sequences that do not fit together or the model, or with ids it does not have.
    pub fn token_losses(
        &self,
        scratch: &mut TrainScratch,
        adapters: &[&Adapter],
        batch: &TrainBatch<'_>,
        losses: &mut Vec<f32>,
    ) -> Result<(), ModelError> {
        check_batch(&self.config, batch)?;
        adapters.iter().for_each(|adapter| check_adapter(&self.config, adapter));
        losses.clear();
        losses.resize(batch.tokens.len(), 0.0);
        for micro in micro_batches(batch, activation_bytes_per_row(&self.config, 0) / self.config.layer_count) {
            let pass = self.embed(scratch, adapters, None, batch, &micro);
            scratch.saved.resize_with(1, SavedLayer::default);
            for layer in 0..self.config.layer_count {
                self.forward_layer(layer, &mut scratch.saved[0], &mut scratch.work, &pass, &scratch.positions);
            }
            self.head_losses(scratch, batch, &micro, losses);
        }
        Ok(())
    }

    /// The loss of the batch under base and `adapter`, and the gradients of its *mean* over the counted targets.
    /// `gradients` is overwritten. With `dropout`, LoRA inputs are dropped as in training.
    ///
    /// # Errors
    /// As [`Model::token_losses`]; a model loaded without `with_backward`.
    ///
    /// # Panics
    /// If `gradients` was not made for `adapter`.
    pub fn loss_and_gradients(
        &self,
        scratch: &mut TrainScratch,
        adapter: &Adapter,
        dropout: Option<Dropout>,
        batch: &TrainBatch<'_>,
        gradients: &mut AdapterGradients,
    ) -> Result<LossSum, ModelError> {
        if self.weights.head.transposed.is_none() {
            return Err(ModelError::NoBackward);
        }
        check_batch(&self.config, batch)?;
        check_adapter(&self.config, adapter);
        for (_, _, gradient) in gradients.pairs_mut() {
            gradient.a.fill(0.0);
            gradient.b_t.fill(0.0);
        }
        let counted = batch.targets.iter().filter(|&&target| target >= 0).count();
        let mut sum = LossSum { total: 0.0, tokens: counted };
        let Some(first_layer) = adapter.pairs().map(|(layer, _, _)| layer).min() else {
            let mut losses = Vec::new();
            self.token_losses(scratch, &[], batch, &mut losses)?;
            sum.total = losses.iter().map(|&loss| f64::from(loss)).sum();
            return Ok(sum);
        };
        let adapters = [adapter];
        for micro in micro_batches(batch, activation_bytes_per_row(&self.config, adapter.rank())) {
            let pass = self.embed(scratch, &adapters, dropout, batch, &micro);
            scratch.saved.resize_with(self.config.layer_count, SavedLayer::default);
            for layer in 0..self.config.layer_count {
                self.forward_layer(layer, &mut scratch.saved[layer], &mut scratch.work, &pass, &scratch.positions);
            }
            sum.total += self.head_backward(scratch, batch, &micro, 1.0 / counted.max(1) as f32);
            for layer in (first_layer..self.config.layer_count).rev() {
                let with_dx = layer > first_layer;
                let TrainScratch { saved, work, positions, .. } = &mut *scratch;
                self.backward_layer(layer, with_dx, &saved[layer], work, &pass, positions, gradients);
            }
        }
        Ok(sum)
    }

    /// Embeds a micro-batch's tokens into `scratch.work.x` and numbers its positions.
    fn embed<'a>(
        &self,
        scratch: &mut TrainScratch,
        adapters: &'a [&'a Adapter],
        dropout: Option<Dropout>,
        batch: &TrainBatch<'_>,
        micro: &MicroBatch,
    ) -> LayerPass<'a> {
        let hidden = self.config.hidden_size;
        scratch.work.x.resize(micro.rows.len() * hidden, 0.0);
        let tokens = &batch.tokens[micro.rows.clone()];
        for (&token, out) in tokens.iter().zip(scratch.work.x.chunks_exact_mut(hidden)) {
            self.weights.embed(&self.compute, out, token);
        }
        scratch.positions.clear();
        let positions = micro.sequences.iter().flat_map(|sequence| 0..sequence.len() as u32);
        scratch.positions.extend(positions);
        LayerPass { adapters, dropout, row_start: micro.rows.start, sequences: micro.sequences.clone() }
    }

    /// Losses of the rows whose last hidden state is in `scratch.work.x`.
    fn head_losses(&self, scratch: &mut TrainScratch, batch: &TrainBatch<'_>, micro: &MicroBatch, losses: &mut [f32]) {
        let TrainScratch { work, head, .. } = scratch;
        for chunk in self.head_chunks(micro.rows.len()) {
            let targets = &batch.targets[micro.rows.start + chunk.start..micro.rows.start + chunk.end];
            if targets.iter().all(|&target| target < 0) {
                continue;
            }
            self.logits(head, &work.x, &chunk);
            let losses = &mut losses[micro.rows.start + chunk.start..micro.rows.start + chunk.end];
            kernels::cross_entropy(&self.compute, losses, &head.logits, targets, chunk.len(), self.config.vocab_size);
        }
    }

    /// The summed loss of the rows in `scratch.work.x`, whose gradient goes to `scratch.work.dx`.
    fn head_backward(&self, scratch: &mut TrainScratch, batch: &TrainBatch<'_>, micro: &MicroBatch, scale: f32) -> f64 {
        let TrainScratch { work, head, .. } = scratch;
        let (hidden, vocab) = (self.config.hidden_size, self.config.vocab_size);
        let transposed = self.weights.head.transposed.as_ref().expect("checked by the caller");
        work.dx.resize(micro.rows.len() * hidden, 0.0);
        let mut total = 0.0;
        for chunk in self.head_chunks(micro.rows.len()) {
            let rows = chunk.len();
            let targets = &batch.targets[micro.rows.start + chunk.start..micro.rows.start + chunk.end];
            let dx = &mut work.dx[chunk.start * hidden..chunk.end * hidden];
            if targets.iter().all(|&target| target < 0) {
                dx.fill(0.0);
                continue;
            }
            self.logits(head, &work.x, &chunk);
            head.losses.resize(rows, 0.0);
            kernels::cross_entropy_backward(
                &self.compute,
                &mut head.logits,
                &mut head.losses,
                targets,
                scale,
                rows,
                vocab,
            );
            total += head.losses.iter().map(|&loss| f64::from(loss)).sum::<f64>();
            head.d_normed.resize(rows * hidden, 0.0);
            kernels::matmul(&self.compute, &mut head.d_normed, &head.logits, transposed, rows);
            kernels::rms_norm_backward(
                &self.compute,
                dx,
                &head.d_normed,
                &work.x[chunk.start * hidden..chunk.end * hidden],
                &self.weights.final_norm,
                self.config.rms_norm_eps,
                rows,
                hidden,
            );
        }
        total
    }

    /// Logits of the rows `chunk` of x (rows, hidden), into `head.logits`.
    fn logits(&self, head: &mut HeadWork, x: &[f32], chunk: &Range<usize>) {
        let (hidden, rows) = (self.config.hidden_size, chunk.len());
        head.normed.resize(rows * hidden, 0.0);
        head.logits.resize(rows * self.config.vocab_size, 0.0);
        kernels::rms_norm(
            &self.compute,
            &mut head.normed,
            &x[chunk.start * hidden..chunk.end * hidden],
            &self.weights.final_norm,
            self.config.rms_norm_eps,
            rows,
            hidden,
        );
        kernels::matmul(&self.compute, &mut head.logits, &head.normed, &self.weights.head.weight, rows);
        if let Some(bias) = &self.weights.head.bias {
            kernels::add_bias(&self.compute, &mut head.logits, bias, rows, self.config.vocab_size);
        }
    }

    fn head_chunks(&self, rows: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        let chunk = (LOGITS_MAX / self.config.vocab_size).clamp(HEAD_ROWS_MIN, HEAD_ROWS_MAX);
        (0..rows).step_by(chunk).map(move |start| start..(start + chunk).min(rows))
    }
}

/// Whole sequences while their kept activations fit; one longer sequence goes alone.
fn micro_batches(batch: &TrainBatch<'_>, bytes_per_row: usize) -> Vec<MicroBatch> {
    let rows_max = ACTIVATION_BYTES_MAX / bytes_per_row.max(1);
    let mut micros: Vec<MicroBatch> = Vec::new();
    for sequence in batch.sequences {
        match micros.last_mut() {
            Some(micro) if micro.rows.len() + sequence.len() <= rows_max => {
                micro.rows.end = sequence.end;
                micro.sequences.push(sequence.start - micro.rows.start..sequence.end - micro.rows.start);
            }
            _ => {
                let sequences = std::iter::once(0..sequence.len()).collect::<Vec<_>>();
                micros.push(MicroBatch { sequences, rows: sequence.clone() });
            }
        }
    }
    micros
}

/// Bytes that forward keeps for backward, per row.
fn activation_bytes_per_row(config: &Config, rank: usize) -> usize {
    let raw = if config.qk_norm { config.q_width() + config.kv_width() } else { 0 };
    let floats = 2 * config.hidden_size
        + 2 * config.q_width()
        + 2 * config.kv_width()
        + raw
        + config.head_count
        + 2 * config.intermediate_size
        + Projection::ALL.len() * rank;
    config.layer_count * floats * size_of::<f32>()
}

fn check_batch(config: &Config, batch: &TrainBatch<'_>) -> Result<(), ModelError> {
    let refuse = |row: usize, problem: String| Err(ModelError::Row { row, problem });
    let rows = batch.tokens.len();
    if batch.targets.len() != rows {
        return refuse(rows, format!("{} targets for {rows} tokens", batch.targets.len()));
    }
    let mut end = 0;
    for sequence in batch.sequences {
        if sequence.start != end || sequence.end <= sequence.start || sequence.end > rows {
            return refuse(sequence.start, format!("sequence {sequence:?} does not follow on row {end} of {rows}"));
        }
        if sequence.len() > config.context_tokens_max {
            let limit = config.context_tokens_max;
            return refuse(sequence.start, format!("a sequence of {} tokens exceeds {limit}", sequence.len()));
        }
        end = sequence.end;
    }
    if end != rows {
        return refuse(end, format!("rows {end} to {rows} are in no sequence"));
    }
    for (row, (&token, &target)) in batch.tokens.iter().zip(batch.targets).enumerate() {
        let vocab = config.vocab_size;
        if token as usize >= vocab || target >= 0 && target as usize >= vocab {
            return refuse(row, format!("token {token} or target {target} is not below {vocab}"));
        }
    }
    Ok(())
}

/// Adapters are only made for a configuration, so another shape is a mistake in the program.
fn check_adapter(config: &Config, adapter: &Adapter) {
    assert_eq!(adapter.layer_count(), config.layer_count, "the adapter has another number of layers than the base");
    for (layer, projection, pair) in adapter.pairs() {
        let (n_out, n_in) = projection.shape(config);
        let fits = pair.a.len() == pair.rank * n_in && pair.b_t.len() == pair.rank * n_out;
        assert!(fits, "the adapter's {projection:?} of layer {layer} does not fit the base");
    }
}
