//! Reductions over one row of scores.

use crate::simd::{Kernel, Simd, slice};
use crate::tier::Tier;

/// row = exp(row) / sum(exp(row)).
pub fn softmax(tier: Tier, row: &mut [f32]) {
    tier.run(Softmax(row));
}

struct Softmax<'a>(&'a mut [f32]);

impl Kernel for Softmax<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let max = slice::max(s, self.0);
        let sum = slice::exp_in_place(s, self.0, max);
        slice::scale(s, self.0, 1.0 / sum);
    }
}

/// ln(sum(exp(row))); minus infinity for an empty row.
pub fn log_sum_exp(tier: Tier, row: &[f32]) -> f32 {
    tier.run(LogSumExp(row))
}

struct LogSumExp<'a>(&'a [f32]);

impl Kernel for LogSumExp<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        let max = slice::max(s, self.0);
        if max == f32::NEG_INFINITY {
            return max;
        }
        max + slice::sum_exp(s, self.0, max).ln()
    }
}

/// The index of the largest element; the lowest such index; 0 for an empty row.
pub fn argmax(row: &[f32]) -> usize {
    /// Blocks are compared by their maxima, which the compiler does with vectors.
    const BLOCK: usize = 64;
    let mut best = (0, f32::NEG_INFINITY);
    for (block, elements) in row.chunks(BLOCK).enumerate() {
        let max = elements.iter().fold(f32::NEG_INFINITY, |max, &x| if x > max { x } else { max });
        if max > best.1 {
            let within = elements.iter().position(|&x| x == max).unwrap_or(0);
            best = (block * BLOCK + within, max);
        }
    }
    best.0
}
