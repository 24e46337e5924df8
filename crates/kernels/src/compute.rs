//! The context that every kernel takes first: an instruction tier, worker threads, reusable scratch.

use crate::pool::Pool;
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
}

impl Compute {
    /// A context of `threads` threads, the calling one included.
    ///
    /// # Panics
    /// If this processor cannot run `tier`, or `threads` is 0 or above [`THREADS_MAX`].
    pub fn new(tier: Tier, threads: usize) -> Compute {
        assert!(tier.available(), "this processor cannot run the kernel tier {tier}");
        assert!((1..=THREADS_MAX).contains(&threads), "{threads} threads are not between 1 and {THREADS_MAX}");
        Compute { tier, threads, pool: Pool::new(threads - 1) }
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
}
