//! Plain Rust over arrays of eight, for the compiler's baseline vectors.

use super::Simd;

const LANES: usize = 8;

/// The tier that runs everywhere.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

#[inline(always)]
fn zip(a: [f32; LANES], b: [f32; LANES], f: impl Fn(f32, f32) -> f32) -> [f32; LANES] {
    std::array::from_fn(|i| f(a[i], b[i]))
}

impl Simd for Portable {
    type F = [f32; LANES];
    const LANES: usize = LANES;
    const DOT_ROWS: usize = 1;
    const TILE_ROWS: usize = 2;
    const TILE_VECTORS: usize = 2;
    const SINGLE_ROW_VECTORS: usize = 2;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        [x; LANES]
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> Self::F {
        // SAFETY: the caller vouches for LANES readable elements.
        unsafe { from.cast::<Self::F>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn load_head(self, from: *const f32, count: usize) -> Self::F {
        let mut lanes = [0.0; LANES];
        for i in 0..count {
            // SAFETY: the caller vouches for `count` readable elements.
            lanes[i] = unsafe { from.add(i).read() };
        }
        lanes
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32, x: Self::F) {
        // SAFETY: the caller vouches for LANES writable elements.
        unsafe { to.cast::<Self::F>().write_unaligned(x) }
    }

    #[inline(always)]
    unsafe fn store_head(self, to: *mut f32, x: Self::F, count: usize) {
        for i in 0..count {
            // SAFETY: the caller vouches for `count` writable elements.
            unsafe { to.add(i).write(x[i]) };
        }
    }

    #[inline(always)]
    unsafe fn load_bf16_pairs(self, from: *const u32) -> (Self::F, Self::F) {
        // SAFETY: the caller vouches for LANES readable pairs.
        let pairs = unsafe { from.cast::<[u32; LANES]>().read_unaligned() };
        (pairs.map(|pair| f32::from_bits(pair << 16)), pairs.map(|pair| f32::from_bits(pair & 0xffff_0000)))
    }

    #[inline(always)]
    unsafe fn load_i8(self, from: *const i8) -> Self::F {
        // SAFETY: the caller vouches for LANES readable elements.
        unsafe { from.cast::<[i8; LANES]>().read_unaligned() }.map(f32::from)
    }

    #[inline(always)]
    unsafe fn load_i8_head(self, from: *const i8, count: usize) -> Self::F {
        let mut lanes = [0.0; LANES];
        for i in 0..count {
            // SAFETY: the caller vouches for `count` readable elements.
            lanes[i] = f32::from(unsafe { from.add(i).read() });
        }
        lanes
    }

    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| a + b)
    }

    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| a - b)
    }

    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| a * b)
    }

    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| a / b)
    }

    #[inline(always)]
    fn sqrt(self, a: Self::F) -> Self::F {
        a.map(f32::sqrt)
    }

    #[inline(always)]
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        // Two roundings: without the instruction, `mul_add` is a call into the C library per lane.
        std::array::from_fn(|i| a[i] * b[i] + c[i])
    }

    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    fn min(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| if a < b { a } else { b })
    }

    #[inline(always)]
    fn zero_below(self, x: Self::F, bound: Self::F, value: Self::F) -> Self::F {
        std::array::from_fn(|i| if x[i] < bound[i] { 0.0 } else { value[i] })
    }

    #[inline(always)]
    fn pow2_of_shifted(self, shifted: Self::F) -> Self::F {
        shifted.map(|x| f32::from_bits(x.to_bits().wrapping_add(127) << 23))
    }

    #[inline(always)]
    fn sum4(self, x: [Self::F; 4]) -> [f32; 4] {
        x.map(|x| self.sum(x))
    }

    #[inline(always)]
    unsafe fn store_sum4(self, to: *mut f32, x: [Self::F; 4], alpha: f32, accumulate: bool) {
        let sums = self.sum4(x);
        for (i, sum) in sums.into_iter().enumerate() {
            // SAFETY: the caller vouches for four elements.
            unsafe {
                let to = to.add(i);
                to.write(alpha * sum + if accumulate { to.read() } else { 0.0 });
            }
        }
    }

    #[inline(always)]
    fn sum(self, x: Self::F) -> f32 {
        let fours: [f32; 4] = std::array::from_fn(|i| x[i] + x[i + 4]);
        (fours[0] + fours[1]) + (fours[2] + fours[3])
    }

    #[inline(always)]
    fn max_lane(self, x: Self::F) -> f32 {
        x.into_iter().fold(x[0], |max, x| if x > max { x } else { max })
    }
}
