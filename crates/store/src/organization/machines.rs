//! Service accounts: machines of a project, and their first keys.

use atelier_access::right::{Appoint, ManageOrganization, ReadOrganization};
use atelier_access::{Granted, KeyOwner};
use atelier_domain::limits::SERVICE_ACCOUNTS_PER_TENANT_MAX;
use atelier_domain::{Label, ProjectId, ProjectRole, ServiceAccountId, TenantId, Timestamp};
use serde_json::json;

use super::{Page, PageQuery, projects, sees};
use crate::audit::events::{CREATE_SERVICE_ACCOUNT, DELETE_SERVICE_ACCOUNT, UPDATE_SERVICE_ACCOUNT};
use crate::error::StoreError;
use crate::key_cache::announce;
use crate::keys::{CreatedKey, NewRow};
use crate::open::{Store, random_bytes};
use crate::sql::{Row, Transaction, values};

const NOT_FOUND: StoreError = StoreError::NotFound { what: "service account" };

/// How a machine is stored that is nothing to its project.
const NO_ROLE: &str = "none";

/// A machine of a project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceAccountRecord {
    /// Its id.
    pub id: ServiceAccountId,
    /// Where it belongs.
    pub project: ProjectId,
    /// What people call it.
    pub name: Label,
    /// What it is to the project; nothing for one that was made without a key.
    pub role: Option<ProjectRole>,
    /// When it was made.
    pub created_at: Timestamp,
}

/// A machine to be made.
#[derive(Debug, Clone)]
pub struct NewServiceAccount {
    /// Where it belongs.
    pub project: ProjectId,
    /// What people call it.
    pub name: Label,
    /// Its first key, if it is to have one.
    pub key: Option<NewMachineKey>,
}

/// The first key of a machine.
#[derive(Debug, Clone, Copy)]
pub struct NewMachineKey {
    /// When it ends by itself.
    pub expires_at: Option<Timestamp>,
}

impl Store {
    /// Makes a machine of a project, with a key unless it is to have none; the key's text is in the answer and nowhere
    /// else.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when there is no such project; [`super::OrganizationConflict::ProjectArchived`];
    /// [`StoreError::TooMany`].
    pub async fn create_service_account(
        &self,
        grant: &Granted<Appoint>,
        new: NewServiceAccount,
    ) -> Result<(ServiceAccountRecord, Option<CreatedKey>), StoreError> {
        let (tenant, now) = (grant.tenant(), self.now());
        let mut transaction = self.control_for(tenant).begin().await?;
        projects::living(&mut transaction, tenant, new.project).await?;
        let record = ServiceAccountRecord {
            id: ServiceAccountId::generate(now, random_bytes()?),
            project: new.project,
            name: new.name,
            role: new.key.map(|_| ProjectRole::Member),
            created_at: now,
        };
        insert(&mut transaction, tenant, &record).await?;
        let mut made = None;
        if let Some(key) = new.key {
            self.check_room_for_key(&mut transaction, tenant).await?;
            let rights = grant.hand_to_machine();
            let row = NewRow {
                name: Some(record.name.clone()),
                scopes: rights.scopes(),
                project: Some(record.project),
                owner: Some(KeyOwner::ServiceAccount(record.id)),
                expires_at: key.expires_at,
                ..NewRow::of(Some(tenant), rights.role())
            };
            made = Some(self.insert_key(&mut transaction, row).await?);
        }
        let detail = json!({
            "project": record.project.to_string(),
            "role": role_text(record.role),
            "key": made.as_ref().map(|made| made.summary.id.to_string()),
        });
        let event = CREATE_SERVICE_ACCOUNT.of(record.id, detail);
        let recorded = self.record_administration(&mut transaction, grant, event).await?;
        self.commit(transaction, recorded).await?;
        Ok((record, made))
    }

    /// The machines of a project, oldest first.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when there is no such project, or none to begin after in it.
    pub async fn service_accounts(
        &self,
        grant: &Granted<ReadOrganization>,
        project: ProjectId,
        query: PageQuery<ServiceAccountId>,
    ) -> Result<Page<ServiceAccountRecord>, StoreError> {
        const SQL: &str = "SELECT id, project_id, name, role, created_at FROM service_accounts
            WHERE tenant_id = $1 AND project_id = $2 AND id > $3 AND removed_at IS NULL ORDER BY id LIMIT $4";
        let tenant = grant.tenant();
        self.project(grant, project).await?;
        if let Some(after) = query.after {
            self.service_account(grant, project, after).await?;
        }
        let asked = values![tenant, project, query.after_text(), query.rows()];
        query.page(self.control_for(tenant).fetch_all(SQL, asked).await?, record_of)
    }

    /// One of them.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn service_account(
        &self,
        grant: &Granted<ReadOrganization>,
        project: ProjectId,
        account: ServiceAccountId,
    ) -> Result<ServiceAccountRecord, StoreError> {
        sees(grant, project)?;
        let tenant = grant.tenant();
        let row = self.control_for(tenant).fetch_optional(READ, values![tenant, project, account]).await?;
        record_of(&row.ok_or(NOT_FOUND)?)
    }

    /// Calls a machine otherwise, or makes it something else to its project; what is absent stays.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`super::OrganizationConflict::ProjectArchived`].
    pub async fn update_service_account(
        &self,
        grant: &Granted<Appoint>,
        project: ProjectId,
        account: ServiceAccountId,
        name: Option<Label>,
        role: Option<ProjectRole>,
    ) -> Result<ServiceAccountRecord, StoreError> {
        const SQL: &str = "UPDATE service_accounts SET name = $3, role = $4 WHERE tenant_id = $1 AND id = $2";
        let tenant = grant.tenant();
        let mut transaction = self.control_for(tenant).begin().await?;
        projects::living(&mut transaction, tenant, project).await?;
        let before = present(&mut transaction, tenant, project, account).await?;
        let after = ServiceAccountRecord { name: name.unwrap_or(before.name), role: role.or(before.role), ..before };
        transaction.execute(SQL, values![tenant, account, &after.name, role_text(after.role)]).await?;
        let event = UPDATE_SERVICE_ACCOUNT.of(account, json!({"role": role_text(after.role)}));
        let recorded = self.record_administration(&mut transaction, grant, event).await?;
        self.commit(transaction, recorded).await?;
        Ok(after)
    }

    /// Removes a machine: its keys are worthless within a second and everywhere.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn remove_service_account(
        &self,
        grant: &Granted<ManageOrganization>,
        project: ProjectId,
        account: ServiceAccountId,
    ) -> Result<(), StoreError> {
        const REMOVE: &str = "UPDATE service_accounts SET removed_at = $3 WHERE tenant_id = $1 AND id = $2";
        const REVOKE: &str =
            "UPDATE keys SET revoked_at = $3 WHERE tenant_id = $1 AND service_account_id = $2 AND revoked_at IS NULL";
        let (tenant, now) = (grant.tenant(), self.now());
        let mut transaction = self.control_for(tenant).begin().await?;
        present(&mut transaction, tenant, project, account).await?;
        transaction.execute(REMOVE, values![tenant, account, now]).await?;
        let keys = transaction.execute(REVOKE, values![tenant, account, now]).await?;
        let event = DELETE_SERVICE_ACCOUNT.of(account, json!({"keys": keys}));
        let recorded = self.record_administration(&mut transaction, grant, event).await?;
        announce(&mut transaction).await?;
        self.commit(transaction, recorded).await?;
        self.inner.keys.forget_all();
        Ok(())
    }
}

const READ: &str = "SELECT id, project_id, name, role, created_at FROM service_accounts
    WHERE tenant_id = $1 AND project_id = $2 AND id = $3 AND removed_at IS NULL";

async fn present(
    transaction: &mut Transaction,
    tenant: TenantId,
    project: ProjectId,
    account: ServiceAccountId,
) -> Result<ServiceAccountRecord, StoreError> {
    let row = transaction.fetch_optional(READ, values![tenant, project, account]).await?.ok_or(NOT_FOUND)?;
    record_of(&row)
}

async fn insert(
    transaction: &mut Transaction,
    tenant: TenantId,
    record: &ServiceAccountRecord,
) -> Result<(), StoreError> {
    const COUNT: &str = "SELECT COUNT(*) AS present FROM service_accounts WHERE tenant_id = $1 AND removed_at IS NULL";
    const SQL: &str = "INSERT INTO service_accounts (tenant_id, id, project_id, name, role, created_at)
        VALUES ($1, $2, $3, $4, $5, $6)";
    let present = transaction.fetch_one(COUNT, values![tenant]).await?.count("present")?;
    if present >= SERVICE_ACCOUNTS_PER_TENANT_MAX as u64 {
        return Err(StoreError::TooMany { what: "service accounts", limit: SERVICE_ACCOUNTS_PER_TENANT_MAX });
    }
    let row = values![tenant, record.id, record.project, &record.name, role_text(record.role), record.created_at];
    transaction.execute(SQL, row).await.map(|_| ())
}

fn role_text(role: Option<ProjectRole>) -> &'static str {
    role.map_or(NO_ROLE, ProjectRole::as_str)
}

fn record_of(row: &Row) -> Result<ServiceAccountRecord, StoreError> {
    let role = match row.text("role")?.as_str() {
        NO_ROLE => None,
        _ => Some(row.parsed("role")?),
    };
    Ok(ServiceAccountRecord {
        id: row.parsed("id")?,
        project: row.parsed("project_id")?,
        name: row.parsed("name")?,
        role,
        created_at: row.time("created_at")?,
    })
}
