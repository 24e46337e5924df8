//! The worker threads: every task once, whoever calls, from wherever, whatever happens inside.

use std::collections::HashSet;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use atelier_kernels::{Compute, THREADS_MAX, Tier};

fn counters(count: usize) -> Vec<AtomicUsize> {
    (0..count).map(|_| AtomicUsize::new(0)).collect()
}

fn all_once(counters: &[AtomicUsize]) -> bool {
    counters.iter().all(|counter| counter.load(Ordering::Relaxed) == 1)
}

#[test]
fn every_task_runs_once() {
    for threads in [1, 2, 3, 8] {
        let compute = Compute::new(Tier::Portable, threads);
        for tasks in [0, 1, 2, 7, 100, 1000] {
            let runs = counters(tasks);
            compute.parallel_for(tasks, &|task| {
                runs[task].fetch_add(1, Ordering::Relaxed);
            });
            assert!(all_once(&runs), "{tasks} tasks on {threads} threads");
        }
    }
}

#[test]
fn thousands_of_short_loops() {
    let compute = Compute::new(Tier::Portable, 4);
    let total = AtomicUsize::new(0);
    for _ in 0..20_000 {
        compute.parallel_for(4, &|task| {
            total.fetch_add(task, Ordering::Relaxed);
        });
    }
    assert_eq!(total.into_inner(), 20_000 * 6);
}

#[test]
fn loops_within_loops() {
    let compute = Compute::new(Tier::Portable, 3);
    let runs = counters(20 * 30);
    compute.parallel_for(20, &|outer| {
        compute.parallel_for(30, &|inner| {
            runs[outer * 30 + inner].fetch_add(1, Ordering::Relaxed);
        });
    });
    assert!(all_once(&runs));
}

#[test]
fn many_callers_at_once() {
    let compute = Arc::new(Compute::new(Tier::Portable, 3));
    let callers: Vec<_> = (0..6)
        .map(|_| {
            let compute = Arc::clone(&compute);
            thread::spawn(move || {
                for _ in 0..300 {
                    let runs = counters(50);
                    compute.parallel_for(50, &|task| {
                        runs[task].fetch_add(1, Ordering::Relaxed);
                    });
                    assert!(all_once(&runs));
                }
            })
        })
        .collect();
    for caller in callers {
        caller.join().unwrap();
    }
}

#[test]
fn a_panic_reaches_the_caller_and_the_workers_go_on() {
    let compute = Compute::new(Tier::Portable, 3);
    for round in 0..20 {
        let result = panic::catch_unwind(AssertUnwindSafe(|| {
            compute.parallel_for(40, &|task| assert!(task != round, "task {task} fails"));
        }));
        let payload = result.unwrap_err();
        let message = payload.downcast_ref::<String>().unwrap();
        assert_eq!(message, &format!("task {round} fails"));
        let runs = counters(40);
        compute.parallel_for(40, &|task| {
            runs[task].fetch_add(1, Ordering::Relaxed);
        });
        assert!(all_once(&runs), "after a panic");
    }
}

#[test]
fn several_threads_do_take_part() {
    let compute = Compute::new(Tier::Portable, 2);
    let waiting = AtomicUsize::new(0);
    // Two tasks that wait for each other end only if two threads run them.
    compute.parallel_for(2, &|_| {
        waiting.fetch_add(1, Ordering::SeqCst);
        while waiting.load(Ordering::SeqCst) < 2 {
            thread::yield_now();
        }
    });
}

#[test]
fn parked_workers_wake_up() {
    // Longer than a worker needs to wake up, even on a busy machine most of the time.
    const PATIENCE: Duration = Duration::from_millis(50);
    let compute = Compute::new(Tier::Portable, 3);
    // Any one loop may run alone: a caller does not count on workers, and after a wait it does without them for a while.
    let woke = (0..100).any(|_| {
        thread::sleep(Duration::from_millis(5));
        let seen = Mutex::new(HashSet::new());
        compute.parallel_for(3, &|_| {
            let start = Instant::now();
            seen.lock().unwrap().insert(thread::current().id());
            while seen.lock().unwrap().len() < 2 && start.elapsed() < PATIENCE {
                thread::yield_now();
            }
        });
        seen.into_inner().unwrap().len() > 1
    });
    assert!(woke, "in no loop of a hundred did a worker take part");
}

#[test]
fn impossible_contexts_are_refused() {
    for threads in [0, THREADS_MAX + 1] {
        assert!(panic::catch_unwind(|| Compute::new(Tier::Portable, threads)).is_err(), "{threads} threads");
    }
    for tier in Tier::ALL.into_iter().filter(|tier| !tier.available()) {
        assert!(panic::catch_unwind(|| Compute::new(tier, 1)).is_err(), "{tier}");
    }
}
