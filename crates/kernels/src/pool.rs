//! Persistent worker threads for loops of a few microseconds.
//!
//! One loop runs at a time. Its caller takes part, so a loop finishes even if no worker wakes up; a second
//! caller, or a task that starts a loop of its own, runs that loop inline. On a machine that is busy with something
//! else a worker can lose its core inside a task, and a loop of microseconds then lasts a time slice of milliseconds:
//! a caller that had to wait like that runs the next loops alone for a while.

use std::any::Any;
use std::hint;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Spins before a worker parks: about 50 µs, longer than the gap between two kernels of one forward pass
/// and short enough to cost nothing while the engine is idle.
const SPINS_BEFORE_PARK: usize = 2_000;
/// Spins before a finished caller yields its core to a worker that was preempted inside a task.
const SPINS_BEFORE_YIELD: usize = 500;

/// A wait for a worker, beyond the time that the caller itself worked, that means the worker has lost its core: longer
/// than a task's share of any loop, shorter than a time slice.
const WAIT_FOR_PREEMPTED_MIN: Duration = Duration::from_micros(500);
/// How long a caller then works alone, in such waits: what waiting can cost is a tenth of the time.
const WAITS_ALONE: u32 = 10;

/// The loop that is running; lives on its caller's stack.
struct Job<'a> {
    run: &'a (dyn Fn(usize) + Sync),
    tasks: usize,
    next: AtomicUsize,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

impl Job<'_> {
    fn work(&self) {
        loop {
            let task = self.next.fetch_add(1, Ordering::Relaxed);
            if task >= self.tasks {
                return;
            }
            if let Err(payload) = panic::catch_unwind(AssertUnwindSafe(|| (self.run)(task))) {
                self.next.store(self.tasks, Ordering::Relaxed);
                lock(&self.panic).get_or_insert(payload);
            }
        }
    }
}

/// What the caller and the workers share.
///
/// `state` packs (epoch << 32 | OPEN | workers inside). A worker enters a job only by adding itself while the
/// OPEN bit is set; the caller clears the bit and waits for the count to be zero before its job dies.
struct Shared {
    state: AtomicU64,
    job: AtomicPtr<Job<'static>>,
    sleepers: AtomicUsize,
    sleep: Mutex<bool>, // true: shut down
    wake: Condvar,
}

const OPEN: u64 = 1 << 31;
const INSIDE_MASK: u64 = OPEN - 1;
const EPOCH_ONE: u64 = 1 << 32;

/// What the caller whose loop runs knows of the loops before.
#[derive(Default)]
struct Owner {
    /// Until when workers are not asked to help.
    alone_until: Option<Instant>,
}

/// The worker threads of one [`Compute`](crate::Compute).
pub(crate) struct Pool {
    shared: Arc<Shared>,
    owner: Mutex<Owner>,
    workers: Vec<JoinHandle<()>>,
}

impl Pool {
    /// Starts `workers` threads beside the callers' own.
    pub(crate) fn new(workers: usize) -> Pool {
        let shared = Arc::new(Shared {
            state: AtomicU64::new(0),
            job: AtomicPtr::new(std::ptr::null_mut()),
            sleepers: AtomicUsize::new(0),
            sleep: Mutex::new(false),
            wake: Condvar::new(),
        });
        let workers = (0..workers)
            .map(|index| {
                let shared = Arc::clone(&shared);
                thread::Builder::new()
                    .name(format!("kernels-{index}"))
                    .spawn(move || work_until_shutdown(&shared))
                    .expect("the operating system starts a worker thread")
            })
            .collect();
        Pool { shared, owner: Mutex::default(), workers }
    }

    /// Runs `run(0)` to `run(tasks - 1)`, each once, and returns when all are done; a panic in a task goes on here.
    pub(crate) fn run(&self, tasks: usize, run: &(dyn Fn(usize) + Sync)) {
        if tasks <= 1 || self.workers.is_empty() {
            return (0..tasks).for_each(run);
        }
        let mut owner = match self.owner.try_lock() {
            Ok(guard) => guard,
            Err(std::sync::TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(std::sync::TryLockError::WouldBlock) => return (0..tasks).for_each(run),
        };
        let start = Instant::now();
        if owner.alone_until.is_some_and(|until| start < until) {
            return (0..tasks).for_each(run);
        }
        let job = Job { run, tasks, next: AtomicUsize::new(0), panic: Mutex::new(None) };
        self.publish(&job);
        job.work();
        owner.alone_until = self.retract(start);
        if let Some(payload) = job.panic.into_inner().unwrap_or_else(PoisonError::into_inner) {
            panic::resume_unwind(payload);
        }
    }

    fn publish(&self, job: &Job<'_>) {
        let shared = &*self.shared;
        shared.job.store(std::ptr::from_ref(job).cast_mut().cast(), Ordering::Relaxed);
        let epoch = shared.state.load(Ordering::Relaxed) & !(OPEN | INSIDE_MASK);
        shared.state.store(epoch.wrapping_add(EPOCH_ONE) | OPEN, Ordering::SeqCst);
        if shared.sleepers.load(Ordering::SeqCst) > 0 {
            drop(lock(&shared.sleep));
            shared.wake.notify_all();
        }
    }

    /// Lets no more workers into the job that began at `start` and waits for those inside. Gives until when the next
    /// loops are better run alone.
    fn retract(&self, start: Instant) -> Option<Instant> {
        let shared = &*self.shared;
        shared.state.fetch_and(!OPEN, Ordering::AcqRel);
        let is_worked_on = || shared.state.load(Ordering::Acquire) & INSIDE_MASK != 0;
        for _ in 0..SPINS_BEFORE_YIELD {
            if !is_worked_on() {
                return None;
            }
            hint::spin_loop();
        }
        let worked = start.elapsed();
        while is_worked_on() {
            thread::yield_now();
        }
        let now = Instant::now();
        let waited = now - start - worked;
        (waited > worked + WAIT_FOR_PREEMPTED_MIN).then(|| now + waited * WAITS_ALONE)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        *lock(&self.shared.sleep) = true;
        self.shared.wake.notify_all();
        // A spinning worker sees the flag when it goes to sleep, at most SPINS_BEFORE_PARK spins from now.
        for worker in self.workers.drain(..) {
            // A worker catches its tasks' panics, so there is no result to report.
            drop(worker.join());
        }
    }
}

fn work_until_shutdown(shared: &Shared) {
    let mut seen_epoch = 0;
    while let Some(state) = next_open_state(shared, seen_epoch) {
        seen_epoch = epoch(state);
        let entered = shared
            .state
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |now| is_open(now, state).then_some(now + 1))
            .is_ok();
        if entered {
            // SAFETY: the pointer was stored before OPEN was set for this epoch, and the caller keeps the job
            // alive until this worker has subtracted itself from the count.
            let job = unsafe { &*shared.job.load(Ordering::Acquire) };
            job.work();
            shared.state.fetch_sub(1, Ordering::Release);
        }
    }
}

fn epoch(state: u64) -> u64 {
    state / EPOCH_ONE
}

fn is_open(now: u64, entered_for: u64) -> bool {
    now & OPEN != 0 && epoch(now) == epoch(entered_for)
}

/// Waits for a job of another epoch than `seen_epoch`; `None` at shutdown.
fn next_open_state(shared: &Shared, seen_epoch: u64) -> Option<u64> {
    let is_new = |state: u64| state & OPEN != 0 && epoch(state) != seen_epoch;
    for _ in 0..SPINS_BEFORE_PARK {
        let state = shared.state.load(Ordering::Acquire);
        if is_new(state) {
            return Some(state);
        }
        hint::spin_loop();
    }
    let mut shutdown = lock(&shared.sleep);
    shared.sleepers.fetch_add(1, Ordering::SeqCst);
    let found = loop {
        if *shutdown {
            break None;
        }
        let state = shared.state.load(Ordering::SeqCst);
        if is_new(state) {
            break Some(state);
        }
        shutdown = shared.wake.wait(shutdown).unwrap_or_else(PoisonError::into_inner);
    };
    shared.sleepers.fetch_sub(1, Ordering::SeqCst);
    found
}

/// Nothing panics while holding these locks, so a poisoned one is as good as a clean one.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
