//! From logits to a token.
//!
//! The order of every addition here is fixed by the logits alone, and the random number of a draw is a function of
//! (seed, position): the same row gives the same token whatever else is in the step.

use crate::event::TokenLogprob;
use crate::job::Sampling;

/// Exponents below this add less than 1e-26 of the largest term: not worth the exponential.
const EXPONENT_MIN: f64 = -60.0;

/// The largest logit's index, the lowest of equals. `None` if the row holds no finite maximum.
fn argmax(logits: &[f32]) -> Option<usize> {
    let best = largest(logits);
    if !best.is_finite() {
        return None;
    }
    logits.iter().position(|logit| *logit == best)
}

/// The largest of the numbers, in independent lanes that the compiler turns into vectors.
fn largest(logits: &[f32]) -> f32 {
    const LANES: usize = 16;
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let chunks = logits.chunks_exact(LANES);
    let rest = chunks.remainder().iter().copied().fold(f32::NEG_INFINITY, larger);
    for chunk in chunks {
        for (lane, logit) in lanes.iter_mut().zip(chunk) {
            *lane = larger(*lane, *logit);
        }
    }
    lanes.into_iter().fold(rest, larger)
}

/// Chooses the token at `position` of its sequence. `None` if the logits hold no finite maximum, which only broken
/// weights bring about.
pub(crate) fn sample(logits: &[f32], sampling: &Sampling, position: u32) -> Option<u32> {
    let best = argmax(logits)?;
    if sampling.temperature == 0.0 || sampling.top_k == 1 {
        return Some(best as u32);
    }
    let draw = uniform(sampling.seed, position);
    let weigh = Weigh { max: logits[best], scale: 1.0 / f64::from(sampling.temperature) };
    if sampling.top_k == 0 && sampling.top_p >= 1.0 {
        return Some(draw_from_all(logits, weigh, draw));
    }
    let candidates = candidates(logits, weigh, sampling);
    Some(draw_from(&candidates, draw))
}

/// Unnormalised probability of a logit; 1 for the largest.
#[derive(Clone, Copy)]
struct Weigh {
    max: f32,
    scale: f64,
}

impl Weigh {
    fn of(self, logit: f32) -> f64 {
        let exponent = f64::from(logit - self.max) * self.scale;
        if exponent > EXPONENT_MIN { exponent.exp() } else { 0.0 }
    }
}

/// A token with its unnormalised probability.
type Candidate = (u32, f64);

/// The tokens that top-k and then top-p leave, most likely first.
fn candidates(logits: &[f32], weigh: Weigh, sampling: &Sampling) -> Vec<Candidate> {
    let mut kept: Vec<Candidate> = (0u32..).zip(logits.iter().map(|logit| weigh.of(*logit))).collect();
    let top_k = sampling.top_k as usize;
    if top_k > 0 && top_k < kept.len() {
        kept.select_nth_unstable_by(top_k - 1, likelier_first);
        kept.truncate(top_k);
    }
    if sampling.top_p < 1.0 {
        // All tokens below this threshold together hold less than 1 - top_p: none of them can be in the nucleus. The
        // likeliest always is, also where rounding lifts the mean above it.
        let total: f64 = sum_by_index(&mut kept);
        let threshold = total * (1.0 - f64::from(sampling.top_p)) / kept.len() as f64;
        let likeliest = kept.iter().map(|(_, weight)| *weight).fold(0.0, f64::max);
        kept.retain(|(_, weight)| *weight >= threshold.min(likeliest));
        kept.sort_unstable_by(likelier_first);
        let nucleus = f64::from(sampling.top_p) * total;
        let mut cumulative = 0.0;
        let within = kept.iter().position(|(_, weight)| {
            cumulative += weight;
            cumulative >= nucleus
        });
        kept.truncate(within.map_or(kept.len(), |last| last + 1));
    } else {
        kept.sort_unstable_by(likelier_first);
    }
    kept
}

/// By falling probability, then by rising token id, so that equals have one order.
fn likelier_first(left: &Candidate, right: &Candidate) -> std::cmp::Ordering {
    right.1.total_cmp(&left.1).then(left.0.cmp(&right.0))
}

/// Selection leaves an unspecified order behind; the sum must not depend on it.
fn sum_by_index(kept: &mut [Candidate]) -> f64 {
    kept.sort_unstable_by_key(|(token, _)| *token);
    kept.iter().map(|(_, weight)| weight).sum()
}

fn draw_from_all(logits: &[f32], weigh: Weigh, draw: f64) -> u32 {
    let total: f64 = logits.iter().map(|logit| weigh.of(*logit)).sum();
    walk((0u32..).zip(logits.iter().map(|logit| weigh.of(*logit))), draw * total)
}

fn draw_from(candidates: &[Candidate], draw: f64) -> u32 {
    let total: f64 = candidates.iter().map(|(_, weight)| weight).sum();
    walk(candidates.iter().copied(), draw * total)
}

/// The first token at which the running sum passes `target`; the last possible one if rounding keeps it below.
fn walk(candidates: impl Iterator<Item = Candidate>, target: f64) -> u32 {
    let mut cumulative = 0.0;
    let mut last = 0;
    for (token, weight) in candidates {
        if weight > 0.0 {
            cumulative += weight;
            last = token;
            if cumulative > target {
                break;
            }
        }
    }
    last
}

/// A number in [0, 1) with 53 random bits, a function of seed and position only.
fn uniform(seed: u64, position: u32) -> f64 {
    let bits = mix(mix(seed).wrapping_add(u64::from(position)));
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

/// The SplitMix64 step (Steele, Lea, Flood, OOPSLA 2014).
fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Log probability of `id` under the unscaled logits, and the `top_count` most likely tokens with theirs.
pub(crate) fn token_logprob(logits: &[f32], id: u32, top_count: usize) -> TokenLogprob {
    let max = largest(logits);
    let weigh = Weigh { max, scale: 1.0 };
    let total: f64 = logits.iter().map(|logit| weigh.of(*logit)).sum();
    let normaliser = f64::from(max) + total.ln();
    let logprob = |token: u32| (f64::from(logits[token as usize]) - normaliser) as f32;
    let top = top_tokens(logits, top_count).into_iter().map(|token| (token, logprob(token))).collect();
    TokenLogprob { id, logprob: logprob(id), top }
}

/// The `count` largest logits' indexes, largest first, the lowest of equals first. `count` is small.
fn top_tokens(logits: &[f32], count: usize) -> Vec<u32> {
    let mut top: Vec<u32> = Vec::with_capacity(count + 1);
    if count == 0 {
        return top;
    }
    for (token, logit) in (0u32..).zip(logits) {
        if top.len() == count && logits[top[count - 1] as usize] >= *logit {
            continue;
        }
        let place = top.partition_point(|other| logits[*other as usize] >= *logit);
        top.insert(place, token);
        top.truncate(count);
    }
    top
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sampling(temperature: f32, top_p: f32, top_k: u32, seed: u64) -> Sampling {
        Sampling { temperature, top_p, top_k, seed }
    }

    fn softmax(logits: &[f32], temperature: f32) -> Vec<f64> {
        let weigh = Weigh {
            max: logits.iter().copied().fold(f32::NEG_INFINITY, f32::max),
            scale: 1.0 / f64::from(temperature),
        };
        let total: f64 = logits.iter().map(|logit| weigh.of(*logit)).sum();
        logits.iter().map(|logit| weigh.of(*logit) / total).collect()
    }

    #[test]
    fn greedy_takes_the_lowest_of_equals_and_refuses_broken_rows() {
        let cases: &[(&[f32], Option<u32>)] = &[
            (&[1.0, 3.0, 2.0], Some(1)),
            (&[5.0, 5.0, 5.0], Some(0)),
            (&[f32::NEG_INFINITY, -1.0], Some(1)),
            (&[f32::NAN, f32::NAN], None),
            (&[f32::INFINITY, 0.0], None),
            (&[f32::NEG_INFINITY], None),
        ];
        for (logits, expected) in cases {
            assert_eq!(sample(logits, &Sampling::greedy(), 7), *expected, "{logits:?}");
        }
    }

    #[test]
    fn draws_follow_the_distribution() {
        let logits = [0.5f32, -1.0, 2.0, 0.0, 1.2];
        const DRAWS: u32 = 20_000;
        // Four standard deviations of a share of DRAWS, at worst (a half).
        let tolerance = 4.0 * (0.25 / f64::from(DRAWS)).sqrt();
        for (temperature, top_p, top_k) in [(1.0, 1.0, 0), (0.7, 1.0, 0), (1.5, 1.0, 3), (1.0, 0.8, 0)] {
            let probabilities = softmax(&logits, temperature);
            let settings = sampling(temperature, top_p, top_k, 0);
            let weigh = Weigh { max: 2.0, scale: 1.0 / f64::from(temperature) };
            let allowed = if top_k == 0 && top_p >= 1.0 {
                (0..logits.len() as u32).collect()
            } else {
                candidates(&logits, weigh, &settings).iter().map(|(token, _)| *token).collect::<Vec<_>>()
            };
            let kept: f64 = allowed.iter().map(|token| probabilities[*token as usize]).sum();
            let mut counts = [0u32; 5];
            for position in 0..DRAWS {
                let token = sample(&logits, &settings, position).expect("finite logits");
                counts[token as usize] += 1;
            }
            for (token, count) in (0u32..).zip(counts) {
                let share = f64::from(count) / f64::from(DRAWS);
                let expected = if allowed.contains(&token) { probabilities[token as usize] / kept } else { 0.0 };
                assert!(
                    (share - expected).abs() <= if expected == 0.0 { 0.0 } else { tolerance },
                    "token {token}: {share} for {expected} at {settings:?}"
                );
            }
        }
    }

    #[test]
    fn seeds_and_positions_are_independent_draws() {
        let mut seen = std::collections::HashSet::new();
        for seed in 0..50 {
            for position in 0..50 {
                assert!(seen.insert(uniform(seed, position).to_bits()), "seed {seed}, position {position} repeat");
            }
        }
    }

    proptest! {
        #[test]
        fn top_k_and_top_p_keep_exactly_the_nucleus(
            logits in proptest::collection::vec(-8.0f32..8.0, 1..60),
            temperature in 0.2f32..2.0,
            top_p in prop_oneof![Just(0.0f32), 0.01f32..1.0],
            top_k in 0u32..70,
        ) {
            let settings = sampling(temperature, top_p, top_k, 1);
            let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let kept = candidates(&logits, Weigh { max, scale: 1.0 / f64::from(temperature) }, &settings);
            // The definition, spelled out: sort all, cut at k, then at the first prefix that holds top_p.
            let mut sorted: Vec<Candidate> = (0u32..).zip(softmax(&logits, temperature)).collect();
            sorted.sort_by(likelier_first);
            if top_k > 0 {
                sorted.truncate(top_k as usize);
            }
            let total: f64 = sorted.iter().map(|(_, p)| p).sum();
            let mass: f64 = kept.iter().map(|(token, _)| {
                sorted.iter().find(|(other, _)| other == token).expect("within top k").1
            }).sum();
            prop_assert!(mass / total >= f64::from(top_p) - 1e-9);
            let without_last = mass - sorted[kept.len() - 1].1;
            prop_assert!(without_last / total < f64::from(top_p) + 1e-9);
            let ids: Vec<u32> = kept.iter().map(|(token, _)| *token).collect();
            prop_assert_eq!(ids, sorted[..kept.len()].iter().map(|(token, _)| *token).collect::<Vec<_>>());
        }

        #[test]
        fn logprobs_sum_to_one_and_the_top_is_sorted(
            logits in proptest::collection::vec(-20.0f32..20.0, 1..60),
            count in 0usize..6,
        ) {
            let all: f64 = (0..logits.len() as u32)
                .map(|token| f64::from(token_logprob(&logits, token, 0).logprob).exp())
                .sum();
            prop_assert!((all - 1.0).abs() < 1e-4);
            let top = token_logprob(&logits, 0, count).top;
            prop_assert_eq!(top.len(), count.min(logits.len()));
            prop_assert!(top.windows(2).all(|pair| pair[0].1 >= pair[1].1));
            if let Some((first, _)) = top.first() {
                prop_assert_eq!(Some(*first), sample(&logits, &Sampling::greedy(), 0));
            }
        }
    }
}
