//! Tenants: making, changing, deleting.

use atelier_access::Granted;
use atelier_access::right::{CreateTenant, ListTenants, ManageTenant, ReadTenant};
use atelier_domain::{BucketName, Plan, Role, Separation, TenantId, TenantName, Timestamp};
use serde_json::json;

use crate::audit::events::{CREATE_TENANT, RESUME_TENANT, SET_PLAN, SUSPEND_TENANT};
use crate::data_keys::{self, NewGeneration, SealingState};
use crate::error::StoreError;
use crate::key_cache::announce;
use crate::keys::{CreatedKey, NewRow};
use crate::open::{Store, random_bytes};
use crate::organization::projects;
use crate::sql::{Row, Transaction, values};

/// A living tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantRecord {
    /// Its id.
    pub id: TenantId,
    /// Its name, unique among the living.
    pub name: TenantName,
    /// What it bought.
    pub plan: Plan,
    /// Where its rows are.
    pub separation: Separation,
    /// The bucket of its own in which its blobs are; none where they are with the others'.
    pub bucket: Option<BucketName>,
    /// When it was made.
    pub created_at: Timestamp,
    /// Since when it may do nothing.
    pub suspended_at: Option<Timestamp>,
    /// Keeps its cache entries apart from everybody else's.
    pub cache_salt: [u8; 32],
}

/// A tenant to be made.
#[derive(Debug, Clone)]
pub struct NewTenant {
    /// Its name.
    pub name: TenantName,
    /// What it bought.
    pub plan: Plan,
    /// Where its rows are to be; as the database does when absent.
    pub separation: Option<Separation>,
    /// The bucket of its own for its blobs; with the others' when absent.
    pub bucket: Option<BucketName>,
}

const NOT_FOUND: StoreError = StoreError::NotFound { what: "tenant" };

impl Store {
    /// Makes a tenant and its first key, an admin's, whose text is in the answer and nowhere else. It is kept apart as
    /// the database does unless told otherwise.
    ///
    /// # Errors
    /// [`StoreError::NameTaken`].
    pub async fn create_tenant(
        &self,
        grant: &Granted<CreateTenant>,
        name: TenantName,
        plan: Plan,
    ) -> Result<(TenantRecord, CreatedKey), StoreError> {
        self.create_tenant_apart(grant, name, plan, self.inner.tenants.separation_default()).await
    }

    /// The same, kept apart in this way.
    ///
    /// # Errors
    /// As [`Store::make_tenant`].
    pub async fn create_tenant_apart(
        &self,
        grant: &Granted<CreateTenant>,
        name: TenantName,
        plan: Plan,
        separation: Separation,
    ) -> Result<(TenantRecord, CreatedKey), StoreError> {
        self.make_tenant(grant, NewTenant { name, plan, separation: Some(separation), bucket: None }).await
    }

    /// The same, with all that can be said of it.
    ///
    /// # Errors
    /// [`StoreError::NameTaken`]; [`StoreError::UnsupportedSeparation`]; [`StoreError::OwnerNeeded`];
    /// [`StoreError::BucketsUnsupported`], [`StoreError::BucketTaken`] and [`StoreError::BucketUnusable`].
    pub async fn make_tenant(
        &self,
        grant: &Granted<CreateTenant>,
        tenant: NewTenant,
    ) -> Result<(TenantRecord, CreatedKey), StoreError> {
        const TAKEN: &str = "SELECT id FROM tenants WHERE name = $1 AND deleted_at IS NULL";
        let NewTenant { name, plan, separation, bucket } = tenant;
        let separation = separation.unwrap_or_else(|| self.inner.tenants.separation_default());
        if self.control().fetch_optional(TAKEN, values![&name]).await?.is_some() {
            return Err(StoreError::NameTaken);
        }
        if let Some(bucket) = &bucket {
            self.check_bucket(bucket).await?;
        }
        let now = self.now();
        let id = TenantId::generate(now, random_bytes()?);
        let cache_salt = random_bytes()?;
        let tenant =
            TenantRecord { id, name, plan, separation, bucket, created_at: now, suspended_at: None, cache_salt };
        // The place first: a place without a row is only litter, a row without a place would be a tenant that cannot work.
        self.inner.tenants.create(id, separation, now).await?;
        let inserted = self.insert_tenant(grant, &tenant).await;
        if inserted.is_err() {
            self.inner.tenants.discard(id, separation).await?;
        }
        Ok((tenant, inserted?))
    }

    async fn insert_tenant(
        &self,
        grant: &Granted<CreateTenant>,
        tenant: &TenantRecord,
    ) -> Result<CreatedKey, StoreError> {
        const SQL: &str = "INSERT INTO tenants (id, name, plan, cache_salt, separation, bucket, created_at)
            VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING";
        let mut transaction = self.control().begin().await?;
        let (salt, bucket) = (tenant.cache_salt.as_slice(), tenant.bucket.as_ref());
        if let Some(bucket) = bucket {
            self.bucket_is_free(&mut transaction, bucket).await?;
        }
        let row = values![tenant.id, &tenant.name, tenant.plan, salt, tenant.separation, bucket, tenant.created_at];
        if transaction.execute(SQL, row).await? == 0 {
            return Err(StoreError::NameTaken);
        }
        let data_key = NewGeneration::first(tenant.id, SealingState::Sealed)?;
        data_keys::insert(&mut transaction, &self.inner.root_key, data_key, tenant.created_at).await?;
        projects::insert_default(&mut transaction, tenant.id, tenant.created_at).await?;
        let made = self.insert_key(&mut transaction, NewRow::of(Some(tenant.id), Role::Admin)).await?;
        let event = CREATE_TENANT.of(tenant.id, json!({"plan": tenant.plan, "separation": tenant.separation}));
        let recorded = self.record_making(&mut transaction, grant, tenant.id, event).await?;
        self.commit(transaction, recorded).await?;
        Ok(made)
    }

    /// All living tenants, by name.
    ///
    /// # Errors
    /// What the database says.
    pub async fn tenants(&self, _grant: &Granted<ListTenants>) -> Result<Vec<TenantRecord>, StoreError> {
        const SQL: &str = "SELECT id, name, plan, separation, bucket, cache_salt, created_at, suspended_at FROM tenants
            WHERE deleted_at IS NULL ORDER BY name";
        let rows = self.control().fetch_all(SQL, values![]).await?;
        rows.iter().map(record_of).collect()
    }

    /// The living tenant of this name.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn tenant_by_name(
        &self,
        _grant: &Granted<ListTenants>,
        name: &TenantName,
    ) -> Result<TenantRecord, StoreError> {
        const SQL: &str = "SELECT id, name, plan, separation, bucket, cache_salt, created_at, suspended_at FROM tenants
            WHERE name = $1 AND deleted_at IS NULL";
        let row = self.control().fetch_optional(SQL, values![name]).await?.ok_or(NOT_FOUND)?;
        record_of(&row)
    }

    /// The grant's tenant.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] once it is deleted.
    pub async fn tenant(&self, grant: &Granted<ReadTenant>) -> Result<TenantRecord, StoreError> {
        self.read_tenant(grant.tenant()).await
    }

    /// Moves the tenant to another plan; its key and its clients stay as they are.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] once it is deleted.
    pub async fn set_plan(&self, grant: &Granted<ManageTenant>, plan: Plan) -> Result<TenantRecord, StoreError> {
        const SQL: &str = "UPDATE tenants SET plan = $2 WHERE id = $1 AND deleted_at IS NULL";
        let tenant = grant.tenant();
        let mut transaction = self.control_for(tenant).begin().await?;
        let before = self.living_tenant(&mut transaction, tenant).await?;
        transaction.execute(SQL, values![tenant, plan]).await?;
        let event = SET_PLAN.of(tenant, json!({"from": before.plan.as_str(), "to": plan.as_str()}));
        let recorded = self.record_administration(&mut transaction, grant, event).await?;
        self.commit(transaction, recorded).await?;
        Ok(TenantRecord { plan, ..before })
    }

    /// Suspends the tenant: within a second its keys are good for nothing, its open streams are cut and no worker takes
    /// up its jobs; its data stays. Or lets it go on, from where it was.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] once it is deleted.
    pub async fn set_suspended(
        &self,
        grant: &Granted<ManageTenant>,
        is_suspended: bool,
    ) -> Result<TenantRecord, StoreError> {
        const SUSPEND: &str = "UPDATE tenants SET suspended_at = $2 WHERE id = $1 AND deleted_at IS NULL";
        const HASTEN: &str = "UPDATE job_hints SET due_at = $2 WHERE tenant_id = $1 AND due_at > $2";
        let (tenant, now) = (grant.tenant(), self.now());
        let mut transaction = self.control_for(tenant).begin().await?;
        let before = self.living_tenant(&mut transaction, tenant).await?;
        if before.suspended_at.is_some() == is_suspended {
            return Ok(before);
        }
        let suspended_at = is_suspended.then_some(now);
        transaction.execute(SUSPEND, values![tenant, suspended_at]).await?;
        announce(&mut transaction).await?;
        if !is_suspended {
            // Whatever waits looks again at once; what is not due yet is put off again by the claim.
            transaction.execute(HASTEN, values![tenant, now]).await?;
        }
        let kind = if is_suspended { SUSPEND_TENANT } else { RESUME_TENANT };
        let recorded = self.record_administration(&mut transaction, grant, kind.of(tenant, json!({}))).await?;
        self.commit(transaction, recorded).await?;
        self.inner.keys.forget_all();
        self.inner.job_signal.notify_one();
        Ok(TenantRecord { suspended_at, ..before })
    }

    /// Since when the tenant may do nothing; none once it is deleted.
    pub(crate) async fn suspended_at(&self, tenant: TenantId) -> Result<Option<Timestamp>, StoreError> {
        const SQL: &str = "SELECT suspended_at FROM tenants WHERE id = $1 AND deleted_at IS NULL";
        match self.control_for(tenant).fetch_optional(SQL, values![tenant]).await? {
            Some(row) => row.optional_time("suspended_at"),
            None => Ok(None),
        }
    }

    pub(crate) async fn read_tenant(&self, tenant: TenantId) -> Result<TenantRecord, StoreError> {
        let row = self.control_for(tenant).fetch_optional(READ, values![tenant]).await?.ok_or(NOT_FOUND)?;
        record_of(&row)
    }

    pub(crate) async fn living_tenant(
        &self,
        transaction: &mut Transaction,
        tenant: TenantId,
    ) -> Result<TenantRecord, StoreError> {
        let row = transaction.fetch_optional(READ, values![tenant]).await?.ok_or(NOT_FOUND)?;
        record_of(&row)
    }

    /// The ids of all living tenants, for what the store does of itself.
    pub(crate) async fn living_tenant_ids(&self) -> Result<Vec<TenantId>, StoreError> {
        let rows = self.control().fetch_all("SELECT id FROM tenants WHERE deleted_at IS NULL", values![]).await?;
        rows.iter().map(|row| row.parsed("id")).collect()
    }
}

const READ: &str = "SELECT id, name, plan, separation, bucket, cache_salt, created_at, suspended_at FROM tenants
    WHERE id = $1 AND deleted_at IS NULL";

fn record_of(row: &Row) -> Result<TenantRecord, StoreError> {
    Ok(TenantRecord {
        id: row.parsed("id")?,
        name: row.parsed("name")?,
        plan: row.parsed("plan")?,
        separation: row.parsed("separation")?,
        bucket: row.optional_parsed("bucket")?,
        created_at: row.time("created_at")?,
        suspended_at: row.optional_time("suspended_at")?,
        cache_salt: row.bytes("cache_salt")?,
    })
}
