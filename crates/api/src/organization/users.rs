//! `/v1/organization/users`: the people of a tenant. They come by invites.

use atelier_domain::limits::FILTER_VALUES_MAX;
use atelier_domain::{PersonRole, Timestamp, UserId};
use atelier_platform::{Platform, UserRecord};
use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{page_object, page_query, word};
use crate::caller::Authenticated;
use crate::error::ApiError;
use crate::extract::{PathId, WireJson, WireQuery};
use crate::wire::Deleted;

/// What people can be to an organization, for messages.
pub(super) const ROLES: &str = "owner or reader";

/// Body of `POST /v1/organization/users/{user_id}`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ModifyUserRequest {
    /// `owner` or `reader`; as it is when absent.
    pub role: Option<String>,
}

/// Query of `GET /v1/organization/users`.
#[derive(Debug, Deserialize)]
pub struct UsersQuery {
    after: Option<String>,
    limit: Option<usize>,
    #[serde(default, alias = "emails[]")]
    emails: Vec<String>,
}

/// A person.
#[derive(Debug, Serialize, ToSchema)]
pub struct UserObject {
    /// `user-…`
    pub id: String,
    /// Always `organization.user`.
    pub object: &'static str,
    /// The address that it is known by.
    pub email: String,
    /// What it is called.
    pub name: Option<String>,
    /// `owner` or `reader`.
    pub role: &'static str,
    /// Unix seconds.
    pub added_at: i64,
    /// Unix seconds, to the minute; null before the first use of one of its keys.
    pub api_key_last_used_at: Option<i64>,
    /// Always false: machines are service accounts of a project.
    pub is_service_account: bool,
}

page_object!(
    /// People, oldest first.
    UserList of UserObject
);

/// `GET /v1/organization/users`.
pub async fn list_users(
    State(platform): State<Platform>,
    Authenticated(caller): Authenticated,
    WireQuery(query): WireQuery<UsersQuery>,
) -> Result<Json<UserList>, ApiError> {
    if query.emails.len() > FILTER_VALUES_MAX {
        let message = format!("'emails' takes {FILTER_VALUES_MAX} values.");
        return Err(ApiError::invalid(message, Some("emails"), Some("invalid_value")));
    }
    let page = page_query(query.after.as_deref(), query.limit)?;
    Ok(Json(UserList::of(platform.list_users(&caller, page, &query.emails).await?, object)))
}

/// `GET /v1/organization/users/{user_id}`.
pub async fn get_user(
    State(platform): State<Platform>,
    Authenticated(caller): Authenticated,
    PathId(user): PathId<UserId>,
) -> Result<Json<UserObject>, ApiError> {
    Ok(Json(object(platform.get_user(&caller, user).await?)))
}

/// `POST /v1/organization/users/{user_id}`.
pub async fn modify_user(
    State(platform): State<Platform>,
    Authenticated(caller): Authenticated,
    PathId(user): PathId<UserId>,
    WireJson(body): WireJson<ModifyUserRequest>,
) -> Result<Json<UserObject>, ApiError> {
    let role = body.role.map(|role| word::<PersonRole>(&role, "role", ROLES)).transpose()?;
    Ok(Json(object(platform.modify_user(&caller, user, role).await?)))
}

/// `DELETE /v1/organization/users/{user_id}`.
pub async fn delete_user(
    State(platform): State<Platform>,
    Authenticated(caller): Authenticated,
    PathId(user): PathId<UserId>,
) -> Result<Json<Deleted>, ApiError> {
    platform.delete_user(&caller, user).await?;
    Ok(Json(Deleted::new(user, "organization.user.deleted")))
}

/// A person as every answer shows it.
pub(super) fn object(user: UserRecord) -> UserObject {
    UserObject {
        id: user.id.to_string(),
        object: "organization.user",
        email: user.email.to_string(),
        name: user.name.map(|name| name.to_string()),
        role: user.role.as_str(),
        added_at: user.added_at.seconds(),
        api_key_last_used_at: user.key_last_used_at.map(Timestamp::seconds),
        is_service_account: false,
    }
}
