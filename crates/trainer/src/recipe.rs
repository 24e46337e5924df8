//! What to train with, and the defaults for a code base of a given size.

use serde::{Deserialize, Serialize};

use crate::error::TrainError;

/// Tokens below which data is scarce enough that dropout and short batches pay (recipe table).
const SMALL_DATA_TOKENS: usize = 100_000;

/// Rows of one step; bounds the memory of a step whatever the options say.
pub const ROWS_PER_STEP_MAX: usize = 64 * 1024;

/// Epochs at most: beyond this, data of any size is being memorised.
pub const EPOCHS_MAX: usize = 100;

/// Rank at most: adapters of higher rank cost more to serve than they can gain on one tenant's code.
pub const RANK_MAX: usize = 256;

/// Tokens of the longest training window.
pub const WINDOW_TOKENS_MAX: usize = 32 * 1024;

/// Tokens of the shortest window that leaves room for a fill-in-the-middle sample.
pub const WINDOW_TOKENS_MIN: usize = 16;

/// Steps of warm-up at least (recipe: 5 %, but not under ten).
const WARMUP_STEPS_MIN: usize = 10;

/// Everything that decides what training does with given data: equal options, data and base give equal bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainOptions {
    /// LoRA rank, the same for all seven projections.
    pub rank: usize,
    /// LoRA alpha; the adapter is scaled by alpha / rank.
    pub alpha: f32,
    /// Share of LoRA inputs set to zero in each step.
    pub dropout: f32,
    /// Peak of the schedule.
    pub learning_rate: f32,
    /// Passes over the data at most.
    pub epochs: usize,
    /// Windows in one optimiser step; there is no accumulation.
    pub sequences_per_step: usize,
    /// Target tokens of one window.
    pub window_tokens: usize,
    /// Share of windows rearranged to fill-in-the-middle.
    pub fim_share: f32,
    /// Share of all steps over which the learning rate rises from zero.
    pub warmup_share: f32,
    /// Decoupled weight decay on A and B.
    pub weight_decay: f32,
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Largest global norm of a step's gradient.
    pub clip_norm: f32,
    /// Validations without a new best before training stops.
    pub patience: usize,
    /// Validations in each epoch, at equal distances; the last one is at its end.
    pub validations_per_epoch: usize,
    /// Decides every random choice.
    pub seed: u64,
    /// Steps between checkpoints; 0 for none.
    pub checkpoint_steps: usize,
    /// Ends the schedule early if set.
    pub steps_max: Option<usize>,
}

impl TrainOptions {
    /// The recipe for `token_count` tokens of one tenant's code on a base of width `hidden_size`.
    ///
    /// Sources and the reasons for each value: docs/personalisation.md.
    pub fn recipe(token_count: usize, hidden_size: usize) -> TrainOptions {
        let small = token_count < SMALL_DATA_TOKENS;
        TrainOptions {
            rank: if hidden_size < 768 { 16 } else { 8 },
            alpha: 32.0,
            dropout: if small { 0.05 } else { 0.0 },
            learning_rate: match hidden_size {
                0..768 => 1e-3,
                768..1_280 => 6e-4,
                _ => 5e-4,
            },
            epochs: match token_count {
                0..75_000 => 8,
                75_000..150_000 => 6,
                150_000..350_000 => 5,
                _ => 4,
            },
            sequences_per_step: 4,
            window_tokens: if small { 256 } else { 512 },
            fim_share: 0.5,
            warmup_share: 0.05,
            weight_decay: 0.1,
            beta1: 0.9,
            beta2: 0.99,
            clip_norm: 1.0,
            patience: 4,
            validations_per_epoch: 2,
            seed: 0,
            checkpoint_steps: 50,
            steps_max: None,
        }
    }

    /// Refuses options that cannot be trained with, by name.
    pub fn check(&self) -> Result<(), TrainError> {
        let share = |value: f32| (0.0..=1.0).contains(&value);
        let rules = [
            ("rank", (1..=RANK_MAX).contains(&self.rank)),
            ("alpha", self.alpha.is_finite() && self.alpha > 0.0),
            ("dropout", (0.0..1.0).contains(&self.dropout)),
            ("learning_rate", self.learning_rate.is_finite() && self.learning_rate > 0.0),
            ("epochs", (1..=EPOCHS_MAX).contains(&self.epochs)),
            ("sequences_per_step", self.sequences_per_step > 0),
            ("window_tokens", (WINDOW_TOKENS_MIN..=WINDOW_TOKENS_MAX).contains(&self.window_tokens)),
            (
                "sequences_per_step * window_tokens",
                self.sequences_per_step.saturating_mul(self.window_tokens) <= ROWS_PER_STEP_MAX,
            ),
            ("fim_share", share(self.fim_share)),
            ("warmup_share", share(self.warmup_share)),
            ("weight_decay", self.weight_decay.is_finite() && self.weight_decay >= 0.0),
            ("beta1", (0.0..1.0).contains(&self.beta1)),
            ("beta2", (0.0..1.0).contains(&self.beta2)),
            ("clip_norm", self.clip_norm.is_finite() && self.clip_norm > 0.0),
            ("patience", self.patience > 0),
            ("validations_per_epoch", self.validations_per_epoch > 0),
            ("steps_max", self.steps_max != Some(0)),
        ];
        match rules.iter().find(|(_, holds)| !holds) {
            Some((option, _)) => Err(TrainError::Option { option }),
            None => Ok(()),
        }
    }

    /// Learning rate of `step` (from 0) of `steps_total`: linear warm-up, then linear to zero.
    pub(crate) fn learning_rate_at(&self, step: usize, steps_total: usize) -> f32 {
        let wished = ((steps_total as f32 * self.warmup_share) as usize).max(WARMUP_STEPS_MIN);
        // A run of a few steps would otherwise end inside its own warm-up.
        let warmup = wished.min(steps_total / 4).max(1);
        if step < warmup {
            return self.learning_rate * (step + 1) as f32 / warmup as f32;
        }
        let left = (steps_total - step) as f32 / (steps_total - warmup + 1).max(1) as f32;
        self.learning_rate * left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recipe_by_size() {
        let cases = [
            // (tokens, hidden, rank, learning rate, epochs, window, dropout)
            (20_000, 320, 16, 1e-3, 8, 256, 0.05),
            (100_000, 512, 16, 1e-3, 6, 512, 0.0),
            (200_000, 384, 16, 1e-3, 5, 512, 0.0),
            (500_000, 896, 8, 6e-4, 4, 512, 0.0),
            (500_000, 1536, 8, 5e-4, 4, 512, 0.0),
        ];
        for (tokens, hidden, rank, learning_rate, epochs, window, dropout) in cases {
            let options = TrainOptions::recipe(tokens, hidden);
            assert_eq!(options.rank, rank);
            assert_eq!(options.learning_rate, learning_rate);
            assert_eq!((options.epochs, options.window_tokens), (epochs, window));
            assert_eq!(options.dropout, dropout);
            options.check().expect("the recipe is valid");
        }
    }

    #[test]
    fn bad_options_are_refused_by_name() {
        type Change = fn(&mut TrainOptions);
        let cases: [(&str, Change); 6] = [
            ("rank", |o| o.rank = 0),
            ("dropout", |o| o.dropout = 1.0),
            ("learning_rate", |o| o.learning_rate = f32::NAN),
            ("window_tokens", |o| o.window_tokens = 4),
            ("sequences_per_step * window_tokens", |o| o.sequences_per_step = usize::MAX),
            ("steps_max", |o| o.steps_max = Some(0)),
        ];
        for (option, change) in cases {
            let mut options = TrainOptions::recipe(1_000, 64);
            change(&mut options);
            let error = options.check().expect_err(option).to_string();
            assert!(error.contains(option), "{error}");
        }
    }

    #[test]
    fn schedule_rises_then_falls_to_zero() {
        let options = TrainOptions::recipe(500_000, 320);
        for steps in [1, 2, 7, 40, 1_000] {
            let rates: Vec<f32> = (0..steps).map(|step| options.learning_rate_at(step, steps)).collect();
            let peak = rates.iter().copied().fold(0.0, f32::max);
            assert!((peak - options.learning_rate).abs() < 1e-9, "{steps}: {peak}");
            assert!(rates.iter().all(|&rate| rate > 0.0));
            let top = rates.iter().position(|&rate| rate == peak).expect("there is one");
            assert!(rates[..top].is_sorted(), "{steps}");
            assert!(rates[top..].iter().rev().is_sorted(), "{steps}");
            assert!(steps < 40 || rates[steps - 1] < 0.1 * peak, "{steps}");
        }
    }
}
