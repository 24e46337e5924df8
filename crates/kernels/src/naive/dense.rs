//! Products of matrices.

use crate::gemm::{Mat, MatMut};

use crate::lora::{LoraMatrices, LoraProduct};
use crate::matrix::Matrix;

/// y (rows, n_out) = x (rows, n_in) · wᵀ, with the widened weights that [`Matrix::row`] gives.
pub fn matmul(y: &mut [f32], x: &[f32], w: &Matrix, rows: usize) {
    let (n_out, n_in) = (w.n_out(), w.n_in());
    let mut weight_row = vec![0.0; n_in];
    for column in 0..n_out {
        w.widen_row(&mut weight_row, column);
        for row in 0..rows {
            let x_row = &x[row * n_in..][..n_in];
            y[row * n_out + column] = dot(x_row, &weight_row) as f32;
        }
    }
}

/// y (m, n) (+)= alpha · x (m, k) · w (n, k)ᵀ.
pub fn gemm_nt(y: MatMut<'_>, x: Mat<'_>, w: Mat<'_>, alpha: f32, accumulate: bool) {
    product(y, x.cols, alpha, accumulate, |i, k| x.at(i, k), |k, j| w.at(j, k));
}

/// y (m, n) (+)= alpha · x (m, k) · w (k, n).
pub fn gemm_nn(y: MatMut<'_>, x: Mat<'_>, w: Mat<'_>, alpha: f32, accumulate: bool) {
    product(y, x.cols, alpha, accumulate, |i, k| x.at(i, k), |k, j| w.at(k, j));
}

/// y (m, n) (+)= alpha · x (k, m)ᵀ · w (k, n).
pub fn gemm_tn(y: MatMut<'_>, x: Mat<'_>, w: Mat<'_>, alpha: f32, accumulate: bool) {
    product(y, x.rows, alpha, accumulate, |i, k| x.at(k, i), |k, j| w.at(k, j));
}

/// For each product: y (rows, n_out) += scale · (x Aᵀ) B over its rows.
pub fn lora_add(y: &mut [f32], h: &mut [f32], x: &[f32], products: &[LoraProduct<'_>], n_in: usize, n_out: usize) {
    for LoraProduct { rows, matrices, scale, rank } in products {
        let (count, rank) = (rows.len(), *rank);
        let widened = |codes: &[i8]| codes.iter().copied().map(f32::from).collect::<Vec<f32>>();
        let (a, b_t, steps) = match matrices {
            LoraMatrices::F32 { a, b_t } => (a.to_vec(), b_t.to_vec(), vec![1.0; rank]),
            LoraMatrices::Int8 { a, b_t, steps } => (widened(a), widened(b_t), steps.to_vec()),
        };
        let (x, y) = (&x[rows.start * n_in..][..count * n_in], &mut y[rows.start * n_out..][..count * n_out]);
        let h = &mut h[..count * rank];
        gemm_nt(MatMut::new(h, count, rank), Mat::new(x, count, n_in), Mat::new(&a, rank, n_in), 1.0, false);
        h.chunks_exact_mut(rank).for_each(|h| h.iter_mut().zip(&steps).for_each(|(h, step)| *h *= step));
        gemm_nn(MatMut::new(y, count, n_out), Mat::new(h, count, rank), Mat::new(&b_t, rank, n_out), *scale, true);
    }
}

fn product(
    y: MatMut<'_>,
    k_count: usize,
    alpha: f32,
    accumulate: bool,
    x_at: impl Fn(usize, usize) -> f32,
    w_at: impl Fn(usize, usize) -> f32,
) {
    for i in 0..y.rows {
        for j in 0..y.cols {
            let sum: f64 = (0..k_count).map(|k| f64::from(x_at(i, k)) * f64::from(w_at(k, j))).sum();
            let out = &mut y.data[i * y.stride + j];
            let before = if accumulate { f64::from(*out) } else { 0.0 };
            *out = (before + f64::from(alpha) * sum) as f32;
        }
    }
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}
