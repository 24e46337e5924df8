//! Reusable buffers, so that the hot path does not allocate.

use std::sync::{Mutex, PoisonError};

use bytemuck::{Pod, Zeroable};

/// Buffers kept for reuse; more than this many calls at once simply allocate.
const BUFFERS_KEPT_MAX: usize = 64;

/// One cache line, and one AVX-512 vector: buffers and packed weights are aligned to it.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
pub(crate) struct Line(pub(crate) [u8; LINE_BYTES]);

/// Bytes of a [`Line`].
pub(crate) const LINE_BYTES: usize = 64;

/// The buffers that no call uses at the moment.
pub(crate) struct ScratchPool(Mutex<Vec<Vec<Line>>>);

/// A buffer with the contents that its last user left.
pub(crate) struct Scratch<'a> {
    lines: Vec<Line>,
    len: usize, // in lines
    pool: &'a ScratchPool,
}

impl ScratchPool {
    pub(crate) fn new() -> ScratchPool {
        ScratchPool(Mutex::new(Vec::new()))
    }

    /// A buffer of at least `count` elements of four bytes.
    pub(crate) fn take(&self, count: usize) -> Scratch<'_> {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
        let len = (count * size_of::<f32>()).div_ceil(LINE_BYTES);
        if lines.len() < len {
            lines.resize(len, Line::zeroed());
        }
        Scratch { lines, len, pool: self }
    }
}

impl Scratch<'_> {
    pub(crate) fn f32s(&mut self) -> &mut [f32] {
        bytemuck::cast_slice_mut(&mut self.lines[..self.len])
    }

    pub(crate) fn u32s(&mut self) -> &mut [u32] {
        bytemuck::cast_slice_mut(&mut self.lines[..self.len])
    }
}

impl Drop for Scratch<'_> {
    fn drop(&mut self) {
        let mut free = self.pool.0.lock().unwrap_or_else(PoisonError::into_inner);
        if free.len() < BUFFERS_KEPT_MAX {
            free.push(std::mem::take(&mut self.lines));
        }
    }
}
