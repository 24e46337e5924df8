//! Element-wise kernels.

use crate::compute::Compute;
use crate::shared::SharedMut;
use crate::simd::{Kernel, Simd, exp, load_at, store_at};

/// What an element of [`silu_mul`] costs, in element operations.
const SILU_WORK: usize = 8;

/// y = silu(gate) · up, `len` elements.
///
/// # Panics
/// If a slice is not of that length; so for every kernel of this file.
pub fn silu_mul(compute: &Compute, y: &mut [f32], gate: &[f32], up: &[f32], len: usize) {
    assert_eq!((y.len(), gate.len(), up.len()), (len, len, len));
    let y = SharedMut::new(y);
    compute.parallel_ranges(len, SILU_WORK, &|range| {
        // SAFETY: each element belongs to one task; so in every kernel of this file.
        let y = unsafe { y.range(range.clone()) };
        compute.tier().run(SiluMul { y, gate: &gate[range.clone()], up: &up[range] });
    });
}

struct SiluMul<'a> {
    y: &'a mut [f32],
    gate: &'a [f32],
    up: &'a [f32],
}

impl Kernel for SiluMul<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for at in (0..self.y.len()).step_by(S::LANES) {
            let gate = load_at(s, self.gate, at);
            let silu = s.div(gate, one_plus_exp_negative(s, gate));
            store_at(s, self.y, at, s.mul(silu, load_at(s, self.up, at)));
        }
    }
}

/// 1 + e^-x, the reciprocal of the sigmoid.
#[inline(always)]
fn one_plus_exp_negative<S: Simd>(s: S, x: S::F) -> S::F {
    s.add(s.splat(1.0), exp(s, s.sub(s.zero(), x)))
}

/// dgate and dup of [`silu_mul`], overwritten.
///
/// # Panics
/// If a slice is not of length `len`.
pub fn silu_mul_backward(
    compute: &Compute,
    dgate: &mut [f32],
    dup: &mut [f32],
    dy: &[f32],
    gate: &[f32],
    up: &[f32],
    len: usize,
) {
    assert_eq!((dgate.len(), dup.len(), dy.len(), gate.len(), up.len()), (len, len, len, len, len));
    let (dgate, dup) = (SharedMut::new(dgate), SharedMut::new(dup));
    compute.parallel_ranges(len, 2 * SILU_WORK, &|range| {
        // SAFETY: each element belongs to one task.
        let (dgate, dup) = unsafe { (dgate.range(range.clone()), dup.range(range.clone())) };
        let (dy, gate, up) = (&dy[range.clone()], &gate[range.clone()], &up[range]);
        compute.tier().run(SiluMulBackward { dgate, dup, dy, gate, up });
    });
}

struct SiluMulBackward<'a> {
    dgate: &'a mut [f32],
    dup: &'a mut [f32],
    dy: &'a [f32],
    gate: &'a [f32],
    up: &'a [f32],
}

impl Kernel for SiluMulBackward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let one = s.splat(1.0);
        for at in (0..self.dy.len()).step_by(S::LANES) {
            let (dy, gate, up) = (load_at(s, self.dy, at), load_at(s, self.gate, at), load_at(s, self.up, at));
            let sigmoid = s.div(one, one_plus_exp_negative(s, gate));
            store_at(s, self.dup, at, s.mul(dy, s.mul(gate, sigmoid)));
            let slope = s.mul(sigmoid, s.fma(gate, s.sub(one, sigmoid), one));
            store_at(s, self.dgate, at, s.mul(s.mul(dy, up), slope));
        }
    }
}

/// y += x, `len` elements.
///
/// # Panics
/// If a slice is not of length `len`.
pub fn add(compute: &Compute, y: &mut [f32], x: &[f32], len: usize) {
    assert_eq!((y.len(), x.len()), (len, len));
    let y = SharedMut::new(y);
    compute.parallel_ranges(len, 1, &|range| {
        // SAFETY: each element belongs to one task.
        let y = unsafe { y.range(range.clone()) };
        compute.tier().run(AddRows { y, x: &x[range.clone()], width: range.len() });
    });
}

/// y (rows, n) += bias (n), to every row.
///
/// # Panics
/// If a slice is not of the size stated.
pub fn add_bias(compute: &Compute, y: &mut [f32], bias: &[f32], rows: usize, n: usize) {
    assert_eq!((y.len(), bias.len()), (rows * n, n));
    let y = SharedMut::new(y);
    compute.parallel_ranges(rows, n, &|rows| {
        // SAFETY: each row belongs to one task.
        let y = unsafe { y.range(rows.start * n..rows.end * n) };
        compute.tier().run(AddRows { y, x: bias, width: n });
    });
}

/// Adds x (width) to every row of y.
struct AddRows<'a> {
    y: &'a mut [f32],
    x: &'a [f32],
    width: usize,
}

impl Kernel for AddRows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for row in self.y.chunks_exact_mut(self.width.max(1)) {
            for at in (0..row.len()).step_by(S::LANES) {
                store_at(s, row, at, s.add(load_at(s, row, at), load_at(s, self.x, at)));
            }
        }
    }
}
