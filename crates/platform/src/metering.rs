//! The book of one request: opened before its first token, closed with what was really generated.

use std::time::Instant;

use atelier_access::{Caller, right};
use atelier_domain::{RequestId, TokenCounts, limits};
use atelier_store::{NewReservation, Outcome, Reservation, Serving, Store, StoreError};

use crate::error::PlatformError;

/// An open reservation. Whoever holds it must [`settle`](Self::settle) it; one that a crash leaves open is closed at
/// the next start with its last checkpoint.
#[derive(Debug)]
pub(crate) struct Meter {
    store: Store,
    reservation: Reservation,
    /// What is on disk.
    written: TokenCounts,
    /// When that was last tried.
    tried_at: Instant,
    /// Whether that failed.
    failed: bool,
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
        let (store, written) = (store.clone(), TokenCounts::default());
        Ok(Self { store, reservation, written, tried_at: Instant::now(), failed: false })
    }

    /// Writes the count down if enough tokens or enough time have passed since it was last written.
    ///
    /// # Errors
    /// When it could not be written, and so much was made since it last could that the request must end: a crash would
    /// lose that.
    pub(crate) async fn checkpoint(&mut self, counts: TokenCounts) -> Result<(), PlatformError> {
        let unwritten = counts.output.saturating_sub(self.written.output);
        let late = self.tried_at.elapsed() >= limits::USAGE_CHECKPOINT_INTERVAL;
        // What failed is not tried again at once: each token would.
        let many = unwritten >= limits::USAGE_CHECKPOINT_TOKENS && !self.failed;
        if many || (late && counts != self.written) {
            let written = self.store.checkpoint(&self.reservation, counts).await;
            (self.tried_at, self.failed) = (Instant::now(), written.is_err());
            match written {
                Ok(()) => self.written = counts,
                Err(StoreError::LedgerBehind) => {}
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "a usage checkpoint was not written");
                }
            }
        }
        if self.failed && unwritten > limits::USAGE_UNWRITTEN_TOKENS_MAX {
            return Err(StoreError::LedgerBehind.into());
        }
        Ok(())
    }

    /// Closes the book.
    ///
    /// # Errors
    /// When that is not on disk yet: it will be as soon as it can be written, but nobody may be told so before.
    pub(crate) async fn settle(self, counts: TokenCounts, outcome: Outcome) -> Result<(), PlatformError> {
        let settled = self.store.settle(self.reservation, counts, outcome).await;
        match &settled {
            // The ledger says so itself, once for all.
            Ok(()) | Err(StoreError::LedgerBehind) => {}
            // The row stays open, and the next start closes it with its last checkpoint.
            Err(error) => tracing::error!(error = error as &dyn std::error::Error, "a request could not be settled"),
        }
        Ok(settled?)
    }
}
