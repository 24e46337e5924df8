//! Whose turn it is: exports on their way, few at once and one of each tenant.

use std::collections::HashSet;
use std::sync::Arc;

use atelier_domain::TenantId;
use atelier_domain::limits::EXPORTS_MAX;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::PlatformError;

/// Exports on their way, few at once and one of each tenant.
#[derive(Debug)]
pub(crate) struct Exports {
    all: Arc<Semaphore>,
    tenants: Arc<Mutex<HashSet<TenantId>>>,
}

/// A place among them; given back when dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    _place: OwnedSemaphorePermit,
    tenant: TenantId,
    tenants: Arc<Mutex<HashSet<TenantId>>>,
}

impl Default for Exports {
    fn default() -> Self {
        let all = Arc::new(Semaphore::new(EXPORTS_MAX));
        Self { all, tenants: Arc::default() }
    }
}

impl Exports {
    /// Takes a turn, where there is one left.
    pub(crate) fn begin(&self, tenant: TenantId) -> Result<Turn, PlatformError> {
        const RETRY_AFTER_MS: u64 = 10_000;
        let place = Arc::clone(&self.all).try_acquire_owned().map_err(|_| PlatformError::Overloaded {
            message: "Other organizations are being exported. Try again in a while.",
            retry_after_ms: RETRY_AFTER_MS,
        })?;
        if !self.tenants.lock().insert(tenant) {
            return Err(PlatformError::TooManyRequests {
                message: "An export of this organization is on its way already. Wait until it has ended.".to_owned(),
                retry_after_ms: RETRY_AFTER_MS,
            });
        }
        Ok(Turn { _place: place, tenant, tenants: Arc::clone(&self.tenants) })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.tenants.lock().remove(&self.tenant);
    }
}
