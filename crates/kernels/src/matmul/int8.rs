//! Products with int8 weights: integer sums over each group of inputs, scaled and added up in f32.

use std::ops::Range;

use super::tile::{Ahead, Micro, Part, for_each_block, load_sums, run_block, store_sums};
use crate::compute::Compute;
use crate::matrix::{CODE_MAX, INT8_GROUP, Int8, Layout, PANEL, QUAD, ROUND_SHIFT};
use crate::scratch::Line;
use crate::shared::SharedMut;
use crate::simd::{Kernel, Portable, Simd, load_at};
use crate::tier::Tier;

/// Groups of a block: 64 columns × 8 × 64 bytes are 32 KiB, two thirds of a 48 KiB first-level cache.
const BLOCK_STEPS: usize = 8;
/// Steps of four inputs in a group.
const GROUP_QUADS: usize = INT8_GROUP / QUAD;
/// Groups whose largest element is below this count as zero: its reciprocal must be finite.
const GROUP_MAX_MIN: f32 = 1e-30;
/// Turns four signed codes into unsigned ones, 128 higher.
#[cfg(target_arch = "x86_64")]
const FLIP_SIGNS: u32 = 0x8080_8080;

pub(super) fn matmul(
    compute: &Compute,
    y: &mut [f32],
    x: &[f32],
    weight: &Int8,
    n_out: usize,
    n_in: usize,
    rows: usize,
) {
    let (quads, groups) = (n_in.div_ceil(QUAD), n_in.div_ceil(INT8_GROUP));
    let layout = Layout::new(n_out, quads);
    let group_layout = Layout::new(n_out, groups);
    assert_eq!(weight.codes.len(), layout.lines());
    assert_eq!((weight.scales.len(), weight.sums.len()), (group_layout.lines(), group_layout.lines()));
    let mut code_scratch = compute.scratch(rows * quads);
    let mut scale_scratch = compute.scratch(rows * groups);
    let codes = &mut code_scratch.u32s()[..rows * quads];
    let scales = &mut scale_scratch.f32s()[..rows * groups];
    quantise(compute, codes, scales, x, n_in, sign_flip(compute.tier()));
    let y = SharedMut::new(y);
    let operands = Operands {
        x: codes.as_ptr(),
        x_scales: scales.as_ptr(),
        codes: weight.codes.as_ptr(),
        scales: weight.scales.as_ptr(),
        sums: weight.sums.as_ptr(),
        layout,
        group_layout,
        y: y.as_mut_ptr(),
        n_out,
    };
    for_each_block(compute, rows, layout.panels, size_of::<u32>() * quads, rows * n_out * n_in, &|rows, panels| {
        // SAFETY: `Compute` proves the tier's features; the blocks are disjoint and within the operands.
        unsafe {
            match compute.tier() {
                Tier::Portable => run_block(Dot { ints: Portable, operands }, rows, panels),
                #[cfg(target_arch = "x86_64")]
                Tier::Avx2 | Tier::Avx512 => x86::run_avx2(operands, rows, panels),
                #[cfg(target_arch = "x86_64")]
                Tier::Avx512Bf16 => x86::run_vnni(operands, rows, panels),
                #[cfg(not(target_arch = "x86_64"))]
                _ => unreachable!("Compute::new refuses tiers of another architecture"),
            }
        }
    });
}

#[cfg(target_arch = "x86_64")]
fn sign_flip(tier: Tier) -> u32 {
    if tier == Tier::Avx512Bf16 { FLIP_SIGNS } else { 0 }
}

#[cfg(not(target_arch = "x86_64"))]
fn sign_flip(_tier: Tier) -> u32 {
    0
}

/// Codes (rows, quads), their signs flipped by `flip`, and scales (rows, groups) of x (rows, n_in).
fn quantise(compute: &Compute, codes: &mut [u32], scales: &mut [f32], x: &[f32], n_in: usize, flip: u32) {
    let (quads, groups) = (n_in.div_ceil(QUAD), n_in.div_ceil(INT8_GROUP));
    let (codes, scales) = (SharedMut::new(codes), SharedMut::new(scales));
    compute.parallel_ranges(x.len() / n_in, 2 * n_in, &|rows| {
        // SAFETY: each row belongs to one task.
        let (codes, scales) = unsafe {
            (codes.range(rows.start * quads..rows.end * quads), scales.range(rows.start * groups..rows.end * groups))
        };
        let x = &x[rows.start * n_in..rows.end * n_in];
        compute.tier().run(QuantiseRows { codes, scales, x, n_in, flip });
    });
}

struct QuantiseRows<'a> {
    codes: &'a mut [u32],
    scales: &'a mut [f32],
    x: &'a [f32],
    n_in: usize,
    flip: u32,
}

impl Kernel for QuantiseRows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let codes = self.codes.chunks_exact_mut(self.n_in.div_ceil(QUAD));
        let scales = self.scales.chunks_exact_mut(self.n_in.div_ceil(INT8_GROUP));
        for ((codes, scales), x) in codes.zip(scales).zip(self.x.chunks_exact(self.n_in)) {
            for ((codes, scale), x) in codes.chunks_mut(GROUP_QUADS).zip(scales).zip(x.chunks(INT8_GROUP)) {
                *scale = quantise_group(s, codes, x, self.flip);
            }
        }
    }
}

#[inline(always)]
fn quantise_group<S: Simd>(s: S, codes: &mut [u32], x: &[f32], flip: u32) -> f32 {
    let mut max = s.zero();
    for at in (0..x.len()).step_by(S::LANES) {
        let x = load_at(s, x, at);
        max = s.max(s.max(x, s.sub(s.zero(), x)), max);
    }
    let max = s.max_lane(max);
    if max < GROUP_MAX_MIN {
        codes.fill(flip);
        return 0.0;
    }
    let to_code = CODE_MAX / max;
    let code = |x: f32| ((x * to_code) + ROUND_SHIFT).to_bits() as u8;
    let (fours, rest) = x.as_chunks::<QUAD>();
    for (quad, x) in codes.iter_mut().zip(fours) {
        *quad = u32::from_le_bytes(x.map(code)) ^ flip;
    }
    if !rest.is_empty() {
        let mut last = [0.0; QUAD];
        last[..rest.len()].copy_from_slice(rest);
        codes[fours.len()] = u32::from_le_bytes(last.map(code)) ^ flip;
    }
    max / CODE_MAX
}

/// Where the operands are.
#[derive(Clone, Copy)]
struct Operands {
    x: *const u32,        // (rows, quads)
    x_scales: *const f32, // (rows, groups)
    codes: *const Line,
    scales: *const Line,
    sums: *const [i16; PANEL],
    layout: Layout,       // of codes
    group_layout: Layout, // of scales and sums
    y: *mut f32,          // (rows, n_out)
    n_out: usize,
}

// SAFETY: everything but y is only read; tasks write disjoint parts of y.
unsafe impl Sync for Operands {}
// SAFETY: as above.
unsafe impl Send for Operands {}

/// The integer half of an instruction set: sums of products of codes for a vector of columns.
trait IntDot: Copy {
    type Float: Simd;
    type Weights: Copy;
    type Sums: Copy;
    const ROWS: usize;
    const VECTORS: usize;

    fn float(self) -> Self::Float;
    /// What a group's sums begin with, given the sums of the weights' codes.
    unsafe fn first(self, code_sums: *const i16) -> Self::Sums;
    /// One step of a vector of columns.
    unsafe fn load(self, codes: *const u8) -> Self::Weights;
    fn dot(self, sums: Self::Sums, x: u32, weights: Self::Weights) -> Self::Sums;
    fn to_float(self, sums: Self::Sums) -> <Self::Float as Simd>::F;
}

/// A [`Micro`] over an [`IntDot`]; its steps are groups.
#[derive(Clone, Copy)]
struct Dot<I> {
    ints: I,
    operands: Operands,
}

impl<I: IntDot> Micro for Dot<I> {
    const LANES: usize = I::Float::LANES;
    const ROWS: usize = I::ROWS;
    const VECTORS: usize = I::VECTORS;
    const SINGLE_ROW_VECTORS: usize = I::Float::SINGLE_ROW_VECTORS;
    const BLOCK_STEPS: usize = BLOCK_STEPS;

    #[inline(always)]
    fn steps(&self) -> usize {
        self.operands.group_layout.steps
    }

    #[inline(always)]
    unsafe fn tile<const R: usize, const V: usize>(self, row: usize, column: usize, part: Part) {
        let (s, ints, operands) = (self.ints.float(), self.ints, self.operands);
        let (panel, lane) = (column / PANEL, column % PANEL);
        let (start, stride) = operands.layout.panel(panel);
        let (group_start, group_stride) = operands.group_layout.panel(panel);
        // SAFETY: the caller's rows and columns lie within the operands.
        unsafe {
            let mut sums =
                load_sums::<I::Float, R, V>(s, operands.y, operands.n_out, row, column, part.steps.start == 0);
            let first = operands.codes.add(start + part.steps.start * GROUP_QUADS * stride);
            let mut ahead = Ahead::new(first, stride, part.steps.len() * GROUP_QUADS, &part);
            for group in part.steps {
                let at = group_start + group * group_stride;
                let code_sums = operands.sums.add(at).cast::<i16>().add(lane);
                let mut group_sums = [[ints.first(code_sums); V]; R];
                for v in 1..V {
                    let first = ints.first(code_sums.add(v * Self::LANES));
                    for r in 0..R {
                        group_sums[r][v] = first;
                    }
                }
                for quad in group * GROUP_QUADS..operands.layout.steps.min((group + 1) * GROUP_QUADS) {
                    let codes = operands.codes.add(start + quad * stride).cast::<u8>().add(lane * QUAD);
                    ahead.fetch();
                    let mut weights = [ints.load(codes); V];
                    for v in 1..V {
                        weights[v] = ints.load(codes.add(v * Self::LANES * QUAD));
                    }
                    for r in 0..R {
                        let x = *operands.x.add((row + r) * operands.layout.steps + quad);
                        for v in 0..V {
                            group_sums[r][v] = ints.dot(group_sums[r][v], x, weights[v]);
                        }
                    }
                }
                let scales = operands.scales.add(at).cast::<f32>().add(lane);
                for r in 0..R {
                    let x_scale = s.splat(*operands.x_scales.add((row + r) * operands.group_layout.steps + group));
                    for v in 0..V {
                        let scale = s.mul(s.load(scales.add(v * Self::LANES)), x_scale);
                        sums[r][v] = s.fma(ints.to_float(group_sums[r][v]), scale, sums[r][v]);
                    }
                }
            }
            store_sums(s, operands.y, operands.n_out, row, column, sums);
        }
    }
}

impl IntDot for Portable {
    type Float = Portable;
    type Weights = [[i8; QUAD]; 8];
    type Sums = [i32; 8];
    const ROWS: usize = 1;
    const VECTORS: usize = 2;

    #[inline(always)]
    fn float(self) -> Portable {
        self
    }

    #[inline(always)]
    unsafe fn first(self, _code_sums: *const i16) -> Self::Sums {
        [0; 8]
    }

    #[inline(always)]
    unsafe fn load(self, codes: *const u8) -> Self::Weights {
        // SAFETY: the caller vouches for a vector of columns.
        unsafe { codes.cast::<Self::Weights>().read_unaligned() }
    }

    #[inline(always)]
    fn dot(self, mut sums: Self::Sums, x: u32, weights: Self::Weights) -> Self::Sums {
        let x = x.to_le_bytes().map(|code| i16::from(code.cast_signed()));
        for (sum, weights) in sums.iter_mut().zip(weights) {
            for i in 0..QUAD {
                *sum += i32::from(x[i] * i16::from(weights[i]));
            }
        }
        sums
    }

    #[inline(always)]
    fn to_float(self, sums: Self::Sums) -> [f32; 8] {
        sums.map(|sum| sum as f32)
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::*;
    use crate::simd::{Avx2, Avx512, Avx512Bf16};

    /// Runs one block with AVX2.
    ///
    /// # Safety
    /// The processor must have the features; otherwise as [`run_block`].
    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn run_avx2(operands: Operands, rows: Range<usize>, panels: Range<usize>) {
        // SAFETY: the features are those of this function; the rest is passed on.
        unsafe { run_block(Dot { ints: Avx2::new_unchecked(), operands }, rows, panels) };
    }

    /// Runs one block with AVX-512 VNNI.
    ///
    /// # Safety
    /// The processor must have the features of the tier; otherwise as [`run_block`].
    #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl,avx512bf16,avx512vnni")]
    pub(super) unsafe fn run_vnni(operands: Operands, rows: Range<usize>, panels: Range<usize>) {
        // SAFETY: the features are those of this function; the rest is passed on.
        unsafe { run_block(Dot { ints: Avx512Bf16::new_unchecked(), operands }, rows, panels) };
    }

    /// Widens to 16 bits; a column's sum is in two halves until the end.
    impl IntDot for Avx2 {
        type Float = Avx2;
        type Weights = [__m256i; 2]; // columns 0..4 and 4..8
        type Sums = [__m256i; 2];
        const ROWS: usize = 2;
        const VECTORS: usize = 2;

        #[inline(always)]
        fn float(self) -> Avx2 {
            self
        }

        #[inline(always)]
        unsafe fn first(self, _code_sums: *const i16) -> Self::Sums {
            // SAFETY: the token proves the features; so in every method below.
            unsafe { [_mm256_setzero_si256(); 2] }
        }

        #[inline(always)]
        unsafe fn load(self, codes: *const u8) -> Self::Weights {
            // SAFETY: as above, and the caller vouches for a vector of columns.
            unsafe {
                let half = |at: usize| _mm256_cvtepi8_epi16(_mm_loadu_si128(codes.add(at).cast()));
                [half(0), half(16)]
            }
        }

        #[inline(always)]
        fn dot(self, sums: Self::Sums, x: u32, weights: Self::Weights) -> Self::Sums {
            // SAFETY: as above.
            unsafe {
                let x = _mm256_cvtepi8_epi16(_mm_set1_epi32(x.cast_signed()));
                [
                    _mm256_add_epi32(sums[0], _mm256_madd_epi16(weights[0], x)),
                    _mm256_add_epi32(sums[1], _mm256_madd_epi16(weights[1], x)),
                ]
            }
        }

        #[inline(always)]
        fn to_float(self, sums: Self::Sums) -> __m256 {
            // SAFETY: as above.
            unsafe {
                // Columns 0 1 4 5 2 3 6 7, then in order.
                let halves = _mm256_hadd_epi32(sums[0], sums[1]);
                _mm256_cvtepi32_ps(_mm256_permute4x64_epi64::<0b11_01_10_00>(halves))
            }
        }
    }

    /// The instruction multiplies unsigned by signed: x is 128 higher, and the sums begin that much lower.
    impl IntDot for Avx512Bf16 {
        type Float = Avx512;
        type Weights = __m512i;
        type Sums = __m512i;
        const ROWS: usize = 6;
        const VECTORS: usize = 4;

        #[inline(always)]
        fn float(self) -> Avx512 {
            self.into()
        }

        #[inline(always)]
        unsafe fn first(self, code_sums: *const i16) -> __m512i {
            // SAFETY: the token proves the features, and the caller vouches for a vector of columns.
            unsafe {
                let sums = _mm512_cvtepi16_epi32(_mm256_loadu_si256(code_sums.cast()));
                _mm512_sub_epi32(_mm512_setzero_si512(), _mm512_slli_epi32::<7>(sums))
            }
        }

        #[inline(always)]
        unsafe fn load(self, codes: *const u8) -> __m512i {
            // SAFETY: as above.
            unsafe { _mm512_loadu_si512(codes.cast()) }
        }

        #[inline(always)]
        fn dot(self, sums: __m512i, x: u32, weights: __m512i) -> __m512i {
            // SAFETY: as above.
            unsafe { _mm512_dpbusd_epi32(sums, _mm512_set1_epi32(x.cast_signed()), weights) }
        }

        #[inline(always)]
        fn to_float(self, sums: __m512i) -> __m512 {
            // SAFETY: as above.
            unsafe { _mm512_cvtepi32_ps(sums) }
        }
    }
}
