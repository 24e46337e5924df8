//! AdamW over an adapter's matrices, with the gradient clipped by its global norm.

use atelier_kernels::{AdamW, Compute, adamw};
use atelier_model::{Adapter, AdapterGradients};

use crate::recipe::TrainOptions;

/// Added to the root of the second moment; the usual value, far below any gradient that matters here.
const EPSILON: f32 = 1e-8;

/// First and second moments of every matrix, in the order of [`Adapter::pairs`].
pub(crate) struct Optimiser {
    pub(crate) pairs: Vec<PairMoments>,
}

/// Moments of one pair: (first, second) in the layouts of A and Bᵀ.
pub(crate) struct PairMoments {
    pub(crate) a: (Vec<f32>, Vec<f32>),
    pub(crate) b_t: (Vec<f32>, Vec<f32>),
}

impl Optimiser {
    pub(crate) fn new(adapter: &Adapter) -> Optimiser {
        let zeros = |values: &[f32]| (vec![0.0; values.len()], vec![0.0; values.len()]);
        let pairs = adapter.pairs().map(|(_, _, pair)| PairMoments { a: zeros(&pair.a), b_t: zeros(&pair.b_t) });
        Optimiser { pairs: pairs.collect() }
    }

    /// Step `number` (from 1) at `learning_rate`: clips `gradients` in place and moves `adapter` against them.
    /// Returns the norm before clipping; where that is not finite, nothing has been changed.
    pub(crate) fn step(
        &mut self,
        compute: &Compute,
        adapter: &mut Adapter,
        gradients: &mut AdapterGradients,
        options: &TrainOptions,
        learning_rate: f32,
        number: u64,
    ) -> f64 {
        let norm = norm(gradients);
        if !norm.is_finite() {
            return norm;
        }
        let factor = (f64::from(options.clip_norm) / norm).min(1.0) as f32;
        let adam = AdamW {
            lr: learning_rate,
            beta1: options.beta1,
            beta2: options.beta2,
            eps: EPSILON,
            weight_decay: options.weight_decay,
            step: number,
        };
        let pairs = adapter.pairs_mut().zip(gradients.pairs_mut()).zip(&mut self.pairs);
        for (((_, _, pair), (_, _, gradient)), moments) in pairs {
            if factor < 1.0 {
                gradient.a.iter_mut().chain(&mut gradient.b_t).for_each(|value| *value *= factor);
            }
            adamw(compute, &mut pair.a, &mut moments.a.0, &mut moments.a.1, &gradient.a, &adam);
            adamw(compute, &mut pair.b_t, &mut moments.b_t.0, &mut moments.b_t.1, &gradient.b_t, &adam);
        }
        norm
    }
}

/// Global norm, added up in f64 in a fixed order.
fn norm(gradients: &AdapterGradients) -> f64 {
    let square = |values: &[f32]| values.iter().map(|&value| f64::from(value) * f64::from(value)).sum::<f64>();
    gradients.pairs().map(|(_, _, gradient)| square(&gradient.a) + square(&gradient.b_t)).sum::<f64>().sqrt()
}
