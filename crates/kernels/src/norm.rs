//! Root-mean-square norm.

use crate::compute::Compute;

/// y = x / sqrt(mean(x²) + eps) · weight, row by row of (rows, dim).
pub fn rms_norm(_compute: &Compute, y: &mut [f32], x: &[f32], weight: &[f32], eps: f32, rows: usize, dim: usize) {
    crate::naive::rms_norm(y, x, weight, eps, rows, dim);
}

/// dx of [`rms_norm`], overwritten.
pub fn rms_norm_backward(
    _compute: &Compute,
    dx: &mut [f32],
    dy: &[f32],
    x: &[f32],
    weight: &[f32],
    eps: f32,
    rows: usize,
    dim: usize,
) {
    crate::naive::rms_norm_backward(dx, dy, x, weight, eps, rows, dim);
}
