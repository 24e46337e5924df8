//! Models: what a name resolves to for a caller's tenant.

use atelier_access::Granted;
use atelier_access::right::{CompleteAs, ReadModels};
use atelier_domain::{Digest, ModelName, Plan, TenantId, Timestamp, VersionNumber};

use crate::error::StoreError;
use crate::open::Store;

/// What may serve a request of a tenant. Only the store makes one, from a grant.
#[derive(Debug, Clone)]
pub struct Serving {
    model: String,
    adapter: Option<Digest>,
    version: Option<VersionNumber>,
    tenant: TenantId,
    plan: Plan,
    cache_salt: [u8; 32],
}

impl Serving {
    /// The model's name as the client gave it and sees it again.
    #[must_use]
    pub fn model(&self) -> &str {
        &self.model
    }

    /// The adapter to run with; none for the base alone.
    #[must_use]
    pub fn adapter(&self) -> Option<Digest> {
        self.adapter
    }

    /// The version that the adapter is.
    #[must_use]
    pub fn version(&self) -> Option<VersionNumber> {
        self.version
    }

    /// Whose request it is.
    #[must_use]
    pub fn tenant(&self) -> TenantId {
        self.tenant
    }

    /// What the tenant bought.
    #[must_use]
    pub fn plan(&self) -> Plan {
        self.plan
    }

    /// Keeps the tenant's cache entries apart from everybody else's.
    #[must_use]
    pub fn cache_salt(&self) -> [u8; 32] {
        self.cache_salt
    }
}

/// A model that a caller may name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelRecord {
    /// Its name.
    pub id: ModelName,
    /// Since when.
    pub created_at: Timestamp,
    /// Who made it: the installation or the tenant.
    pub owned_by: String,
}

/// Who owns what every tenant may use.
const OWNER: &str = "atelier";
const NOT_FOUND: StoreError = StoreError::NotFound { what: "model" };

impl Store {
    /// What this name means for the grant's tenant. The alias follows plan and `live`; a version is found only by the
    /// tenant that trained it, and only under a plan with a model of its own.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], alike for what does not exist and for what is another's.
    pub async fn resolve(&self, grant: &Granted<CompleteAs>, name: &ModelName) -> Result<Serving, StoreError> {
        let tenant = self.read_tenant(grant.tenant()).await?;
        let serves = match name {
            ModelName::Base => None,
            ModelName::Alias if tenant.plan.has_own_model() => self.read_live(tenant.id).await?,
            ModelName::Alias => None,
            ModelName::Version { tenant: owner, suffix, number } => {
                if *owner != tenant.name || !tenant.plan.has_own_model() {
                    return Err(NOT_FOUND);
                }
                let version = match self.read_version(tenant.id, *number).await {
                    Err(StoreError::NotFound { .. }) => return Err(NOT_FOUND),
                    version => version?,
                };
                if version.suffix != *suffix {
                    return Err(NOT_FOUND);
                }
                Some((version.number, version.digest))
            }
        };
        Ok(Serving {
            model: name.to_string(),
            adapter: serves.map(|(_, digest)| digest),
            version: serves.map(|(number, _)| number),
            tenant: tenant.id,
            plan: tenant.plan,
            cache_salt: tenant.cache_salt,
        })
    }

    /// Everything that the grant's tenant may name, `atelier` first, then the base, then its versions, newest first.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when the tenant is deleted.
    pub async fn models(&self, grant: &Granted<ReadModels>) -> Result<Vec<ModelRecord>, StoreError> {
        let tenant = self.read_tenant(grant.tenant()).await?;
        let ours = |id| ModelRecord { id, created_at: tenant.created_at, owned_by: OWNER.to_owned() };
        let mut models = vec![ours(ModelName::Alias), ours(ModelName::Base)];
        if tenant.plan.has_own_model() {
            for version in self.read_versions(tenant.id).await? {
                let (suffix, number) = (version.suffix, version.number);
                let id = ModelName::Version { tenant: tenant.name.clone(), suffix, number };
                models.push(ModelRecord { id, created_at: version.created_at, owned_by: tenant.name.to_string() });
            }
        }
        Ok(models)
    }
}
