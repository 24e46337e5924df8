//! Which people belong to a project, and as what.

use atelier_access::Granted;
use atelier_access::right::{Appoint, ManageOrganization, ReadOrganization};
use atelier_domain::{Email, Label, ProjectId, ProjectRole, TenantId, Timestamp, UserId};
use serde_json::json;

use super::{OrganizationConflict, Page, PageQuery, belonging, projects, sees, users};
use crate::audit::events::{ADD_PROJECT_USER, DELETE_PROJECT_USER, UPDATE_PROJECT_USER};
use crate::error::StoreError;
use crate::key_cache::announce;
use crate::open::Store;
use crate::sql::{Row, Transaction, values};

/// A person in a project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberRecord {
    /// The person.
    pub user: UserId,
    /// The address that it is known by.
    pub email: Email,
    /// What it is called.
    pub name: Option<Label>,
    /// What it is to the project.
    pub role: ProjectRole,
    /// Since when it belongs to it.
    pub added_at: Timestamp,
}

/// A person, by id or by address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Person {
    /// By id.
    Id(UserId),
    /// By address.
    Email(Email),
}

impl Store {
    /// Adds one of the tenant's people to a project.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when one of them is not there; [`OrganizationConflict::AlreadyMember`];
    /// [`OrganizationConflict::ProjectArchived`].
    pub async fn add_project_user(
        &self,
        grant: &Granted<Appoint>,
        project: ProjectId,
        person: Person,
        role: ProjectRole,
    ) -> Result<MemberRecord, StoreError> {
        let (tenant, now) = (grant.tenant(), self.now());
        let mut transaction = self.control_for(tenant).begin().await?;
        projects::living(&mut transaction, tenant, project).await?;
        let user = match person {
            Person::Id(user) => users::present(&mut transaction, tenant, user).await?,
            Person::Email(email) => {
                users::present_by_email(&mut transaction, tenant, &email).await?.ok_or(users::NOT_FOUND)?
            }
        };
        if !insert(&mut transaction, tenant, project, user.id, role, now).await? {
            return Err(OrganizationConflict::AlreadyMember.into());
        }
        let detail = json!({"user": user.id.to_string(), "role": role.as_str()});
        let event = ADD_PROJECT_USER.of(project, detail);
        let recorded = self.record_administration(&mut transaction, grant, event).await?;
        self.commit(transaction, recorded).await?;
        Ok(MemberRecord { user: user.id, email: user.email, name: user.name, role, added_at: now })
    }

    /// The people of a project, the oldest of the tenant first.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when there is no such project, or nobody to begin after in it.
    pub async fn project_users(
        &self,
        grant: &Granted<ReadOrganization>,
        project: ProjectId,
        query: PageQuery<UserId>,
    ) -> Result<Page<MemberRecord>, StoreError> {
        const SQL: &str = "SELECT user_id, email, name, project_users.role AS role, project_users.added_at AS added_at
            FROM project_users JOIN users ON users.tenant_id = project_users.tenant_id AND users.id = project_users.user_id
            WHERE project_users.tenant_id = $1 AND project_id = $2 AND user_id > $3 ORDER BY user_id LIMIT $4";
        let tenant = grant.tenant();
        self.project(grant, project).await?;
        if let Some(after) = query.after {
            self.project_user(grant, project, after).await?;
        }
        let asked = values![tenant, project, query.after_text(), query.rows()];
        query.page(self.control_for(tenant).fetch_all(SQL, asked).await?, record_of)
    }

    /// One of them.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn project_user(
        &self,
        grant: &Granted<ReadOrganization>,
        project: ProjectId,
        user: UserId,
    ) -> Result<MemberRecord, StoreError> {
        sees(grant, project)?;
        let tenant = grant.tenant();
        let row = self.control_for(tenant).fetch_optional(READ, values![tenant, project, user]).await?;
        record_of(&row.ok_or(users::NOT_FOUND)?)
    }

    /// Makes a person something else to a project.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`OrganizationConflict::ProjectArchived`].
    pub async fn set_project_user_role(
        &self,
        grant: &Granted<Appoint>,
        project: ProjectId,
        user: UserId,
        role: ProjectRole,
    ) -> Result<MemberRecord, StoreError> {
        const SQL: &str =
            "UPDATE project_users SET role = $4 WHERE tenant_id = $1 AND project_id = $2 AND user_id = $3";
        let tenant = grant.tenant();
        let mut transaction = self.control_for(tenant).begin().await?;
        projects::living(&mut transaction, tenant, project).await?;
        let before = member(&mut transaction, tenant, project, user).await?;
        transaction.execute(SQL, values![tenant, project, user, role]).await?;
        let detail = json!({"user": user.to_string(), "role": role.as_str(), "from": before.role.as_str()});
        let event = UPDATE_PROJECT_USER.of(project, detail);
        let recorded = self.record_administration(&mut transaction, grant, event).await?;
        self.commit(transaction, recorded).await?;
        Ok(MemberRecord { role, ..before })
    }

    /// Takes a person out of a project: its keys there are worthless within a second, unless it is an owner of the
    /// tenant, whose keys go anywhere.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`OrganizationConflict::ProjectArchived`].
    pub async fn remove_project_user(
        &self,
        grant: &Granted<ManageOrganization>,
        project: ProjectId,
        user: UserId,
    ) -> Result<(), StoreError> {
        const SQL: &str = "DELETE FROM project_users WHERE tenant_id = $1 AND project_id = $2 AND user_id = $3";
        let tenant = grant.tenant();
        let mut transaction = self.control_for(tenant).begin().await?;
        projects::living(&mut transaction, tenant, project).await?;
        member(&mut transaction, tenant, project, user).await?;
        transaction.execute(SQL, values![tenant, project, user]).await?;
        let keys = belonging::end_what_exceeds(&mut transaction, tenant, user, self.now()).await?;
        let event = DELETE_PROJECT_USER.of(project, json!({"user": user.to_string(), "keys": keys}));
        let recorded = self.record_administration(&mut transaction, grant, event).await?;
        announce(&mut transaction).await?;
        self.commit(transaction, recorded).await?;
        self.inner.keys.forget_all();
        Ok(())
    }
}

const READ: &str = "SELECT user_id, email, name, project_users.role AS role, project_users.added_at AS added_at
    FROM project_users JOIN users ON users.tenant_id = project_users.tenant_id AND users.id = project_users.user_id
    WHERE project_users.tenant_id = $1 AND project_id = $2 AND user_id = $3";

async fn member(
    transaction: &mut Transaction,
    tenant: TenantId,
    project: ProjectId,
    user: UserId,
) -> Result<MemberRecord, StoreError> {
    let row = transaction.fetch_optional(READ, values![tenant, project, user]).await?.ok_or(users::NOT_FOUND)?;
    record_of(&row)
}

/// Adds a person to a project; false when it belongs to it already.
pub(super) async fn insert(
    transaction: &mut Transaction,
    tenant: TenantId,
    project: ProjectId,
    user: UserId,
    role: ProjectRole,
    now: Timestamp,
) -> Result<bool, StoreError> {
    const SQL: &str = "INSERT INTO project_users (tenant_id, project_id, user_id, role, added_at)
        VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING";
    Ok(transaction.execute(SQL, values![tenant, project, user, role, now]).await? > 0)
}

fn record_of(row: &Row) -> Result<MemberRecord, StoreError> {
    Ok(MemberRecord {
        user: row.parsed("user_id")?,
        email: row.parsed("email")?,
        name: row.optional_parsed("name")?,
        role: row.parsed("role")?,
        added_at: row.time("added_at")?,
    })
}
