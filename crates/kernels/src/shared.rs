//! One output slice written by many tasks at once.

use std::marker::PhantomData;
use std::ops::Range;

/// A mutable slice whose parts are handed to concurrent tasks.
pub(crate) struct SharedMut<'a, T> {
    start: *mut T,
    len: usize,
    borrow: PhantomData<&'a mut [T]>,
}

// SAFETY: it is a `&mut [T]` in disguise; what tasks do with it at once is the subject of `range`'s contract.
unsafe impl<T: Send> Sync for SharedMut<'_, T> {}
// SAFETY: as a `&mut [T]`.
unsafe impl<T: Send> Send for SharedMut<'_, T> {}

impl<'a, T> SharedMut<'a, T> {
    pub(crate) fn new(slice: &'a mut [T]) -> SharedMut<'a, T> {
        SharedMut { start: slice.as_mut_ptr(), len: slice.len(), borrow: PhantomData }
    }

    /// The elements of `range`.
    ///
    /// # Safety
    /// While the result lives, nobody else may hold any of these elements.
    ///
    /// # Panics
    /// If the range is not within the slice.
    #[expect(clippy::mut_from_ref, reason = "handing out disjoint parts of one slice is what this type is for")]
    pub(crate) unsafe fn range(&self, range: Range<usize>) -> &mut [T] {
        assert!(range.start <= range.end && range.end <= self.len, "{range:?} of {} elements", self.len);
        // SAFETY: within the slice, and unshared by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }

    /// The first element, for kernels that write scattered tiles.
    pub(crate) fn as_mut_ptr(&self) -> *mut T {
        self.start
    }
}
