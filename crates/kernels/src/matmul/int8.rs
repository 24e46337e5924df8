//! Products with int8 weights.

use crate::compute::Compute;
use crate::matrix::Int8;

pub(super) fn matmul(_compute: &Compute, _y: &mut [f32], _x: &[f32], _int8: &Int8, _n_out: usize, _n_in: usize, _rows: usize) {
}
