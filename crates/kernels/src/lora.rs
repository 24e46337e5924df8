//! The adapters' low-rank products.

use std::ops::Range;

use crate::compute::Compute;
use crate::gemm::{Mat, MatMut, gemm_nn, gemm_nt, par_gemm_nn, par_gemm_nt};
use crate::shared::SharedMut;

/// Multiplications from which one product is worth several threads; smaller ones are handed out whole.
const SHARED_PRODUCTS_MIN: usize = 1 << 17;

/// One adapter's pair of one projection, and the rows that it is for.
#[derive(Debug, Clone)]
pub struct LoraProduct<'a> {
    /// Which rows of x and y.
    pub rows: Range<usize>,
    /// A, (rank, n_in).
    pub a: &'a [f32],
    /// Bᵀ, (rank, n_out).
    pub b_t: &'a [f32],
    /// What the product is multiplied with.
    pub scale: f32,
    /// Rank.
    pub rank: usize,
}

/// For each product in order: y (rows, n_out) += scale · (x Aᵀ) B over its rows of x (rows, n_in) and y, with the
/// intermediate x Aᵀ in `h`, (rows, the largest rank). Products in a row may be for the same rows; otherwise rows ascend
/// and do not overlap. Many adapters with few rows each are computed at once, one thread to an adapter.
///
/// # Panics
/// If a slice is not of the size stated, or rows are out of order.
pub fn lora_add(
    compute: &Compute,
    y: &mut [f32],
    h: &mut [f32],
    x: &[f32],
    products: &[LoraProduct<'_>],
    n_in: usize,
    n_out: usize,
) {
    let rank_max = products.iter().map(|product| product.rank).max().unwrap_or(0);
    let groups: Vec<&[LoraProduct<'_>]> = products.chunk_by(|one, next| one.rows == next.rows).collect();
    let mut free_from = 0;
    for group in &groups {
        let rows = &group[0].rows;
        assert!(free_from <= rows.start && rows.start <= rows.end, "rows {rows:?} after row {free_from}");
        free_from = rows.end;
    }
    assert!(x.len() >= free_from * n_in && y.len() >= free_from * n_out && h.len() >= free_from * rank_max);

    let (y, h) = (SharedMut::new(y), SharedMut::new(h));
    let run = |group: &[LoraProduct<'_>], is_shared: bool| {
        for product in group {
            let LoraProduct { ref rows, a, b_t, scale, rank } = *product;
            let count = rows.len();
            let x = Mat::new(&x[rows.start * n_in..rows.end * n_in], count, n_in);
            let (a, b_t) = (Mat::new(a, rank, n_in), Mat::new(b_t, rank, n_out));
            // SAFETY: a group's rows are its own, as was just seen, and a group is run once, by one task.
            let y = unsafe { y.range(rows.start * n_out..rows.end * n_out) };
            // SAFETY: as above; rank_max of `h` are the row's.
            let h = unsafe { h.range(rows.start * rank_max..rows.start * rank_max + count * rank) };
            if is_shared {
                par_gemm_nt(compute, MatMut::new(h, count, rank), x, a, 1.0, false);
                par_gemm_nn(compute, MatMut::new(y, count, n_out), Mat::new(h, count, rank), b_t, scale, true);
            } else {
                let tier = compute.tier();
                gemm_nt(tier, MatMut::new(h, count, rank), x, a, 1.0, false);
                gemm_nn(tier, MatMut::new(y, count, n_out), Mat::new(h, count, rank), b_t, scale, true);
            }
        }
    };
    let is_large = |group: &[LoraProduct<'_>]| group[0].rows.len() * rank_max * n_in.max(n_out) >= SHARED_PRODUCTS_MIN;
    groups.iter().filter(|group| is_large(group)).for_each(|group| run(group, true));
    compute.parallel_for(groups.len(), &|at| {
        if !is_large(groups[at]) {
            run(groups[at], false);
        }
    });
}
