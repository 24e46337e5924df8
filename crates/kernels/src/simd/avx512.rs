//! AVX-512.

use std::arch::x86_64::*;

use super::{Kernel, Simd};

/// Proof that AVX-512 F, BW and VL are there; made only by [`run`].
#[derive(Clone, Copy)]
pub(crate) struct Avx512(());

/// Proof that BF16 and VNNI are there as well; made only where a function with those features begins.
#[derive(Clone, Copy)]
pub(crate) struct Avx512Bf16(());

impl Avx512Bf16 {
    /// The proof.
    ///
    /// # Safety
    /// The processor must have AVX-512 F, BW, VL, BF16 and VNNI.
    pub(crate) unsafe fn new_unchecked() -> Avx512Bf16 {
        Avx512Bf16(())
    }
}

impl From<Avx512Bf16> for Avx512 {
    #[inline(always)]
    fn from(_proof: Avx512Bf16) -> Avx512 {
        Avx512(())
    }
}

/// Runs a kernel with AVX-512.
///
/// # Safety
/// The processor must have AVX2, FMA and AVX-512 F, BW and VL.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl")]
pub(crate) unsafe fn run<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Avx512(()))
}

/// A mask whose first `count` of sixteen lanes are set.
#[inline(always)]
fn head_mask(count: usize) -> __mmask16 {
    ((1_u32 << count) - 1) as __mmask16
}

#[inline(always)]
fn widen(_proof: Avx512, bytes: __m128i) -> __m512 {
    // SAFETY: the token proves the features.
    unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes)) }
}

/// The sums of the lanes of four vectors, (0 + 1) + (2 + 3) in each 128 bits and then across.
#[inline(always)]
fn sum4(_proof: Avx512, [a, b, c, d]: [__m512; 4]) -> __m128 {
    // SAFETY: the token proves the features.
    unsafe {
        let ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
        let cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
        let low = _mm512_shuffle_ps::<0b01_00_01_00>(ab, cd);
        let high = _mm512_shuffle_ps::<0b11_10_11_10>(ab, cd);
        let each = _mm512_add_ps(low, high);
        let upper = _mm512_castps512_ps256(_mm512_shuffle_f32x4::<0b11_10_11_10>(each, each));
        let each = _mm256_add_ps(_mm512_castps512_ps256(each), upper);
        _mm_add_ps(_mm256_castps256_ps128(each), _mm256_extractf128_ps::<1>(each))
    }
}

impl Simd for Avx512 {
    type F = __m512;
    const LANES: usize = 16;
    const DOT_ROWS: usize = 6;
    const TILE_ROWS: usize = 6;
    const TILE_VECTORS: usize = 4;
    const SINGLE_ROW_VECTORS: usize = 4;

    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        // SAFETY: the token proves the features; so in every method below.
        unsafe { _mm512_set1_ps(x) }
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> __m512 {
        // SAFETY: as above, and the caller vouches for the memory.
        unsafe { _mm512_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn load_head(self, from: *const f32, count: usize) -> __m512 {
        // SAFETY: as above; lanes outside of the mask are not accessed.
        unsafe { _mm512_maskz_loadu_ps(head_mask(count), from) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32, x: __m512) {
        // SAFETY: as above, and the caller vouches for the memory.
        unsafe { _mm512_storeu_ps(to, x) }
    }

    #[inline(always)]
    unsafe fn store_head(self, to: *mut f32, x: __m512, count: usize) {
        // SAFETY: as above; lanes outside of the mask are not accessed.
        unsafe { _mm512_mask_storeu_ps(to, head_mask(count), x) }
    }

    #[inline(always)]
    unsafe fn load_bf16_pairs(self, from: *const u32) -> (__m512, __m512) {
        // SAFETY: as above, and the caller vouches for the memory.
        unsafe {
            let pairs = _mm512_loadu_si512(from.cast());
            let second = _mm512_and_si512(pairs, _mm512_set1_epi32(0xffff_0000_u32 as i32));
            (_mm512_castsi512_ps(_mm512_slli_epi32::<16>(pairs)), _mm512_castsi512_ps(second))
        }
    }

    #[inline(always)]
    unsafe fn load_i8(self, from: *const i8) -> __m512 {
        // SAFETY: as above, and the caller vouches for the memory.
        unsafe { widen(self, _mm_loadu_si128(from.cast())) }
    }

    #[inline(always)]
    unsafe fn load_i8_head(self, from: *const i8, count: usize) -> __m512 {
        // SAFETY: as above; lanes outside of the mask are not accessed.
        unsafe { widen(self, _mm_maskz_loadu_epi8(head_mask(count), from)) }
    }

    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: token.
        unsafe { _mm512_add_ps(a, b) }
    }

    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: token.
        unsafe { _mm512_sub_ps(a, b) }
    }

    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: token.
        unsafe { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: token.
        unsafe { _mm512_div_ps(a, b) }
    }

    #[inline(always)]
    fn sqrt(self, a: __m512) -> __m512 {
        // SAFETY: token.
        unsafe { _mm512_sqrt_ps(a) }
    }

    #[inline(always)]
    fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: token.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: token.
        unsafe { _mm512_max_ps(a, b) }
    }

    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: token.
        unsafe { _mm512_min_ps(a, b) }
    }

    #[inline(always)]
    fn zero_below(self, x: __m512, bound: __m512, value: __m512) -> __m512 {
        // SAFETY: token.
        unsafe { _mm512_maskz_mov_ps(_mm512_cmp_ps_mask::<_CMP_NLT_UQ>(x, bound), value) }
    }

    #[inline(always)]
    fn pow2_of_shifted(self, shifted: __m512) -> __m512 {
        // SAFETY: token.
        unsafe {
            let biased = _mm512_add_epi32(_mm512_castps_si512(shifted), _mm512_set1_epi32(127));
            _mm512_castsi512_ps(_mm512_slli_epi32::<23>(biased))
        }
    }

    #[inline(always)]
    fn sum4(self, x: [__m512; 4]) -> [f32; 4] {
        // SAFETY: `[f32; 4]` and `__m128` have the same size and any bits are valid.
        unsafe { std::mem::transmute(sum4(self, x)) }
    }

    #[inline(always)]
    unsafe fn store_sum4(self, to: *mut f32, x: [__m512; 4], alpha: f32, accumulate: bool) {
        let sums = sum4(self, x);
        // SAFETY: token, and the caller vouches for four elements.
        unsafe {
            let scaled = _mm_mul_ps(_mm_set1_ps(alpha), sums);
            let before = if accumulate { _mm_loadu_ps(to) } else { _mm_setzero_ps() };
            _mm_storeu_ps(to, _mm_add_ps(scaled, before));
        }
    }

    #[inline(always)]
    fn sum(self, x: __m512) -> f32 {
        let zero = self.zero();
        self.sum4([x, zero, zero, zero])[0]
    }

    #[inline(always)]
    fn max_lane(self, x: __m512) -> f32 {
        // SAFETY: token.
        unsafe { _mm512_reduce_max_ps(x) }
    }
}
