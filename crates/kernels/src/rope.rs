//! Rotary position embedding, half-split layout.

use crate::compute::Compute;

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
pub fn rope(_compute: &Compute, x: &mut [f32], positions: &[u32], table: &RopeTable, rows: usize, heads: usize) {
    crate::naive::rope(x, positions, table, rows, heads);
}

/// The rotation by the opposite angle: turns d(rotated) into d(unrotated), in place.
pub fn rope_backward(_compute: &Compute, x: &mut [f32], positions: &[u32], table: &RopeTable, rows: usize, heads: usize) {
    crate::naive::rope_backward(x, positions, table, rows, heads);
}
