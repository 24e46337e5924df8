//! Dropout of LoRA inputs, a pure function of where an element stands: backward asks again instead of keeping masks.

use std::sync::{Mutex, PoisonError};

use atelier_kernels::Compute;

use crate::Projection;

/// Elements that one task masks: some tens of microseconds.
const TASK_ELEMENTS: usize = 1 << 15;

/// Steps that a rate is rounded to: one random byte decides on one element, which makes the masks cheap.
const RATE_STEPS: f32 = 256.0;

/// Elements decided by one random word.
const WORD_ELEMENTS: usize = 8;

/// Which share of LoRA inputs to drop, and by which seed; give each step a seed of its own.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Dropout {
    /// Share of elements set to zero, from 0 to below 1, in steps of 1/256; the others are scaled up so that the
    /// mean stays.
    pub rate: f32,
    /// Decides which.
    pub seed: u64,
}

/// The mask over the input of one projection: element (row, column) depends on seed, layer, projection, row of the
/// batch and column only.
#[derive(Clone, Copy)]
pub(super) struct Mask {
    key: u64,
    /// A random byte below it drops its element.
    threshold: u8,
    scale: f32,
    row_start: usize,
}

impl Dropout {
    pub(super) fn mask(self, layer: usize, projection: Projection, row_start: usize) -> Mask {
        let place = (layer * Projection::ALL.len() + projection as usize) as u64;
        let threshold = (self.rate * RATE_STEPS).round().clamp(0.0, RATE_STEPS - 1.0);
        let scale = RATE_STEPS / (RATE_STEPS - threshold);
        Mask { key: mix64(mix64(self.seed) ^ place), threshold: threshold as u8, scale, row_start }
    }
}

impl Mask {
    /// y = mask · x, both (rows, n).
    pub(super) fn apply(self, compute: &Compute, y: &mut [f32], x: &[f32], n: usize) {
        self.for_rows(compute, y, x, n, |y, x, factor| *y = factor * x);
    }

    /// y += mask · x, both (rows, n).
    pub(super) fn add(self, compute: &Compute, y: &mut [f32], x: &[f32], n: usize) {
        self.for_rows(compute, y, x, n, |y, x, factor| *y += factor * x);
    }

    fn for_rows(
        self,
        compute: &Compute,
        y: &mut [f32],
        x: &[f32],
        n: usize,
        write: impl Fn(&mut f32, f32, f32) + Sync,
    ) {
        debug_assert_eq!(y.len(), x.len());
        let task_rows = TASK_ELEMENTS.div_ceil(n);
        let tasks = (y.len() / n).div_ceil(task_rows);
        let parts = Mutex::new(y.chunks_mut(task_rows * n).zip(x.chunks(task_rows * n)).enumerate());
        compute.parallel_for(tasks, &|_| {
            let Some((part, (y, x))) = parts.lock().unwrap_or_else(PoisonError::into_inner).next() else { return };
            for (index, (y, x)) in y.chunks_exact_mut(n).zip(x.chunks_exact(n)).enumerate() {
                let row = self.row_start + part * task_rows + index;
                let mut words = Words { state: mix64(self.key ^ row as u64) };
                let (mut y_words, mut x_words) = (y.chunks_exact_mut(WORD_ELEMENTS), x.chunks_exact(WORD_ELEMENTS));
                for (y, x) in y_words.by_ref().zip(x_words.by_ref()) {
                    let bytes = words.next();
                    for ((y, &x), byte) in y.iter_mut().zip(x).zip(bytes) {
                        write(y, x, if byte < self.threshold { 0.0 } else { self.scale });
                    }
                }
                let rest = y_words.into_remainder().iter_mut().zip(x_words.remainder());
                for ((y, &x), byte) in rest.zip(words.next()) {
                    write(y, x, if byte < self.threshold { 0.0 } else { self.scale });
                }
            }
        });
    }
}

/// SplitMix64 as a stream of bytes.
struct Words {
    state: u64,
}

impl Words {
    fn next(&mut self) -> [u8; WORD_ELEMENTS] {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        finish64(self.state).to_le_bytes()
    }
}

fn mix64(value: u64) -> u64 {
    finish64(value.wrapping_add(0x9e37_79b9_7f4a_7c15))
}

/// The finaliser of SplitMix64.
fn finish64(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use atelier_kernels::Tier;

    use super::*;

    fn masked(dropout: Dropout, layer: usize, projection: Projection, row_start: usize, rows: usize) -> Vec<f32> {
        let (compute, n) = (Compute::new(Tier::Portable, 2), 301);
        let mut y = vec![0.0; rows * n];
        dropout.mask(layer, projection, row_start).apply(&compute, &mut y, &vec![1.0; rows * n], n);
        y
    }

    #[test]
    fn drops_its_share_and_keeps_the_mean() {
        for rate in [0.0, 13.0 / 256.0, 0.5] {
            let y = masked(Dropout { rate, seed: 1 }, 0, Projection::Q, 0, 400);
            let dropped = y.iter().filter(|&&y| y == 0.0).count() as f32 / y.len() as f32;
            assert!((dropped - rate).abs() < 0.005, "{rate}: {dropped}");
            let mean = y.iter().sum::<f32>() / y.len() as f32;
            assert!((mean - 1.0).abs() < 0.01, "{rate}: {mean}");
        }
    }

    #[test]
    fn depends_on_the_place_in_the_batch_alone() {
        let dropout = Dropout { rate: 0.3, seed: 7 };
        let whole = masked(dropout, 2, Projection::Up, 0, 250);
        assert_eq!(masked(dropout, 2, Projection::Up, 100, 150), whole[100 * 301..]);
        assert_ne!(masked(dropout, 1, Projection::Up, 0, 250), whole);
        assert_ne!(masked(dropout, 2, Projection::Gate, 0, 250), whole);
        assert_ne!(masked(Dropout { seed: 8, ..dropout }, 2, Projection::Up, 0, 250), whole);
    }

    #[test]
    fn add_is_apply_on_top() {
        let (compute, n) = (Compute::new(Tier::Portable, 1), 17);
        let mask = Dropout { rate: 0.4, seed: 3 }.mask(0, Projection::Down, 5);
        let x: Vec<f32> = (0..5 * n).map(|i| i as f32).collect();
        let (mut applied, mut added) = (vec![0.0; 5 * n], vec![1.0; 5 * n]);
        mask.apply(&compute, &mut applied, &x, n);
        mask.add(&compute, &mut added, &x, n);
        assert!(applied.iter().zip(&added).all(|(applied, added)| *added == 1.0 + applied));
    }
}
