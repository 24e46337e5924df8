//! Vectors of f32: kernels are written once over [`Simd`] and compiled once per instruction set.
//!
//! A [`Kernel`] is a struct of arguments. [`Tier::run`] hands it a token of the tier's instruction set from inside
//! a function compiled with those features, so everything marked `inline(always)` below it is compiled with them.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod math;
mod portable;
pub(crate) mod slice;

#[cfg(target_arch = "x86_64")]
pub(crate) use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) use avx512::{Avx512, Avx512Bf16};
pub(crate) use math::exp;
pub(crate) use portable::Portable;

use crate::tier::Tier;

/// The widest vector of any tier, in f32 lanes.
pub(crate) const LANES_MAX: usize = 16;

/// A token that proves the instruction set is there, and its vector operations.
///
/// All methods are `inline(always)` so that they are compiled with the features of the function they end up in.
pub(crate) trait Simd: Copy {
    /// A vector of `LANES` f32.
    type F: Copy;
    /// f32 lanes of a vector; a power of two, at most [`LANES_MAX`].
    const LANES: usize;
    /// Rows of a register tile of dot products, whose lanes run along the sum, with four columns a row.
    const DOT_ROWS: usize;
    /// Rows of a register tile whose lanes run over output columns, with `TILE_VECTORS` vectors a row.
    const TILE_ROWS: usize;
    /// Vectors of a row of such a tile.
    const TILE_VECTORS: usize;
    /// Vectors of such a tile when it has one row: independent sums enough to hide an instruction's latency.
    const SINGLE_ROW_VECTORS: usize;

    fn splat(self, x: f32) -> Self::F;
    /// Reads `LANES` elements.
    ///
    /// # Safety
    /// They must be readable.
    unsafe fn load(self, from: *const f32) -> Self::F;
    /// Reads `count < LANES` elements; the other lanes are zero.
    ///
    /// # Safety
    /// They must be readable.
    unsafe fn load_head(self, from: *const f32, count: usize) -> Self::F;
    /// Writes `LANES` elements.
    ///
    /// # Safety
    /// They must be writable.
    unsafe fn store(self, to: *mut f32, x: Self::F);
    /// Writes the first `count < LANES` elements.
    ///
    /// # Safety
    /// They must be writable.
    unsafe fn store_head(self, to: *mut f32, x: Self::F, count: usize);
    /// Widens `LANES` pairs of bf16: the first of each pair, and the second.
    ///
    /// # Safety
    /// They must be readable.
    unsafe fn load_bf16_pairs(self, from: *const u32) -> (Self::F, Self::F);
    /// Widens `LANES` bytes.
    ///
    /// # Safety
    /// They must be readable.
    unsafe fn load_i8(self, from: *const i8) -> Self::F;
    /// Widens `count < LANES` bytes; the other lanes are zero.
    ///
    /// # Safety
    /// They must be readable.
    unsafe fn load_i8_head(self, from: *const i8, count: usize) -> Self::F;
    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    fn sqrt(self, a: Self::F) -> Self::F;
    /// a · b + c, with one rounding where the hardware has it.
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// The larger; `b` where either is NaN.
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    /// The smaller; `b` where either is NaN.
    fn min(self, a: Self::F, b: Self::F) -> Self::F;
    /// `value` where x >= bound or x is NaN, else zero.
    fn zero_below(self, x: Self::F, bound: Self::F, value: Self::F) -> Self::F;
    /// 2^n of an integer n that was added to 1.5 · 2^23 (so that it stands in the low bits); n in -126..=127.
    fn pow2_of_shifted(self, shifted: Self::F) -> Self::F;
    /// The sum of each vector's lanes, always in the same order.
    fn sum4(self, x: [Self::F; 4]) -> [f32; 4];
    /// to[..4] = alpha · sum4(x), plus what was there if `accumulate`; the product is rounded before the sum.
    ///
    /// # Safety
    /// Four elements must be readable and writable.
    unsafe fn store_sum4(self, to: *mut f32, x: [Self::F; 4], alpha: f32, accumulate: bool);
    /// The sum of the lanes, in the order of [`Simd::sum4`].
    fn sum(self, x: Self::F) -> f32;
    /// The largest lane.
    fn max_lane(self, x: Self::F) -> f32;

    fn zero(self) -> Self::F {
        self.splat(0.0)
    }
}

/// What a vector of f32 can be read from.
pub(crate) trait Element: Copy + Sync {
    /// Reads `LANES` elements.
    ///
    /// # Safety
    /// They must be readable.
    unsafe fn load<S: Simd>(s: S, from: *const Self) -> S::F;
    /// Reads `count < LANES` elements; the other lanes are zero.
    ///
    /// # Safety
    /// They must be readable.
    unsafe fn load_head<S: Simd>(s: S, from: *const Self, count: usize) -> S::F;
}

impl Element for f32 {
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, from: *const f32) -> S::F {
        // SAFETY: passed on; so below.
        unsafe { s.load(from) }
    }

    #[inline(always)]
    unsafe fn load_head<S: Simd>(s: S, from: *const f32, count: usize) -> S::F {
        // SAFETY: as above.
        unsafe { s.load_head(from, count) }
    }
}

impl Element for i8 {
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, from: *const i8) -> S::F {
        // SAFETY: as above.
        unsafe { s.load_i8(from) }
    }

    #[inline(always)]
    unsafe fn load_head<S: Simd>(s: S, from: *const i8, count: usize) -> S::F {
        // SAFETY: as above.
        unsafe { s.load_i8_head(from, count) }
    }
}

/// A computation that is compiled for each instruction set.
pub(crate) trait Kernel {
    type Output;
    /// Must be `inline(always)`.
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

impl Tier {
    /// Runs a kernel compiled for this tier.
    ///
    /// # Panics
    /// If this processor cannot run the tier.
    #[cfg(target_arch = "x86_64")]
    #[inline]
    pub(crate) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        assert!(self.available(), "this processor cannot run the kernel tier {self}");
        // SAFETY: `available` has just found the features of this tier.
        unsafe {
            match self {
                Tier::Portable => kernel.run(Portable),
                Tier::Avx2 => avx2::run(kernel),
                Tier::Avx512 | Tier::Avx512Bf16 => avx512::run(kernel),
            }
        }
    }

    /// Runs a kernel compiled for this tier.
    #[cfg(not(target_arch = "x86_64"))]
    #[inline]
    pub(crate) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        kernel.run(Portable)
    }
}

/// Loads the `LANES` elements of `from` at `at`, or those that are left.
#[inline(always)]
pub(crate) fn load_at<S: Simd>(s: S, from: &[f32], at: usize) -> S::F {
    let left = from.len() - at;
    // SAFETY: `left` elements are readable from `at` on, and no more than that are read.
    unsafe {
        let from = from.as_ptr().add(at);
        if left >= S::LANES { s.load(from) } else { s.load_head(from, left) }
    }
}

/// Stores to the `LANES` elements of `to` at `at`, or those that are left.
#[inline(always)]
pub(crate) fn store_at<S: Simd>(s: S, to: &mut [f32], at: usize, x: S::F) {
    let left = to.len() - at;
    // SAFETY: `left` elements are writable from `at` on, and no more than that are written.
    unsafe {
        let to = to.as_mut_ptr().add(at);
        if left >= S::LANES { s.store(to, x) } else { s.store_head(to, x, left) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every operation on one vector, to compare the tiers with plain arithmetic.
    struct Operations<'a> {
        a: &'a [f32; LANES_MAX],
        b: &'a [f32; LANES_MAX],
    }

    impl Kernel for Operations<'_> {
        type Output = ();

        #[inline(always)]
        fn run<S: Simd>(self, s: S) {
            let (a, b) = (load_at(s, self.a, 0), load_at(s, self.b, 0));
            let check = |got: S::F, expected: &dyn Fn(f32, f32) -> f32| {
                let mut lanes = [0.0; LANES_MAX];
                store_at(s, &mut lanes[..S::LANES], 0, got);
                for i in 0..S::LANES {
                    let expected = expected(self.a[i], self.b[i]);
                    assert!((lanes[i] - expected).abs() <= 1e-6 * expected.abs(), "lane {i}: {} {expected}", lanes[i]);
                }
            };
            check(s.add(a, b), &|a, b| a + b);
            check(s.sub(a, b), &|a, b| a - b);
            check(s.mul(a, b), &|a, b| a * b);
            check(s.div(a, b), &|a, b| a / b);
            check(s.sqrt(s.mul(a, a)), &|a, _| a.abs());
            check(s.fma(a, b, b), &|a, b| a.mul_add(b, b));
            check(s.max(a, b), &f32::max);
            check(s.min(a, b), &f32::min);
            check(s.zero_below(a, b, s.splat(7.0)), &|a, b| if a >= b { 7.0 } else { 0.0 });
            let expected: f32 = self.a[..S::LANES].iter().sum();
            assert!((s.sum(a) - expected).abs() < 1e-4);
            let sums = s.sum4([a, s.add(a, a), b, s.zero()]);
            assert_eq!(sums[0].to_bits(), s.sum(a).to_bits());
            assert_eq!(sums[1], 2.0 * sums[0]);
            assert_eq!(sums[2].to_bits(), s.sum(b).to_bits());
            assert_eq!(sums[3], 0.0);
            let mut stored = [1.0; 4];
            // SAFETY: four elements are there.
            unsafe { s.store_sum4(stored.as_mut_ptr(), [a, s.add(a, a), b, s.zero()], 0.3, true) };
            assert_eq!(stored, sums.map(|sum| 0.3 * sum + 1.0));
            let expected = self.a[..S::LANES].iter().copied().fold(f32::NEG_INFINITY, f32::max);
            assert_eq!(s.max_lane(a), expected);
        }
    }

    #[test]
    fn operations_agree_with_plain_arithmetic() {
        let a = std::array::from_fn(|i| ((i * 37 % 17) as f32 - 8.3) * 1.7);
        let b = std::array::from_fn(|i| ((i * 29 % 13) as f32 - 6.1) * 0.9);
        for tier in Tier::all_available() {
            tier.run(Operations { a: &a, b: &b });
        }
    }

    struct Widened<'a>(&'a [i8], &'a mut [f32]);

    impl Kernel for Widened<'_> {
        type Output = ();

        #[inline(always)]
        fn run<S: Simd>(self, s: S) {
            for at in (0..self.0.len()).step_by(S::LANES) {
                let left = self.0.len() - at;
                // SAFETY: `left` elements are readable from `at` on.
                let lanes = unsafe {
                    let from = self.0.as_ptr().add(at);
                    if left >= S::LANES { s.load_i8(from) } else { s.load_i8_head(from, left) }
                };
                store_at(s, self.1, at, lanes);
            }
        }
    }

    #[test]
    fn bytes_are_widened_exactly() {
        for tier in Tier::all_available() {
            for len in 0..40 {
                let from: Vec<i8> = (0..len).map(|i| (37 * i) as u8 as i8).collect();
                let mut to = vec![f32::NAN; len];
                tier.run(Widened(&from, &mut to));
                assert!(from.iter().zip(&to).all(|(from, to)| f32::from(*from) == *to), "{tier}, {len} elements");
            }
        }
    }

    struct Heads<'a>(&'a [f32], &'a mut [f32]);

    impl Kernel for Heads<'_> {
        type Output = ();

        #[inline(always)]
        fn run<S: Simd>(self, s: S) {
            for at in (0..self.0.len()).step_by(S::LANES) {
                store_at(s, self.1, at, load_at(s, self.0, at));
            }
        }
    }

    #[test]
    fn partial_vectors_touch_nothing_beyond_their_end() {
        for tier in Tier::all_available() {
            for len in 0..40 {
                let from: Vec<f32> = (0..len).map(|i| i as f32).collect();
                let mut to = vec![-1.0; len + 3];
                tier.run(Heads(&from, &mut to[..len]));
                assert_eq!(to[..len], from);
                assert_eq!(to[len..], [-1.0; 3]);
            }
        }
    }
}
