//! Lends tenants' adapters to an engine that knows digests only. A digest that no resolved request named cannot be
//! loaded: the map from digest to tenant is filled at resolution and nowhere else.

use std::collections::HashMap;
use std::sync::Arc;

use atelier_access::{Caller, right};
use atelier_domain::{Digest, TenantId, limits};
use atelier_engine::AdapterSource;
use atelier_model::{Adapter, AdapterFiles, Model};
use atelier_store::{Serving, Store};
use parking_lot::Mutex;
use tokio::runtime::Handle;

use crate::error::PlatformError;

/// Whose adapter a digest names, and whether it was trained on the base that is served.
#[derive(Debug, Clone, Copy)]
struct Loan {
    tenant: TenantId,
    fits_base: bool,
}

/// The engine's source of adapters.
pub(crate) struct Adapters {
    store: Store,
    base: Arc<Model>,
    runtime: Handle,
    loans: Mutex<HashMap<Digest, Loan>>,
}

impl Adapters {
    /// Must be called inside the runtime that the store runs on.
    pub(crate) fn new(store: Store, base: Arc<Model>) -> Self {
        Self { store, base, runtime: Handle::current(), loans: Mutex::default() }
    }

    /// Lets the engine load the adapter of what was resolved. False if it was trained on another base.
    pub(crate) async fn lend(&self, serving: &Serving, digest: Digest) -> Result<bool, PlatformError> {
        let known = self.loans.lock().get(&digest).copied();
        if let Some(loan) = known.filter(|loan| loan.tenant == serving.tenant()) {
            return Ok(loan.fits_base);
        }
        let tenant = serving.tenant();
        let grant = Caller::system("lend an adapter").grant(right::ReadVersions { tenant })?;
        let fits_base = match serving.version() {
            Some(number) => self.store.version(&grant, number).await?.base_digest == domain_digest(self.base.digest()),
            // Without a version nothing says which base it fits; loading it will.
            None => true,
        };
        let mut loans = self.loans.lock();
        if loans.len() >= limits::ADAPTER_GRANTS_MAX
            && let Some(other) = loans.keys().next().copied()
        {
            loans.remove(&other);
        }
        loans.insert(digest, Loan { tenant, fits_base });
        Ok(fits_base)
    }

    /// Ends every loan of a tenant that is gone.
    pub(crate) fn forget(&self, tenant: TenantId) {
        self.loans.lock().retain(|_, loan| loan.tenant != tenant);
    }

    /// An adapter's files as they are stored.
    pub(crate) async fn files(&self, tenant: TenantId, digest: Digest) -> Result<AdapterFiles, PlatformError> {
        let grant = Caller::system("load an adapter").grant(right::LoadAdapter { tenant })?;
        let blob = self.store.adapter(&grant, digest).await?;
        Ok(AdapterFiles { config: blob.config.to_vec(), weights: blob.weights.to_vec() })
    }

    /// An adapter in memory; one of another base is refused.
    pub(crate) async fn read(&self, tenant: TenantId, digest: Digest) -> Result<Adapter, PlatformError> {
        let files = self.files(tenant, digest).await?;
        Adapter::from_peft(&files, self.base.config(), self.base.digest()).map_err(PlatformError::Adapter)
    }
}

impl AdapterSource for Adapters {
    fn load(&self, digest: atelier_model::Digest) -> Result<Adapter, String> {
        let digest = domain_digest(digest);
        let loan = self.loans.lock().get(&digest).copied();
        let Some(loan) = loan else { return Err("it was not lent to the engine".to_owned()) };
        self.runtime.block_on(self.read(loan.tenant, digest)).map_err(|error| {
            // Logged here, where the cause is still known; the engine passes on a text.
            tracing::error!(error = &error as &dyn std::error::Error, "an adapter could not be loaded");
            error.to_string()
        })
    }
}

/// The store's word for a digest.
pub(crate) fn domain_digest(digest: atelier_model::Digest) -> Digest {
    Digest(digest.0)
}

/// The engine's word for a digest.
pub(crate) fn engine_digest(digest: Digest) -> atelier_model::Digest {
    atelier_model::Digest(digest.0)
}
