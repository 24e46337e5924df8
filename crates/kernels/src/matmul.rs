//! The product with a frozen weight, the kernel that a transformer spends its time in.
//!
//! Output columns run across vector lanes and every output element adds up its own products in the order of the
//! inputs, so its bits depend on its row of x and the weight alone, not on the tile that it happens to lie in.

mod bf16;
mod int8;
mod tile;

use crate::compute::Compute;
use crate::matrix::{Matrix, Weight};

/// y (rows, n_out) = x (rows, n_in) · wᵀ.
///
/// With bf16 weights the tier `Avx512Bf16` rounds x to bf16; the others widen the weights and multiply in f32. With
/// int8 weights every tier rounds each [`INT8_GROUP`](crate::INT8_GROUP) elements of a row of x to 8 bits and has
/// the same integer sums.
///
/// # Panics
/// If a slice is not of the size stated.
pub fn matmul(compute: &Compute, y: &mut [f32], x: &[f32], w: &Matrix, rows: usize) {
    assert_eq!(y.len(), rows * w.n_out(), "y of shape ({rows}, {})", w.n_out());
    assert_eq!(x.len(), rows * w.n_in(), "x of shape ({rows}, {})", w.n_in());
    if y.is_empty() {
        return;
    }
    if x.is_empty() {
        return y.fill(0.0);
    }
    match &w.weight {
        Weight::Bf16(lines) => bf16::matmul(compute, y, x, lines, w.n_out(), w.n_in(), rows),
        Weight::Int8(int8) => int8::matmul(compute, y, x, int8, w.n_out(), w.n_in(), rows),
    }
}
