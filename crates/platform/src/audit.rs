//! The audit trail: reading it, and checking that it is what was written.

use atelier_access::{Caller, right};
use atelier_store::{AuditPage, AuditQuery, ChainReport};

use crate::error::PlatformError;
use crate::models::tenant_of;
use crate::platform::Platform;

impl Platform {
    /// A page of the trail of the caller's tenant, newest first.
    ///
    /// # Errors
    /// When the caller may not, or there is no event to begin at.
    pub async fn list_audit(&self, caller: &Caller, query: &AuditQuery) -> Result<AuditPage, PlatformError> {
        let grant = caller.grant(right::ReadAudit { tenant: tenant_of(caller)? })?;
        Ok(self.store().audit(&grant, query).await?)
    }

    /// Whether the trail of the caller's tenant is what was written.
    ///
    /// # Errors
    /// When the caller may not.
    pub async fn verify_audit(&self, caller: &Caller) -> Result<Vec<ChainReport>, PlatformError> {
        let grant = caller.grant(right::ReadAudit { tenant: tenant_of(caller)? })?;
        let _turn = self.audit_checks().acquire().await.map_err(|_| PlatformError::closing())?;
        Ok(self.store().verify_audit(&grant).await?)
    }

    /// A page of what was done to the installation, its tenants and their keys, newest first.
    ///
    /// # Errors
    /// When the caller may not, or there is no event to begin at.
    pub async fn list_operator_audit(&self, caller: &Caller, query: &AuditQuery) -> Result<AuditPage, PlatformError> {
        Ok(self.store().operator_audit(&caller.grant(right::ReadOperatorAudit)?, query).await?)
    }

    /// Whether every trail there is, is what was written.
    ///
    /// # Errors
    /// When the caller may not.
    pub async fn verify_operator_audit(&self, caller: &Caller) -> Result<Vec<ChainReport>, PlatformError> {
        let grant = caller.grant(right::ReadOperatorAudit)?;
        let _turn = self.audit_checks().acquire().await.map_err(|_| PlatformError::closing())?;
        Ok(self.store().verify_operator_audit(&grant).await?)
    }
}
