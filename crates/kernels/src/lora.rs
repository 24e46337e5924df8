//! The adapter's low-rank product.

use crate::compute::Compute;
use crate::gemm::{Mat, MatMut, par_gemm_nn, par_gemm_nt};

/// y (rows, n_out) += scale · (x Aᵀ) B with a (rank, n_in) and b_t (rank, n_out), leaving x Aᵀ in `h` (rows, rank).
///
/// # Panics
/// If a slice is not of the size stated.
pub fn lora_add(
    compute: &Compute,
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
    par_gemm_nt(compute, MatMut::new(h, rows, rank), Mat::new(x, rows, n_in), Mat::new(a, rank, n_in), 1.0, false);
    par_gemm_nn(compute, MatMut::new(y, rows, n_out), Mat::new(h, rows, rank), Mat::new(b_t, rank, n_out), scale, true);
}
