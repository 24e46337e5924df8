//! The same held-out windows and places under several arms, and what lies between them.

use anyhow::{Result, ensure};
use atelier_model::{Adapter, Model};
use atelier_trainer::{
    CompletionItem, Interval, ItemLoss, Sample, SourceFile, bits_per_byte, completion_items, first_line_matches,
    held_out_windows, mean_loss, paired_ci95,
};
use serde::{Deserialize, Serialize};

/// Tokens of one window, as in the product's eval card.
const WINDOW_TOKENS: usize = 512;

/// One figure for each arm.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Arms {
    /// No adapter.
    pub base: f64,
    /// The tenant's own adapter.
    pub own: f64,
    /// Another tenant's.
    pub other: f64,
}

/// How a tenant's held-out files do under the three arms. Every interval is a 95 % bootstrap interval of a paired
/// difference, positive where the first-named is better.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Whose adapter the other is.
    pub other: String,
    /// Held-out files.
    pub files: usize,
    /// Windows that losses are paired over.
    pub windows: usize,
    /// Target tokens of them.
    pub tokens: usize,
    /// Places that were completed.
    pub items: usize,
    /// Nats per token.
    pub loss: Arms,
    /// Bits per byte of text.
    pub bits_per_byte: Arms,
    /// Share of places whose first line came out exactly.
    pub exact_match: Arms,
    /// Base loss less own loss, nats per token.
    pub own_over_base: Interval,
    /// Other's loss less own loss, nats per token.
    pub own_over_other: Interval,
    /// Own share of exact first lines less the base's.
    pub exact_own_over_base: Interval,
}

impl Evaluation {
    /// Share of the base's loss that the tenant's adapter takes away.
    pub fn own_reduction(&self) -> f64 {
        1.0 - self.loss.own / self.loss.base
    }

    /// Share of the base's loss that the other's adapter takes away.
    pub fn other_reduction(&self) -> f64 {
        1.0 - self.loss.other / self.loss.base
    }
}

/// Held-out windows and places of one tenant.
pub struct HeldOut {
    files: usize,
    windows: Vec<Sample>,
    items: Vec<CompletionItem>,
    seed: u64,
}

/// What one arm did on them.
struct Outcome {
    losses: Vec<ItemLoss>,
    matches: Vec<bool>,
}

impl HeldOut {
    /// Of these files; `items_max` places.
    pub fn new(model: &Model, files: &[SourceFile], items_max: usize, seed: u64) -> Result<HeldOut> {
        let window_tokens = WINDOW_TOKENS.min(model.config().context_tokens_max);
        let windows = held_out_windows(model.tokenizer(), files, window_tokens);
        ensure!(!windows.is_empty(), "the held-out files hold no text");
        let items = completion_items(model.tokenizer(), files, items_max, seed);
        Ok(HeldOut { files: files.len(), windows, items, seed })
    }

    /// The three arms on the same windows and places.
    pub fn judge(&self, model: &Model, own: &Adapter, other: (&str, &Adapter)) -> Result<Evaluation> {
        let base = self.outcome(model, &[])?;
        let own = self.outcome(model, &[own])?;
        let (other_name, other) = (other.0.to_owned(), self.outcome(model, &[other.1])?);
        let arms = |of: &dyn Fn(&Outcome) -> f64| Arms { base: of(&base), own: of(&own), other: of(&other) };
        Ok(Evaluation {
            other: other_name,
            files: self.files,
            windows: self.windows.len(),
            tokens: base.losses.iter().map(|item| item.tokens).sum(),
            items: self.items.len(),
            loss: arms(&|arm| mean_loss(&arm.losses)),
            bits_per_byte: arms(&|arm| bits_per_byte(&arm.losses)),
            exact_match: arms(&|arm| arm.exact_match()),
            own_over_base: paired_ci95(&base.losses, &own.losses, self.seed),
            own_over_other: paired_ci95(&other.losses, &own.losses, self.seed),
            exact_own_over_base: paired_ci95(&base.misses(), &own.misses(), self.seed),
        })
    }

    /// Losses alone, without and with an adapter: base and own.
    pub fn losses(&self, model: &Model, own: &Adapter) -> Result<(f64, f64)> {
        let loss = |adapters: &[&Adapter]| -> Result<f64> {
            Ok(mean_loss(&atelier_trainer::window_losses(model, adapters, &self.windows)?))
        };
        Ok((loss(&[])?, loss(&[own])?))
    }

    fn outcome(&self, model: &Model, adapters: &[&Adapter]) -> Result<Outcome> {
        Ok(Outcome {
            losses: atelier_trainer::window_losses(model, adapters, &self.windows)?,
            matches: first_line_matches(model, adapters, &self.items)?,
        })
    }
}

impl Outcome {
    fn exact_match(&self) -> f64 {
        self.matches.iter().filter(|&&matches| matches).count() as f64 / self.matches.len().max(1) as f64
    }

    /// A miss as a loss of 1, so that the same paired bootstrap serves.
    fn misses(&self) -> Vec<ItemLoss> {
        self.matches.iter().map(|&matches| unit_item(if matches { 0.0 } else { 1.0 })).collect()
    }
}

/// An item of weight one.
fn unit_item(nats: f64) -> ItemLoss {
    ItemLoss { nats, tokens: 1, bytes: 1 }
}

/// Mean of `values` with its 95 % bootstrap interval over them.
pub fn mean_ci95(values: &[f64], seed: u64) -> Interval {
    let items: Vec<ItemLoss> = values.iter().map(|&value| unit_item(value)).collect();
    let zeros: Vec<ItemLoss> = values.iter().map(|_| unit_item(0.0)).collect();
    paired_ci95(&items, &zeros, seed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mean_lies_inside_its_interval() {
        let interval = mean_ci95(&[0.10, 0.12, 0.08, 0.11], 0);
        assert!((interval.mean - 0.1025).abs() < 1e-9);
        assert!(interval.low < interval.mean && interval.mean < interval.high);
        assert!(interval.low >= 0.08 && interval.high <= 0.12);
    }
}
