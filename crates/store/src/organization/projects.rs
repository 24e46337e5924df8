//! Projects: making, naming, archiving.

use atelier_access::Granted;
use atelier_access::right::{ManageOrganization, ReadOrganization};
use atelier_domain::limits::PROJECTS_PER_TENANT_MAX;
use atelier_domain::{Label, ProjectId, TenantId, Timestamp};
use serde_json::json;

use super::{OrganizationConflict, Page, PageQuery, sees};
use crate::audit::events::{ARCHIVE_PROJECT, CREATE_PROJECT, UPDATE_PROJECT};
use crate::error::StoreError;
use crate::key_cache::announce;
use crate::open::{Store, random_bytes};
use crate::sql::{Row, Transaction, values};

pub(super) const NOT_FOUND: StoreError = StoreError::NotFound { what: "project" };

/// What the project is called that a tenant has from its beginning.
const DEFAULT_NAME: &str = "Default project";

/// A project: a part of a tenant that keys, their use and their holders are told apart by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProjectRecord {
    /// Its id.
    pub id: ProjectId,
    /// What people call it.
    pub name: Label,
    /// When it was made.
    pub created_at: Timestamp,
    /// Since when it is closed.
    pub archived_at: Option<Timestamp>,
}

impl Store {
    /// Makes a project.
    ///
    /// # Errors
    /// [`StoreError::TooMany`]; [`StoreError::NotFound`] once the tenant is deleted.
    pub async fn create_project(
        &self,
        grant: &Granted<ManageOrganization>,
        name: Label,
    ) -> Result<ProjectRecord, StoreError> {
        const COUNT: &str = "SELECT COUNT(*) AS living FROM projects WHERE tenant_id = $1 AND archived_at IS NULL";
        let (tenant, now) = (grant.tenant(), self.now());
        let mut transaction = self.control_for(tenant).begin().await?;
        self.living_tenant(&mut transaction, tenant).await?;
        let living = transaction.fetch_one(COUNT, values![tenant]).await?.count("living")?;
        if living >= PROJECTS_PER_TENANT_MAX as u64 {
            return Err(StoreError::TooMany { what: "projects", limit: PROJECTS_PER_TENANT_MAX });
        }
        let id = ProjectId::generate(now, random_bytes()?);
        let project = ProjectRecord { id, name, created_at: now, archived_at: None };
        insert(&mut transaction, tenant, &project).await?;
        let recorded = self.record_administration(&mut transaction, grant, CREATE_PROJECT.of(id, json!({}))).await?;
        self.commit(transaction, recorded).await?;
        Ok(project)
    }

    /// The tenant's projects, oldest first: those that are not archived, or all.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when the page is to begin after a project that is not there.
    pub async fn projects(
        &self,
        grant: &Granted<ReadOrganization>,
        query: PageQuery<ProjectId>,
        with_archived: bool,
    ) -> Result<Page<ProjectRecord>, StoreError> {
        const SQL: &str = "SELECT id, name, created_at, archived_at FROM projects
            WHERE tenant_id = $1 AND id > $2 AND ($3 = '' OR id = $3) AND ($4 = 1 OR archived_at IS NULL)
            ORDER BY id LIMIT $5";
        let tenant = grant.tenant();
        if let Some(after) = query.after {
            self.project(grant, after).await?;
        }
        let own = grant.project().map(|project| project.to_string()).unwrap_or_default();
        let asked = values![tenant, query.after_text(), own, i64::from(with_archived), query.rows()];
        query.page(self.control_for(tenant).fetch_all(SQL, asked).await?, record_of)
    }

    /// One of them, archived or not.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn project(
        &self,
        grant: &Granted<ReadOrganization>,
        project: ProjectId,
    ) -> Result<ProjectRecord, StoreError> {
        sees(grant, project)?;
        let row = self.control_for(grant.tenant()).fetch_optional(READ, values![grant.tenant(), project]).await?;
        record_of(&row.ok_or(NOT_FOUND)?)
    }

    /// Calls a project otherwise.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`OrganizationConflict::ProjectArchived`].
    pub async fn rename_project(
        &self,
        grant: &Granted<ManageOrganization>,
        project: ProjectId,
        name: Label,
    ) -> Result<ProjectRecord, StoreError> {
        const SQL: &str = "UPDATE projects SET name = $3 WHERE tenant_id = $1 AND id = $2";
        let tenant = grant.tenant();
        let mut transaction = self.control_for(tenant).begin().await?;
        let before = living(&mut transaction, tenant, project).await?;
        transaction.execute(SQL, values![tenant, project, &name]).await?;
        let event = UPDATE_PROJECT.of(project, json!({}));
        let recorded = self.record_administration(&mut transaction, grant, event).await?;
        self.commit(transaction, recorded).await?;
        Ok(ProjectRecord { name, ..before })
    }

    /// Closes a project for good: its keys are worthless within a second and everywhere, also for what is open under
    /// them. What they used stays in the books.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`OrganizationConflict::DefaultProject`]; [`OrganizationConflict::ProjectArchived`] when
    /// it is closed already.
    pub async fn archive_project(
        &self,
        grant: &Granted<ManageOrganization>,
        project: ProjectId,
    ) -> Result<ProjectRecord, StoreError> {
        const ARCHIVE: &str = "UPDATE projects SET archived_at = $3 WHERE tenant_id = $1 AND id = $2";
        const REVOKE: &str =
            "UPDATE keys SET revoked_at = $3 WHERE tenant_id = $1 AND project_id = $2 AND revoked_at IS NULL";
        let (tenant, now) = (grant.tenant(), self.now());
        if project == ProjectId::default_of(tenant) {
            return Err(OrganizationConflict::DefaultProject.into());
        }
        let mut transaction = self.control_for(tenant).begin().await?;
        let before = living(&mut transaction, tenant, project).await?;
        transaction.execute(ARCHIVE, values![tenant, project, now]).await?;
        let keys = transaction.execute(REVOKE, values![tenant, project, now]).await?;
        let event = ARCHIVE_PROJECT.of(project, json!({"keys": keys}));
        let recorded = self.record_administration(&mut transaction, grant, event).await?;
        announce(&mut transaction).await?;
        self.commit(transaction, recorded).await?;
        self.inner.keys.forget_all();
        Ok(ProjectRecord { archived_at: Some(now), ..before })
    }
}

const READ: &str = "SELECT id, name, created_at, archived_at FROM projects WHERE tenant_id = $1 AND id = $2";

/// The project that a new tenant begins with.
pub(crate) async fn insert_default(
    transaction: &mut Transaction,
    tenant: TenantId,
    now: Timestamp,
) -> Result<(), StoreError> {
    let name = DEFAULT_NAME.parse().map_err(|_| StoreError::corrupt("the default project's name"))?;
    let project = ProjectRecord { id: ProjectId::default_of(tenant), name, created_at: now, archived_at: None };
    insert(transaction, tenant, &project).await
}

async fn insert(transaction: &mut Transaction, tenant: TenantId, project: &ProjectRecord) -> Result<(), StoreError> {
    const SQL: &str = "INSERT INTO projects (tenant_id, id, name, created_at) VALUES ($1, $2, $3, $4)";
    transaction.execute(SQL, values![tenant, project.id, &project.name, project.created_at]).await.map(|_| ())
}

/// A project that is there and not archived.
pub(super) async fn living(
    transaction: &mut Transaction,
    tenant: TenantId,
    project: ProjectId,
) -> Result<ProjectRecord, StoreError> {
    let row = transaction.fetch_optional(READ, values![tenant, project]).await?.ok_or(NOT_FOUND)?;
    let project = record_of(&row)?;
    if project.archived_at.is_some() { Err(OrganizationConflict::ProjectArchived.into()) } else { Ok(project) }
}

fn record_of(row: &Row) -> Result<ProjectRecord, StoreError> {
    Ok(ProjectRecord {
        id: row.parsed("id")?,
        name: row.parsed("name")?,
        created_at: row.time("created_at")?,
        archived_at: row.optional_time("archived_at")?,
    })
}
