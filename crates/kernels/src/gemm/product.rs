//! One product, cut into parts of y.
//!
//! With w (k, n), vector lanes run across columns of y; with w (n, k), across k, and the lanes are added up at the
//! end. Either way an element's additions come in an order that only k decides.

use std::ops::Range;

use super::{Mat, MatMut};
use crate::compute::Compute;
use crate::simd::{Element, Kernel, Simd};
use crate::tier::Tier;

/// Multiply-adds that are worth waking a worker for.
const TASK_PRODUCTS_MIN: usize = 1 << 16;
/// Tasks per thread, so that a thread that lost its core for a while does not hold up the rest.
const TASKS_PER_THREAD: usize = 4;
/// Columns and rows of a part are multiples of these, so that parts are whole tiles but at the edges.
const PART_COLUMNS: usize = 64;
const PART_ROWS: usize = 12;
/// Rows of w whose dot products with a row of x are taken at once.
const DOT_COLUMNS: usize = 4;
/// Bytes of w (n, k) that are gone over again for each few rows of x: a quarter of a common second-level cache.
const DOT_BLOCK_BYTES: usize = 256 << 10;

/// The operands of y (m, n) (+)= alpha · x · w; lives no longer than the matrices it was made from.
#[derive(Clone, Copy)]
pub(crate) struct Product<W = f32> {
    pub(crate) y: *mut f32,
    pub(crate) y_stride: usize,
    pub(crate) x: *const f32,
    pub(crate) x_row: usize,  // elements from one row of y to the next
    pub(crate) x_step: usize, // elements from one of k to the next
    pub(crate) w: *const W,
    pub(crate) w_stride: usize,
    pub(crate) w_lanes: Lanes,
    pub(crate) k: usize,
    pub(crate) alpha: f32,
    pub(crate) accumulate: bool,
}

/// A product whose operands cover y (m, n).
#[derive(Clone, Copy)]
pub(crate) struct Whole<W = f32> {
    product: Product<W>,
    m: usize,
    n: usize,
}

/// What runs along a row of w.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Lanes {
    Columns,
    Sum,
}

// SAFETY: x and w are only read; tasks write disjoint parts of y.
unsafe impl<W: Element> Sync for Product<W> {}

impl<W: Element> Whole<W> {
    pub(crate) fn nt(y: MatMut<'_>, x: Mat<'_>, w: Mat<'_, W>, alpha: f32, accumulate: bool) -> Whole<W> {
        assert_eq!((x.rows, w.rows, w.cols), (y.rows, y.cols, x.cols), "shapes of y, x and wᵀ");
        Whole::new(y, (x, x.stride, 1, x.cols), (w, Lanes::Sum), alpha, accumulate)
    }

    pub(crate) fn nn(y: MatMut<'_>, x: Mat<'_>, w: Mat<'_, W>, alpha: f32, accumulate: bool) -> Whole<W> {
        assert_eq!((x.rows, w.cols, w.rows), (y.rows, y.cols, x.cols), "shapes of y, x and w");
        Whole::new(y, (x, x.stride, 1, x.cols), (w, Lanes::Columns), alpha, accumulate)
    }

    pub(super) fn tn(y: MatMut<'_>, x: Mat<'_>, w: Mat<'_, W>, alpha: f32, accumulate: bool) -> Whole<W> {
        assert_eq!((x.cols, w.cols, w.rows), (y.rows, y.cols, x.rows), "shapes of y, xᵀ and w");
        Whole::new(y, (x, 1, x.stride, x.rows), (w, Lanes::Columns), alpha, accumulate)
    }

    fn new(
        y: MatMut<'_>,
        (x, x_row, x_step, k): (Mat<'_>, usize, usize, usize),
        (w, w_lanes): (Mat<'_, W>, Lanes),
        alpha: f32,
        accumulate: bool,
    ) -> Whole<W> {
        assert_covers(y.data.len(), y.rows, y.cols, y.stride);
        assert_covers(x.data.len(), x.rows, x.cols, x.stride);
        assert_covers(w.data.len(), w.rows, w.cols, w.stride);
        let product = Product {
            y: y.data.as_mut_ptr(),
            y_stride: y.stride,
            x: x.data.as_ptr(),
            x_row,
            x_step,
            w: w.data.as_ptr(),
            w_stride: w.stride,
            w_lanes,
            k,
            alpha,
            accumulate,
        };
        Whole { product, m: y.rows, n: y.cols }
    }

    pub(crate) fn run(self, tier: Tier) {
        tier.run(Part { product: self.product, rows: 0..self.m, columns: 0..self.n });
    }

    pub(crate) fn run_parallel(self, compute: &Compute) {
        let products = self.m * self.n * self.product.k;
        let tasks = (products / TASK_PRODUCTS_MIN).min(compute.threads() * TASKS_PER_THREAD);
        if compute.threads() == 1 || tasks < 2 {
            return self.run(compute.tier());
        }
        let column_units = self.n.div_ceil(PART_COLUMNS);
        let row_units = self.m.div_ceil(PART_ROWS);
        let column_parts = column_units.min(tasks);
        let row_parts = row_units.min(tasks.div_ceil(column_parts));
        compute.parallel_for(column_parts * row_parts, &|task| {
            let rows = part(task / column_parts, row_parts, row_units, PART_ROWS, self.m);
            let columns = part(task % column_parts, column_parts, column_units, PART_COLUMNS, self.n);
            compute.tier().run(Part { product: self.product, rows, columns });
        });
    }
}

fn assert_covers(len: usize, rows: usize, cols: usize, stride: usize) {
    let needed = if rows == 0 || cols == 0 { 0 } else { (rows - 1) * stride + cols };
    assert!(cols <= stride || rows <= 1, "a stride of {stride} is less than {cols} columns");
    assert!(len >= needed, "{len} elements are too few for shape ({rows}, {cols}) with stride {stride}");
}

/// The `index`th of `parts` shares of `count` items, in whole units but for the last.
fn part(index: usize, parts: usize, units: usize, unit: usize, count: usize) -> Range<usize> {
    let start = index * units / parts * unit;
    start..((index + 1) * units / parts * unit).min(count)
}

/// A part of y.
struct Part<W> {
    product: Product<W>,
    rows: Range<usize>,
    columns: Range<usize>,
}

impl<W: Element> Kernel for Part<W> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        // SAFETY: `Whole::new` has checked the sizes of the operands, and parts are within y and disjoint.
        unsafe { run_part(s, &self.product, self.rows, self.columns) };
    }
}

/// Computes some rows and columns of y.
///
/// # Safety
/// The operands must cover them, and nobody else may touch them in y.
#[inline(always)]
pub(crate) unsafe fn run_part<S: Simd, W: Element>(
    s: S,
    product: &Product<W>,
    rows: Range<usize>,
    columns: Range<usize>,
) {
    // SAFETY: passed on.
    unsafe {
        match product.w_lanes {
            Lanes::Columns => run_columns(s, product, rows, columns),
            Lanes::Sum => run_dots(s, product, rows, columns),
        }
    }
}

#[inline(always)]
unsafe fn run_columns<S: Simd, W: Element>(s: S, p: &Product<W>, rows: Range<usize>, columns: Range<usize>) {
    let mut column = columns.start;
    while column < columns.end {
        let left = columns.end - column;
        let vectors = S::TILE_VECTORS.min(left / S::LANES);
        // SAFETY: passed on; so below.
        unsafe {
            match vectors {
                0 => row_tiles::<S, W, 1>(s, p, rows.clone(), column, left),
                1 => row_tiles::<S, W, 1>(s, p, rows.clone(), column, S::LANES),
                2 => row_tiles::<S, W, 2>(s, p, rows.clone(), column, S::LANES),
                3 => row_tiles::<S, W, 3>(s, p, rows.clone(), column, S::LANES),
                _ => row_tiles::<S, W, 4>(s, p, rows.clone(), column, S::LANES),
            }
        }
        column += if vectors == 0 { left } else { vectors * S::LANES };
    }
}

/// All rows of V vectors of columns; only the first `lanes` lanes of each vector are there.
#[inline(always)]
unsafe fn row_tiles<S: Simd, W: Element, const V: usize>(
    s: S,
    p: &Product<W>,
    rows: Range<usize>,
    column: usize,
    lanes: usize,
) {
    let mut row = rows.start;
    while row < rows.end {
        let count = S::TILE_ROWS.min(rows.end - row);
        // SAFETY: passed on.
        unsafe {
            match count {
                1 => column_tile::<S, W, 1, V>(s, p, row, column, lanes),
                2 => column_tile::<S, W, 2, V>(s, p, row, column, lanes),
                3 => column_tile::<S, W, 3, V>(s, p, row, column, lanes),
                4 => column_tile::<S, W, 4, V>(s, p, row, column, lanes),
                5 => column_tile::<S, W, 5, V>(s, p, row, column, lanes),
                _ => column_tile::<S, W, 6, V>(s, p, row, column, lanes),
            }
        }
        row += count;
    }
}

#[inline(always)]
unsafe fn column_tile<S: Simd, W: Element, const R: usize, const V: usize>(
    s: S,
    p: &Product<W>,
    row: usize,
    column: usize,
    lanes: usize,
) {
    if R > S::TILE_ROWS || V > S::TILE_VECTORS {
        return; // never reached; keeps tiles that would spill registers from being compiled
    }
    let mut sums = [[s.zero(); V]; R];
    // SAFETY: rows, columns and steps lie within the operands.
    unsafe {
        let mut x = p.x.add(row * p.x_row);
        let mut w = p.w.add(column);
        for _ in 0..p.k {
            let mut vectors = [s.zero(); V];
            for v in 0..V {
                vectors[v] = load_lanes(s, w.add(v * S::LANES), lanes);
            }
            for r in 0..R {
                let x = s.splat(*x.add(r * p.x_row));
                for v in 0..V {
                    sums[r][v] = s.fma(x, vectors[v], sums[r][v]);
                }
            }
            x = x.wrapping_add(p.x_step);
            w = w.wrapping_add(p.w_stride);
        }
        let alpha = s.splat(p.alpha);
        for r in 0..R {
            for v in 0..V {
                let to = p.y.add((row + r) * p.y_stride + column + v * S::LANES);
                let sum = if p.accumulate {
                    s.fma(alpha, sums[r][v], load_lanes(s, to, lanes))
                } else {
                    s.mul(alpha, sums[r][v])
                };
                if lanes == S::LANES { s.store(to, sum) } else { s.store_head(to, sum, lanes) }
            }
        }
    }
}

/// The first `lanes` lanes; the others are zero.
///
/// # Safety
/// So many elements must be readable.
#[inline(always)]
unsafe fn load_lanes<S: Simd, T: Element>(s: S, from: *const T, lanes: usize) -> S::F {
    // SAFETY: passed on.
    unsafe { if lanes == S::LANES { T::load(s, from) } else { T::load_head(s, from, lanes) } }
}

#[inline(always)]
unsafe fn run_dots<S: Simd, W: Element>(s: S, p: &Product<W>, rows: Range<usize>, columns: Range<usize>) {
    let row_bytes = p.k.max(1) * size_of::<W>();
    let block_columns = (DOT_BLOCK_BYTES / row_bytes).max(DOT_COLUMNS).next_multiple_of(DOT_COLUMNS);
    let mut block = columns.start;
    while block < columns.end {
        let block_end = columns.end.min(block + block_columns);
        let mut row = rows.start;
        while row < rows.end {
            let count = S::DOT_ROWS.min(rows.end - row);
            // SAFETY: passed on.
            unsafe {
                match count {
                    1 => dot_tiles::<S, W, 1>(s, p, row, block..block_end),
                    2 => dot_tiles::<S, W, 2>(s, p, row, block..block_end),
                    3 => dot_tiles::<S, W, 3>(s, p, row, block..block_end),
                    4 => dot_tiles::<S, W, 4>(s, p, row, block..block_end),
                    5 => dot_tiles::<S, W, 5>(s, p, row, block..block_end),
                    _ => dot_tiles::<S, W, 6>(s, p, row, block..block_end),
                }
            }
            row += count;
        }
        block = block_end;
    }
}

#[inline(always)]
unsafe fn dot_tiles<S: Simd, W: Element, const R: usize>(s: S, p: &Product<W>, row: usize, columns: Range<usize>) {
    if R > S::DOT_ROWS {
        return; // never reached; keeps tiles that would spill registers from being compiled
    }
    let whole_end = columns.end - columns.len() % DOT_COLUMNS;
    // SAFETY: passed on.
    unsafe {
        for column in (columns.start..whole_end).step_by(DOT_COLUMNS) {
            let sums = dot_tile::<S, W, R, DOT_COLUMNS>(s, p, row, column);
            for r in 0..R {
                let to = p.y.add((row + r) * p.y_stride + column);
                s.store_sum4(to, sums[r], p.alpha, p.accumulate);
            }
        }
        for column in whole_end..columns.end {
            let sums = dot_tile::<S, W, R, 1>(s, p, row, column);
            for r in 0..R {
                let to = p.y.add((row + r) * p.y_stride + column);
                *to = p.alpha * s.sum(sums[r][0]) + if p.accumulate { *to } else { 0.0 };
            }
        }
    }
}

/// The products of R rows of x and C rows of w, the others zero, yet to be added up across lanes.
#[inline(always)]
unsafe fn dot_tile<S: Simd, W: Element, const R: usize, const C: usize>(
    s: S,
    p: &Product<W>,
    row: usize,
    column: usize,
) -> [[S::F; DOT_COLUMNS]; R] {
    let mut sums = [[s.zero(); DOT_COLUMNS]; R];
    let (x_row, w_stride) = (p.x_row, p.w_stride);
    let rest = p.k % S::LANES;
    let whole = p.k - rest;
    // SAFETY: rows, columns and steps lie within the operands.
    unsafe {
        let x = p.x.add(row * x_row);
        let w = p.w.add(column * w_stride);
        let mut at = 0;
        while at < whole {
            let mut w_vectors = [s.zero(); C];
            for c in 0..C {
                w_vectors[c] = W::load(s, w.add(c * w_stride + at));
            }
            for r in 0..R {
                let x_vector = s.load(x.add(r * x_row + at));
                for c in 0..C {
                    sums[r][c] = s.fma(x_vector, w_vectors[c], sums[r][c]);
                }
            }
            at += S::LANES;
        }
        if rest > 0 {
            for r in 0..R {
                let x_vector = s.load_head(x.add(r * x_row + whole), rest);
                for c in 0..C {
                    let w_vector = W::load_head(s, w.add(c * w_stride + whole), rest);
                    sums[r][c] = s.fma(x_vector, w_vector, sums[r][c]);
                }
            }
        }
    }
    sums
}
