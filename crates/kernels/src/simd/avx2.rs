//! AVX2 with FMA.

use std::arch::x86_64::*;

use super::{Kernel, Simd};

/// Proof that AVX2 and FMA are there; made only where a function with those features begins.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(());

impl Avx2 {
    /// The proof.
    ///
    /// # Safety
    /// The processor must have AVX2 and FMA.
    pub(crate) unsafe fn new_unchecked() -> Avx2 {
        Avx2(())
    }
}

/// Runs a kernel with AVX2 and FMA.
///
/// # Safety
/// The processor must have both.
#[target_feature(enable = "avx2,fma")]
pub(crate) unsafe fn run<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Avx2(()))
}

/// A mask whose first `count` of eight lanes are set.
#[inline(always)]
fn head_mask(_proof: Avx2, count: usize) -> __m256i {
    // SAFETY: the token proves AVX2.
    unsafe {
        let lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        _mm256_cmpgt_epi32(_mm256_set1_epi32(count as i32), lanes)
    }
}

/// The sums of the lanes of four vectors, (0 + 1) + (2 + 3) in each 128 bits and then across.
#[inline(always)]
fn sum4(_proof: Avx2, [a, b, c, d]: [__m256; 4]) -> __m128 {
    // SAFETY: the token proves the features.
    unsafe {
        let ab = _mm256_add_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
        let cd = _mm256_add_ps(_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
        let low = _mm256_shuffle_ps::<0b01_00_01_00>(ab, cd);
        let high = _mm256_shuffle_ps::<0b11_10_11_10>(ab, cd);
        let each = _mm256_add_ps(low, high);
        _mm_add_ps(_mm256_castps256_ps128(each), _mm256_extractf128_ps::<1>(each))
    }
}

impl Simd for Avx2 {
    type F = __m256;
    const LANES: usize = 8;
    const DOT_ROWS: usize = 2;
    const TILE_ROWS: usize = 4;
    const TILE_VECTORS: usize = 2;
    const SINGLE_ROW_VECTORS: usize = 4;

    #[inline(always)]
    fn splat(self, x: f32) -> __m256 {
        // SAFETY: the token proves the features; so in every method below.
        unsafe { _mm256_set1_ps(x) }
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> __m256 {
        // SAFETY: as above, and the caller vouches for the memory.
        unsafe { _mm256_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn load_head(self, from: *const f32, count: usize) -> __m256 {
        // SAFETY: as above; lanes outside of the mask are not accessed.
        unsafe { _mm256_maskload_ps(from, head_mask(self, count)) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32, x: __m256) {
        // SAFETY: as above, and the caller vouches for the memory.
        unsafe { _mm256_storeu_ps(to, x) }
    }

    #[inline(always)]
    unsafe fn store_head(self, to: *mut f32, x: __m256, count: usize) {
        // SAFETY: as above; lanes outside of the mask are not accessed.
        unsafe { _mm256_maskstore_ps(to, head_mask(self, count), x) }
    }

    #[inline(always)]
    unsafe fn load_bf16_pairs(self, from: *const u32) -> (__m256, __m256) {
        // SAFETY: as above, and the caller vouches for the memory.
        unsafe {
            let pairs = _mm256_loadu_si256(from.cast());
            let second = _mm256_and_si256(pairs, _mm256_set1_epi32(0xffff_0000_u32 as i32));
            (_mm256_castsi256_ps(_mm256_slli_epi32::<16>(pairs)), _mm256_castsi256_ps(second))
        }
    }

    #[inline(always)]
    unsafe fn load_i8(self, from: *const i8) -> __m256 {
        // SAFETY: as above, and the caller vouches for the memory.
        unsafe { _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(from.cast()))) }
    }

    #[inline(always)]
    unsafe fn load_i8_head(self, from: *const i8, count: usize) -> __m256 {
        let mut whole = [0; Self::LANES];
        // SAFETY: `count` elements are readable, and fewer than `whole` has.
        unsafe {
            std::ptr::copy_nonoverlapping(from, whole.as_mut_ptr(), count);
            self.load_i8(whole.as_ptr())
        }
    }

    #[inline(always)]
    fn add(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: token.
        unsafe { _mm256_add_ps(a, b) }
    }

    #[inline(always)]
    fn sub(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: token.
        unsafe { _mm256_sub_ps(a, b) }
    }

    #[inline(always)]
    fn mul(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: token.
        unsafe { _mm256_mul_ps(a, b) }
    }

    #[inline(always)]
    fn div(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: token.
        unsafe { _mm256_div_ps(a, b) }
    }

    #[inline(always)]
    fn sqrt(self, a: __m256) -> __m256 {
        // SAFETY: token.
        unsafe { _mm256_sqrt_ps(a) }
    }

    #[inline(always)]
    fn fma(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        // SAFETY: token.
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn max(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: token.
        unsafe { _mm256_max_ps(a, b) }
    }

    #[inline(always)]
    fn min(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: token.
        unsafe { _mm256_min_ps(a, b) }
    }

    #[inline(always)]
    fn zero_below(self, x: __m256, bound: __m256, value: __m256) -> __m256 {
        // SAFETY: token.
        unsafe { _mm256_and_ps(_mm256_cmp_ps::<_CMP_NLT_UQ>(x, bound), value) }
    }

    #[inline(always)]
    fn pow2_of_shifted(self, shifted: __m256) -> __m256 {
        // SAFETY: token.
        unsafe {
            let biased = _mm256_add_epi32(_mm256_castps_si256(shifted), _mm256_set1_epi32(127));
            _mm256_castsi256_ps(_mm256_slli_epi32::<23>(biased))
        }
    }

    #[inline(always)]
    fn sum4(self, x: [__m256; 4]) -> [f32; 4] {
        // SAFETY: `[f32; 4]` and `__m128` have the same size and any bits are valid.
        unsafe { std::mem::transmute(sum4(self, x)) }
    }

    #[inline(always)]
    unsafe fn store_sum4(self, to: *mut f32, x: [__m256; 4], alpha: f32, accumulate: bool) {
        let sums = sum4(self, x);
        // SAFETY: token, and the caller vouches for four elements.
        unsafe {
            let scaled = _mm_mul_ps(_mm_set1_ps(alpha), sums);
            let before = if accumulate { _mm_loadu_ps(to) } else { _mm_setzero_ps() };
            _mm_storeu_ps(to, _mm_add_ps(scaled, before));
        }
    }

    #[inline(always)]
    fn sum(self, x: __m256) -> f32 {
        let zero = self.zero();
        self.sum4([x, zero, zero, zero])[0]
    }

    #[inline(always)]
    fn max_lane(self, x: __m256) -> f32 {
        // SAFETY: token.
        unsafe {
            let four = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
        }
    }
}
