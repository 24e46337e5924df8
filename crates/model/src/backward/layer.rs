//! One transformer block, forward with what backward needs, and backward.
//!
//! Kept per row: the residual stream at both norms, q, k, v after rotation (for Qwen3 also before its norms), the
//! attention's output and log-sum-exp, gate, up, and x Aᵀ of each pair. Computed again: the norms, silu(gate) · up,
//! and dropout masks, which are cheap next to the memory they would take.

use std::ops::Range;

use atelier_kernels::{self as kernels, Mat, MatMut};

use super::dropout::{Dropout, Mask};
use crate::weights::Layer;
use crate::{Adapter, AdapterGradients, AdapterPair as _, Model, Projection};

/// What all layers of one micro-batch share.
pub(super) struct LayerPass<'a> {
    pub(super) adapters: &'a [&'a Adapter],
    pub(super) dropout: Option<Dropout>,
    /// First row of the micro-batch in its batch, for the dropout masks.
    pub(super) row_start: usize,
    pub(super) sequences: Vec<Range<usize>>,
}

impl LayerPass<'_> {
    fn rows(&self) -> usize {
        self.sequences.last().map_or(0, |sequence| sequence.end)
    }

    fn mask(&self, layer: usize, projection: Projection) -> Option<Mask> {
        self.dropout.filter(|dropout| dropout.rate > 0.0).map(|d| d.mask(layer, projection, self.row_start))
    }
}

/// Activations of one layer that backward reads.
#[derive(Default)]
pub(super) struct SavedLayer {
    input: Vec<f32>,         // (rows, hidden), before the attention norm
    q_raw: Vec<f32>,         // (rows, q_width), before q_norm; Qwen3 only
    k_raw: Vec<f32>,         // (rows, kv_width), before k_norm; Qwen3 only
    q: Vec<f32>,             // (rows, q_width), rotated
    k: Vec<f32>,             // (rows, kv_width), rotated
    v: Vec<f32>,             // (rows, kv_width)
    attended: Vec<f32>,      // (rows, q_width)
    log_sum_exp: Vec<f32>,   // (rows, heads)
    middle: Vec<f32>,        // (rows, hidden), before the mlp norm
    gate: Vec<f32>,          // (rows, intermediate)
    up: Vec<f32>,            // (rows, intermediate)
    low_rank: [Vec<f32>; 7], // (rows, rank) each: dropped input times Aᵀ
}

/// Buffers that no later step reads.
#[derive(Default)]
pub(super) struct Work {
    pub(super) x: Vec<f32>,  // (rows, hidden): the residual stream
    pub(super) dx: Vec<f32>, // (rows, hidden): its gradient
    normed: Vec<f32>,        // (rows, hidden)
    d_normed: Vec<f32>,      // (rows, hidden)
    d_hidden: Vec<f32>,      // (rows, hidden)
    activated: Vec<f32>,     // (rows, intermediate)
    d_activated: Vec<f32>,   // (rows, intermediate)
    d_gate: Vec<f32>,        // (rows, intermediate)
    d_up: Vec<f32>,          // (rows, intermediate)
    d_attended: Vec<f32>,    // (rows, q_width)
    dq: Vec<f32>,            // (rows, q_width)
    dk: Vec<f32>,            // (rows, kv_width)
    dv: Vec<f32>,            // (rows, kv_width)
    dq_raw: Vec<f32>,        // (rows, q_width), Qwen3 only
    dk_raw: Vec<f32>,        // (rows, kv_width), Qwen3 only
    lora: LoraWork,
}

#[derive(Default)]
struct LoraWork {
    dropped: Vec<f32>,    // (rows, n_in)
    d_dropped: Vec<f32>,  // (rows, n_in)
    d_input: Vec<f32>,    // (rows, n_in)
    d_low_rank: Vec<f32>, // (rows, rank)
}

impl Model {
    /// Runs layer `index` on `work.x`, which it replaces.
    pub(super) fn forward_layer(
        &self,
        index: usize,
        saved: &mut SavedLayer,
        work: &mut Work,
        pass: &LayerPass<'_>,
        positions: &[u32],
    ) {
        let (compute, config, layer) = (&*self.compute, &self.config, &self.weights.layers[index]);
        let (rows, hidden, intermediate) = (pass.rows(), config.hidden_size, config.intermediate_size);
        std::mem::swap(&mut saved.input, &mut work.x);
        work.normed.resize(rows * hidden, 0.0);
        let lora = &mut work.lora;

        kernels::rms_norm(
            compute,
            &mut work.normed,
            &saved.input,
            &layer.attention_norm,
            config.rms_norm_eps,
            rows,
            hidden,
        );
        self.project(index, Projection::Q, &mut saved.q, &work.normed, &mut saved.low_rank, lora, pass);
        self.project(index, Projection::K, &mut saved.k, &work.normed, &mut saved.low_rank, lora, pass);
        self.project(index, Projection::V, &mut saved.v, &work.normed, &mut saved.low_rank, lora, pass);
        self.norm_heads(layer, saved, rows);
        kernels::rope(compute, &mut saved.q, positions, &self.rope, rows, config.head_count);
        kernels::rope(compute, &mut saved.k, positions, &self.rope, rows, config.kv_head_count);
        saved.attended.resize(rows * config.q_width(), 0.0);
        saved.log_sum_exp.resize(rows * config.head_count, 0.0);
        kernels::attention_causal(
            compute,
            &mut saved.attended,
            &mut saved.log_sum_exp,
            &saved.q,
            &saved.k,
            &saved.v,
            &pass.sequences,
            config.head_count,
            config.kv_head_count,
            config.head_dim,
        );
        self.project(index, Projection::O, &mut saved.middle, &saved.attended, &mut saved.low_rank, lora, pass);
        kernels::add(compute, &mut saved.middle, &saved.input, rows * hidden);

        kernels::rms_norm(compute, &mut work.normed, &saved.middle, &layer.mlp_norm, config.rms_norm_eps, rows, hidden);
        self.project(index, Projection::Gate, &mut saved.gate, &work.normed, &mut saved.low_rank, lora, pass);
        self.project(index, Projection::Up, &mut saved.up, &work.normed, &mut saved.low_rank, lora, pass);
        work.activated.resize(rows * intermediate, 0.0);
        kernels::silu_mul(compute, &mut work.activated, &saved.gate, &saved.up, rows * intermediate);
        self.project(index, Projection::Down, &mut work.x, &work.activated, &mut saved.low_rank, lora, pass);
        kernels::add(compute, &mut work.x, &saved.middle, rows * hidden);
    }

    /// Turns `work.dx` from the gradient of the layer's output into that of its input (left as it is at the
    /// attention's output without `with_dx`), and adds the layer's pairs to `gradients`.
    pub(super) fn backward_layer(
        &self,
        index: usize,
        with_dx: bool,
        saved: &SavedLayer,
        work: &mut Work,
        pass: &LayerPass<'_>,
        positions: &[u32],
        gradients: &mut AdapterGradients,
    ) {
        self.backward_mlp(index, saved, work, pass, gradients);
        self.backward_attention(index, saved, work, pass, positions, gradients);
        self.backward_qkv(index, with_dx, saved, work, pass, gradients);
    }

    fn backward_mlp(
        &self,
        index: usize,
        saved: &SavedLayer,
        work: &mut Work,
        pass: &LayerPass<'_>,
        gradients: &mut AdapterGradients,
    ) {
        let (compute, config, layer) = (&*self.compute, &self.config, &self.weights.layers[index]);
        let (rows, hidden, eps) = (pass.rows(), config.hidden_size, config.rms_norm_eps);
        let wide = rows * config.intermediate_size;
        for buffer in [&mut work.activated, &mut work.d_activated, &mut work.d_gate, &mut work.d_up] {
            buffer.resize(wide, 0.0);
        }
        work.normed.resize(rows * hidden, 0.0);
        work.d_normed.resize(rows * hidden, 0.0);
        work.d_hidden.resize(rows * hidden, 0.0);
        let [.., low_gate, low_up, low_down] = &saved.low_rank;

        kernels::silu_mul(compute, &mut work.activated, &saved.gate, &saved.up, wide);
        let mut back = BackProject { model: self, index, pass, lora: &mut work.lora, gradients };
        back.run(Projection::Down, Target::Overwrite(&mut work.d_activated), &work.dx, &work.activated, low_down);
        kernels::silu_mul_backward(
            compute,
            &mut work.d_gate,
            &mut work.d_up,
            &work.d_activated,
            &saved.gate,
            &saved.up,
            wide,
        );
        kernels::rms_norm(compute, &mut work.normed, &saved.middle, &layer.mlp_norm, eps, rows, hidden);
        back.run(Projection::Gate, Target::Overwrite(&mut work.d_normed), &work.d_gate, &work.normed, low_gate);
        back.run(Projection::Up, Target::Add(&mut work.d_normed), &work.d_up, &work.normed, low_up);
        kernels::rms_norm_backward(
            compute,
            &mut work.d_hidden,
            &work.d_normed,
            &saved.middle,
            &layer.mlp_norm,
            eps,
            rows,
            hidden,
        );
        kernels::add(compute, &mut work.dx, &work.d_hidden, rows * hidden);
    }

    /// From `work.dx` after the attention to dq, dk, dv of the unrotated projections.
    fn backward_attention(
        &self,
        index: usize,
        saved: &SavedLayer,
        work: &mut Work,
        pass: &LayerPass<'_>,
        positions: &[u32],
        gradients: &mut AdapterGradients,
    ) {
        let (compute, config, layer) = (&*self.compute, &self.config, &self.weights.layers[index]);
        let (rows, heads, kv_heads, head_dim) = (pass.rows(), config.head_count, config.kv_head_count, config.head_dim);
        work.d_attended.resize(rows * config.q_width(), 0.0);
        work.dq.resize(rows * config.q_width(), 0.0);
        work.dk.resize(rows * config.kv_width(), 0.0);
        work.dv.resize(rows * config.kv_width(), 0.0);

        let mut back = BackProject { model: self, index, pass, lora: &mut work.lora, gradients };
        let low_o = &saved.low_rank[Projection::O as usize];
        back.run(Projection::O, Target::Overwrite(&mut work.d_attended), &work.dx, &saved.attended, low_o);
        kernels::attention_causal_backward(
            compute,
            &mut work.dq,
            &mut work.dk,
            &mut work.dv,
            &work.d_attended,
            &saved.q,
            &saved.k,
            &saved.v,
            &saved.attended,
            &saved.log_sum_exp,
            &pass.sequences,
            heads,
            kv_heads,
            head_dim,
        );
        kernels::rope_backward(compute, &mut work.dq, positions, &self.rope, rows, heads);
        kernels::rope_backward(compute, &mut work.dk, positions, &self.rope, rows, kv_heads);
        let norms = [
            (&layer.q_norm, &mut work.dq, &mut work.dq_raw, &saved.q_raw, heads),
            (&layer.k_norm, &mut work.dk, &mut work.dk_raw, &saved.k_raw, kv_heads),
        ];
        for (norm, d, d_raw, raw, heads) in norms {
            if let Some(norm) = norm {
                d_raw.resize(d.len(), 0.0);
                kernels::rms_norm_backward(compute, d_raw, d, raw, norm, config.rms_norm_eps, rows * heads, head_dim);
                std::mem::swap(d, d_raw);
            }
        }
    }

    fn backward_qkv(
        &self,
        index: usize,
        with_dx: bool,
        saved: &SavedLayer,
        work: &mut Work,
        pass: &LayerPass<'_>,
        gradients: &mut AdapterGradients,
    ) {
        let (compute, config, layer) = (&*self.compute, &self.config, &self.weights.layers[index]);
        let (rows, hidden, eps) = (pass.rows(), config.hidden_size, config.rms_norm_eps);
        kernels::rms_norm(compute, &mut work.normed, &saved.input, &layer.attention_norm, eps, rows, hidden);
        let mut back = BackProject { model: self, index, pass, lora: &mut work.lora, gradients };
        let parts = [(Projection::Q, &work.dq), (Projection::K, &work.dk), (Projection::V, &work.dv)];
        for (part, (projection, dy)) in parts.into_iter().enumerate() {
            let dx = match (with_dx, part) {
                (false, _) => Target::Nothing,
                (true, 0) => Target::Overwrite(&mut work.d_normed),
                (true, _) => Target::Add(&mut work.d_normed),
            };
            back.run(projection, dx, dy, &work.normed, &saved.low_rank[projection as usize]);
        }
        if with_dx {
            kernels::rms_norm_backward(
                compute,
                &mut work.d_hidden,
                &work.d_normed,
                &saved.input,
                &layer.attention_norm,
                eps,
                rows,
                hidden,
            );
            kernels::add(compute, &mut work.dx, &work.d_hidden, rows * hidden);
        }
    }

    /// y (rows, n_out) = x Wᵀ (+ bias) + what the adapters add; keeps the last pair's dropped input times Aᵀ.
    fn project(
        &self,
        index: usize,
        projection: Projection,
        y: &mut Vec<f32>,
        x: &[f32],
        low_rank: &mut [Vec<f32>; 7],
        lora: &mut LoraWork,
        pass: &LayerPass<'_>,
    ) {
        let (compute, rows) = (&*self.compute, pass.rows());
        let (n_out, n_in) = projection.shape(&self.config);
        let linear = self.weights.layers[index].linear(projection);
        let low_rank = &mut low_rank[projection as usize];
        y.resize(rows * n_out, 0.0);
        kernels::matmul(compute, y, x, &linear.weight, rows);
        if let Some(bias) = &linear.bias {
            kernels::add_bias(compute, y, bias, rows, n_out);
        }
        for pair in pass.adapters.iter().filter_map(|adapter| adapter.pair(index, projection)) {
            low_rank.resize(rows * pair.rank, 0.0);
            let x = dropped(compute, &mut lora.dropped, x, pass.mask(index, projection), n_in);
            kernels::lora_add(compute, y, low_rank, x, &[pair.product(0..rows)], n_in, n_out);
        }
    }

    /// Qwen3: normalises each head of q and k, keeping them as they were.
    fn norm_heads(&self, layer: &Layer, saved: &mut SavedLayer, rows: usize) {
        let (compute, config) = (&*self.compute, &self.config);
        let norms = [
            (&layer.q_norm, &mut saved.q, &mut saved.q_raw, config.head_count),
            (&layer.k_norm, &mut saved.k, &mut saved.k_raw, config.kv_head_count),
        ];
        for (norm, normed, raw, heads) in norms {
            if let Some(norm) = norm {
                raw.resize(normed.len(), 0.0);
                std::mem::swap(normed, raw);
                kernels::rms_norm(compute, normed, raw, norm, config.rms_norm_eps, rows * heads, config.head_dim);
            }
        }
    }
}

/// `x`, or its masked copy in `buffer`.
fn dropped<'x>(
    compute: &kernels::Compute,
    buffer: &'x mut Vec<f32>,
    x: &'x [f32],
    mask: Option<Mask>,
    n_in: usize,
) -> &'x [f32] {
    let Some(mask) = mask else { return x };
    buffer.resize(x.len(), 0.0);
    mask.apply(compute, buffer, x, n_in);
    buffer
}

/// Where the gradient of a projection's input goes.
enum Target<'d> {
    /// Nowhere: nothing below it learns.
    Nothing,
    Overwrite(&'d mut [f32]),
    Add(&'d mut [f32]),
}

/// Backward through the projections of one layer.
struct BackProject<'a, 'p> {
    model: &'a Model,
    index: usize,
    pass: &'a LayerPass<'p>,
    lora: &'a mut LoraWork,
    gradients: &'a mut AdapterGradients,
}

impl BackProject<'_, '_> {
    /// dx (rows, n_in) from dy (rows, n_out) through the base and the pair; dA and dB of the pair from x and the
    /// kept x Aᵀ.
    fn run(&mut self, projection: Projection, dx: Target<'_>, dy: &[f32], x: &[f32], low_rank: &[f32]) {
        let (model, rows) = (self.model, self.pass.rows());
        let compute = &*model.compute;
        let linear = model.weights.layers[self.index].linear(projection);
        let transposed = linear.transposed.as_ref().expect("checked at the start of the pass");
        let dx = match dx {
            Target::Nothing => None,
            Target::Overwrite(dx) => {
                kernels::matmul(compute, dx, dy, transposed, rows);
                Some(dx)
            }
            Target::Add(dx) => {
                self.lora.d_input.resize(dx.len(), 0.0);
                kernels::matmul(compute, &mut self.lora.d_input, dy, transposed, rows);
                kernels::add(compute, dx, &self.lora.d_input, dx.len());
                Some(dx)
            }
        };
        self.pair(projection, dx, dy, x, low_rank);
    }

    fn pair(&mut self, projection: Projection, dx: Option<&mut [f32]>, dy: &[f32], x: &[f32], low_rank: &[f32]) {
        let (compute, rows) = (&*self.model.compute, self.pass.rows());
        let (n_out, n_in) = projection.shape(&self.model.config);
        let [adapter] = self.pass.adapters else { unreachable!("a backward pass trains exactly one adapter") };
        let Some(pair) = adapter.pair(self.index, projection) else { return };
        let gradient = self.gradients.pair_mut(self.index, projection).expect("gradients were made for the adapter");
        let (rank, mask) = (pair.rank, self.pass.mask(self.index, projection));
        let lora = &mut *self.lora;
        lora.d_low_rank.resize(rows * rank, 0.0);

        let dy = Mat::new(dy, rows, n_out);
        let (b_t, a) = (Mat::new(&pair.b_t, rank, n_out), Mat::new(&pair.a, rank, n_in));
        let d_b_t = MatMut::new(&mut gradient.b_t, rank, n_out);
        kernels::par_gemm_tn(compute, d_b_t, Mat::new(low_rank, rows, rank), dy, pair.scale, true);
        let d_low_rank = MatMut::new(&mut lora.d_low_rank, rows, rank);
        kernels::par_gemm_nt(compute, d_low_rank, dy, b_t, pair.scale, false);
        let d_low_rank = Mat::new(&lora.d_low_rank, rows, rank);
        let x = Mat::new(dropped(compute, &mut lora.dropped, x, mask, n_in), rows, n_in);
        kernels::par_gemm_tn(compute, MatMut::new(&mut gradient.a, rank, n_in), d_low_rank, x, 1.0, true);
        let Some(dx) = dx else { return };
        match mask {
            None => kernels::par_gemm_nn(compute, MatMut::new(dx, rows, n_in), d_low_rank, a, 1.0, true),
            Some(mask) => {
                lora.d_dropped.resize(rows * n_in, 0.0);
                let d_dropped = MatMut::new(&mut lora.d_dropped, rows, n_in);
                kernels::par_gemm_nn(compute, d_dropped, d_low_rank, a, 1.0, false);
                mask.add(compute, dx, &lora.d_dropped, n_in);
            }
        }
    }
}
