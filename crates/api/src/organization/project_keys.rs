//! `/v1/organization/projects/{project_id}/api_keys`: the living keys of a project. `/v1/keys` makes and changes them.

use atelier_domain::{KeyId, Label, ProjectId, Timestamp};
use atelier_platform::{HeldKey, Holder, KeyOrder, Keyring, Page, Platform};
use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{page_object, page_query};
use crate::caller::Authenticated;
use crate::error::ApiError;
use crate::extract::{PathId, PathIds, WireQuery};
use crate::wire::Deleted;

/// Query of `GET …/api_keys`.
#[derive(Debug, Deserialize)]
pub struct ProjectKeysQuery {
    after: Option<String>,
    limit: Option<usize>,
    owner_project_access: Option<String>,
}

/// A key of a project.
#[derive(Debug, Serialize, ToSchema)]
pub struct ProjectKeyObject {
    /// `key_…`
    pub id: String,
    /// Always `organization.project.api_key`.
    pub object: &'static str,
    /// What it is called; empty for one without a name.
    pub name: String,
    /// How its text begins.
    pub redacted_value: String,
    /// Unix seconds.
    pub created_at: i64,
    /// Unix seconds, to the minute; null before its first use.
    pub last_used_at: Option<i64>,
    /// Unix seconds; null for a key that does not expire.
    pub expires_at: Option<i64>,
    /// Always `active`: the keys of who leaves a project are revoked.
    pub owner_project_access: &'static str,
    /// Who holds it.
    pub owner: KeyOwnerObject,
}

/// Who holds a key.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct KeyOwnerObject {
    /// `user` or `service_account`; null where nobody is known to hold it.
    pub r#type: Option<&'static str>,
    /// The person.
    pub user: Option<KeyUserObject>,
    /// The machine.
    pub service_account: Option<KeyMachineObject>,
}

/// A person who holds a key.
#[derive(Debug, Serialize, ToSchema)]
pub struct KeyUserObject {
    /// `user-…`
    pub id: String,
    /// The address that it is known by.
    pub email: String,
    /// What it is called; empty for one without a name.
    pub name: String,
    /// What it is to the project: `owner` or `member`. An owner of the organization is an owner of every project.
    pub role: &'static str,
    /// Unix seconds.
    pub created_at: i64,
}

/// A machine that holds a key.
#[derive(Debug, Serialize, ToSchema)]
pub struct KeyMachineObject {
    /// `svc_acct_…`
    pub id: String,
    /// What it is called.
    pub name: String,
    /// What it is to the project: `owner`, `member` or `none`.
    pub role: String,
    /// Unix seconds.
    pub created_at: i64,
}

page_object!(
    /// The living keys of a project, oldest first.
    ProjectKeyList of ProjectKeyObject
);

/// `GET /v1/organization/projects/{project_id}/api_keys`.
pub async fn list_project_keys(
    State(platform): State<Platform>,
    Authenticated(caller): Authenticated,
    PathId(project): PathId<ProjectId>,
    WireQuery(query): WireQuery<ProjectKeysQuery>,
) -> Result<Json<ProjectKeyList>, ApiError> {
    let page = page_query(query.after.as_deref(), query.limit)?;
    let mut page = platform.list_held_keys(&caller, Keyring::Project(project), page, KeyOrder::OldestFirst).await?;
    match query.owner_project_access.as_deref() {
        None | Some("active" | "any") => {}
        Some("inactive") => page = Page { items: Vec::new(), has_more: false },
        Some(_) => {
            let message = "'owner_project_access' is active, inactive or any.";
            return Err(ApiError::invalid(message, Some("owner_project_access"), Some("invalid_value")));
        }
    }
    Ok(Json(ProjectKeyList::of(page, object)))
}

/// `GET /v1/organization/projects/{project_id}/api_keys/{key_id}`.
pub async fn get_project_key(
    State(platform): State<Platform>,
    Authenticated(caller): Authenticated,
    PathIds(project, key): PathIds<ProjectId, KeyId>,
) -> Result<Json<ProjectKeyObject>, ApiError> {
    Ok(Json(object(platform.get_held_key(&caller, Keyring::Project(project), key).await?)))
}

/// `DELETE /v1/organization/projects/{project_id}/api_keys/{key_id}`.
pub async fn delete_project_key(
    State(platform): State<Platform>,
    Authenticated(caller): Authenticated,
    PathIds(project, key): PathIds<ProjectId, KeyId>,
) -> Result<Json<Deleted>, ApiError> {
    platform.delete_held_key(&caller, Keyring::Project(project), key).await?;
    Ok(Json(Deleted::new(key, "organization.project.api_key.deleted")))
}

fn object(held: HeldKey) -> ProjectKeyObject {
    let HeldKey { key, holder } = held;
    ProjectKeyObject {
        id: key.id.to_string(),
        object: "organization.project.api_key",
        name: text(key.name),
        redacted_value: key.redacted,
        created_at: key.created_at.seconds(),
        last_used_at: key.last_used_at.map(Timestamp::seconds),
        expires_at: key.expires_at.map(Timestamp::seconds),
        owner_project_access: "active",
        owner: holder.map(owner).unwrap_or_default(),
    }
}

fn owner(holder: Holder) -> KeyOwnerObject {
    match holder {
        Holder::User { id, email, name, role: _, project_role, added_at } => KeyOwnerObject {
            r#type: Some("user"),
            user: Some(KeyUserObject {
                id: id.to_string(),
                email: email.to_string(),
                name: text(name),
                role: project_role.map_or("owner", atelier_domain::ProjectRole::as_str),
                created_at: added_at.seconds(),
            }),
            service_account: None,
        },
        Holder::ServiceAccount { id, name, role, created_at } => KeyOwnerObject {
            r#type: Some("service_account"),
            user: None,
            service_account: Some(KeyMachineObject {
                id: id.to_string(),
                name: name.to_string(),
                role,
                created_at: created_at.seconds(),
            }),
        },
    }
}

fn text(name: Option<Label>) -> String {
    name.map(|name| name.to_string()).unwrap_or_default()
}
