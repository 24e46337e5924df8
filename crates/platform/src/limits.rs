//! Who may run how much at once: caps on what is concurrent; rates and budgets come through the same type.

use std::collections::HashMap;
use std::sync::Arc;

use atelier_domain::{Plan, TenantId, limits};
use parking_lot::Mutex;

use crate::error::PlatformError;

/// When a tenant at its cap should come back: about the time of one short completion.
const RETRY_AFTER_MS: u64 = 250;

/// Counts what runs of one kind, by tenant.
#[derive(Debug)]
pub(crate) struct Limits {
    /// What is counted, for people.
    what: &'static str,
    /// How many of them one tenant may have.
    max: usize,
    running: Mutex<HashMap<TenantId, usize>>,
}

/// The right to run one more now; given back when dropped.
#[derive(Debug)]
pub struct Admission {
    limits: Arc<Limits>,
    tenant: TenantId,
}

impl Limits {
    /// Completion requests.
    pub(crate) fn of_requests() -> Self {
        Self::new("requests", limits::TENANT_REQUESTS_MAX)
    }

    /// Streams of run events.
    pub(crate) fn of_followers() -> Self {
        Self::new("streams of run events", limits::TENANT_FOLLOWERS_MAX)
    }

    fn new(what: &'static str, max: usize) -> Self {
        Self { what, max, running: Mutex::default() }
    }

    pub(crate) fn admit(self: &Arc<Self>, tenant: TenantId) -> Result<Admission, PlatformError> {
        let mut running = self.running.lock();
        let count = running.entry(tenant).or_default();
        if *count >= self.max {
            let message = format!(
                "Rate limit reached: {} {} of this organization are running, which is the most. Wait for one.",
                self.max, self.what
            );
            return Err(PlatformError::TooManyRequests { message, retry_after_ms: RETRY_AFTER_MS });
        }
        *count += 1;
        Ok(Admission { limits: Arc::clone(self), tenant })
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let mut running = self.limits.running.lock();
        if let Some(count) = running.get_mut(&self.tenant) {
            *count -= 1;
            if *count == 0 {
                running.remove(&self.tenant);
            }
        }
    }
}

/// A plan's share of a machine that is full, relative to the others.
pub(crate) fn weight(plan: Plan) -> u32 {
    match plan {
        Plan::Shared => 1,
        Plan::Tuned => 2,
        Plan::Dedicated => 4,
    }
}

#[cfg(test)]
mod tests {
    use atelier_domain::Timestamp;

    use super::*;
    use crate::ErrorKind;

    fn tenant(byte: u8) -> TenantId {
        TenantId::generate(Timestamp::from_seconds(1), [byte; 10])
    }

    #[test]
    fn a_tenant_at_its_cap_waits_and_others_do_not() {
        let limits = Arc::new(Limits::of_requests());
        let held: Vec<Admission> = (0..limits::TENANT_REQUESTS_MAX).map(|_| limits.admit(tenant(1)).unwrap()).collect();
        let refused = limits.admit(tenant(1)).unwrap_err();
        assert!(matches!(refused.kind(), ErrorKind::TooManyRequests { .. }));
        drop(limits.admit(tenant(2)).unwrap());
        drop(held);
        drop(limits.admit(tenant(1)).unwrap());
        assert!(limits.running.lock().is_empty());
    }
}
