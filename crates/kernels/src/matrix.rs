//! Frozen weights, packed once.

use std::fmt;
use std::str::FromStr;

use half::bf16;

use crate::KernelsError;
use crate::compute::Compute;

/// Input elements that share one scale in [`WeightFormat::Int8`].
pub const INT8_GROUP: usize = 64;

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

/// A frozen weight (n_out, n_in), packed for the tier of the [`Compute`] that packed it.
pub struct Matrix {
    n_out: usize,
    n_in: usize,
    format: WeightFormat,
    weight: Vec<f32>,
}

impl Matrix {
    /// Packs `weight` (n_out, n_in).
    pub fn pack(_compute: &Compute, weight: &[bf16], n_out: usize, n_in: usize, format: WeightFormat) -> Matrix {
        assert_eq!(weight.len(), n_out * n_in);
        let mut weight: Vec<f32> = weight.iter().map(|w| w.to_f32()).collect();
        if format == WeightFormat::Int8 {
            for group in weight.chunks_mut(n_in).flat_map(|row| row.chunks_mut(INT8_GROUP)) {
                let scale = group.iter().fold(0.0_f32, |max, w| max.max(w.abs())) / 127.0;
                group.iter_mut().filter(|_| scale > 0.0).for_each(|w| *w = (*w / scale).round_ties_even() * scale);
            }
        }
        Matrix { n_out, n_in, format, weight }
    }

    /// Packs the transpose of `weight` (n_out, n_in) in bf16: a matrix of shape (n_in, n_out), for dX = dY · W.
    pub fn pack_transposed(compute: &Compute, weight: &[bf16], n_out: usize, n_in: usize) -> Matrix {
        let transposed: Vec<bf16> = (0..n_in).flat_map(|i| (0..n_out).map(move |o| weight[o * n_in + i])).collect();
        Matrix::pack(compute, &transposed, n_in, n_out, WeightFormat::Bf16)
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
        self.format
    }

    /// Bytes of memory held.
    pub fn bytes(&self) -> usize {
        size_of_val(&self.weight[..])
    }

    /// Writes row `index`, widened, to `out` (n_in): the embedding lookup of a tied head.
    pub fn row(&self, _compute: &Compute, out: &mut [f32], index: usize) {
        self.widen_row(out, index);
    }

    pub(crate) fn widen_row(&self, out: &mut [f32], index: usize) {
        out.copy_from_slice(&self.weight[index * self.n_in..][..self.n_in]);
    }
}
