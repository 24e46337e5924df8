//! The book of one request: opened before its first token, closed with what was really generated.

use std::time::Instant;

use atelier_access::{Caller, right};
use atelier_domain::{RequestId, TokenCounts, limits};
use atelier_store::{NewReservation, Outcome, Reservation, Serving, Store};

use crate::error::PlatformError;

/// An open reservation. Whoever holds it must [`settle`](Self::settle) it; one that a crash leaves open is closed at
/// the next start with its last checkpoint.
#[derive(Debug)]
pub(crate) struct Meter {
    store: Store,
    reservation: Reservation,
    written: TokenCounts,
    written_at: Instant,
}

impl Meter {
    /// Durable when it returns.
    pub(crate) async fn reserve(
        store: &Store,
        caller: &Caller,
        request: RequestId,
        serving: &Serving,
    ) -> Result<Self, PlatformError> {
        let grant = caller.grant(right::Meter { tenant: serving.tenant() })?;
        let reservation = store.reserve(&grant, NewReservation { request, serving }).await?;
        Ok(Self { store: store.clone(), reservation, written: TokenCounts::default(), written_at: Instant::now() })
    }

    /// Writes the count down if enough tokens or enough time have passed since it was last written.
    pub(crate) async fn checkpoint(&mut self, counts: TokenCounts) {
        let many = counts.output.saturating_sub(self.written.output) >= limits::USAGE_CHECKPOINT_TOKENS;
        let late = counts != self.written && self.written_at.elapsed() >= limits::USAGE_CHECKPOINT_INTERVAL;
        if !(many || late) {
            return;
        }
        (self.written, self.written_at) = (counts, Instant::now());
        // A checkpoint that fails costs nothing but precision after a crash.
        if let Err(error) = self.store.checkpoint(&self.reservation, counts).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "a usage checkpoint was not written");
        }
    }

    /// Closes the book.
    pub(crate) async fn settle(self, counts: TokenCounts, outcome: Outcome) {
        if let Err(error) = self.store.settle(self.reservation, counts, outcome).await {
            // The row stays open, and the next start closes it with its last checkpoint.
            tracing::error!(error = &error as &dyn std::error::Error, "a request could not be settled");
        }
    }
}
