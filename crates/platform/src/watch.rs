//! Open streams on the leash of the keys that opened them: a key that is revoked, past its time or no longer allowed to
//! complete ends them within a second.
//!
//! One task looks after all of them, as long as there are any. What it asks the store is answered from memory unless
//! keys changed, here or in another process on the same database.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, OnceLock};

use atelier_access::{Caller, Denied, right};
use atelier_domain::limits::{STREAM_RECHECK_FAILURES_MAX, STREAM_RECHECK_INTERVAL};
use atelier_store::StoreError;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::error::PlatformError;
use crate::platform::Platform;

/// What is open.
#[derive(Debug, Default)]
pub(crate) struct OpenStreams {
    streams: Mutex<Streams>,
    opened: Notify,
}

#[derive(Debug, Default)]
struct Streams {
    next: u64,
    by_number: HashMap<u64, (Caller, Leash)>,
}

/// Ends a stream from outside. Clones end together.
#[derive(Debug, Clone, Default)]
pub(crate) struct Leash {
    cut: CancellationToken,
    why: Arc<OnceLock<Ending>>,
}

/// Why a stream was ended from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// The key may no longer do this.
    Denied(Denied),
    /// Nobody can say whether it may.
    Unknown,
}

/// A stream's place among the open ones; taken back when dropped.
#[derive(Debug)]
pub(crate) struct Watched {
    all: Arc<OpenStreams>,
    number: u64,
}

impl OpenStreams {
    /// From here on the stream is cut when its caller may no longer complete.
    pub(crate) fn watch(self: &Arc<Self>, caller: Caller) -> (Watched, Leash) {
        let leash = Leash::default();
        let mut streams = self.streams.lock();
        let number = streams.next;
        streams.next += 1;
        streams.by_number.insert(number, (caller, leash.clone()));
        self.opened.notify_one();
        (Watched { all: Arc::clone(self), number }, leash)
    }

    fn callers(&self) -> HashSet<Caller> {
        self.streams.lock().by_number.values().map(|(caller, _)| caller.clone()).collect()
    }

    fn cut(&self, whose: &Caller, why: Ending) {
        for (caller, leash) in self.streams.lock().by_number.values() {
            if caller == whose {
                leash.end(why);
            }
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.all.streams.lock().by_number.remove(&self.number);
    }
}

impl Leash {
    fn end(&self, why: Ending) {
        // The first reason stands.
        let _ = self.why.set(why);
        self.cut.cancel();
    }

    /// Waits until the stream must end; says why.
    pub(crate) async fn ended(&self) -> PlatformError {
        self.cut.cancelled().await;
        match self.why.get() {
            Some(Ending::Denied(
                Denied::NotAuthenticated | Denied::Hidden | Denied::OutOfScope(_) | Denied::Exceeds,
            )) => PlatformError::KeyEnded,
            Some(Ending::Denied(Denied::Suspended)) => PlatformError::Suspended,
            Some(Ending::Unknown) | None => PlatformError::closing(),
        }
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.cut.is_cancelled()
    }
}

/// Holds every open stream against its key, again and again, until the platform stops.
pub(crate) async fn watch_streams(platform: Platform) {
    let mut failures = 0;
    loop {
        let streams = platform.open_streams();
        let callers = streams.callers();
        if callers.is_empty() {
            tokio::select! {
                () = platform.streams_ended().cancelled() => return,
                () = streams.opened.notified() => {}
            }
        }
        for caller in callers {
            match platform.still_completes(&caller).await {
                Ok(()) => failures = 0,
                Err(StoreError::Denied(denied)) => streams.cut(&caller, Ending::Denied(denied)),
                Err(error) => {
                    failures += 1;
                    tracing::warn!(error = &error as &dyn std::error::Error, "an open stream's key was not checked");
                    if failures >= STREAM_RECHECK_FAILURES_MAX {
                        streams.cut(&caller, Ending::Unknown);
                    }
                }
            }
        }
        tokio::select! {
            () = platform.streams_ended().cancelled() => return,
            () = tokio::time::sleep(STREAM_RECHECK_INTERVAL) => {}
        }
    }
}

impl Platform {
    /// The same caller as its key stands now: for whoever follows something longer than a request takes.
    ///
    /// # Errors
    /// When the key is revoked or past its time.
    pub async fn renew(&self, caller: &Caller) -> Result<Caller, PlatformError> {
        Ok(self.store().renew(caller).await?)
    }

    async fn still_completes(&self, caller: &Caller) -> Result<(), StoreError> {
        let caller = self.store().renew(caller).await?;
        let Some(tenant) = caller.tenant() else { return Err(Denied::Hidden.into()) };
        Ok(caller.grant(right::CompleteAs { tenant }).map(|_| ())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_cut_ends_the_callers_streams_and_no_others() {
        let streams = Arc::new(OpenStreams::default());
        let (ours, theirs) = (Caller::system("ours"), Caller::system("theirs"));
        let (_first, first) = streams.watch(ours.clone());
        let (_second, second) = streams.watch(ours.clone());
        let (other, other_leash) = streams.watch(theirs.clone());
        streams.cut(&ours, Ending::Denied(Denied::NotAuthenticated));
        streams.cut(&ours, Ending::Unknown);
        assert!(matches!(first.ended().await, PlatformError::KeyEnded), "the first reason stands");
        assert!(second.has_ended() && !other_leash.has_ended());
        assert_eq!(streams.callers().len(), 2);
        drop(other);
        assert_eq!(streams.callers(), HashSet::from([ours]));
    }
}
