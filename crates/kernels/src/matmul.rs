//! The product with a frozen weight.

use crate::compute::Compute;
use crate::matrix::Matrix;

/// y (rows, n_out) = x (rows, n_in) · wᵀ.
pub fn matmul(_compute: &Compute, y: &mut [f32], x: &[f32], w: &Matrix, rows: usize) {
    crate::naive::matmul(y, x, w, rows);
}
