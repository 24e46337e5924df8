//! Reductions over one row of scores.

use crate::tier::Tier;

/// row = exp(row) / sum(exp(row)).
pub fn softmax(_tier: Tier, row: &mut [f32]) {
    crate::naive::softmax(row);
}

/// ln(sum(exp(row))); minus infinity for an empty row.
pub fn log_sum_exp(_tier: Tier, row: &[f32]) -> f32 {
    crate::naive::log_sum_exp(row)
}

/// The index of the largest element; the lowest such index; 0 for an empty row.
pub fn argmax(row: &[f32]) -> usize {
    crate::naive::argmax(row)
}
