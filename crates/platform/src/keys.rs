//! Keys of a tenant: making, listing, changing, revoking.

use std::time::Duration;

use atelier_access::{Caller, Granted, KeyOwner, right};
use atelier_domain::names::misleads;
use atelier_domain::{KeyId, Label, ProjectId, Role, Scopes, Timestamp, limits};
use atelier_store::{CreatedKey, KeyChange, KeyQuery, KeySummary, NewKey};

use crate::error::PlatformError;
use crate::models::tenant_of;
use crate::platform::Platform;

/// A key to be made.
#[derive(Debug, Clone)]
pub struct MakeKey {
    /// What people call it.
    pub name: Option<String>,
    /// What it may be.
    pub role: Role,
    /// What of the role's rights it has.
    pub scopes: Scopes,
    /// The project that its use is counted for.
    pub project: Option<ProjectId>,
    /// Who will hold it.
    pub owner: Option<KeyOwner>,
    /// How long it lives; for ever when absent.
    pub lifetime: Option<Duration>,
}

/// What of a key is to be another; what is absent stays.
#[derive(Debug, Clone, Default)]
pub struct ChangeKey {
    /// What people call it.
    pub name: Option<String>,
    /// What it may be.
    pub role: Option<Role>,
    /// What of the role's rights it has.
    pub scopes: Option<Scopes>,
    /// How long it lives from now on.
    pub lifetime: Option<Duration>,
}

impl Platform {
    /// Makes a key of the caller's tenant.
    ///
    /// # Errors
    /// When the caller may not, hands out more than its own key may, or asks for something that is not there.
    pub async fn create_key(&self, caller: &Caller, make: MakeKey) -> Result<CreatedKey, PlatformError> {
        let grant = keys_of(caller)?;
        if make.role == Role::Admin && make.project.is_some() {
            return Err(admin_in_project());
        }
        if matches!(make.owner, Some(KeyOwner::ServiceAccount(_))) && make.project.is_none() {
            return Err(machine_without_project());
        }
        let new = NewKey {
            name: make.name.as_deref().map(label).transpose()?,
            rights: grant.hand_out(make.role, make.scopes)?,
            project: make.project,
            owner: make.owner.or_else(|| answers_for(make.role, caller)),
            expires_at: make.lifetime.map(|lifetime| self.end_of(lifetime)).transpose()?,
        };
        Ok(self.store().create_key(&grant, new).await?)
    }

    /// A page of the keys of the caller's tenant, oldest first.
    ///
    /// # Errors
    /// When the caller may not.
    pub async fn list_keys(&self, caller: &Caller, query: KeyQuery) -> Result<Vec<KeySummary>, PlatformError> {
        Ok(self.store().keys(&keys_of(caller)?, query).await?)
    }

    /// One of them.
    ///
    /// # Errors
    /// When the caller may not, or there is none.
    pub async fn get_key(&self, caller: &Caller, key: KeyId) -> Result<KeySummary, PlatformError> {
        Ok(self.store().key(&keys_of(caller)?, key).await?)
    }

    /// Changes a key. What it may no longer do ends within a second, open streams included.
    ///
    /// # Errors
    /// When the caller may not, hands out more than its own key may, or there is no such living key.
    pub async fn update_key(
        &self,
        caller: &Caller,
        key: KeyId,
        change: ChangeKey,
    ) -> Result<KeySummary, PlatformError> {
        let grant = keys_of(caller)?;
        let present = self.store().key(&grant, key).await?;
        let usual = ProjectId::default_of(grant.tenant());
        if change.role == Some(Role::Admin) && present.project.is_some_and(|project| project != usual) {
            return Err(admin_in_project());
        }
        let rights = match (change.role, change.scopes) {
            (None, None) => None,
            (role, scopes) => Some(grant.hand_out(role.unwrap_or(present.role), scopes.unwrap_or(present.scopes))?),
        };
        let expires_at = change.lifetime.map(|lifetime| self.end_of(lifetime)).transpose()?;
        if expires_at.is_some() && present.expires_at < expires_at && present.expires_at.is_some() {
            // To let a key live on is to hand it out once more.
            grant.hand_out(present.role, present.scopes)?;
        }
        let owner = change.role.and_then(|role| answers_for(role, caller)).filter(|_| present.owner.is_none());
        let name = change.name.as_deref().map(label).transpose()?;
        let change = KeyChange { name, rights, expires_at, owner };
        Ok(self.store().update_key(&grant, key, change).await?)
    }

    /// Makes a key worthless within a second, open streams included.
    ///
    /// # Errors
    /// When the caller may not, or there is no such living key.
    pub async fn revoke_key(&self, caller: &Caller, key: KeyId) -> Result<(), PlatformError> {
        Ok(self.store().revoke_key(&keys_of(caller)?, key).await?)
    }

    /// The moment at which a key ends that lives so long from now on.
    pub(crate) fn end_of(&self, lifetime: Duration) -> Result<Timestamp, PlatformError> {
        if lifetime < Duration::from_secs(1) || lifetime > limits::KEY_LIFETIME_MAX {
            let message = format!(
                "'expires_in_seconds' lies between 1 and {}. Leave it out for a key that does not expire.",
                limits::KEY_LIFETIME_MAX.as_secs()
            );
            return Err(PlatformError::invalid(message, "expires_in_seconds", "invalid_value"));
        }
        Ok(self.store().now().plus(lifetime))
    }
}

/// Who holds an admin's key for whom nobody is named: the person who makes it, so that it ends when that person goes.
fn answers_for(role: Role, caller: &Caller) -> Option<KeyOwner> {
    caller.owner().filter(|_| role == Role::Admin)
}

fn admin_in_project() -> PlatformError {
    let message = "An admin manages the whole organization: its key belongs to no project.";
    PlatformError::invalid(message, "role", "invalid_value")
}

fn machine_without_project() -> PlatformError {
    let message = "A service account's key belongs to its project: name it in 'project_id'.";
    PlatformError::invalid(message, "project_id", "invalid_value")
}

pub(crate) fn keys_of(caller: &Caller) -> Result<Granted<right::ManageKeys>, PlatformError> {
    Ok(caller.grant(right::ManageKeys { tenant: tenant_of(caller)? })?)
}

pub(crate) fn label(text: &str) -> Result<Label, PlatformError> {
    if misleads(text) {
        let message = "A name has no letters that are not seen or that turn the direction of others.";
        return Err(PlatformError::invalid(message, "name", "invalid_value"));
    }
    text.parse().map_err(|error: atelier_domain::ParseError| {
        PlatformError::invalid(format!("{error}."), "name", "invalid_value")
    })
}
