//! Which keys somebody may hold: nobody holds a key that goes beyond what he is to the tenant or to its project.

use atelier_access::{Denied, KeyOwner};
use atelier_domain::{PersonRole, ProjectId, Role, TenantId, Timestamp, UserId};

use super::{projects, users};
use crate::error::StoreError;
use crate::sql::{Transaction, values};

/// The project of a key of this role: what completes is counted for some project, and who administers a tenant belongs
/// to none.
pub(crate) fn project_for(tenant: TenantId, role: Role, named: Option<ProjectId>) -> Option<ProjectId> {
    let usual = ProjectId::default_of(tenant);
    match role {
        Role::Member | Role::Service => Some(named.unwrap_or(usual)),
        Role::Admin => named.filter(|named| *named != usual),
        Role::Operator | Role::Reader => named,
    }
}

/// Refuses a key of this role, in this project, for this holder.
///
/// # Errors
/// [`StoreError::NotFound`] when the project or the holder is not there, or the machine is another project's;
/// [`Denied::Exceeds`] when the key would go beyond what the holder is.
pub(crate) async fn check(
    transaction: &mut Transaction,
    tenant: TenantId,
    role: Role,
    project: Option<ProjectId>,
    owner: Option<KeyOwner>,
) -> Result<(), StoreError> {
    const ACCOUNT: &str =
        "SELECT project_id FROM service_accounts WHERE tenant_id = $1 AND id = $2 AND removed_at IS NULL";
    const BELONGS: &str = "SELECT role FROM project_users WHERE tenant_id = $1 AND project_id = $2 AND user_id = $3";
    if let Some(project) = project {
        projects::living(transaction, tenant, project).await?;
    }
    // From here on, whatever has a project is no admin's.
    if role == Role::Admin && project.is_some() {
        return Err(Denied::Exceeds.into());
    }
    let fits = match owner {
        None => true,
        Some(KeyOwner::ServiceAccount(account)) => {
            let row = transaction.fetch_optional(ACCOUNT, values![tenant, account]).await?;
            let home: ProjectId = row.ok_or(StoreError::NotFound { what: "holder" })?.parsed("project_id")?;
            if project.is_some_and(|project| project != home) {
                return Err(StoreError::NotFound { what: "holder" });
            }
            project.is_some()
        }
        Some(KeyOwner::User(user)) => {
            let person = users::present(transaction, tenant, user).await?;
            match (person.role, project) {
                (PersonRole::Owner, _) => true,
                (PersonRole::Reader, None) => role == Role::Reader,
                (PersonRole::Reader, Some(project)) => {
                    let row = transaction.fetch_optional(BELONGS, values![tenant, project, user]).await?;
                    row.is_some()
                }
            }
        }
    };
    if fits { Ok(()) } else { Err(Denied::Exceeds.into()) }
}

/// Ends the keys that go beyond what their holder is now: an admin's, and those of projects that he does not belong to,
/// unless he is an owner. Says how many those were.
pub(super) async fn end_what_exceeds(
    transaction: &mut Transaction,
    tenant: TenantId,
    user: UserId,
    now: Timestamp,
) -> Result<u64, StoreError> {
    const SQL: &str = "UPDATE keys SET revoked_at = $3 WHERE tenant_id = $1 AND user_id = $2 AND revoked_at IS NULL
        AND (role = $4 OR (project_id IS NOT NULL AND project_id NOT IN
            (SELECT project_id FROM project_users WHERE tenant_id = $1 AND user_id = $2)))";
    match users::present(transaction, tenant, user).await?.role {
        PersonRole::Owner => Ok(0),
        PersonRole::Reader => transaction.execute(SQL, values![tenant, user, now, Role::Admin]).await,
    }
}
