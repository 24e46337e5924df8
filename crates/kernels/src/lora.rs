//! The adapter's low-rank product.

use crate::compute::Compute;

/// y (rows, n_out) += scale · (x Aᵀ) B with a (rank, n_in) and b_t (rank, n_out), leaving x Aᵀ in `h` (rows, rank).
pub fn lora_add(
    _compute: &Compute,
    y: &mut [f32],
    h: &mut [f32],
    x: &[f32],
    a: &[f32],
    b_t: &[f32],
    scale: f32,
    rows: usize,
    n_in: usize,
    n_out: usize,
    rank: usize,
) {
    crate::naive::lora_add(y, h, x, a, b_t, scale, rows, n_in, n_out, rank);
}
