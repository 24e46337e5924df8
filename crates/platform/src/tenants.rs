//! Tenants: finding, making, moving between plans, new keys, deleting.

use atelier_access::{Action, Caller, right};
use atelier_domain::limits::PAGE_ROWS_MAX;
use atelier_domain::{BucketName, Plan, Separation, TenantId, TenantName};
use atelier_store::{CreatedKey, Erasure, NewTenant, StoreError, TenantRecord};

use crate::error::PlatformError;
use crate::platform::Platform;

/// A new tenant and its first key.
#[derive(Debug)]
pub struct CreatedTenant {
    /// The tenant.
    pub tenant: TenantRecord,
    /// An admin's key. Show it once; only a hash of it is kept.
    pub key: CreatedKey,
}

/// What of a tenant is to be another; what is not named stays.
#[derive(Debug, Clone, Default)]
pub struct TenantChange {
    /// What it bought.
    pub plan: Option<Plan>,
    /// Where its rows are.
    pub separation: Option<Separation>,
    /// The bucket in which its blobs are: one of its own, or the one that tenants share.
    pub bucket: Option<Option<BucketName>>,
    /// Whether it may do nothing for now.
    pub is_suspended: Option<bool>,
}

impl Platform {
    /// The caller in a tenant's place: an operator acts for any, a tenant's caller names its own.
    ///
    /// # Errors
    /// When there is no such tenant, or it is not the caller's.
    pub async fn acting_for(&self, caller: &Caller, tenant: &str) -> Result<Caller, PlatformError> {
        let tenant = self.get_tenant(caller, tenant).await?;
        Ok(caller.acting_for(tenant.id)?)
    }

    /// Makes a tenant, kept apart as the database does.
    ///
    /// # Errors
    /// As [`Platform::create_tenant_apart`].
    pub async fn create_tenant(&self, caller: &Caller, name: &str, plan: Plan) -> Result<CreatedTenant, PlatformError> {
        self.create_tenant_apart(caller, name, plan, None, None).await
    }

    /// Makes a tenant, its rows kept apart in this way and its blobs in this bucket of its own.
    ///
    /// # Errors
    /// When the caller may not, the name is taken or not a name, the database cannot keep it apart so, or the bucket is
    /// somebody else's or of no use.
    pub async fn create_tenant_apart(
        &self,
        caller: &Caller,
        name: &str,
        plan: Plan,
        separation: Option<Separation>,
        bucket: Option<BucketName>,
    ) -> Result<CreatedTenant, PlatformError> {
        let grant = caller.grant(right::CreateTenant)?;
        if plan == Plan::Dedicated {
            return Err(not_offered());
        }
        let name: TenantName = name.parse().map_err(|error: atelier_domain::ParseError| {
            PlatformError::invalid(format!("{error}."), "name", "invalid_value")
        })?;
        let new = NewTenant { name, plan, separation, bucket };
        let (tenant, key) = self.store().make_tenant(&grant, new).await?;
        Ok(CreatedTenant { tenant, key })
    }

    /// All tenants.
    ///
    /// # Errors
    /// When the caller may not.
    pub async fn list_tenants(&self, caller: &Caller) -> Result<Vec<TenantRecord>, PlatformError> {
        Ok(self.store().tenants(&caller.grant(right::ListTenants)?).await?)
    }

    /// One tenant, by name or id.
    ///
    /// # Errors
    /// When there is no such tenant, or it is not the caller's to see.
    pub async fn get_tenant(&self, caller: &Caller, tenant: &str) -> Result<TenantRecord, PlatformError> {
        let record = if caller.is_operator() {
            self.find_as_operator(caller, tenant).await
        } else {
            self.find_own(caller, tenant).await
        };
        record.map_err(|error| match error {
            PlatformError::NotFound { .. } => PlatformError::NotFound {
                message: "No such organization, or not one of yours.".to_owned(),
                code: "organization_not_found",
            },
            other => other,
        })
    }

    /// Moves a tenant to another plan, its rows to another place where they are kept apart in another way, or its blobs to
    /// another bucket: its keys and its clients stay as they are. Or suspends it, and lets it go on.
    ///
    /// # Errors
    /// When the caller may not, there is no such tenant, or it cannot be moved there now; then nothing has changed.
    pub async fn update_tenant(
        &self,
        caller: &Caller,
        tenant: &str,
        change: TenantChange,
    ) -> Result<TenantRecord, PlatformError> {
        let mut record = self.get_tenant(caller, tenant).await?;
        let grant = caller.grant(right::ManageTenant { tenant: record.id })?;
        if change.plan == Some(Plan::Dedicated) {
            return Err(not_offered());
        }
        // What can fail comes first.
        if let Some(separation) = change.separation {
            record = self.store().move_tenant(&grant, separation).await?;
        }
        if let Some(bucket) = change.bucket {
            record = self.store().move_blobs(&grant, bucket).await?;
        }
        if let Some(plan) = change.plan {
            record = self.store().set_plan(&grant, plan).await?;
        }
        if let Some(is_suspended) = change.is_suspended {
            record = self.store().set_suspended(&grant, is_suspended).await?;
        }
        Ok(record)
    }

    /// Makes a new admin key and revokes the older ones.
    ///
    /// # Errors
    /// When the caller may not, its key is limited to some scopes, or there is no such tenant.
    pub async fn rotate_key(&self, caller: &Caller, tenant: &str) -> Result<CreatedKey, PlatformError> {
        let tenant = self.get_tenant(caller, tenant).await?.id;
        Ok(self.store().rotate_key(&caller.grant(right::ManageKeys { tenant })?).await?)
    }

    /// Erases a tenant: its keys, its data and its adapters; the certificate of it is the answer. The books stay the
    /// operator's.
    ///
    /// # Errors
    /// When the caller may not, or there is no such tenant.
    pub async fn delete_tenant(&self, caller: &Caller, tenant: &str) -> Result<Erasure, PlatformError> {
        let record = self.get_tenant(caller, tenant).await?;
        let grant = caller.grant(right::ManageTenant { tenant: record.id })?;
        let platform = self.clone();
        // In a task of its own: also where whoever asked goes away, nothing of the tenant stays in memory.
        let erased = self.tasks().spawn(async move {
            let erasure = platform.store().delete_tenant(&grant).await;
            platform.adapters().forget(record.id);
            erasure
        });
        Ok(erased.await.map_err(|_| PlatformError::closing())??)
    }

    /// The certificates of erased tenants, newest first, older than that of `after` if there is one.
    ///
    /// # Errors
    /// When the caller is no operator.
    pub async fn list_erasures(&self, caller: &Caller, after: Option<TenantId>) -> Result<Vec<Erasure>, PlatformError> {
        Ok(self.store().erasures(&caller.grant(right::ListTenants)?, after, PAGE_ROWS_MAX).await?)
    }

    async fn find_as_operator(&self, caller: &Caller, tenant: &str) -> Result<TenantRecord, PlatformError> {
        if let Ok(id) = tenant.parse::<TenantId>() {
            let tenants = self.list_tenants(caller).await?;
            return tenants.into_iter().find(|record| record.id == id).ok_or_else(PlatformError::not_found);
        }
        let name: TenantName = tenant.parse().map_err(|_| PlatformError::not_found())?;
        match self.store().tenant_by_name(&caller.grant(right::ListTenants)?, &name).await {
            Err(StoreError::NotFound { .. }) => Err(PlatformError::not_found()),
            found => Ok(found?),
        }
    }

    async fn find_own(&self, caller: &Caller, tenant: &str) -> Result<TenantRecord, PlatformError> {
        let Some(own) = caller.tenant() else { return Err(PlatformError::NotAuthenticated) };
        let record = self.store().tenant(&caller.grant(right::ReadTenant { tenant: own })?).await?;
        let is_named = record.name.as_str() == tenant || record.id.to_string() == tenant;
        // Whoever names another organization than its own is on record, be there one of that name or not.
        if is_named { Ok(record) } else { Err(caller.refuse(Action::ReadTenant).into()) }
    }
}

fn not_offered() -> PlatformError {
    let message = "The plan `dedicated` is not offered by this server yet. Choose `shared` or `tuned`.";
    PlatformError::invalid(message, "plan", "unsupported_plan")
}
