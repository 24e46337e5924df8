//! Root-mean-square norm (Zhang and Sennrich, 2019), of whole rows or of each head.

use crate::compute::Compute;
use crate::shared::SharedMut;
use crate::simd::{Kernel, Simd, load_at, slice, store_at};

/// y = x / sqrt(mean(x²) + eps) · weight, row by row of (rows, dim).
///
/// # Panics
/// If a slice is not of the size stated.
pub fn rms_norm(compute: &Compute, y: &mut [f32], x: &[f32], weight: &[f32], eps: f32, rows: usize, dim: usize) {
    assert_eq!((y.len(), x.len(), weight.len()), (rows * dim, rows * dim, dim));
    let y = SharedMut::new(y);
    compute.parallel_ranges(rows, 2 * dim, &|rows| {
        let range = rows.start * dim..rows.end * dim;
        // SAFETY: each row belongs to one task.
        let y = unsafe { y.range(range.clone()) };
        compute.tier().run(RmsNorm { y, x: &x[range], weight, eps });
    });
}

struct RmsNorm<'a> {
    y: &'a mut [f32],
    x: &'a [f32],
    weight: &'a [f32],
    eps: f32,
}

impl Kernel for RmsNorm<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let dim = self.weight.len().max(1);
        for (y, x) in self.y.chunks_exact_mut(dim).zip(self.x.chunks_exact(dim)) {
            let scale = s.splat(inverse_rms(s, x, self.eps));
            for at in (0..dim).step_by(S::LANES) {
                store_at(s, y, at, s.mul(s.mul(load_at(s, x, at), scale), load_at(s, self.weight, at)));
            }
        }
    }
}

#[inline(always)]
fn inverse_rms<S: Simd>(s: S, x: &[f32], eps: f32) -> f32 {
    1.0 / (slice::dot(s, x, x) / x.len() as f32 + eps).sqrt()
}

/// dx of [`rms_norm`], overwritten.
///
/// # Panics
/// If a slice is not of the size stated.
pub fn rms_norm_backward(
    compute: &Compute,
    dx: &mut [f32],
    dy: &[f32],
    x: &[f32],
    weight: &[f32],
    eps: f32,
    rows: usize,
    dim: usize,
) {
    assert_eq!((dx.len(), dy.len(), x.len(), weight.len()), (rows * dim, rows * dim, rows * dim, dim));
    let dx = SharedMut::new(dx);
    compute.parallel_ranges(rows, 4 * dim, &|rows| {
        let range = rows.start * dim..rows.end * dim;
        // SAFETY: each row belongs to one task.
        let dx = unsafe { dx.range(range.clone()) };
        compute.tier().run(RmsNormBackward { dx, dy: &dy[range.clone()], x: &x[range], weight, eps });
    });
}

struct RmsNormBackward<'a> {
    dx: &'a mut [f32],
    dy: &'a [f32],
    x: &'a [f32],
    weight: &'a [f32],
    eps: f32,
}

impl Kernel for RmsNormBackward<'_> {
    type Output = ();

    /// With n = x · scale and g = dy · weight: dx = scale · (g - n · mean(g · n)).
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let dim = self.weight.len().max(1);
        let rows = self.dx.chunks_exact_mut(dim).zip(self.dy.chunks_exact(dim)).zip(self.x.chunks_exact(dim));
        for ((dx, dy), x) in rows {
            for at in (0..dim).step_by(S::LANES) {
                store_at(s, dx, at, s.mul(load_at(s, dy, at), load_at(s, self.weight, at)));
            }
            let scale = inverse_rms(s, x, self.eps);
            let along = slice::dot(s, dx, x) * scale * scale / dim as f32;
            let (scale, along) = (s.splat(scale), s.splat(-along));
            for at in (0..dim).step_by(S::LANES) {
                let direct = load_at(s, dx, at);
                store_at(s, dx, at, s.mul(scale, s.fma(load_at(s, x, at), along, direct)));
            }
        }
    }
}
