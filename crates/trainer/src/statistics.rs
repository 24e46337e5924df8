//! Losses over items, and whether a difference between two arms is more than chance.

use serde::{Deserialize, Serialize};

use crate::random::{Purpose, Random};

/// Bootstrap resamples: enough that the 2.5 % and 97.5 % points move by less than a hundredth of the
/// interval between seeds, and about 20 ms for a thousand items.
const RESAMPLES: usize = 4_000;

/// The loss of one test item.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ItemLoss {
    /// Sum over the item's target tokens, in nats.
    pub nats: f64,
    /// Target tokens.
    pub tokens: usize,
    /// Bytes of text that those tokens stand for.
    pub bytes: usize,
}

/// A mean with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// The estimate from all items.
    pub mean: f64,
    /// 2.5 % point of the resampled estimates.
    pub low: f64,
    /// 97.5 % point.
    pub high: f64,
}

/// Nats per token over all items; zero if there are no tokens.
pub fn mean_loss(items: &[ItemLoss]) -> f64 {
    ratio(items.iter().map(|item| item.nats).sum(), items.iter().map(|item| item.tokens).sum())
}

/// Bits per byte of text over all items; zero if there are no bytes.
pub fn bits_per_byte(items: &[ItemLoss]) -> f64 {
    ratio(items.iter().map(|item| item.nats).sum(), items.iter().map(|item| item.bytes).sum()) / std::f64::consts::LN_2
}

/// Mean loss per token of `base` minus that of `own` over the same items, so positive means that `own` is
/// better, with a percentile bootstrap interval over items. Each resample weights items by their tokens.
///
/// # Panics
/// If the two arms are not the same items.
pub fn paired_ci95(base: &[ItemLoss], own: &[ItemLoss], seed: u64) -> Interval {
    assert_eq!(base.len(), own.len(), "arms are paired by item");
    let pairs: Vec<(f64, f64)> = base
        .iter()
        .zip(own)
        .map(|(base, own)| {
            assert_eq!(base.tokens, own.tokens, "arms are paired by item");
            (base.nats - own.nats, base.tokens as f64)
        })
        .collect();
    bootstrap_ratio(&pairs, seed)
}

/// The ratio of sums `Σ numerator / Σ denominator` with its percentile bootstrap interval over items.
fn bootstrap_ratio(pairs: &[(f64, f64)], seed: u64) -> Interval {
    let of = |numerator: f64, denominator: f64| if denominator > 0.0 { numerator / denominator } else { 0.0 };
    let mean = of(pairs.iter().map(|pair| pair.0).sum(), pairs.iter().map(|pair| pair.1).sum());
    if pairs.len() < 2 {
        // One item says nothing about spread: the interval is all numbers, so no gate can pass on it.
        return Interval { mean, low: f64::MIN, high: f64::MAX };
    }
    let mut random = Random::keyed(seed, Purpose::Bootstrap, pairs.len() as u64);
    let mut estimates: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            let (mut numerator, mut denominator) = (0.0, 0.0);
            for _ in 0..pairs.len() {
                let pair = pairs[random.below(pairs.len())];
                numerator += pair.0;
                denominator += pair.1;
            }
            of(numerator, denominator)
        })
        .collect();
    estimates.sort_by(f64::total_cmp);
    let at = |share: f64| estimates[((RESAMPLES - 1) as f64 * share).round() as usize];
    Interval { mean, low: at(0.025), high: at(0.975) }
}

fn ratio(sum: f64, count: usize) -> f64 {
    if count == 0 { 0.0 } else { sum / count as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(nats: f64, tokens: usize) -> ItemLoss {
        ItemLoss { nats, tokens, bytes: tokens * 4 }
    }

    #[test]
    fn means_are_weighted_by_tokens() {
        let items = [item(10.0, 10), item(90.0, 30)];
        assert_eq!(mean_loss(&items), 2.5);
        assert!((bits_per_byte(&items) - 100.0 / 160.0 / std::f64::consts::LN_2).abs() < 1e-12);
        assert_eq!(mean_loss(&[]), 0.0);
        assert_eq!(bits_per_byte(&[]), 0.0);
    }

    #[test]
    fn interval_holds_the_mean_and_tells_gain_from_noise() {
        let mut random = Random::keyed(5, Purpose::Bootstrap, 9);
        let base: Vec<ItemLoss> = (0..200).map(|_| item(300.0 + 20.0 * random.unit(), 100)).collect();
        let better: Vec<ItemLoss> = base.iter().map(|b| item(b.nats - 10.0 + 10.0 * random.unit(), 100)).collect();
        let noise: Vec<ItemLoss> = base.iter().map(|b| item(b.nats + 10.0 * (random.unit() - 0.5), 100)).collect();
        let gain = paired_ci95(&base, &better, 1);
        assert!(gain.low > 0.0 && gain.low <= gain.mean && gain.mean <= gain.high, "{gain:?}");
        assert!((gain.mean - 0.05).abs() < 0.01, "{gain:?}");
        let none = paired_ci95(&base, &noise, 1);
        assert!(none.low < 0.0 && none.high > 0.0, "{none:?}");
        assert_eq!(paired_ci95(&base, &better, 1), gain);
    }

    #[test]
    fn interval_width_agrees_with_the_normal_formula() {
        let mut random = Random::keyed(6, Purpose::Bootstrap, 10);
        let base: Vec<ItemLoss> = (0..400).map(|_| item(random.unit(), 1)).collect();
        let zero: Vec<ItemLoss> = base.iter().map(|_| item(0.0, 1)).collect();
        let interval = paired_ci95(&base, &zero, 2);
        // Uniform: standard deviation 0.2887, so the 95 % interval of the mean of 400 is 4 · 0.2887/20 · 0.98 wide.
        let width = interval.high - interval.low;
        assert!((width - 0.0566).abs() < 0.008, "{width}");
    }

    #[test]
    fn one_item_never_passes_a_gate() {
        let interval = paired_ci95(&[item(2.0, 1)], &[item(1.0, 1)], 0);
        assert_eq!(interval.mean, 1.0);
        assert!(interval.low < 0.0 && interval.high > 0.0);
    }
}
