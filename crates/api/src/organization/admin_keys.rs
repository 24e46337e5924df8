//! `/v1/organization/admin_api_keys`: keys that administer the tenant. Made here, they complete nothing: what answers
//! editors and what manages people are two secrets.

use std::time::Duration;

use atelier_domain::{KeyId, Timestamp};
use atelier_platform::{HeldKey, Holder, KeyOrder, KeySummary, Keyring, Platform};
use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{page_object, page_query};
use crate::caller::Authenticated;
use crate::error::ApiError;
use crate::extract::{PathId, WireJson, WireQuery};
use crate::wire::Deleted;

/// Body of `POST /v1/organization/admin_api_keys`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateAdminKeyRequest {
    /// What to call it.
    pub name: String,
    /// When it ends by itself, counted from now; never when absent.
    pub expires_in_seconds: Option<u64>,
}

/// Query of `GET /v1/organization/admin_api_keys`.
#[derive(Debug, Deserialize)]
pub struct AdminKeysQuery {
    after: Option<String>,
    limit: Option<usize>,
    order: Option<String>,
}

/// A key of an admin.
#[derive(Debug, Serialize, ToSchema)]
pub struct AdminKeyObject {
    /// `key_…`
    pub id: String,
    /// Always `organization.admin_api_key`.
    pub object: &'static str,
    /// What it is called.
    pub name: Option<String>,
    /// How its text begins.
    pub redacted_value: String,
    /// Unix seconds.
    pub created_at: i64,
    /// Unix seconds; null for a key that does not expire.
    pub expires_at: Option<i64>,
    /// Unix seconds, to the minute; null before its first use.
    pub last_used_at: Option<i64>,
    /// Who answers for it.
    pub owner: AdminKeyOwnerObject,
}

/// Who answers for an admin's key: a person, or the organization where nobody is known to.
#[derive(Debug, Serialize, ToSchema)]
pub struct AdminKeyOwnerObject {
    /// `user` or `organization`.
    pub r#type: &'static str,
    /// `organization.user` or `organization`.
    pub object: &'static str,
    /// The person's id.
    pub id: Option<String>,
    /// What the person is called.
    pub name: Option<String>,
    /// Always `owner`.
    pub role: &'static str,
    /// Unix seconds: since when the person is there.
    pub created_at: Option<i64>,
}

/// A key of an admin, in the one answer that shows its text.
#[derive(Debug, Serialize, ToSchema)]
pub struct CreatedAdminKeyObject {
    /// The key.
    #[serde(flatten)]
    pub key: AdminKeyObject,
    /// Its text. Only a hash of it is kept.
    pub value: String,
}

page_object!(
    /// The living keys of admins.
    AdminKeyList of AdminKeyObject
);

/// `POST /v1/organization/admin_api_keys`.
pub async fn create_admin_key(
    State(platform): State<Platform>,
    Authenticated(caller): Authenticated,
    WireJson(body): WireJson<CreateAdminKeyRequest>,
) -> Result<Json<CreatedAdminKeyObject>, ApiError> {
    let lifetime = body.expires_in_seconds.map(Duration::from_secs);
    let made = platform.create_admin_key(&caller, &body.name, lifetime).await?;
    let value = made.key.reveal();
    let held = platform.get_held_key(&caller, Keyring::Administration, made.summary.id).await?;
    Ok(Json(CreatedAdminKeyObject { key: object(held), value }))
}

/// `GET /v1/organization/admin_api_keys`.
pub async fn list_admin_keys(
    State(platform): State<Platform>,
    Authenticated(caller): Authenticated,
    WireQuery(query): WireQuery<AdminKeysQuery>,
) -> Result<Json<AdminKeyList>, ApiError> {
    let order = match query.order.as_deref() {
        None | Some("asc") => KeyOrder::OldestFirst,
        Some("desc") => KeyOrder::NewestFirst,
        Some(_) => {
            return Err(ApiError::invalid("'order' is asc or desc.", Some("order"), Some("invalid_value")));
        }
    };
    let page = page_query(query.after.as_deref(), query.limit)?;
    let page = platform.list_held_keys(&caller, Keyring::Administration, page, order).await?;
    Ok(Json(AdminKeyList::of(page, object)))
}

/// `GET /v1/organization/admin_api_keys/{key_id}`.
pub async fn get_admin_key(
    State(platform): State<Platform>,
    Authenticated(caller): Authenticated,
    PathId(key): PathId<KeyId>,
) -> Result<Json<AdminKeyObject>, ApiError> {
    Ok(Json(object(platform.get_held_key(&caller, Keyring::Administration, key).await?)))
}

/// `DELETE /v1/organization/admin_api_keys/{key_id}`.
pub async fn delete_admin_key(
    State(platform): State<Platform>,
    Authenticated(caller): Authenticated,
    PathId(key): PathId<KeyId>,
) -> Result<Json<Deleted>, ApiError> {
    platform.delete_held_key(&caller, Keyring::Administration, key).await?;
    Ok(Json(Deleted::new(key, "organization.admin_api_key.deleted")))
}

fn object(held: HeldKey) -> AdminKeyObject {
    let KeySummary { id, redacted, name, created_at, expires_at, last_used_at, .. } = held.key;
    AdminKeyObject {
        id: id.to_string(),
        object: "organization.admin_api_key",
        name: name.map(|name| name.to_string()),
        redacted_value: redacted,
        created_at: created_at.seconds(),
        expires_at: expires_at.map(Timestamp::seconds),
        last_used_at: last_used_at.map(Timestamp::seconds),
        owner: owner(held.holder),
    }
}

fn owner(holder: Option<Holder>) -> AdminKeyOwnerObject {
    let nobody = AdminKeyOwnerObject {
        r#type: "organization",
        object: "organization",
        id: None,
        name: None,
        role: "owner",
        created_at: None,
    };
    match holder {
        Some(Holder::User { id, name, added_at, .. }) => AdminKeyOwnerObject {
            r#type: "user",
            object: "organization.user",
            id: Some(id.to_string()),
            name: name.map(|name| name.to_string()),
            created_at: Some(added_at.seconds()),
            ..nobody
        },
        // No machine holds an admin's key.
        Some(Holder::ServiceAccount { .. }) | None => nobody,
    }
}
