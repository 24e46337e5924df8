//! Cross entropy over the vocabulary.

use crate::compute::Compute;

/// losses (rows) = -ln softmax(logits row)[target]; 0 where the target is negative.
pub fn cross_entropy(_compute: &Compute, losses: &mut [f32], logits: &[f32], targets: &[i32], rows: usize, vocab: usize) {
    crate::naive::cross_entropy(losses, logits, targets, rows, vocab);
}

/// As [`cross_entropy`], and replaces each logit by scale · (softmax - onehot), or 0 in an ignored row.
pub fn cross_entropy_backward(
    _compute: &Compute,
    logits_to_dlogits: &mut [f32],
    losses: &mut [f32],
    targets: &[i32],
    scale: f32,
    rows: usize,
    vocab: usize,
) {
    crate::naive::cross_entropy_backward(logits_to_dlogits, losses, targets, scale, rows, vocab);
}
