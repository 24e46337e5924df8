//! `/v1/organization/projects/{project_id}/users`: which people belong to a project.

use atelier_domain::{ProjectId, ProjectRole, UserId};
use atelier_platform::{MemberRecord, Person, Platform};
use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{ListQuery, page_object, word};
use crate::caller::Authenticated;
use crate::error::ApiError;
use crate::extract::{PathId, PathIds, WireJson, WireQuery};
use crate::keys::named;
use crate::wire::Deleted;

/// What people and machines can be to a project, for messages.
pub(super) const ROLES: &str = "owner or member";

/// Body of `POST /v1/organization/projects/{project_id}/users`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateProjectUserRequest {
    /// `owner` or `member`.
    pub role: String,
    /// Who, by id.
    pub user_id: Option<String>,
    /// Who, by address, instead of the id.
    pub email: Option<String>,
}

/// Body of `POST /v1/organization/projects/{project_id}/users/{user_id}`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ModifyProjectUserRequest {
    /// `owner` or `member`; as it is when absent.
    pub role: Option<String>,
}

/// A person in a project.
#[derive(Debug, Serialize, ToSchema)]
pub struct ProjectUserObject {
    /// `user-…`
    pub id: String,
    /// Always `organization.project.user`.
    pub object: &'static str,
    /// The address that it is known by.
    pub email: String,
    /// What it is called.
    pub name: Option<String>,
    /// `owner` or `member`.
    pub role: &'static str,
    /// Unix seconds.
    pub added_at: i64,
}

page_object!(
    /// The people of a project.
    ProjectUserList of ProjectUserObject
);

/// `POST /v1/organization/projects/{project_id}/users`.
pub async fn create_project_user(
    State(platform): State<Platform>,
    Authenticated(caller): Authenticated,
    PathId(project): PathId<ProjectId>,
    WireJson(body): WireJson<CreateProjectUserRequest>,
) -> Result<Json<ProjectUserObject>, ApiError> {
    let role = word::<ProjectRole>(&body.role, "role", ROLES)?;
    let person = match (&body.user_id, &body.email) {
        (Some(user), None) => Person::Id(named(user, "user_id")?),
        (None, Some(email)) => Person::Email(word(email, "email", "an address such as jo@example.com")?),
        (None, None) | (Some(_), Some(_)) => {
            let message = "Say who: send either 'user_id' or 'email'.";
            return Err(ApiError::invalid(message, Some("user_id"), Some("invalid_value")));
        }
    };
    Ok(Json(object(platform.create_project_user(&caller, project, person, role).await?)))
}

/// `GET /v1/organization/projects/{project_id}/users`.
pub async fn list_project_users(
    State(platform): State<Platform>,
    Authenticated(caller): Authenticated,
    PathId(project): PathId<ProjectId>,
    WireQuery(query): WireQuery<ListQuery>,
) -> Result<Json<ProjectUserList>, ApiError> {
    let page = platform.list_project_users(&caller, project, query.check()?).await?;
    Ok(Json(ProjectUserList::of(page, object)))
}

/// `GET /v1/organization/projects/{project_id}/users/{user_id}`.
pub async fn get_project_user(
    State(platform): State<Platform>,
    Authenticated(caller): Authenticated,
    PathIds(project, user): PathIds<ProjectId, UserId>,
) -> Result<Json<ProjectUserObject>, ApiError> {
    Ok(Json(object(platform.get_project_user(&caller, project, user).await?)))
}

/// `POST /v1/organization/projects/{project_id}/users/{user_id}`.
pub async fn modify_project_user(
    State(platform): State<Platform>,
    Authenticated(caller): Authenticated,
    PathIds(project, user): PathIds<ProjectId, UserId>,
    WireJson(body): WireJson<ModifyProjectUserRequest>,
) -> Result<Json<ProjectUserObject>, ApiError> {
    let role = body.role.map(|role| word::<ProjectRole>(&role, "role", ROLES)).transpose()?;
    Ok(Json(object(platform.modify_project_user(&caller, project, user, role).await?)))
}

/// `DELETE /v1/organization/projects/{project_id}/users/{user_id}`.
pub async fn delete_project_user(
    State(platform): State<Platform>,
    Authenticated(caller): Authenticated,
    PathIds(project, user): PathIds<ProjectId, UserId>,
) -> Result<Json<Deleted>, ApiError> {
    platform.delete_project_user(&caller, project, user).await?;
    Ok(Json(Deleted::new(user, "organization.project.user.deleted")))
}

fn object(member: MemberRecord) -> ProjectUserObject {
    ProjectUserObject {
        id: member.user.to_string(),
        object: "organization.project.user",
        email: member.email.to_string(),
        name: member.name.map(|name| name.to_string()),
        role: member.role.as_str(),
        added_at: member.added_at.seconds(),
    }
}
