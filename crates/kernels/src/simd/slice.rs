//! Reductions over slices. Their order of additions is a function of the length alone.

use super::{Simd, exp, load_at, store_at};

/// Independent sums of a reduction, enough to hide the latency of an addition.
const SUMS: usize = 4;

/// The sum of the products of a's and b's elements.
#[inline(always)]
pub(crate) fn dot<S: Simd>(s: S, a: &[f32], b: &[f32]) -> f32 {
    let b = &b[..a.len()];
    let mut sums = [s.zero(); SUMS];
    let mut at = 0;
    while a.len() - at >= SUMS * S::LANES {
        for (i, sum) in sums.iter_mut().enumerate() {
            *sum = s.fma(load_at(s, a, at + i * S::LANES), load_at(s, b, at + i * S::LANES), *sum);
        }
        at += SUMS * S::LANES;
    }
    while at < a.len() {
        sums[0] = s.fma(load_at(s, a, at), load_at(s, b, at), sums[0]);
        at += S::LANES;
    }
    s.sum(s.add(s.add(sums[0], sums[1]), s.add(sums[2], sums[3])))
}

/// The largest element; minus infinity for none.
#[inline(always)]
pub(crate) fn max<S: Simd>(s: S, x: &[f32]) -> f32 {
    let lowest = s.splat(f32::NEG_INFINITY);
    let mut maxima = [lowest; SUMS];
    let mut at = 0;
    while x.len() - at >= SUMS * S::LANES {
        for (i, max) in maxima.iter_mut().enumerate() {
            *max = s.max(load_at(s, x, at + i * S::LANES), *max);
        }
        at += SUMS * S::LANES;
    }
    let max = s.max_lane(s.max(s.max(maxima[0], maxima[1]), s.max(maxima[2], maxima[3])));
    x[at..].iter().fold(max, |max, &x| if x > max { x } else { max })
}

/// x = exp(x - subtract); gives the sum of the results.
#[inline(always)]
pub(crate) fn exp_in_place<S: Simd>(s: S, x: &mut [f32], subtract: f32) -> f32 {
    let negative = s.splat(-subtract);
    let mut sums = [s.zero(); 2];
    let mut at = 0;
    while at < x.len() {
        let e = exp(s, s.add(load_at(s, x, at), negative));
        store_at(s, x, at, e);
        // Read back, so that lanes beyond the end are zero.
        let sum = &mut sums[at / S::LANES % 2];
        *sum = s.add(*sum, if x.len() - at >= S::LANES { e } else { load_at(s, x, at) });
        at += S::LANES;
    }
    s.sum(s.add(sums[0], sums[1]))
}

/// The sum of exp(x - subtract).
#[inline(always)]
pub(crate) fn sum_exp<S: Simd>(s: S, x: &[f32], subtract: f32) -> f32 {
    let negative = s.splat(-subtract);
    let mut sums = [s.zero(); 2];
    let whole = x.len() / S::LANES * S::LANES;
    let mut at = 0;
    while at < whole {
        let sum = &mut sums[at / S::LANES % 2];
        *sum = s.add(*sum, exp(s, s.add(load_at(s, x, at), negative)));
        at += S::LANES;
    }
    let mut rest = [f32::NEG_INFINITY; super::LANES_MAX];
    let rest = &mut rest[..S::LANES];
    rest[..x.len() - whole].copy_from_slice(&x[whole..]);
    let last = exp(s, s.add(load_at(s, rest, 0), negative));
    s.sum(s.add(s.add(sums[0], sums[1]), last))
}

/// x = x · factor.
#[inline(always)]
pub(crate) fn scale<S: Simd>(s: S, x: &mut [f32], factor: f32) {
    let factor = s.splat(factor);
    for at in (0..x.len()).step_by(S::LANES) {
        store_at(s, x, at, s.mul(load_at(s, x, at), factor));
    }
}
