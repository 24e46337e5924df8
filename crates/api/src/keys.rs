//! `/v1/keys`: the keys of a tenant. Their text is shown once, in the answer that makes them; their id is the same
//! wherever they are spoken of.

use std::time::Duration;

use atelier_access::KeyOwner;
use atelier_domain::{KeyId, Role, Scope, Scopes};
use atelier_platform::{ChangeKey, CreatedKey, KeyQuery, KeySummary, MakeKey, Platform};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::caller::Authenticated;
use crate::error::ApiError;
use crate::extract::{PathId, WireJson, WireQuery};
use crate::wire::{Deleted, list_object, page_has_more};

/// Body of `POST /v1/keys`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateKeyRequest {
    /// What to call it.
    pub name: Option<String>,
    /// `admin`, `member` (the default), `service` or `reader`.
    pub role: Option<String>,
    /// Some of `complete`, `read`, `learn`, `usage`, `audit`, `manage`, `delegate`; all that the role may when absent.
    pub scopes: Option<Vec<String>>,
    /// The project that it belongs to; for a member or a service the default project when absent.
    pub project_id: Option<String>,
    /// The person who will hold it; it may not go beyond what that person is. When absent, nobody; for an admin the person
    /// who makes it, if it is one.
    pub user_id: Option<String>,
    /// When it ends by itself, counted from now; never when absent.
    pub expires_in_seconds: Option<u64>,
}

/// Body of `PATCH /v1/keys/{key}`: what is absent stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateKeyRequest {
    /// What to call it.
    pub name: Option<String>,
    /// `admin`, `member`, `service` or `reader`.
    pub role: Option<String>,
    /// Some of `complete`, `read`, `learn`, `usage`, `audit`, `manage`, `delegate`.
    pub scopes: Option<Vec<String>>,
    /// When it ends by itself, counted from now.
    pub expires_in_seconds: Option<u64>,
}

/// Query of `GET /v1/keys`.
#[derive(Debug, Deserialize)]
pub struct KeysQuery {
    after: Option<String>,
}

/// A key.
#[derive(Debug, Serialize, ToSchema)]
pub struct KeyObject {
    /// `key_…`: the same in every answer about it, in usage and in the audit trail.
    pub id: String,
    /// Always `api_key`.
    pub object: &'static str,
    /// What it is called.
    pub name: Option<String>,
    /// `admin`, `member`, `service` or `reader`.
    pub role: &'static str,
    /// `key`; `session` for a browser's by signing in, `login` for a program's.
    pub purpose: &'static str,
    /// What of the role's rights it has; null for all of them.
    pub scopes: Option<Vec<&'static str>>,
    /// The project that its use is counted for.
    pub project_id: Option<String>,
    /// The person who holds it.
    pub user_id: Option<String>,
    /// The machine that holds it.
    pub service_account_id: Option<String>,
    /// How its text begins.
    pub redacted_value: String,
    /// Unix seconds.
    pub created_at: i64,
    /// Unix seconds; null for a key that does not expire.
    pub expires_at: Option<i64>,
    /// Unix seconds, to the minute; null before its first use.
    pub last_used_at: Option<i64>,
    /// Unix seconds; null while it is not revoked.
    pub revoked_at: Option<i64>,
}

/// A key, in the one answer that shows its text; so it does not print.
#[derive(Serialize, ToSchema)]
pub struct CreatedKeyObject {
    /// The key.
    #[serde(flatten)]
    pub key: KeyObject,
    /// Its text. Only a hash of it is kept.
    pub value: String,
}

list_object!(
    /// Keys, oldest first, revoked ones included.
    KeyList of KeyObject
);

/// `POST /v1/keys`.
pub async fn create_key(
    State(platform): State<Platform>,
    Authenticated(caller): Authenticated,
    WireJson(body): WireJson<CreateKeyRequest>,
) -> Result<(StatusCode, Json<CreatedKeyObject>), ApiError> {
    let make = MakeKey {
        name: body.name,
        role: body.role.as_deref().map(role).transpose()?.unwrap_or(Role::Member),
        scopes: body.scopes.as_deref().map(scopes).transpose()?.unwrap_or(Scopes::ALL),
        project: body.project_id.as_deref().map(|id| named(id, "project_id")).transpose()?,
        owner: body.user_id.as_deref().map(|id| named(id, "user_id")).transpose()?.map(KeyOwner::User),
        lifetime: body.expires_in_seconds.map(Duration::from_secs),
    };
    let made = platform.create_key(&caller, make).await?;
    Ok((StatusCode::CREATED, Json(created_key_object(made))))
}

/// `GET /v1/keys`.
pub async fn list_keys(
    State(platform): State<Platform>,
    Authenticated(caller): Authenticated,
    WireQuery(query): WireQuery<KeysQuery>,
) -> Result<Json<KeyList>, ApiError> {
    let after = query.after.as_deref().map(|id| named(id, "after")).transpose()?;
    let keys = platform.list_keys(&caller, KeyQuery { after, ..KeyQuery::default() }).await?;
    let has_more = page_has_more(&keys);
    Ok(Json(KeyList { has_more, ..KeyList::whole(keys.into_iter().map(key_object).collect()) }))
}

/// `GET /v1/keys/{key}`.
pub async fn get_key(
    State(platform): State<Platform>,
    Authenticated(caller): Authenticated,
    PathId(key): PathId<KeyId>,
) -> Result<Json<KeyObject>, ApiError> {
    Ok(Json(key_object(platform.get_key(&caller, key).await?)))
}

/// `PATCH /v1/keys/{key}`.
pub async fn update_key(
    State(platform): State<Platform>,
    Authenticated(caller): Authenticated,
    PathId(key): PathId<KeyId>,
    WireJson(body): WireJson<UpdateKeyRequest>,
) -> Result<Json<KeyObject>, ApiError> {
    let change = ChangeKey {
        name: body.name,
        role: body.role.as_deref().map(role).transpose()?,
        scopes: body.scopes.as_deref().map(scopes).transpose()?,
        lifetime: body.expires_in_seconds.map(Duration::from_secs),
    };
    Ok(Json(key_object(platform.update_key(&caller, key, change).await?)))
}

/// `DELETE /v1/keys/{key}`.
pub async fn delete_key(
    State(platform): State<Platform>,
    Authenticated(caller): Authenticated,
    PathId(key): PathId<KeyId>,
) -> Result<Json<Deleted>, ApiError> {
    platform.revoke_key(&caller, key).await?;
    Ok(Json(Deleted::new(key, "api_key.deleted")))
}

/// A key as every answer shows it.
pub fn key_object(key: KeySummary) -> KeyObject {
    let (user, account) = match key.owner {
        Some(KeyOwner::User(user)) => (Some(user.to_string()), None),
        Some(KeyOwner::ServiceAccount(account)) => (None, Some(account.to_string())),
        None => (None, None),
    };
    KeyObject {
        id: key.id.to_string(),
        object: "api_key",
        name: key.name.map(|name| name.to_string()),
        role: key.role.as_str(),
        purpose: key.purpose.as_str(),
        scopes: (key.scopes != Scopes::ALL).then(|| key.scopes.iter().map(Scope::as_str).collect()),
        project_id: key.project.map(|project| project.to_string()),
        user_id: user,
        service_account_id: account,
        redacted_value: key.redacted,
        created_at: key.created_at.seconds(),
        expires_at: key.expires_at.map(|at| at.seconds()),
        last_used_at: key.last_used_at.map(|at| at.seconds()),
        revoked_at: key.revoked_at.map(|at| at.seconds()),
    }
}

/// A key in the answer that makes it.
pub fn created_key_object(made: CreatedKey) -> CreatedKeyObject {
    CreatedKeyObject { value: made.key.reveal(), key: key_object(made.summary) }
}

fn role(word: &str) -> Result<Role, ApiError> {
    word.parse().ok().filter(|role| *role != Role::Operator).ok_or_else(|| {
        let message = "No such role. Use admin, member, service or reader.";
        ApiError::invalid(message, Some("role"), Some("invalid_value"))
    })
}

pub fn scopes(words: &[String]) -> Result<Scopes, ApiError> {
    let invalid = || {
        let message = "'scopes' names one or more of complete, read, learn, usage, audit, manage and delegate.";
        ApiError::invalid(message, Some("scopes"), Some("invalid_value"))
    };
    let parsed: Vec<Scope> = words.iter().map(|word| word.parse()).collect::<Result<_, _>>().map_err(|_| invalid())?;
    if parsed.is_empty() || parsed.contains(&Scope::Operate) { Err(invalid()) } else { Ok(Scopes::of(&parsed)) }
}

/// An id in a body or a query.
pub fn named<T: std::str::FromStr>(id: &str, param: &'static str) -> Result<T, ApiError> {
    id.parse()
        .map_err(|_| ApiError::invalid(format!("'{param}' is not such an id."), Some(param), Some("invalid_value")))
}
