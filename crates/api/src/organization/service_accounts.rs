//! `/v1/organization/projects/{project_id}/service_accounts`: machines of a project.

use std::time::Duration;

use atelier_domain::{ProjectId, ProjectRole, Scopes, ServiceAccountId, Timestamp};
use atelier_platform::{AppointMachine, CreatedKey, MachineKey, Platform, ServiceAccountRecord};
use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{ListQuery, page_object, project_users, word};
use crate::caller::Authenticated;
use crate::error::ApiError;
use crate::extract::{PathId, PathIds, WireJson, WireQuery};
use crate::keys::scopes;
use crate::wire::Deleted;

/// Body of `POST /v1/organization/projects/{project_id}/service_accounts`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateServiceAccountRequest {
    /// What to call it.
    pub name: String,
    /// true: without a key.
    pub create_service_account_only: Option<bool>,
    /// When its key ends by itself, counted from now; never when absent.
    pub expires_in_seconds: Option<u64>,
}

/// Body of `POST /v1/organization/projects/{project_id}/service_accounts/{service_account_id}`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ModifyServiceAccountRequest {
    /// What to call it; as it is when absent.
    pub name: Option<String>,
    /// `owner` or `member`; as it is when absent.
    pub role: Option<String>,
}

/// Body of `POST …/service_accounts/{service_account_id}/api_keys`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateServiceAccountKeyRequest {
    /// What to call it; as the machine when absent.
    pub name: Option<String>,
    /// Some of `complete`, `read`, `learn`; all that a machine may when absent.
    pub scopes: Option<Vec<String>>,
    /// When it ends by itself, counted from now; never when absent.
    pub expires_in_seconds: Option<u64>,
}

/// A machine.
#[derive(Debug, Serialize, ToSchema)]
pub struct ServiceAccountObject {
    /// `svc_acct_…`
    pub id: String,
    /// Always `organization.project.service_account`.
    pub object: &'static str,
    /// What it is called.
    pub name: String,
    /// `owner`, `member`, or `none` for one that was made without a key.
    pub role: &'static str,
    /// Unix seconds.
    pub created_at: i64,
}

/// A machine that was just made.
#[derive(Debug, Serialize, ToSchema)]
pub struct CreatedServiceAccountObject {
    /// The machine.
    #[serde(flatten)]
    pub account: ServiceAccountObject,
    /// Its key; null for one without.
    pub api_key: Option<ServiceAccountKeyObject>,
}

/// A key of a machine, in the one answer that shows its text.
#[derive(Debug, Serialize, ToSchema)]
pub struct ServiceAccountKeyObject {
    /// `key_…`
    pub id: String,
    /// Always `organization.project.service_account.api_key`.
    pub object: &'static str,
    /// What it is called.
    pub name: String,
    /// Its text. Only a hash of it is kept.
    pub value: String,
    /// Unix seconds.
    pub created_at: i64,
    /// Unix seconds; null for a key that does not expire.
    pub expires_at: Option<i64>,
}

page_object!(
    /// The machines of a project, oldest first.
    ServiceAccountList of ServiceAccountObject
);

/// `POST /v1/organization/projects/{project_id}/service_accounts`.
pub async fn create_service_account(
    State(platform): State<Platform>,
    Authenticated(caller): Authenticated,
    PathId(project): PathId<ProjectId>,
    WireJson(body): WireJson<CreateServiceAccountRequest>,
) -> Result<Json<CreatedServiceAccountObject>, ApiError> {
    let make = AppointMachine {
        name: body.name,
        with_key: !body.create_service_account_only.unwrap_or(false),
        key_lifetime: body.expires_in_seconds.map(Duration::from_secs),
    };
    let (account, key) = platform.create_service_account(&caller, project, make).await?;
    Ok(Json(CreatedServiceAccountObject { account: object(account), api_key: key.map(key_object) }))
}

/// `GET /v1/organization/projects/{project_id}/service_accounts`.
pub async fn list_service_accounts(
    State(platform): State<Platform>,
    Authenticated(caller): Authenticated,
    PathId(project): PathId<ProjectId>,
    WireQuery(query): WireQuery<ListQuery>,
) -> Result<Json<ServiceAccountList>, ApiError> {
    let page = platform.list_service_accounts(&caller, project, query.check()?).await?;
    Ok(Json(ServiceAccountList::of(page, object)))
}

/// `GET /v1/organization/projects/{project_id}/service_accounts/{service_account_id}`.
pub async fn get_service_account(
    State(platform): State<Platform>,
    Authenticated(caller): Authenticated,
    PathIds(project, account): PathIds<ProjectId, ServiceAccountId>,
) -> Result<Json<ServiceAccountObject>, ApiError> {
    Ok(Json(object(platform.get_service_account(&caller, project, account).await?)))
}

/// `POST /v1/organization/projects/{project_id}/service_accounts/{service_account_id}`.
pub async fn modify_service_account(
    State(platform): State<Platform>,
    Authenticated(caller): Authenticated,
    PathIds(project, account): PathIds<ProjectId, ServiceAccountId>,
    WireJson(body): WireJson<ModifyServiceAccountRequest>,
) -> Result<Json<ServiceAccountObject>, ApiError> {
    let role = body.role.map(|role| word::<ProjectRole>(&role, "role", project_users::ROLES)).transpose()?;
    let changed = platform.modify_service_account(&caller, project, account, body.name.as_deref(), role).await?;
    Ok(Json(object(changed)))
}

/// `DELETE /v1/organization/projects/{project_id}/service_accounts/{service_account_id}`.
pub async fn delete_service_account(
    State(platform): State<Platform>,
    Authenticated(caller): Authenticated,
    PathIds(project, account): PathIds<ProjectId, ServiceAccountId>,
) -> Result<Json<Deleted>, ApiError> {
    platform.delete_service_account(&caller, project, account).await?;
    Ok(Json(Deleted::new(account, "organization.project.service_account.deleted")))
}

/// `POST …/service_accounts/{service_account_id}/api_keys`.
pub async fn create_service_account_key(
    State(platform): State<Platform>,
    Authenticated(caller): Authenticated,
    PathIds(project, account): PathIds<ProjectId, ServiceAccountId>,
    WireJson(body): WireJson<CreateServiceAccountKeyRequest>,
) -> Result<Json<ServiceAccountKeyObject>, ApiError> {
    let make = MachineKey {
        name: body.name,
        scopes: body.scopes.as_deref().map(scopes).transpose()?.unwrap_or(Scopes::ALL),
        lifetime: body.expires_in_seconds.map(Duration::from_secs),
    };
    Ok(Json(key_object(platform.create_machine_key(&caller, project, account, make).await?)))
}

fn object(account: ServiceAccountRecord) -> ServiceAccountObject {
    ServiceAccountObject {
        id: account.id.to_string(),
        object: "organization.project.service_account",
        name: account.name.to_string(),
        role: account.role.map_or("none", ProjectRole::as_str),
        created_at: account.created_at.seconds(),
    }
}

fn key_object(made: CreatedKey) -> ServiceAccountKeyObject {
    ServiceAccountKeyObject {
        value: made.key.reveal(),
        id: made.summary.id.to_string(),
        object: "organization.project.service_account.api_key",
        name: made.summary.name.map(|name| name.to_string()).unwrap_or_default(),
        created_at: made.summary.created_at.seconds(),
        expires_at: made.summary.expires_at.map(Timestamp::seconds),
    }
}
