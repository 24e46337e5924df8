//! Small dense f32 products: adapters, whose weights may be bf16, and attention in training.

mod product;

pub(crate) use product::{Lanes, Product, Whole, run_part};

use crate::compute::Compute;
use crate::tier::Tier;

/// A row-major matrix to read: element (row, column) is `data[row * stride + column]`.
#[derive(Clone, Copy, Debug)]
pub struct Mat<'a, T = f32> {
    /// The elements, at least `(rows - 1) * stride + cols` of them.
    pub data: &'a [T],
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub cols: usize,
    /// Elements from one row to the next.
    pub stride: usize,
}

/// A row-major matrix to write; as [`Mat`].
#[derive(Debug)]
pub struct MatMut<'a> {
    /// The elements, at least `(rows - 1) * stride + cols` of them.
    pub data: &'a mut [f32],
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub cols: usize,
    /// Elements from one row to the next.
    pub stride: usize,
}

impl<'a, T> Mat<'a, T> {
    /// A matrix without gaps between its rows.
    pub fn new(data: &'a [T], rows: usize, cols: usize) -> Mat<'a, T> {
        Mat { data, rows, cols, stride: cols }
    }
}

impl Mat<'_> {
    pub(crate) fn at(&self, row: usize, column: usize) -> f32 {
        self.data[row * self.stride + column]
    }
}

impl<'a> MatMut<'a> {
    /// A matrix without gaps between its rows.
    pub fn new(data: &'a mut [f32], rows: usize, cols: usize) -> MatMut<'a> {
        MatMut { data, rows, cols, stride: cols }
    }
}

/// y (m, n) (+)= alpha · x (m, k) · w (n, k)ᵀ.
///
/// # Panics
/// If the shapes do not fit; so for every product of this file.
pub fn gemm_nt(tier: Tier, y: MatMut<'_>, x: Mat<'_>, w: Mat<'_>, alpha: f32, accumulate: bool) {
    Whole::nt(y, x, w, alpha, accumulate).run(tier);
}

/// y (m, n) (+)= alpha · x (m, k) · w (k, n).
///
/// # Panics
/// If the shapes do not fit.
pub fn gemm_nn(tier: Tier, y: MatMut<'_>, x: Mat<'_>, w: Mat<'_>, alpha: f32, accumulate: bool) {
    Whole::nn(y, x, w, alpha, accumulate).run(tier);
}

/// y (m, n) (+)= alpha · x (k, m)ᵀ · w (k, n).
///
/// # Panics
/// If the shapes do not fit.
pub fn gemm_tn(tier: Tier, y: MatMut<'_>, x: Mat<'_>, w: Mat<'_>, alpha: f32, accumulate: bool) {
    Whole::tn(y, x, w, alpha, accumulate).run(tier);
}

/// [`gemm_nt`] on all threads.
///
/// # Panics
/// If the shapes do not fit.
pub fn par_gemm_nt(compute: &Compute, y: MatMut<'_>, x: Mat<'_>, w: Mat<'_>, alpha: f32, accumulate: bool) {
    Whole::nt(y, x, w, alpha, accumulate).run_parallel(compute);
}

/// [`gemm_nn`] on all threads.
///
/// # Panics
/// If the shapes do not fit.
pub fn par_gemm_nn(compute: &Compute, y: MatMut<'_>, x: Mat<'_>, w: Mat<'_>, alpha: f32, accumulate: bool) {
    Whole::nn(y, x, w, alpha, accumulate).run_parallel(compute);
}

/// [`gemm_tn`] on all threads.
///
/// # Panics
/// If the shapes do not fit.
pub fn par_gemm_tn(compute: &Compute, y: MatMut<'_>, x: Mat<'_>, w: Mat<'_>, alpha: f32, accumulate: bool) {
    Whole::tn(y, x, w, alpha, accumulate).run_parallel(compute);
}
