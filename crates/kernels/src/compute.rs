//! The context that every kernel takes first: an instruction tier, worker threads, reusable scratch.

use std::ops::Range;

use crate::pool::Pool;
use crate::scratch::{Scratch, ScratchPool};
use crate::tier::Tier;

/// More threads than this gain nothing for models of this size, and a typing mistake should not start thousands.
pub const THREADS_MAX: usize = 256;

/// A [`Tier`] and the persistent threads that kernels share their loops with.
///
/// Kernels may be called from several threads at once and from inside a task: a call that finds the workers
/// busy runs its loop inline. No result depends on that, nor on the number of threads.
pub struct Compute {
    tier: Tier,
    threads: usize,
    pool: Pool,
    scratch: ScratchPool,
}

/// Work below this many element operations is over before a worker has heard of it (a few microseconds).
const TASK_WORK_MIN: usize = 1 << 14;
/// Tasks per thread in a long loop, so that a thread that lost its core for a while does not hold up the rest.
const TASKS_PER_THREAD: usize = 4;

impl Compute {
    /// A context of `threads` threads, the calling one included.
    ///
    /// # Panics
    /// If this processor cannot run `tier`, or `threads` is 0 or above [`THREADS_MAX`].
    pub fn new(tier: Tier, threads: usize) -> Compute {
        assert!(tier.available(), "this processor cannot run the kernel tier {tier}");
        assert!((1..=THREADS_MAX).contains(&threads), "{threads} threads are not between 1 and {THREADS_MAX}");
        Compute { tier, threads, pool: Pool::new(threads - 1), scratch: ScratchPool::new() }
    }

    /// The instruction tier of every kernel called with this context.
    pub fn tier(&self) -> Tier {
        self.tier
    }

    /// How many threads take part in a loop, the caller included.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Runs `run(0)` to `run(tasks - 1)`, each exactly once, in any order and on any thread; returns when all are done.
    ///
    /// # Panics
    /// If a task panics, with that task's payload; tasks not yet begun are then left out.
    pub fn parallel_for(&self, tasks: usize, run: &(dyn Fn(usize) + Sync)) {
        self.pool.run(tasks, run);
    }

    /// Splits `count` items of about `item_work` element operations each into ranges, and runs each range once.
    pub(crate) fn parallel_ranges(&self, count: usize, item_work: usize, run: &(dyn Fn(Range<usize>) + Sync)) {
        let tasks = self.task_count(count, item_work);
        if tasks <= 1 {
            return run(0..count);
        }
        self.parallel_for(tasks, &|task| run(task * count / tasks..(task + 1) * count / tasks));
    }

    /// Into how many tasks `count` items of `item_work` element operations each are worth splitting.
    pub(crate) fn task_count(&self, count: usize, item_work: usize) -> usize {
        let worthwhile = count.saturating_mul(item_work) / TASK_WORK_MIN;
        worthwhile.min(count).min(if self.threads == 1 { 1 } else { self.threads * TASKS_PER_THREAD }).max(1)
    }

    /// A buffer of at least `count` four-byte elements with any contents.
    pub(crate) fn scratch(&self, count: usize) -> Scratch<'_> {
        self.scratch.take(count)
    }
}
