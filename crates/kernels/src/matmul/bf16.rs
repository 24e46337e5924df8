//! Products with bf16 weights.

use std::ops::Range;

use super::tile::{Ahead, Micro, Part, for_each_block, load_sums, run_block, store_sums};
use crate::compute::Compute;
use crate::matrix::{Layout, PAIR, PANEL};
use crate::scratch::Line;
use crate::shared::SharedMut;
use crate::simd::{Kernel, Simd};
use crate::tier::Tier;

/// Steps of a block: 64 columns × 128 pairs × 2 bytes are 32 KiB, two thirds of a 48 KiB first-level cache.
const BLOCK_STEPS: usize = 128;

pub(super) fn matmul(
    compute: &Compute,
    y: &mut [f32],
    x: &[f32],
    lines: &[Line],
    n_out: usize,
    n_in: usize,
    rows: usize,
) {
    let pairs = n_in.div_ceil(PAIR);
    let layout = Layout::new(n_out, pairs);
    assert_eq!(lines.len(), layout.lines());
    let y = SharedMut::new(y);
    let products = rows * n_out * n_in;
    #[cfg(target_arch = "x86_64")]
    if compute.tier() == Tier::Avx512Bf16 {
        let mut scratch = compute.scratch(rows * pairs);
        let x_pairs = &mut scratch.u32s()[..rows * pairs];
        let shared = SharedMut::new(x_pairs);
        compute.parallel_ranges(rows, n_in, &|rows| {
            // SAFETY: each row of pairs belongs to one task; `Compute` proves the tier's features.
            unsafe { native::round_rows(shared.range(rows.start * pairs..rows.end * pairs), x, rows, n_in) };
        });
        let operands =
            Operands { x: x_pairs.as_ptr(), x_stride: pairs, lines: lines.as_ptr(), layout, y: y.as_mut_ptr(), n_out };
        return for_each_block(compute, rows, layout.panels, size_of::<u32>() * pairs, products, &|rows, panels| {
            // SAFETY: `Compute` proves the tier's features; the blocks are disjoint and within the operands.
            unsafe { native::run(operands, rows, panels) };
        });
    }
    let tier = if compute.tier() == Tier::Avx512Bf16 { Tier::Avx512 } else { compute.tier() };
    let mut padded; // x with an even number of columns
    let x_even = if n_in == pairs * PAIR {
        x
    } else {
        padded = compute.scratch(rows * pairs * PAIR);
        for (to, from) in padded.f32s().chunks_mut(pairs * PAIR).zip(x.chunks(n_in)) {
            to[..n_in].copy_from_slice(from);
            to[n_in] = 0.0;
        }
        padded.f32s()
    };
    let operands = Operands {
        x: x_even.as_ptr().cast(),
        x_stride: pairs,
        lines: lines.as_ptr(),
        layout,
        y: y.as_mut_ptr(),
        n_out,
    };
    for_each_block(compute, rows, layout.panels, size_of::<[f32; PAIR]>() * pairs, products, &|rows, panels| {
        tier.run(WidenBlock { operands, rows, panels });
    });
}

/// Where the operands are; `X` is a pair of inputs.
struct Operands<X> {
    x: *const X, // (rows, x_stride)
    x_stride: usize,
    lines: *const Line,
    layout: Layout,
    y: *mut f32, // (rows, n_out)
    n_out: usize,
}

impl<X> Clone for Operands<X> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<X> Copy for Operands<X> {}

// SAFETY: x and lines are only read; tasks write disjoint parts of y.
unsafe impl<X> Sync for Operands<X> {}
// SAFETY: as above.
unsafe impl<X> Send for Operands<X> {}

impl<X: Copy> Operands<X> {
    /// The first line of a column's panel (with the offset of a vector that begins inside of it) and the lines a step.
    #[inline(always)]
    unsafe fn weights(&self, column: usize) -> (*const u32, usize) {
        let (start, stride) = self.layout.panel(column / PANEL);
        // SAFETY: the panel lies within the lines.
        (unsafe { self.lines.add(start).cast::<u32>().add(column % PANEL) }, stride * PANEL)
    }

    #[inline(always)]
    unsafe fn x_pair(&self, row: usize, step: usize) -> X {
        // SAFETY: the caller's row and step lie within x.
        unsafe { self.x.add(row * self.x_stride + step).read_unaligned() }
    }
}

struct WidenBlock {
    operands: Operands<[f32; PAIR]>,
    rows: Range<usize>,
    panels: Range<usize>,
}

impl Kernel for WidenBlock {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        // SAFETY: `matmul` cuts disjoint blocks within the operands.
        unsafe { run_block(Widen { simd, operands: self.operands }, self.rows, self.panels) };
    }
}

/// Widens the weights to f32 and multiplies there.
#[derive(Clone, Copy)]
struct Widen<S> {
    simd: S,
    operands: Operands<[f32; PAIR]>,
}

impl<S: Simd> Micro for Widen<S> {
    const LANES: usize = S::LANES;
    const ROWS: usize = S::TILE_ROWS;
    const VECTORS: usize = S::TILE_VECTORS;
    const SINGLE_ROW_VECTORS: usize = S::SINGLE_ROW_VECTORS;
    const BLOCK_STEPS: usize = BLOCK_STEPS;

    #[inline(always)]
    fn steps(&self) -> usize {
        self.operands.layout.steps
    }

    #[inline(always)]
    unsafe fn tile<const R: usize, const V: usize>(self, row: usize, column: usize, part: Part) {
        let (s, operands) = (self.simd, self.operands);
        // SAFETY: the caller's rows and columns lie within the operands.
        unsafe {
            let mut sums = load_sums::<S, R, V>(s, operands.y, operands.n_out, row, column, part.steps.start == 0);
            let (weights, stride) = operands.weights(column);
            let mut ahead =
                Ahead::new(weights.add(part.steps.start * stride).cast(), stride / PANEL, part.steps.len(), &part);
            for step in part.steps {
                ahead.fetch();
                let mut x = [[s.zero(); PAIR]; R];
                for r in 0..R {
                    let [first, second] = operands.x_pair(row + r, step);
                    x[r] = [s.splat(first), s.splat(second)];
                }
                for v in 0..V {
                    let (first, second) = s.load_bf16_pairs(weights.add(step * stride + v * S::LANES));
                    for r in 0..R {
                        sums[r][v] = s.fma(x[r][1], second, s.fma(x[r][0], first, sums[r][v]));
                    }
                }
            }
            store_sums(s, operands.y, operands.n_out, row, column, sums);
        }
    }
}

/// Dot products of bf16 pairs in hardware.
#[cfg(target_arch = "x86_64")]
mod native {
    use std::arch::x86_64::*;

    use super::*;
    use crate::simd::{Avx512, Avx512Bf16};

    /// Rounds rows of x to bf16 pairs (rows, ceil(n_in / 2)), the odd one out with zero.
    ///
    /// # Safety
    /// The processor must have the features of the tier.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    pub(super) unsafe fn round_rows(out: &mut [u32], x: &[f32], rows: Range<usize>, n_in: usize) {
        const LANES: usize = 16;
        let pairs = n_in.div_ceil(PAIR);
        for (row, out) in rows.zip(out.chunks_exact_mut(pairs)) {
            let x = &x[row * n_in..][..n_in];
            let out: &mut [u16] = bytemuck::cast_slice_mut(out);
            for at in (0..2 * pairs).step_by(LANES) {
                let mask = |len: usize| ((1_u32 << len.min(LANES)) - 1) as __mmask16;
                // SAFETY: the masks keep to the elements that x and out have left.
                unsafe {
                    let from = _mm512_maskz_loadu_ps(mask(n_in - at.min(n_in)), x.as_ptr().wrapping_add(at));
                    let rounded: __m256i = std::mem::transmute(_mm512_cvtneps_pbh(from));
                    _mm256_mask_storeu_epi16(out.as_mut_ptr().add(at).cast(), mask(2 * pairs - at), rounded);
                }
            }
        }
    }

    /// Runs one block.
    ///
    /// # Safety
    /// The processor must have the features of the tier; otherwise as [`run_block`].
    #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl,avx512bf16,avx512vnni")]
    pub(super) unsafe fn run(operands: Operands<u32>, rows: Range<usize>, panels: Range<usize>) {
        // SAFETY: the features are those of this function; the rest is passed on.
        unsafe { run_block(Native { proof: Avx512Bf16::new_unchecked(), operands }, rows, panels) };
    }

    #[derive(Clone, Copy)]
    struct Native {
        proof: Avx512Bf16,
        operands: Operands<u32>,
    }

    impl Micro for Native {
        const LANES: usize = PANEL;
        const ROWS: usize = 6;
        const VECTORS: usize = 4;
        const SINGLE_ROW_VECTORS: usize = 4;
        const BLOCK_STEPS: usize = BLOCK_STEPS;

        #[inline(always)]
        fn steps(&self) -> usize {
            self.operands.layout.steps
        }

        #[inline(always)]
        unsafe fn tile<const R: usize, const V: usize>(self, row: usize, column: usize, part: Part) {
            let operands = self.operands;
            let s: Avx512 = self.proof.into();
            // SAFETY: the token proves the features; the caller's rows and columns lie within the operands.
            unsafe {
                let mut sums =
                    load_sums::<Avx512, R, V>(s, operands.y, operands.n_out, row, column, part.steps.start == 0);
                let (weights, stride) = operands.weights(column);
                let mut ahead =
                    Ahead::new(weights.add(part.steps.start * stride).cast(), stride / PANEL, part.steps.len(), &part);
                for step in part.steps {
                    ahead.fetch();
                    let mut w = [_mm512_setzero_si512(); V];
                    for v in 0..V {
                        w[v] = _mm512_load_si512(weights.add(step * stride + v * PANEL).cast());
                    }
                    for r in 0..R {
                        let x = _mm512_set1_epi32(operands.x_pair(row + r, step).cast_signed());
                        for v in 0..V {
                            sums[r][v] = _mm512_dpbf16_ps(
                                sums[r][v],
                                std::mem::transmute::<__m512i, __m512bh>(x),
                                std::mem::transmute::<__m512i, __m512bh>(w[v]),
                            );
                        }
                    }
                }
                store_sums(s, operands.y, operands.n_out, row, column, sums);
            }
        }
    }
}
