//! Frozen weights, packed once.
//!
//! Sixteen output columns make a panel. The inputs run in steps of a pair (bf16) or four (int8), so that one step
//! of one panel is 64 bytes, a [`Line`]: lane by lane, the step's inputs of that column. Up to four panels stand
//! side by side in a group: one step of all of them is contiguous, so a product reads a group as one stream.

use std::fmt;
use std::str::FromStr;

use half::bf16;

use crate::KernelsError;
use crate::compute::Compute;
use crate::scratch::{LINE_BYTES, Line};
use crate::shared::SharedMut;

/// Input elements that share one scale in [`WeightFormat::Int8`].
pub const INT8_GROUP: usize = 64;
/// Output columns of a panel.
pub(crate) const PANEL: usize = 16;
/// Panels of a group, the last of a matrix excepted.
pub(crate) const GROUP_PANELS: usize = 4;
/// Inputs of a step in bf16.
pub(crate) const PAIR: usize = 2;
/// Inputs of a step in int8.
pub(crate) const QUAD: usize = 4;
/// The largest code; -128 is left out so that the codes are symmetric.
pub(crate) const CODE_MAX: f32 = 127.0;

/// 1.5 · 2^23: adding it rounds to an integer, to even between two, and leaves that in the low bits.
pub(crate) const ROUND_SHIFT: f32 = 12_582_912.0;

/// How a frozen weight is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WeightFormat {
    /// Two bytes an element, exactly as stored.
    Bf16,
    /// One byte an element and a scale per [`INT8_GROUP`] elements of a row.
    Int8,
}

impl fmt::Display for WeightFormat {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            WeightFormat::Bf16 => "bf16",
            WeightFormat::Int8 => "int8",
        })
    }
}

impl FromStr for WeightFormat {
    type Err = KernelsError;

    fn from_str(text: &str) -> Result<WeightFormat, KernelsError> {
        match text {
            "bf16" => Ok(WeightFormat::Bf16),
            "int8" => Ok(WeightFormat::Int8),
            _ => Err(KernelsError::UnknownWeightFormat { name: text.to_owned() }),
        }
    }
}

/// A frozen weight (n_out, n_in), packed for products with rows of x.
pub struct Matrix {
    n_out: usize,
    n_in: usize,
    pub(crate) weight: Weight,
}

/// The packed elements.
pub(crate) enum Weight {
    Bf16(Vec<Line>), // Layout of ceil(n_in / PAIR) steps
    Int8(Int8),
}

/// Codes -127..=127; an element is code · scale.
pub(crate) struct Int8 {
    pub(crate) codes: Vec<Line>,        // Layout of ceil(n_in / QUAD) steps
    pub(crate) scales: Vec<Line>,       // f32; Layout of ceil(n_in / INT8_GROUP) steps
    pub(crate) sums: Vec<[i16; PANEL]>, // of a scale's codes; as `scales`
}

/// Where the lines of a packed matrix are.
#[derive(Clone, Copy)]
pub(crate) struct Layout {
    pub(crate) panels: usize,
    pub(crate) steps: usize,
}

impl Layout {
    pub(crate) fn new(n_out: usize, steps: usize) -> Layout {
        Layout { panels: n_out.div_ceil(PANEL), steps }
    }

    pub(crate) fn lines(self) -> usize {
        self.panels * self.steps
    }

    /// The index of a panel's first line, and the lines from one of its steps to the next.
    #[inline(always)]
    pub(crate) fn panel(self, panel: usize) -> (usize, usize) {
        let group_start = panel / GROUP_PANELS * GROUP_PANELS;
        let width = GROUP_PANELS.min(self.panels - group_start);
        (group_start * self.steps + panel - group_start, width)
    }
}

impl Matrix {
    /// Packs `weight` (n_out, n_in).
    ///
    /// # Panics
    /// If `weight` is not of that size.
    pub fn pack(compute: &Compute, weight: &[bf16], n_out: usize, n_in: usize, format: WeightFormat) -> Matrix {
        assert_eq!(weight.len(), n_out * n_in, "a weight of shape ({n_out}, {n_in})");
        let weight = match format {
            WeightFormat::Bf16 => {
                let bits: &[u16] = bytemuck::cast_slice(weight);
                Weight::Bf16(pack_bf16(compute, n_out, n_in, |o, i| bits[o * n_in + i]))
            }
            WeightFormat::Int8 => Weight::Int8(pack_int8(compute, weight, n_out, n_in)),
        };
        Matrix { n_out, n_in, weight }
    }

    /// Packs the transpose of `weight` (n_out, n_in) in bf16: a matrix of shape (n_in, n_out), for dX = dY · W.
    ///
    /// # Panics
    /// If `weight` is not of that size.
    pub fn pack_transposed(compute: &Compute, weight: &[bf16], n_out: usize, n_in: usize) -> Matrix {
        assert_eq!(weight.len(), n_out * n_in, "a weight of shape ({n_out}, {n_in})");
        let bits: &[u16] = bytemuck::cast_slice(weight);
        let weight = Weight::Bf16(pack_bf16(compute, n_in, n_out, |o, i| bits[i * n_in + o]));
        Matrix { n_out: n_in, n_in: n_out, weight }
    }

    /// Output elements of a product.
    pub fn n_out(&self) -> usize {
        self.n_out
    }

    /// Input elements of a product.
    pub fn n_in(&self) -> usize {
        self.n_in
    }

    /// How the weight is held.
    pub fn format(&self) -> WeightFormat {
        match self.weight {
            Weight::Bf16(_) => WeightFormat::Bf16,
            Weight::Int8(_) => WeightFormat::Int8,
        }
    }

    /// Bytes of memory held.
    pub fn bytes(&self) -> usize {
        match &self.weight {
            Weight::Bf16(lines) => size_of_val(&lines[..]),
            Weight::Int8(Int8 { codes, scales, sums }) => {
                size_of_val(&codes[..]) + size_of_val(&scales[..]) + size_of_val(&sums[..])
            }
        }
    }

    /// Writes row `index`, widened, to `out` (n_in): the embedding lookup of a tied head.
    ///
    /// # Panics
    /// If there is no such row, or `out` is not of n_in elements.
    pub fn row(&self, _compute: &Compute, out: &mut [f32], index: usize) {
        self.widen_row(out, index);
    }

    pub(crate) fn widen_row(&self, out: &mut [f32], index: usize) {
        assert!(index < self.n_out && out.len() == self.n_in, "row {index} of ({}, {})", self.n_out, self.n_in);
        let (panel, lane) = (index / PANEL, index % PANEL);
        match &self.weight {
            Weight::Bf16(lines) => {
                let (start, stride) = Layout::new(self.n_out, self.n_in.div_ceil(PAIR)).panel(panel);
                for (step, out) in out.chunks_mut(PAIR).enumerate() {
                    let pairs: &[[u16; PAIR]; PANEL] = bytemuck::cast_ref(&lines[start + step * stride].0);
                    out.iter_mut().zip(pairs[lane]).for_each(|(out, bits)| *out = bf16::from_bits(bits).to_f32());
                }
            }
            Weight::Int8(int8) => {
                let (start, stride) = Layout::new(self.n_out, self.n_in.div_ceil(QUAD)).panel(panel);
                let (scale_start, scale_stride) = Layout::new(self.n_out, self.n_in.div_ceil(INT8_GROUP)).panel(panel);
                for (step, out) in out.chunks_mut(QUAD).enumerate() {
                    let group = step / (INT8_GROUP / QUAD);
                    let scales: &[f32; PANEL] = bytemuck::cast_ref(&int8.scales[scale_start + group * scale_stride]);
                    let quads: &[[i8; QUAD]; PANEL] = bytemuck::cast_ref(&int8.codes[start + step * stride].0);
                    out.iter_mut().zip(quads[lane]).for_each(|(out, code)| *out = f32::from(code) * scales[lane]);
                }
            }
        }
    }
}

/// Packs the matrix whose element (o, i) is `at(o, i)`; what stands outside of it is zero.
fn pack_bf16(compute: &Compute, n_out: usize, n_in: usize, at: impl Fn(usize, usize) -> u16 + Sync) -> Vec<Line> {
    let layout = Layout::new(n_out, n_in.div_ceil(PAIR));
    let mut lines = vec![Line([0; LINE_BYTES]); layout.lines()];
    let shared = SharedMut::new(&mut lines);
    // Step by step over a whole group: the lines are written in order, and a transposed matrix is read in long runs.
    compute.parallel_ranges(layout.panels.div_ceil(GROUP_PANELS), GROUP_PANELS * PANEL * n_in, &|groups| {
        for panel in groups.map(|group| group * GROUP_PANELS) {
            let (start, stride) = layout.panel(panel);
            // SAFETY: the lines of a group are together, and each group belongs to one task.
            let lines = unsafe { shared.range(start..start + stride * layout.steps) };
            for (step, lines) in lines.chunks_exact_mut(stride).enumerate() {
                for (o, pair) in (panel * PANEL..n_out).zip(lines.iter_mut().flat_map(pairs_of)) {
                    for (i, element) in (step * PAIR..n_in).zip(pair) {
                        *element = at(o, i);
                    }
                }
            }
        }
    });
    lines
}

fn pairs_of(line: &mut Line) -> &mut [[u16; PAIR]; PANEL] {
    bytemuck::cast_mut(&mut line.0)
}

fn pack_int8(compute: &Compute, weight: &[bf16], n_out: usize, n_in: usize) -> Int8 {
    let layout = Layout::new(n_out, n_in.div_ceil(QUAD));
    let scale_layout = Layout::new(n_out, n_in.div_ceil(INT8_GROUP));
    let mut codes = vec![Line([0; LINE_BYTES]); layout.lines()];
    let mut scales = vec![Line([0; LINE_BYTES]); scale_layout.lines()];
    let mut sums = vec![[0; PANEL]; scale_layout.lines()];
    let (code_lines, scale_lines) = (SharedMut::new(&mut codes), SharedMut::new(&mut scales));
    let sum_lines = SharedMut::new(&mut sums);
    compute.parallel_ranges(layout.panels, PANEL * n_in, &|panels| {
        for o in panels.start * PANEL..n_out.min(panels.end * PANEL) {
            let (panel, lane) = (o / PANEL, o % PANEL);
            let (start, stride) = layout.panel(panel);
            let (scale_start, scale_stride) = scale_layout.panel(panel);
            for (group, elements) in weight[o * n_in..][..n_in].chunks(INT8_GROUP).enumerate() {
                let (scale, quantised) = quantise_group(elements);
                let at = scale_start + group * scale_stride;
                // SAFETY: each line belongs to one panel, each panel to one task; so below.
                let scales: &mut [f32; PANEL] = bytemuck::cast_mut(unsafe { &mut scale_lines.range(at..at + 1)[0] });
                scales[lane] = scale;
                // SAFETY: as above.
                unsafe { sum_lines.range(at..at + 1)[0][lane] = quantised.iter().map(|&code| i16::from(code)).sum() };
                for (step, quad) in quantised[..elements.len().next_multiple_of(QUAD)].chunks(QUAD).enumerate() {
                    let at = start + (group * (INT8_GROUP / QUAD) + step) * stride;
                    // SAFETY: as above.
                    let line = unsafe { &mut code_lines.range(at..at + 1)[0] };
                    let quads: &mut [[i8; QUAD]; PANEL] =
                        bytemuck::cast_mut(bytemuck::cast_mut::<_, [[u8; QUAD]; PANEL]>(&mut line.0));
                    quads[lane].copy_from_slice(quad);
                }
            }
        }
    });
    Int8 { codes, scales, sums }
}

/// The scale of up to [`INT8_GROUP`] elements and their codes, zero beyond the end.
fn quantise_group(elements: &[bf16]) -> (f32, [i8; INT8_GROUP]) {
    let max = elements.iter().fold(0.0_f32, |max, element| max.max(element.to_f32().abs()));
    let scale = max / CODE_MAX;
    let mut codes = [0; INT8_GROUP];
    if scale.is_normal() {
        for (code, element) in codes.iter_mut().zip(elements) {
            let shifted = (element.to_f32() / scale).clamp(-CODE_MAX, CODE_MAX) + ROUND_SHIFT;
            *code = shifted.to_bits() as i8;
        }
        (scale, codes)
    } else {
        (0.0, codes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tier::Tier;

    fn weight(n_out: usize, n_in: usize) -> Vec<bf16> {
        (0..n_out * n_in).map(|i| bf16::from_f32(((i * 7919 % 1013) as f32 - 500.0) / 250.0)).collect()
    }

    #[test]
    fn rows_read_back_as_packed() {
        let compute = Compute::new(Tier::Portable, 2);
        for (n_out, n_in) in [(1, 1), (15, 3), (16, 64), (33, 65), (64, 130), (130, 7), (200, 128)] {
            let weight = weight(n_out, n_in);
            let exact = Matrix::pack(&compute, &weight, n_out, n_in, WeightFormat::Bf16);
            let coarse = Matrix::pack(&compute, &weight, n_out, n_in, WeightFormat::Int8);
            let transposed = Matrix::pack_transposed(&compute, &weight, n_out, n_in);
            assert_eq!((transposed.n_out(), transposed.n_in()), (n_in, n_out));
            let mut row = vec![0.0; n_in];
            for o in 0..n_out {
                let expected: Vec<f32> = weight[o * n_in..][..n_in].iter().map(|w| w.to_f32()).collect();
                exact.row(&compute, &mut row, o);
                assert_eq!(row, expected);
                coarse.row(&compute, &mut row, o);
                for (group, expected) in row.chunks(INT8_GROUP).zip(expected.chunks(INT8_GROUP)) {
                    let max = expected.iter().fold(0.0_f32, |max, w| max.max(w.abs()));
                    for (got, expected) in group.iter().zip(expected) {
                        assert!((got - expected).abs() <= 0.501 * max / CODE_MAX, "{got} {expected}");
                    }
                }
            }
            let mut column = vec![0.0; n_out];
            for i in 0..n_in {
                transposed.row(&compute, &mut column, i);
                let expected: Vec<f32> = (0..n_out).map(|o| weight[o * n_in + i].to_f32()).collect();
                assert_eq!(column, expected);
            }
        }
    }

    #[test]
    fn formats_have_names() {
        for format in [WeightFormat::Bf16, WeightFormat::Int8] {
            assert_eq!(format.to_string().parse::<WeightFormat>().unwrap(), format);
        }
        assert!("int4".parse::<WeightFormat>().is_err());
    }
}
