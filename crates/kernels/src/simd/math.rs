//! Transcendental functions over vectors.

use super::Simd;

/// Below this, e^x is taken as zero: it is under the smallest normal f32 that the scaling can make.
const EXP_MIN: f32 = -86.9;
/// Above this, e^x is not a finite f32.
const EXP_MAX: f32 = 88.722_84;
/// 1.5 · 2^23: adding it leaves the nearest integer in the low bits of the sum.
const SHIFT: f32 = 12_582_912.0;
/// ln 2 in two parts, the first with so few bits that its product with an exponent is exact.
const LN2_HIGH: f32 = 0.693_359_4;
const LN2_LOW: f32 = -2.121_944_4e-4;
/// Coefficients of (e^r - 1 - r) / r² on |r| <= ln 2 / 2 (Cephes expf), highest power first.
const POLYNOMIAL: [f32; 6] = [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 0.166_666_65, 0.5];

/// e^x within 2 ulp; 0 below [`EXP_MIN`]; NaN stays NaN.
#[inline(always)]
pub(crate) fn exp<S: Simd>(s: S, x: S::F) -> S::F {
    let clamped = s.min(s.splat(EXP_MAX), s.max(s.splat(EXP_MIN), x));
    let shifted = s.fma(clamped, s.splat(std::f32::consts::LOG2_E), s.splat(SHIFT));
    let n = s.sub(shifted, s.splat(SHIFT));
    let r = s.fma(n, s.splat(-LN2_HIGH), clamped);
    let r = s.fma(n, s.splat(-LN2_LOW), r);
    let mut p = s.splat(POLYNOMIAL[0]);
    for coefficient in &POLYNOMIAL[1..] {
        p = s.fma(p, r, s.splat(*coefficient));
    }
    let e_r = s.add(s.fma(p, s.mul(r, r), r), s.splat(1.0));
    // 2^128 is no f32, so the scaling is by 2^(n-1) and then 2.
    let half_scale = s.pow2_of_shifted(s.sub(shifted, s.splat(1.0)));
    let scaled = s.mul(s.mul(e_r, half_scale), s.splat(2.0));
    s.zero_below(x, s.splat(EXP_MIN), scaled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::{Kernel, load_at, store_at};
    use crate::tier::Tier;

    struct Exp<'a>(&'a mut [f32]);

    impl Kernel for Exp<'_> {
        type Output = ();

        #[inline(always)]
        fn run<S: Simd>(self, s: S) {
            for at in (0..self.0.len()).step_by(S::LANES) {
                let x = load_at(s, self.0, at);
                store_at(s, self.0, at, exp(s, x));
            }
        }
    }

    const ERROR_ULP_MAX: f64 = 2.0;

    #[test]
    fn exp_is_within_two_units_in_the_last_place() {
        let x: Vec<f32> = (0..200_000).map(|i| -86.8 + i as f32 * (175.4 / 200_000.0)).collect();
        for tier in Tier::all_available() {
            let mut y = x.clone();
            tier.run(Exp(&mut y));
            for (&x, &y) in x.iter().zip(&y) {
                let expected = f64::from(x).exp();
                let ulp = f64::from((expected as f32).next_up()) - f64::from(expected as f32);
                let error = (f64::from(y) - expected).abs() / ulp;
                assert!(error <= ERROR_ULP_MAX, "{tier}: exp({x}) = {y}, {error} ulp off");
            }
        }
    }

    #[test]
    fn exp_of_extremes() {
        for tier in Tier::all_available() {
            let mut y = [f32::NEG_INFINITY, -1000.0, -87.5, -0.0, 0.0, f32::NAN, 1.0, f32::INFINITY];
            tier.run(Exp(&mut y));
            assert_eq!(y[..5], [0.0, 0.0, 0.0, 1.0, 1.0], "{tier}");
            assert!(y[5].is_nan(), "{tier}");
            assert!(y[7] > 3.4e38, "{tier}");
        }
    }
}
