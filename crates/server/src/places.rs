//! Places for connections: how many there may be, and who gives way when there are no more.
//!
//! A connection is at work from a request's head to the end of its answer, and waits otherwise: for a handshake, for a
//! head, or idle between two requests. Whoever comes when all places are taken gets that of the connection that has
//! waited longest, so that those who only hold places keep nobody out. When all are at work, a few spare places are
//! left in which questions about the server's health are answered and all others told to come back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use atelier_domain::limits::{CONNECTION_WAIT_MIN, CONNECTIONS_MAX, CONNECTIONS_SPARE};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// How often is looked for a place where nobody waits who could give way.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// All places.
pub struct Places {
    usual: Arc<Semaphore>,
    spare: Arc<Semaphore>,
    /// How long a connection must have waited before it gives way.
    wait_min: Duration,
    waiting: Arc<Mutex<Waiting>>,
}

/// Connections that wait, in the order in which they began to.
#[derive(Default)]
struct Waiting {
    next: u64,
    by_turn: BTreeMap<u64, (Instant, Arc<OnceLock<AbortHandle>>)>,
}

/// A connection's place; given back when dropped.
pub struct Place {
    /// Whether only the server's health may be asked for here.
    pub is_spare: bool,
    /// Requests whose heads came.
    requests: AtomicU64,
    /// Whether some of a head came, and not all.
    head_begun: AtomicBool,
    /// Its turn among those who wait; none while it is at work.
    turn: Mutex<Option<u64>>,
    task: Arc<OnceLock<AbortHandle>>,
    waiting: Arc<Mutex<Waiting>>,
    _permit: OwnedSemaphorePermit,
}

/// A request that is at work; over when dropped.
pub struct Work(Arc<Place>);

impl Default for Places {
    fn default() -> Self {
        Self::new(CONNECTIONS_MAX, CONNECTIONS_SPARE, CONNECTION_WAIT_MIN)
    }
}

impl Places {
    fn new(usual: usize, spare: usize, wait_min: Duration) -> Self {
        let [usual, spare] = [usual, spare].map(|count| Arc::new(Semaphore::new(count)));
        Self { usual, spare, wait_min, waiting: Arc::default() }
    }

    /// A place for the next connection, as soon as there is one.
    pub async fn take(&self) -> Arc<Place> {
        let usual = || Arc::clone(&self.usual).acquire_owned();
        let spare = || Arc::clone(&self.spare).acquire_owned();
        if let Ok(permit) = Arc::clone(&self.usual).try_acquire_owned() {
            return self.place(permit, false);
        }
        loop {
            let (permit, is_spare) = if self.evict() {
                // It is free as soon as the task that had it is gone.
                (usual().await, false)
            } else {
                tokio::select! {
                    biased;
                    permit = usual() => (permit, false),
                    permit = spare() => (permit, true),
                    () = tokio::time::sleep(LOOK_INTERVAL) => continue,
                }
            };
            return self.place(permit.expect("nobody closes the semaphore"), is_spare);
        }
    }

    fn place(&self, permit: OwnedSemaphorePermit, is_spare: bool) -> Arc<Place> {
        let place = Place {
            is_spare,
            requests: AtomicU64::new(0),
            head_begun: AtomicBool::new(false),
            turn: Mutex::new(None),
            task: Arc::default(),
            waiting: Arc::clone(&self.waiting),
            _permit: permit,
        };
        place.wait();
        Arc::new(place)
    }

    /// Ends the connection that has waited longest, if that is long enough.
    fn evict(&self) -> bool {
        let mut waiting = self.waiting.lock();
        let Some(oldest) = waiting.by_turn.first_entry() else { return false };
        let (since, task) = oldest.get();
        let Some(task) = task.get().filter(|_| since.elapsed() >= self.wait_min) else { return false };
        task.abort();
        oldest.remove();
        tracing::debug!("a connection that waited gave its place to another");
        true
    }
}

impl Place {
    /// Says which task to end when this place is another's.
    pub fn belongs_to(&self, task: AbortHandle) {
        // Said once.
        let _ = self.task.set(task);
    }

    /// From here on a request is at work.
    pub fn begin(self: &Arc<Self>) -> Work {
        self.requests.fetch_add(1, Ordering::AcqRel);
        self.head_begun.store(false, Ordering::Release);
        self.leave();
        Work(Arc::clone(self))
    }

    /// Whether a request is at work.
    pub fn is_at_work(&self) -> bool {
        self.turn.lock().is_none()
    }

    /// How many requests there were so far.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Acquire)
    }

    /// Says that some of a head came.
    pub fn begin_head(&self) {
        self.head_begun.store(true, Ordering::Release);
    }

    /// Whether a head came in part.
    pub fn is_within_head(&self) -> bool {
        self.head_begun.load(Ordering::Acquire)
    }

    fn wait(&self) {
        if self.is_spare {
            // Nobody is to wait in a spare place for long, and nobody takes it over.
            *self.turn.lock() = Some(u64::MAX);
            return;
        }
        let turn = {
            let mut waiting = self.waiting.lock();
            let turn = waiting.next;
            waiting.next += 1;
            waiting.by_turn.insert(turn, (Instant::now(), Arc::clone(&self.task)));
            turn
        };
        *self.turn.lock() = Some(turn);
    }

    fn leave(&self) {
        let turn = self.turn.lock().take();
        if let Some(turn) = turn {
            self.waiting.lock().by_turn.remove(&turn);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.leave();
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Longer than anything between two looks here.
    const WAIT_MIN: Duration = Duration::from_millis(500);

    /// A connection in this place that does nothing until it is ended.
    fn connect(place: &Arc<Place>) -> tokio::task::JoinHandle<()> {
        let held = Arc::clone(place);
        let task = tokio::spawn(async move {
            std::future::pending::<()>().await;
            drop(held);
        });
        place.belongs_to(task.abort_handle());
        task
    }

    #[tokio::test]
    async fn who_waits_longest_gives_way_and_who_works_never() {
        let places = Places::new(2, 1, WAIT_MIN);
        let (first, second) = (places.take().await, places.take().await);
        let (first_task, second_task) = (connect(&first), connect(&second));
        let work = first.begin();
        drop((first, second));
        tokio::time::sleep(WAIT_MIN).await;
        let third = places.take().await;
        assert!(!third.is_spare);
        assert!(second_task.await.unwrap_err().is_cancelled(), "it waited, the first works");
        // Nobody has waited long enough: the spare place.
        let fourth = places.take().await;
        assert!(fourth.is_spare);
        let third_task = connect(&third);
        drop((third, fourth));
        // The first waits from now on, so the third does for longer.
        drop(work);
        tokio::time::sleep(WAIT_MIN).await;
        let fifth = places.take().await;
        assert!(!fifth.is_spare && third_task.await.unwrap_err().is_cancelled());
        assert!(!first_task.is_finished());
    }

    #[tokio::test]
    async fn a_place_is_at_work_from_head_to_answer() {
        let places = Places::new(1, 0, WAIT_MIN);
        let place = places.take().await;
        assert!(!place.is_at_work());
        let work = place.begin();
        assert!(place.is_at_work() && place.requests() == 1);
        drop(work);
        assert!(!place.is_at_work());
        drop(place);
        assert!(places.waiting.lock().by_turn.is_empty());
    }
}
