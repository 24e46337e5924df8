//! Element-wise kernels.

use crate::compute::Compute;

/// y = silu(gate) · up, `len` elements.
pub fn silu_mul(_compute: &Compute, y: &mut [f32], gate: &[f32], up: &[f32], len: usize) {
    crate::naive::silu_mul(y, gate, up, len);
}

/// dgate and dup of [`silu_mul`], overwritten.
pub fn silu_mul_backward(
    _compute: &Compute,
    dgate: &mut [f32],
    dup: &mut [f32],
    dy: &[f32],
    gate: &[f32],
    up: &[f32],
    len: usize,
) {
    crate::naive::silu_mul_backward(dgate, dup, dy, gate, up, len);
}

/// y += x, `len` elements.
pub fn add(_compute: &Compute, y: &mut [f32], x: &[f32], len: usize) {
    crate::naive::add(y, x, len);
}

/// y (rows, n) += bias (n), to every row.
pub fn add_bias(_compute: &Compute, y: &mut [f32], bias: &[f32], rows: usize, n: usize) {
    crate::naive::add_bias(y, bias, rows, n);
}
