//! Model names: which a caller may use, and what a name means for it today.

use atelier_access::{Caller, right};
use atelier_domain::{ModelName, TenantId, Timestamp};
use atelier_engine::AdapterSet;
use atelier_store::{Serving, StoreError};

use crate::adapters;
use crate::error::PlatformError;
use crate::platform::Platform;

/// A model as a caller sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelInfo {
    /// The name to send.
    pub id: String,
    /// When it came to be.
    pub created: Timestamp,
    /// `atelier`, or the tenant's name.
    pub owned_by: String,
}

/// What a request runs with.
#[derive(Debug)]
pub(crate) struct Resolved {
    pub(crate) serving: Serving,
    pub(crate) adapters: AdapterSet,
}

impl Platform {
    /// The models that the caller may use.
    ///
    /// # Errors
    /// When the caller may not ask, or names no tenant.
    pub async fn list_models(&self, caller: &Caller) -> Result<Vec<ModelInfo>, PlatformError> {
        let grant = caller.grant(right::ReadModels { tenant: tenant_of(caller)? })?;
        let models = self.store().models(&grant).await?;
        let info = |model: atelier_store::ModelRecord| ModelInfo {
            id: model.id.to_string(),
            created: model.created_at,
            owned_by: model.owned_by,
        };
        Ok(models.into_iter().map(info).collect())
    }

    /// One of them.
    ///
    /// # Errors
    /// As for the list; and when the name is none of it.
    pub async fn get_model(&self, caller: &Caller, id: &str) -> Result<ModelInfo, PlatformError> {
        let models = self.list_models(caller).await?;
        models.into_iter().find(|model| model.id == id).ok_or_else(|| PlatformError::model_not_found(id))
    }

    /// Name and caller → what may serve it.
    pub(crate) async fn resolve(&self, caller: &Caller, model: &str) -> Result<Resolved, PlatformError> {
        let grant = caller.grant(right::CompleteAs { tenant: tenant_of(caller)? })?;
        let name: ModelName = model.parse().map_err(|_| PlatformError::model_not_found(model))?;
        let serving = match self.store().resolve(&grant, &name).await {
            Ok(serving) => serving,
            Err(StoreError::NotFound { .. }) => return Err(PlatformError::model_not_found(model)),
            Err(error) => return Err(error.into()),
        };
        let Some(digest) = serving.adapter() else { return Ok(Resolved { serving, adapters: AdapterSet::none() }) };
        if self.adapters().lend(&serving, digest).await? {
            let adapters = AdapterSet::of(&[adapters::engine_digest(digest)]);
            return Ok(Resolved { serving, adapters });
        }
        if matches!(name, ModelName::Version { .. }) {
            return Err(PlatformError::Conflict {
                message: format!(
                    "The model `{model}` was trained on another base than the one that is served now. Learn again, or \
                     ask for `{}`.",
                    ModelName::Base
                ),
                code: "other_base",
            });
        }
        tracing::warn!(
            version = serving.version().map(atelier_domain::VersionNumber::get),
            "the live version was trained on another base: the base alone answers"
        );
        Ok(Resolved { serving, adapters: AdapterSet::none() })
    }
}

/// The tenant that the caller belongs to or acts for.
pub(crate) fn tenant_of(caller: &Caller) -> Result<TenantId, PlatformError> {
    match caller.tenant() {
        Some(tenant) => Ok(tenant),
        None if caller.is_anonymous() => Err(PlatformError::NotAuthenticated),
        None => Err(PlatformError::invalid(
            "An operator's key must say for which tenant it acts: send the header OpenAI-Organization with the \
             tenant's name or id.",
            None,
            "organization_required",
        )),
    }
}
