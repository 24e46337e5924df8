//! Attention while training: whole sequences packed one after another, forward and backward.
//!
//! Blocks of queries bound the memory of a task to two matrices of BLOCK_ROWS rows; the backward pass recomputes the
//! weights from `lse` (Dao et al., 2022). Keys (and values, backward) are transposed once, so that scores have their
//! lanes across keys and need no sums over lanes.

use std::ops::Range;

use crate::compute::Compute;
use crate::gemm::{Lanes, Product, run_part};
use crate::shared::SharedMut;
use crate::simd::{Kernel, Simd, exp, load_at, slice, store_at};

/// Queries whose scores are held at once.
const BLOCK_ROWS: usize = 64;
/// Rows of k or v in one strip of a transposed head, (head_dim, STRIP): as many as the columns of the widest tile.
const STRIP: usize = 64;
/// f32 in a cache line.
const LINE: usize = 16;

/// Elements from one row of scores to the next: an odd number of cache lines, so that a column of a block does not
/// fall into a few sets of the first-level cache.
fn score_stride(keys: usize) -> usize {
    (keys.div_ceil(LINE) | 1) * LINE
}

/// The shape of q and out (rows, heads · head_dim), and of k and v (rows, kv_heads · head_dim).
#[derive(Clone, Copy)]
struct Shape {
    rows: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
}

impl Shape {
    fn new(q: &[f32], k: &[f32], sequences: &[Range<usize>], heads: usize, kv_heads: usize, head_dim: usize) -> Shape {
        assert!(kv_heads > 0 && heads.is_multiple_of(kv_heads), "{heads} heads do not share {kv_heads} evenly");
        assert!(heads * head_dim > 0, "heads have dimensions");
        let rows = q.len() / (heads * head_dim);
        let shape = Shape { rows, heads, kv_heads, head_dim };
        assert_eq!((q.len(), k.len()), (rows * shape.q_width(), rows * shape.kv_width()), "rows of q and k");
        let mut end = 0;
        for sequence in sequences {
            assert!(end <= sequence.start && sequence.start <= sequence.end, "sequences are disjoint and in order");
            end = sequence.end;
        }
        assert!(end <= rows, "a sequence ends at {end} of {rows} rows");
        shape
    }

    fn q_width(&self) -> usize {
        self.heads * self.head_dim
    }

    fn kv_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    fn scale(&self) -> f32 {
        1.0 / (self.head_dim as f32).sqrt()
    }

    fn covered_by(&self, sequences: &[Range<usize>]) -> bool {
        sequences.iter().map(ExactSizeIterator::len).sum::<usize>() == self.rows
    }
}

/// Every sequence's part of every head of k or v, transposed in strips.
struct Transposed<'a> {
    strips: &'a [f32],
    starts: &'a [usize], // of each sequence
    shape: Shape,
}

impl Transposed<'_> {
    /// Where each sequence's strips start, and the size of all.
    fn layout(shape: Shape, sequences: &[Range<usize>]) -> (Vec<usize>, usize) {
        let mut size = 0;
        let starts = sequences.iter().map(|sequence| {
            let start = size;
            size += sequence.len().next_multiple_of(STRIP) * shape.kv_width();
            start
        });
        (starts.collect(), size)
    }

    /// Transposes the strips of k (rows, kv_width) into `strips`.
    fn fill(
        compute: &Compute,
        strips: &mut [f32],
        starts: &[usize],
        k: &[f32],
        sequences: &[Range<usize>],
        shape: Shape,
    ) {
        let (width, head_dim) = (shape.kv_width(), shape.head_dim);
        let strips = SharedMut::new(strips);
        let tasks = sequences.len() * shape.kv_heads;
        compute.parallel_ranges(tasks, k.len() / tasks.max(1), &|tasks| {
            for task in tasks {
                let (sequence, kv_head) = (&sequences[task / shape.kv_heads], task % shape.kv_heads);
                let size = sequence.len().next_multiple_of(STRIP) * head_dim;
                let start = starts[task / shape.kv_heads] + kv_head * size;
                // SAFETY: each head of each sequence belongs to one task.
                let strips = unsafe { strips.range(start..start + size) };
                let rows = k[sequence.start * width..sequence.end * width].chunks(STRIP * width);
                for (strip, rows) in strips.chunks_exact_mut(STRIP * head_dim).zip(rows) {
                    for (i, row) in rows.chunks_exact(width).enumerate() {
                        for (column, &x) in strip.chunks_exact_mut(STRIP).zip(&row[kv_head * head_dim..]) {
                            column[i] = x;
                        }
                    }
                }
            }
        });
    }

    /// The strips of one head of one sequence.
    fn head(&self, sequence_index: usize, sequence: &Range<usize>, kv_head: usize) -> &[f32] {
        let size = sequence.len().next_multiple_of(STRIP) * self.shape.head_dim;
        &self.strips[self.starts[sequence_index] + kv_head * size..][..size]
    }
}

/// out (rows, heads · head_dim) and lse (rows, heads) of packed sequences: each row attends to the rows of its
/// sequence up to itself. Rows of no sequence get zeros.
///
/// # Panics
/// If a shape does not fit, or sequences overlap, are out of order or go beyond the rows.
pub fn attention_causal(
    compute: &Compute,
    out: &mut [f32],
    lse: &mut [f32],
    q: &[f32],
    k: &[f32],
    v: &[f32],
    sequences: &[Range<usize>],
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
) {
    let shape = Shape::new(q, k, sequences, heads, kv_heads, head_dim);
    assert_eq!((out.len(), lse.len(), v.len()), (q.len(), shape.rows * heads, k.len()));
    if !shape.covered_by(sequences) {
        out.fill(0.0);
        lse.fill(0.0);
    }
    let (starts, size) = Transposed::layout(shape, sequences);
    let mut strips = compute.scratch(size);
    Transposed::fill(compute, strips.f32s(), &starts, k, sequences, shape);
    let keys = Transposed { strips: strips.f32s(), starts: &starts, shape };
    // Late blocks see more keys: they go first, so that the threads finish together.
    let blocks: Vec<(usize, Range<usize>)> = (0..sequences.len())
        .flat_map(|index| query_blocks(sequences[index].len()).rev().map(move |block| (index, block)))
        .collect();
    let (out, lse) = (SharedMut::new(out), SharedMut::new(lse));
    let operands = Forward { out: &out, lse: &lse, q, v, shape };
    compute.parallel_for(blocks.len() * heads, &|task| {
        let ((index, block), head) = (blocks[task / heads].clone(), task % heads);
        let sequence = sequences[index].clone();
        let keys = keys.head(index, &sequence, head / (heads / kv_heads));
        let mut scores = compute.scratch(block.len() * score_stride(block.end));
        compute.tier().run(ForwardBlock { operands, sequence, block, head, keys, scores: scores.f32s() });
    });
}

/// Blocks of rows of a sequence, counted from its start.
fn query_blocks(rows: usize) -> impl DoubleEndedIterator<Item = Range<usize>> {
    (0..rows.div_ceil(BLOCK_ROWS)).map(move |block| block * BLOCK_ROWS..rows.min((block + 1) * BLOCK_ROWS))
}

#[derive(Clone, Copy)]
struct Forward<'a> {
    out: &'a SharedMut<'a, f32>,
    lse: &'a SharedMut<'a, f32>,
    q: &'a [f32],
    v: &'a [f32],
    shape: Shape,
}

struct ForwardBlock<'a> {
    operands: Forward<'a>,
    sequence: Range<usize>,
    block: Range<usize>,
    head: usize,
    keys: &'a [f32], // transposed
    scores: &'a mut [f32],
}

impl Kernel for ForwardBlock<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let ForwardBlock { operands, sequence, block, head, keys, scores } = self;
        let shape = operands.shape;
        let head_rows = HeadRows::new(shape, &sequence, &block, head);
        let stride = score_stride(block.end);
        let scores = &mut scores[..block.len() * stride];
        // SAFETY: rows and heads lie within q and v, whose sizes `Shape` has checked.
        unsafe { head_rows.dot_rows(s, scores, operands.q, keys, shape.scale()) };
        for (i, row) in scores.chunks_exact_mut(stride).enumerate() {
            let (seen, unseen) = row[..block.end].split_at_mut(block.start + i + 1);
            let max = slice::max(s, seen);
            let sum = slice::exp_in_place(s, seen, max);
            slice::scale(s, seen, 1.0 / sum);
            unseen.fill(0.0);
            let at = (sequence.start + block.start + i) * shape.heads + head;
            // SAFETY: each (row, head) belongs to one task.
            unsafe { operands.lse.range(at..at + 1)[0] = max + sum.ln() };
        }
        // SAFETY: as above; this block of this head of out belongs to this task.
        unsafe { head_rows.weigh_rows(s, operands.out.as_mut_ptr(), scores, operands.v) };
    }
}

/// One head of a block of queries, and of all keys of the sequence up to its end.
struct HeadRows {
    shape: Shape,
    q_start: usize,  // the head's part of the block's first row of q
    kv_start: usize, // the head's part of the sequence's first row of k
    count: usize,    // queries
    keys: usize,
}

impl HeadRows {
    fn new(shape: Shape, sequence: &Range<usize>, block: &Range<usize>, head: usize) -> HeadRows {
        let kv_head = head / (shape.heads / shape.kv_heads);
        HeadRows {
            shape,
            q_start: (sequence.start + block.start) * shape.q_width() + head * shape.head_dim,
            kv_start: sequence.start * shape.kv_width() + kv_head * shape.head_dim,
            count: block.len(),
            keys: block.end,
        }
    }

    /// scores (count, keys) = alpha · rows of q · transposed keys.
    ///
    /// # Safety
    /// The rows must lie within q.
    #[inline(always)]
    unsafe fn dot_rows<S: Simd>(&self, s: S, scores: &mut [f32], q: &[f32], keys: &[f32], alpha: f32) {
        assert_eq!(scores.len(), self.count * score_stride(self.keys));
        let strips = keys.chunks_exact(STRIP * self.shape.head_dim).zip((0..self.keys).step_by(STRIP));
        for (strip, first) in strips {
            let product = Product {
                y: scores[first..].as_mut_ptr(),
                y_stride: score_stride(self.keys),
                x: q[self.q_start..].as_ptr(),
                x_row: self.shape.q_width(),
                x_step: 1,
                w: strip.as_ptr(),
                w_stride: STRIP,
                w_lanes: Lanes::Columns,
                k: self.shape.head_dim,
                alpha,
                accumulate: false,
            };
            // SAFETY: the strip is whole, the columns end within a row of scores, the rest is passed on.
            unsafe { run_part(s, &product, 0..self.count, 0..STRIP.min(self.keys - first)) };
        }
    }

    /// Rows of out = weights (count, keys) · rows of v.
    ///
    /// # Safety
    /// The rows must lie within out and v, and nobody else may touch them in out.
    #[inline(always)]
    unsafe fn weigh_rows<S: Simd>(&self, s: S, out: *mut f32, weights: &[f32], v: &[f32]) {
        assert_eq!(weights.len(), self.count * score_stride(self.keys));
        let product = Product {
            y: out.wrapping_add(self.q_start),
            y_stride: self.shape.q_width(),
            x: weights.as_ptr(),
            x_row: score_stride(self.keys),
            x_step: 1,
            w: v[self.kv_start..].as_ptr(),
            w_stride: self.shape.kv_width(),
            w_lanes: Lanes::Columns,
            k: self.keys,
            alpha: 1.0,
            accumulate: false,
        };
        // SAFETY: passed on.
        unsafe { run_part(s, &product, 0..self.count, 0..self.shape.head_dim) };
    }

    /// Rows of dv += weights (count, keys)ᵀ · rows of dout.
    ///
    /// # Safety
    /// The rows must lie within dv and dout, and nobody else may touch them in dv.
    #[inline(always)]
    unsafe fn spread_rows<S: Simd>(&self, s: S, dv: *mut f32, weights: &[f32], dout: &[f32]) {
        assert_eq!(weights.len(), self.count * score_stride(self.keys));
        let product = Product {
            y: dv.wrapping_add(self.kv_start),
            y_stride: self.shape.kv_width(),
            x: weights.as_ptr(),
            x_row: 1,
            x_step: score_stride(self.keys),
            w: dout[self.q_start..].as_ptr(),
            w_stride: self.shape.q_width(),
            w_lanes: Lanes::Columns,
            k: self.count,
            alpha: 1.0,
            accumulate: true,
        };
        // SAFETY: passed on.
        unsafe { run_part(s, &product, 0..self.keys, 0..self.shape.head_dim) };
    }
}

/// dq, dk, dv of [`attention_causal`], all overwritten; zeros in rows of no sequence.
///
/// # Panics
/// As [`attention_causal`].
pub fn attention_causal_backward(
    compute: &Compute,
    dq: &mut [f32],
    dk: &mut [f32],
    dv: &mut [f32],
    dout: &[f32],
    q: &[f32],
    k: &[f32],
    v: &[f32],
    out: &[f32],
    lse: &[f32],
    sequences: &[Range<usize>],
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
) {
    let shape = Shape::new(q, k, sequences, heads, kv_heads, head_dim);
    assert_eq!((dq.len(), dout.len(), out.len()), (q.len(), q.len(), q.len()));
    assert_eq!((dk.len(), dv.len(), v.len()), (k.len(), k.len(), k.len()));
    assert_eq!(lse.len(), shape.rows * heads);
    if !shape.covered_by(sequences) {
        dq.fill(0.0);
    }
    dk.fill(0.0);
    dv.fill(0.0);
    let (starts, size) = Transposed::layout(shape, sequences);
    let (mut key_strips, mut value_strips) = (compute.scratch(size), compute.scratch(size));
    Transposed::fill(compute, key_strips.f32s(), &starts, k, sequences, shape);
    Transposed::fill(compute, value_strips.f32s(), &starts, v, sequences, shape);
    let keys = Transposed { strips: key_strips.f32s(), starts: &starts, shape };
    let values = Transposed { strips: value_strips.f32s(), starts: &starts, shape };
    let (dq, dk, dv) = (SharedMut::new(dq), SharedMut::new(dk), SharedMut::new(dv));
    let operands = Backward { dq: &dq, dk: &dk, dv: &dv, dout, q, k, out, lse, shape };
    // The heads that share a key and value head add to the same dk and dv: they are one task, in order.
    compute.parallel_for(sequences.len() * kv_heads, &|task| {
        let (index, kv_head) = (task / kv_heads, task % kv_heads);
        let sequence = sequences[index].clone();
        let keys = keys.head(index, &sequence, kv_head);
        let values = values.head(index, &sequence, kv_head);
        let size = BLOCK_ROWS.min(sequence.len()) * score_stride(sequence.len());
        let (mut weights, mut dscores) = (compute.scratch(size), compute.scratch(size));
        let (weights, dscores) = (weights.f32s(), dscores.f32s());
        compute.tier().run(BackwardHead { operands, sequence, kv_head, keys, values, weights, dscores });
    });
}

#[derive(Clone, Copy)]
struct Backward<'a> {
    dq: &'a SharedMut<'a, f32>,
    dk: &'a SharedMut<'a, f32>,
    dv: &'a SharedMut<'a, f32>,
    dout: &'a [f32],
    q: &'a [f32],
    k: &'a [f32],
    out: &'a [f32],
    lse: &'a [f32],
    shape: Shape,
}

struct BackwardHead<'a> {
    operands: Backward<'a>,
    sequence: Range<usize>,
    kv_head: usize,
    keys: &'a [f32],   // transposed
    values: &'a [f32], // transposed
    weights: &'a mut [f32],
    dscores: &'a mut [f32],
}

impl Kernel for BackwardHead<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let BackwardHead { operands, sequence, kv_head, keys, values, weights, dscores } = self;
        let shape = operands.shape;
        let group = shape.heads / shape.kv_heads;
        for head in kv_head * group..(kv_head + 1) * group {
            for block in query_blocks(sequence.len()) {
                let head_rows = HeadRows::new(shape, &sequence, &block, head);
                let size = block.len() * score_stride(block.end);
                let (weights, dscores) = (&mut weights[..size], &mut dscores[..size]);
                // SAFETY: rows and heads lie within the operands, whose sizes `Shape` and the entry have checked;
                // this head of dq, and this key and value head of dk and dv, belong to this task.
                unsafe {
                    head_rows.dot_rows(s, weights, operands.q, keys, shape.scale());
                    head_rows.dot_rows(s, dscores, operands.dout, values, 1.0);
                    score_gradients(s, weights, dscores, &operands, &sequence, &block, head);
                    head_rows.weigh_rows(s, operands.dq.as_mut_ptr(), dscores, operands.k);
                    head_rows.spread_rows(s, operands.dk.as_mut_ptr(), dscores, operands.q);
                    head_rows.spread_rows(s, operands.dv.as_mut_ptr(), weights, operands.dout);
                }
            }
        }
    }
}

/// Turns scores into weights p = exp(score - lse), and dp into p · (dp - dout · out) · scale, zero where unseen.
#[inline(always)]
fn score_gradients<S: Simd>(
    s: S,
    weights: &mut [f32],
    dscores: &mut [f32],
    operands: &Backward<'_>,
    sequence: &Range<usize>,
    block: &Range<usize>,
    head: usize,
) {
    let Shape { heads, head_dim, .. } = operands.shape;
    let scale = s.splat(operands.shape.scale());
    let stride = score_stride(block.end);
    let rows = weights.chunks_exact_mut(stride).zip(dscores.chunks_exact_mut(stride));
    for (i, (weights, dscores)) in rows.enumerate() {
        let at = (sequence.start + block.start + i) * heads + head;
        let (dout, out) = (&operands.dout[at * head_dim..][..head_dim], &operands.out[at * head_dim..][..head_dim]);
        let along = s.splat(-slice::dot(s, dout, out));
        let negative_lse = s.splat(-operands.lse[at]);
        let (weights, unseen_weights) = weights[..block.end].split_at_mut(block.start + i + 1);
        let (dscores, unseen_dscores) = dscores[..block.end].split_at_mut(block.start + i + 1);
        for j in (0..weights.len()).step_by(S::LANES) {
            let p = exp(s, s.add(load_at(s, weights, j), negative_lse));
            store_at(s, weights, j, p);
            let difference = s.add(load_at(s, dscores, j), along);
            store_at(s, dscores, j, s.mul(s.mul(p, scale), difference));
        }
        unseen_weights.fill(0.0);
        unseen_dscores.fill(0.0);
    }
}
