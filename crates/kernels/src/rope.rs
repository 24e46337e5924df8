//! Rotary position embedding, half-split layout.

use crate::compute::Compute;
use crate::shared::SharedMut;
use crate::simd::{Kernel, Simd, load_at, store_at};

/// Cosines and sines of every position's angles, in the half-split ("rotate_half") Hugging Face layout.
pub struct RopeTable {
    cos: Vec<f32>, // (positions, head_dim / 2)
    sin: Vec<f32>, // (positions, head_dim / 2)
    half: usize,
}

impl RopeTable {
    /// Angles position · theta^(-2i / head_dim) for positions 0..`positions`.
    ///
    /// # Panics
    /// If `head_dim` is odd or zero.
    pub fn new(head_dim: usize, theta: f64, positions: usize) -> RopeTable {
        let frequencies: Vec<f64> =
            (0..head_dim / 2).map(|i| theta.powf(-((2 * i) as f64) / head_dim as f64)).collect();
        assert!(head_dim > 0 && head_dim.is_multiple_of(2), "a head of {head_dim} dimensions has no two halves");
        RopeTable::from_frequencies(&frequencies, positions)
    }

    /// As [`RopeTable::new`] with the angle per position of each of the head_dim / 2 pairs given.
    pub fn from_frequencies(frequencies: &[f64], positions: usize) -> RopeTable {
        let angles = || (0..positions).flat_map(|position| frequencies.iter().map(move |f| position as f64 * f));
        RopeTable {
            cos: angles().map(|angle| angle.cos() as f32).collect(),
            sin: angles().map(|angle| angle.sin() as f32).collect(),
            half: frequencies.len(),
        }
    }

    /// The dimensions of a head.
    pub fn head_dim(&self) -> usize {
        2 * self.half
    }

    /// How many positions the table covers.
    pub fn positions(&self) -> usize {
        self.cos.len() / self.half
    }

    /// The cosines and sines (head_dim / 2 each) of one position.
    ///
    /// # Panics
    /// If the position is beyond the table.
    pub fn at(&self, position: u32) -> (&[f32], &[f32]) {
        let start = position as usize * self.half;
        (&self.cos[start..][..self.half], &self.sin[start..][..self.half])
    }
}

/// Rotates each head of x (rows, heads · head_dim) by its row's position.
///
/// # Panics
/// If a slice is not of the size stated, or a position is beyond the table.
pub fn rope(compute: &Compute, x: &mut [f32], positions: &[u32], table: &RopeTable, rows: usize, heads: usize) {
    rotate(compute, x, positions, table, rows, heads, 1.0);
}

/// The rotation by the opposite angle: turns d(rotated) into d(unrotated), in place.
///
/// # Panics
/// As [`rope`].
pub fn rope_backward(
    compute: &Compute,
    x: &mut [f32],
    positions: &[u32],
    table: &RopeTable,
    rows: usize,
    heads: usize,
) {
    rotate(compute, x, positions, table, rows, heads, -1.0);
}

fn rotate(
    compute: &Compute,
    x: &mut [f32],
    positions: &[u32],
    table: &RopeTable,
    rows: usize,
    heads: usize,
    direction: f32,
) {
    let width = heads * table.head_dim();
    assert_eq!(x.len(), rows * width, "x of shape ({rows}, {width})");
    assert_eq!(positions.len(), rows, "a position for each row");
    let x = SharedMut::new(x);
    compute.parallel_ranges(rows, 2 * width, &|rows| {
        // SAFETY: each row belongs to one task.
        let x = unsafe { x.range(rows.start * width..rows.end * width) };
        compute.tier().run(Rotate { x, positions: &positions[rows], table, width, direction });
    });
}

struct Rotate<'a> {
    x: &'a mut [f32],
    positions: &'a [u32],
    table: &'a RopeTable,
    width: usize,
    direction: f32,
}

impl Kernel for Rotate<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        if self.width == 0 {
            return;
        }
        let half = self.table.half;
        let direction = s.splat(self.direction);
        for (x, &position) in self.x.chunks_exact_mut(self.width).zip(self.positions) {
            let (cos, sin) = self.table.at(position);
            for head in x.chunks_exact_mut(2 * half) {
                let (first, second) = head.split_at_mut(half);
                for at in (0..half).step_by(S::LANES) {
                    let (a, b) = (load_at(s, first, at), load_at(s, second, at));
                    let (cos, sin) = (load_at(s, cos, at), s.mul(direction, load_at(s, sin, at)));
                    store_at(s, first, at, s.sub(s.mul(a, cos), s.mul(b, sin)));
                    store_at(s, second, at, s.fma(a, sin, s.mul(b, cos)));
                }
            }
        }
    }
}
