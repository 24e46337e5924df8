//! The adapters' low-rank products.

use std::ops::Range;

use crate::compute::Compute;
use crate::gemm::{Mat, MatMut, Whole};
use crate::scratch::Line;
use crate::shared::SharedMut;
use crate::simd::Element;

/// Multiplications from which one product is worth several threads; smaller ones are handed out whole.
const SHARED_PRODUCTS_MIN: usize = 1 << 17;

/// One adapter's pair of one projection, and the rows that it is for.
#[derive(Debug, Clone)]
pub struct LoraProduct<'a> {
    /// Which rows of x and y.
    pub rows: Range<usize>,
    /// A and Bᵀ.
    pub matrices: LoraMatrices<'a>,
    /// What the product is multiplied with.
    pub scale: f32,
    /// Rank.
    pub rank: usize,
}

/// A, (rank, n_in), and Bᵀ, (rank, n_out), of one pair. Every product is computed in f32.
#[derive(Debug, Clone, Copy)]
pub enum LoraMatrices<'a> {
    /// As they are trained.
    F32 {
        /// A.
        a: &'a [f32],
        /// Bᵀ.
        b_t: &'a [f32],
    },
    /// As they are served: many adapters with a row each are bound by reading them. Codes count in steps; one of A's and
    /// one of Bᵀ's meet in every product, so that a row of both needs one number.
    Int8 {
        /// Codes of A.
        a: &'a [i8],
        /// Codes of Bᵀ.
        b_t: &'a [i8],
        /// (rank): a step of A's row times one of Bᵀ's.
        steps: &'a [f32],
    },
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

    let operands = Operands { compute, y: SharedMut::new(y), h: SharedMut::new(h), x, rank_max, n_in, n_out };
    let is_large = |group: &[LoraProduct<'_>]| group[0].rows.len() * rank_max * n_in.max(n_out) >= SHARED_PRODUCTS_MIN;
    for group in groups.iter().filter(|group| is_large(group)) {
        // SAFETY: a group's rows are its own, as was just seen, and a group is run once, by one task.
        group.iter().for_each(|product| unsafe { operands.add(product, true) });
    }
    compute.parallel_for(groups.len(), &|at| {
        if is_large(groups[at]) {
            return;
        }
        // What this thread most likely does next is on its way while it computes.
        if let Some(next) = groups.get(at + compute.threads()) {
            next.iter().for_each(LoraProduct::fetch);
        }
        // SAFETY: as above.
        groups[at].iter().for_each(|product| unsafe { operands.add(product, false) });
    });
}

struct Operands<'a> {
    compute: &'a Compute,
    y: SharedMut<'a, f32>,
    h: SharedMut<'a, f32>,
    x: &'a [f32],
    rank_max: usize,
    n_in: usize,
    n_out: usize,
}

impl Operands<'_> {
    /// One product; on all threads if it is shared.
    ///
    /// # Safety
    /// Its rows of y and h must be within those, and nobody else's.
    unsafe fn add(&self, product: &LoraProduct<'_>, is_shared: bool) {
        // SAFETY: passed on.
        unsafe {
            match product.matrices {
                LoraMatrices::F32 { a, b_t } => self.add_matrices(product, a, b_t, None, is_shared),
                LoraMatrices::Int8 { a, b_t, steps } => self.add_matrices(product, a, b_t, Some(steps), is_shared),
            }
        }
    }

    /// # Safety
    /// As [`Operands::add`].
    unsafe fn add_matrices<W: Element>(
        &self,
        product: &LoraProduct<'_>,
        a: &[W],
        b_t: &[W],
        steps: Option<&[f32]>,
        is_shared: bool,
    ) {
        let Operands { compute, n_in, n_out, rank_max, .. } = *self;
        let (rows, rank, count) = (&product.rows, product.rank, product.rows.len());
        let x = Mat::new(&self.x[rows.start * n_in..rows.end * n_in], count, n_in);
        // SAFETY: the rows are the caller's alone, and `rank_max` elements of `h` belong to a row.
        let (y, h) = unsafe {
            let h_start = rows.start * rank_max;
            (self.y.range(rows.start * n_out..rows.end * n_out), self.h.range(h_start..h_start + count * rank))
        };
        let run =
            |product: Whole<W>| if is_shared { product.run_parallel(compute) } else { product.run(compute.tier()) };
        run(Whole::nt(MatMut::new(h, count, rank), x, Mat::new(a, rank, n_in), 1.0, false));
        if let Some(steps) = steps {
            assert_eq!(steps.len(), rank);
            h.chunks_exact_mut(rank).for_each(|h| h.iter_mut().zip(steps).for_each(|(h, step)| *h *= step));
        }
        let (h, b_t) = (Mat::new(h, count, rank), Mat::new(b_t, rank, n_out));
        run(Whole::nn(MatMut::new(y, count, n_out), h, b_t, product.scale, true));
    }
}

impl LoraProduct<'_> {
    /// Brings the matrices nearer.
    fn fetch(&self) {
        match self.matrices {
            LoraMatrices::F32 { a, b_t } => [a, b_t].into_iter().for_each(fetch),
            LoraMatrices::Int8 { a, b_t, .. } => [a, b_t].into_iter().for_each(fetch),
        }
    }
}

/// Asks for every line of `data` in the second-level cache.
fn fetch<W>(data: &[W]) {
    let data = data.as_ptr_range();
    let mut line = data.start.cast::<Line>();
    while line.cast() < data.end {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a prefetch of any address is harmless.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T1>(line.cast());
        }
        line = line.wrapping_add(1);
    }
}
