//! Training speed: steps of one adapter on random tokens.

use std::ops::Range;
use std::time::Instant;

use anyhow::Result;
use atelier_kernels::{AdamW, adamw};
use atelier_model::{Adapter, AdapterGradients, Model, TrainBatch, TrainScratch};

use super::adapters::random_adapter;
use super::{Workload, median};
use crate::random::SplitMix64;

/// Target tokens per second of a step: loss, gradients and optimiser.
pub fn tokens_per_second(model: &Model, workload: Workload) -> Result<f64> {
    let rows = workload.train_sequences * workload.train_tokens;
    let mut random = SplitMix64(0);
    let vocab = model.config().vocab_size;
    let tokens: Vec<u32> = (0..=rows).map(|_| random.below(vocab) as u32).collect();
    let targets: Vec<i32> = tokens[1..].iter().map(|&token| token as i32).collect();
    let sequences: Vec<Range<usize>> = (0..workload.train_sequences)
        .map(|sequence| sequence * workload.train_tokens..(sequence + 1) * workload.train_tokens)
        .collect();
    let batch = TrainBatch { tokens: &tokens[..rows], targets: &targets, sequences: &sequences };

    let mut state = State::new(random_adapter(model.config(), 0));
    // The first step takes memory from the system.
    state.step(model, &batch)?;
    let mut speeds = Vec::new();
    for _ in 0..workload.repeats {
        let start = Instant::now();
        state.step(model, &batch)?;
        speeds.push(rows as f64 / start.elapsed().as_secs_f64());
    }
    Ok(median(speeds))
}

struct State {
    adapter: Adapter,
    gradients: AdapterGradients,
    moments: [AdapterGradients; 2],
    scratch: TrainScratch,
    steps: u64,
}

impl State {
    fn new(adapter: Adapter) -> State {
        let zeros = || AdapterGradients::zeros_like(&adapter);
        let (gradients, moments) = (zeros(), [zeros(), zeros()]);
        State { adapter, gradients, moments, scratch: TrainScratch::new(), steps: 0 }
    }

    fn step(&mut self, model: &Model, batch: &TrainBatch<'_>) -> Result<()> {
        model.loss_and_gradients(&mut self.scratch, &self.adapter, None, batch, &mut self.gradients)?;
        self.steps += 1;
        let rule = AdamW { lr: 1e-4, beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.1, step: self.steps };
        let [means, squares] = &mut self.moments;
        let pairs = self.adapter.pairs_mut().zip(self.gradients.pairs());
        for ((pair, gradient), (mean, square)) in pairs.zip(means.pairs_mut().zip(squares.pairs_mut())) {
            let ((_, _, pair), (_, _, gradient)) = (pair, gradient);
            let ((_, _, mean), (_, _, square)) = (mean, square);
            let compute = model.compute();
            adamw(compute, &mut pair.a, &mut mean.a, &mut square.a, &gradient.a, &rule);
            adamw(compute, &mut pair.b_t, &mut mean.b_t, &mut square.b_t, &gradient.b_t, &rule);
        }
        Ok(())
    }
}
