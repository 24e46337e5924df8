//! What a tenant used, from the ledger.

use atelier_access::{Caller, right};
use atelier_store::{UsagePage, UsageQuery};

use crate::error::PlatformError;
use crate::models::tenant_of;
use crate::platform::Platform;

impl Platform {
    /// Tokens and requests of the caller's tenant by time bucket.
    ///
    /// # Errors
    /// When the caller may not, or names no tenant.
    pub async fn usage_completions(&self, caller: &Caller, query: &UsageQuery) -> Result<UsagePage, PlatformError> {
        let grant = caller.grant(right::ReadUsage { tenant: tenant_of(caller)? })?;
        Ok(self.store().usage(&grant, query).await?)
    }
}
