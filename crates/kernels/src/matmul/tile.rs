//! How a product is cut: into tasks, then into blocks that fit the caches, then into tiles that fit the registers.

use std::ops::Range;

use crate::compute::Compute;
use crate::matrix::{GROUP_PANELS, PANEL};
use crate::scratch::Line;
use crate::simd::Simd;

/// Bytes of x that a task goes over again for each group of panels: half of a common second-level cache.
const X_BLOCK_BYTES: usize = 512 << 10;
/// Rows of a block at least, or the weights are read too often.
const BLOCK_ROWS_MIN: usize = 48;
/// Rows of a tile at most, of all micro-kernels; blocks are multiples of it.
pub(super) const TILE_ROWS_MAX: usize = 6;
/// Lines of weights that a step fetches ahead: with two tiles or more they bring the whole next block in time.
const LINES_AHEAD: usize = 2;
/// How far ahead a lone tile fetches, in steps.
const AHEAD_STEPS: usize = 32;
/// Multiply-adds that are worth waking a worker for.
const TASK_PRODUCTS_MIN: usize = 1 << 16;
/// Blocks per thread that are enough to balance the threads; with fewer, columns are divided evenly instead.
const BLOCKS_PER_THREAD: usize = 6;

/// A product of a few rows with a few vectors of columns, whose sums stay in registers.
pub(super) trait Micro: Copy {
    /// Output columns of a vector; divides [`PANEL`].
    const LANES: usize;
    /// Rows of a tile.
    const ROWS: usize;
    /// Vectors of a tile.
    const VECTORS: usize;
    /// Vectors of a tile of one row, at most 4: independent sums enough to hide an instruction's latency.
    const SINGLE_ROW_VECTORS: usize;
    /// Steps over the inputs after which the sums are put by, so that a block's weights stay in the first-level cache.
    const BLOCK_STEPS: usize;

    /// Steps over the inputs.
    fn steps(&self) -> usize;

    /// Adds the products of `part.steps` to rows `row..row + R` and columns `column..column + V * LANES` of y; begins
    /// with zero where the first step is 0. Columns beyond the last are not written.
    ///
    /// # Safety
    /// The operands must cover those rows and columns, and nobody else may touch that part of y.
    unsafe fn tile<const R: usize, const V: usize>(self, row: usize, column: usize, part: Part);
}

/// The steps of a tile, and which of the tiles over the same weights it is.
#[derive(Clone)]
pub(super) struct Part {
    pub(super) steps: Range<usize>,
    pub(super) tile: usize,
    pub(super) tiles: usize,
}

/// Fetches the weights of the next block while the tiles of this one compute, a few lines a step.
pub(super) struct Ahead {
    line: *const Line,
    lines_per_step: usize,
}

impl Ahead {
    /// `first` is the first line of the tile's steps, `stride` the lines of one step, `steps` their number.
    #[inline(always)]
    pub(super) fn new(first: *const Line, stride: usize, steps: usize, part: &Part) -> Ahead {
        if part.tiles == 1 {
            return Ahead { line: first.wrapping_add(AHEAD_STEPS * stride), lines_per_step: stride };
        }
        let done = part.tile * LINES_AHEAD;
        let lines_per_step = if done < stride { LINES_AHEAD } else { 0 };
        Ahead { line: first.wrapping_add((stride + done) * steps), lines_per_step }
    }

    /// One step.
    #[inline(always)]
    pub(super) fn fetch(&mut self) {
        #[cfg(target_arch = "x86_64")]
        for i in 0..LINES_AHEAD {
            // SAFETY: a prefetch of any address is harmless.
            unsafe {
                use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
                _mm_prefetch::<_MM_HINT_T1>(self.line.wrapping_add(i).cast());
            }
        }
        self.line = self.line.wrapping_add(self.lines_per_step);
    }
}

/// Cuts `rows` × panels of columns into blocks and runs each once.
///
/// `row_bytes` is what a row of x takes, `products` the multiply-adds of the whole.
pub(super) fn for_each_block(
    compute: &Compute,
    rows: usize,
    panels: usize,
    row_bytes: usize,
    products: usize,
    run: &(dyn Fn(Range<usize>, Range<usize>) + Sync),
) {
    if compute.threads() == 1 || products < 2 * TASK_PRODUCTS_MIN {
        let block_rows = block_rows(row_bytes);
        return (0..rows).step_by(block_rows).for_each(|row| run(row..rows.min(row + block_rows), 0..panels));
    }
    let block_rows = block_rows(row_bytes);
    let row_blocks = rows.div_ceil(block_rows);
    let groups = panels.div_ceil(GROUP_PANELS);
    let column_blocks = if row_blocks * groups >= compute.threads() * BLOCKS_PER_THREAD
        && row_blocks * groups <= products / TASK_PRODUCTS_MIN
    {
        groups
    } else {
        compute.threads().min(panels)
    };
    // Row blocks are the outer loop: the threads share a block of x while they go through the weights.
    compute.parallel_for(row_blocks * column_blocks, &|task| {
        let (row, column) = (task / column_blocks * block_rows, task % column_blocks);
        let panels = if column_blocks == groups {
            column * GROUP_PANELS..panels.min((column + 1) * GROUP_PANELS)
        } else {
            column * panels / column_blocks..(column + 1) * panels / column_blocks
        };
        run(row..rows.min(row + block_rows), panels);
    });
}

fn block_rows(row_bytes: usize) -> usize {
    (X_BLOCK_BYTES / row_bytes.max(1)).max(BLOCK_ROWS_MIN).next_multiple_of(TILE_ROWS_MAX)
}

/// Goes over a block tile by tile.
///
/// # Safety
/// As [`Micro::tile`] for all of the block.
#[inline(always)]
pub(super) unsafe fn run_block<M: Micro>(micro: M, rows: Range<usize>, panels: Range<usize>) {
    let mut panel = panels.start;
    while panel < panels.end {
        // Vectors of one tile lie in one group, where a step's lines are side by side.
        let group_end = panels.end.min((panel / GROUP_PANELS + 1) * GROUP_PANELS);
        let mut column = panel * PANEL;
        while column < group_end * PANEL {
            let vectors_max = if rows.len() == 1 { M::SINGLE_ROW_VECTORS } else { M::VECTORS };
            let vectors = vectors_max.min((group_end * PANEL - column) / M::LANES);
            // SAFETY: passed on.
            unsafe {
                match vectors {
                    1 => run_columns::<M, 1>(micro, rows.clone(), column),
                    2 => run_columns::<M, 2>(micro, rows.clone(), column),
                    3 => run_columns::<M, 3>(micro, rows.clone(), column),
                    _ => run_columns::<M, 4>(micro, rows.clone(), column),
                }
            }
            column += vectors * M::LANES;
        }
        panel = group_end;
    }
}

#[inline(always)]
unsafe fn run_columns<M: Micro, const V: usize>(micro: M, rows: Range<usize>, column: usize) {
    let steps = micro.steps();
    let block_steps = if rows.len() <= M::ROWS { steps } else { M::BLOCK_STEPS };
    let tiles = rows.len().div_ceil(M::ROWS);
    let mut step = 0;
    while step < steps {
        let mut block = Part { steps: step..steps.min(step + block_steps), tile: 0, tiles };
        let mut row = rows.start;
        while row < rows.end {
            let count = M::ROWS.min(rows.end - row);
            // SAFETY: passed on.
            unsafe {
                match count {
                    1 => micro.tile::<1, V>(row, column, block.clone()),
                    2 => tile_if::<M, 2, V>(micro, row, column, block.clone()),
                    3 => tile_if::<M, 3, V>(micro, row, column, block.clone()),
                    4 => tile_if::<M, 4, V>(micro, row, column, block.clone()),
                    5 => tile_if::<M, 5, V>(micro, row, column, block.clone()),
                    _ => tile_if::<M, 6, V>(micro, row, column, block.clone()),
                }
            }
            row += count;
            block.tile += 1;
        }
        step = block.steps.end;
    }
}

#[inline(always)]
unsafe fn tile_if<M: Micro, const R: usize, const V: usize>(micro: M, row: usize, column: usize, part: Part) {
    // Never false; keeps tiles that would spill registers from being compiled.
    if R <= M::ROWS && V <= M::VECTORS {
        // SAFETY: passed on.
        unsafe { micro.tile::<R, V>(row, column, part) }
    }
}

/// The sums so far of a tile of y (rows, n_out): zero, or what an earlier block of steps left there.
///
/// # Safety
/// The rows must be there, and nobody else may touch the tile.
#[inline(always)]
pub(super) unsafe fn load_sums<S: Simd, const R: usize, const V: usize>(
    s: S,
    y: *const f32,
    n_out: usize,
    row: usize,
    column: usize,
    first: bool,
) -> [[S::F; V]; R] {
    let mut sums = [[s.zero(); V]; R];
    if !first {
        for r in 0..R {
            for v in 0..V {
                let at = column + v * S::LANES;
                let left = n_out.saturating_sub(at);
                // SAFETY: only columns before n_out are read, of rows that the caller vouches for.
                sums[r][v] = unsafe {
                    let from = y.wrapping_add((row + r) * n_out + at);
                    if left >= S::LANES { s.load(from) } else { s.load_head(from, left) }
                };
            }
        }
    }
    sums
}

/// Puts the sums of a tile into y (rows, n_out); columns from n_out on are left out.
///
/// # Safety
/// As [`load_sums`].
#[inline(always)]
pub(super) unsafe fn store_sums<S: Simd, const R: usize, const V: usize>(
    s: S,
    y: *mut f32,
    n_out: usize,
    row: usize,
    column: usize,
    sums: [[S::F; V]; R],
) {
    for r in 0..R {
        for v in 0..V {
            let at = column + v * S::LANES;
            let left = n_out.saturating_sub(at);
            // SAFETY: only columns before n_out are written, of rows that the caller vouches for.
            unsafe {
                let to = y.wrapping_add((row + r) * n_out + at);
                if left >= S::LANES { s.store(to, sums[r][v]) } else { s.store_head(to, sums[r][v], left) }
            }
        }
    }
}
