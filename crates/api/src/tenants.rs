//! `/v1/tenants`: the operator's own resource. Keys are shown once, in the answer that makes them.

use std::collections::BTreeMap;

use atelier_domain::{BucketName, Plan, Separation, Timestamp};
use atelier_platform::{Erasure, Platform, TenantChange, TenantRecord};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::caller::Authenticated;
use crate::error::ApiError;
use crate::extract::{PathId, WireJson, WireQuery};
use crate::keys::{CreatedKeyObject, created_key_object, named};
use crate::wire::{list_object, page_has_more};

/// The status of a tenant that works.
const ACTIVE: &str = "active";
/// The status of one that may do nothing for now.
const SUSPENDED: &str = "suspended";

/// Body of `POST /v1/tenants`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateTenantRequest {
    /// Lower-case letters, digits and hyphens; unique among living tenants.
    pub name: String,
    /// `shared` or `tuned`.
    pub plan: String,
    /// `pooled`, `schema` or `database` on PostgreSQL, `pooled` when absent; always `file` on SQLite.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub separation: Option<String>,
    /// Name of a bucket of the tenant's own for its blobs, which must exist; the one that tenants share when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bucket: Option<String>,
}

/// Body of `PATCH /v1/tenants/{tenant}`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateTenantRequest {
    /// `shared` or `tuned`; as it is when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
    /// `pooled`, `schema` or `database`, on PostgreSQL: moves the tenant's rows, which waits until they are there. As it
    /// is when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub separation: Option<String>,
    /// Name of a bucket of the tenant's own, which must exist, or nothing (`""`) for the one that tenants share: moves the
    /// tenant's blobs, which waits until they are there. As it is when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bucket: Option<String>,
    /// `suspended`: its keys answer 403 and its open streams are cut within a second, its runs wait, its data stays; or
    /// `active` again. As it is when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
}

/// Query of `GET /v1/erasures`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ErasuresQuery {
    /// Only certificates older than that of this tenant.
    pub after: Option<String>,
}

/// The certificate that a tenant was erased: what there was, counted before it was removed.
#[derive(Debug, Serialize, ToSchema)]
pub struct ErasureObject {
    /// The tenant that was, as `org_…`.
    pub id: String,
    /// Always `erasure`.
    pub object: &'static str,
    /// Who decided it.
    pub requested_by: String,
    /// When it was decided, in unix seconds.
    pub requested_at: i64,
    /// When the last of it was gone, in unix seconds; null while something may still be there.
    pub completed_at: Option<i64>,
    /// How many of each kind were removed: rows by table, `blobs`, `blob_bytes`. The keys that its data was sealed with
    /// are destroyed besides, so that copies elsewhere do not open.
    pub removed: BTreeMap<String, u64>,
}

list_object! {
    /// Certificates, newest first.
    ErasureList of ErasureObject
}

/// Answer to deleting a tenant.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeletedTenantObject {
    /// The tenant that was, as `org_…`.
    pub id: String,
    /// Always `tenant.deleted`.
    pub object: &'static str,
    /// Always true.
    pub deleted: bool,
    /// The certificate.
    pub erasure: ErasureObject,
}

/// A tenant.
#[derive(Debug, Serialize, ToSchema)]
pub struct TenantObject {
    /// `org_…`: on OpenAI's admin API a tenant is an organization.
    pub id: String,
    /// Always `tenant`.
    pub object: &'static str,
    /// Its name.
    pub name: String,
    /// `shared`, `tuned` or `dedicated`.
    pub plan: String,
    /// Where its rows are: `file`, `pooled`, `schema` or `database`.
    pub separation: String,
    /// The bucket of its own in which its blobs are; null where they are with the others'.
    pub bucket: Option<String>,
    /// `active` or `suspended`.
    pub status: &'static str,
    /// Unix seconds.
    pub created_at: i64,
}

/// A tenant that was just created, with its first key.
#[derive(Serialize, ToSchema)]
pub struct CreatedTenantObject {
    /// The tenant.
    #[serde(flatten)]
    pub tenant: TenantObject,
    /// Its first key.
    pub key: CreatedKeyObject,
}

list_object! {
    /// All tenants.
    TenantList of TenantObject
}

/// `POST /v1/tenants`.
pub async fn create_tenant(
    State(platform): State<Platform>,
    Authenticated(caller): Authenticated,
    WireJson(body): WireJson<CreateTenantRequest>,
) -> Result<(StatusCode, Json<CreatedTenantObject>), ApiError> {
    let separation = body.separation.as_deref().map(separation).transpose()?;
    let bucket = body.bucket.as_deref().map(bucket).transpose()?;
    let created = platform.create_tenant_apart(&caller, &body.name, plan(&body.plan)?, separation, bucket).await?;
    let object = CreatedTenantObject { tenant: tenant_object(created.tenant), key: created_key_object(created.key) };
    Ok((StatusCode::CREATED, Json(object)))
}

/// `GET /v1/tenants`.
pub async fn list_tenants(
    State(platform): State<Platform>,
    Authenticated(caller): Authenticated,
) -> Result<Json<TenantList>, ApiError> {
    let tenants = platform.list_tenants(&caller).await?;
    Ok(Json(TenantList::whole(tenants.into_iter().map(tenant_object).collect())))
}

/// `GET /v1/tenants/{tenant}`.
pub async fn get_tenant(
    State(platform): State<Platform>,
    Authenticated(caller): Authenticated,
    PathId(tenant): PathId<String>,
) -> Result<Json<TenantObject>, ApiError> {
    Ok(Json(tenant_object(platform.get_tenant(&caller, &tenant).await?)))
}

/// `PATCH /v1/tenants/{tenant}`.
pub async fn update_tenant(
    State(platform): State<Platform>,
    Authenticated(caller): Authenticated,
    PathId(tenant): PathId<String>,
    WireJson(body): WireJson<UpdateTenantRequest>,
) -> Result<Json<TenantObject>, ApiError> {
    let change = TenantChange {
        plan: body.plan.as_deref().map(plan).transpose()?,
        separation: body.separation.as_deref().map(separation).transpose()?,
        bucket: body.bucket.as_deref().map(bucket_or_shared).transpose()?,
        is_suspended: body.status.as_deref().map(is_suspended).transpose()?,
    };
    let record = platform.update_tenant(&caller, &tenant, change).await?;
    Ok(Json(tenant_object(record)))
}

/// `DELETE /v1/tenants/{tenant}`.
pub async fn delete_tenant(
    State(platform): State<Platform>,
    Authenticated(caller): Authenticated,
    PathId(tenant): PathId<String>,
) -> Result<Json<DeletedTenantObject>, ApiError> {
    let erasure = platform.delete_tenant(&caller, &tenant).await?;
    let id = erasure.tenant.to_string();
    Ok(Json(DeletedTenantObject { id, object: "tenant.deleted", deleted: true, erasure: erasure_object(erasure) }))
}

/// `GET /v1/erasures`.
pub async fn list_erasures(
    State(platform): State<Platform>,
    Authenticated(caller): Authenticated,
    WireQuery(query): WireQuery<ErasuresQuery>,
) -> Result<Json<ErasureList>, ApiError> {
    let after = query.after.as_deref().map(|id| named(id, "after")).transpose()?;
    let erasures = platform.list_erasures(&caller, after).await?;
    let has_more = page_has_more(&erasures);
    Ok(Json(ErasureList { has_more, ..ErasureList::whole(erasures.into_iter().map(erasure_object).collect()) }))
}

/// `POST /v1/tenants/{tenant}/keys`.
pub async fn rotate_key(
    State(platform): State<Platform>,
    Authenticated(caller): Authenticated,
    PathId(tenant): PathId<String>,
) -> Result<(StatusCode, Json<CreatedKeyObject>), ApiError> {
    Ok((StatusCode::CREATED, Json(created_key_object(platform.rotate_key(&caller, &tenant).await?))))
}

fn plan(word: &str) -> Result<Plan, ApiError> {
    word.parse().map_err(|_| {
        ApiError::invalid("No such plan. Use shared, tuned or dedicated.", Some("plan"), Some("invalid_value"))
    })
}

fn is_suspended(status: &str) -> Result<bool, ApiError> {
    match status {
        SUSPENDED => Ok(true),
        ACTIVE => Ok(false),
        _ => Err(ApiError::invalid("The status is `active` or `suspended`.", Some("status"), Some("invalid_value"))),
    }
}

fn separation(word: &str) -> Result<Separation, ApiError> {
    word.parse().map_err(|_| {
        let message = "No such separation. Use pooled, schema or database.";
        ApiError::invalid(message, Some("separation"), Some("invalid_value"))
    })
}

fn bucket(name: &str) -> Result<BucketName, ApiError> {
    name.parse().map_err(|error: atelier_domain::ParseError| {
        ApiError::invalid(format!("{error}."), Some("bucket"), Some("invalid_value"))
    })
}

fn bucket_or_shared(name: &str) -> Result<Option<BucketName>, ApiError> {
    if name.is_empty() { Ok(None) } else { bucket(name).map(Some) }
}

fn erasure_object(erasure: Erasure) -> ErasureObject {
    ErasureObject {
        id: erasure.tenant.to_string(),
        object: "erasure",
        requested_by: erasure.requested_by,
        requested_at: erasure.requested_at.seconds(),
        completed_at: erasure.completed_at.map(Timestamp::seconds),
        removed: erasure.removed,
    }
}

fn tenant_object(tenant: TenantRecord) -> TenantObject {
    TenantObject {
        id: tenant.id.to_string(),
        object: "tenant",
        name: tenant.name.to_string(),
        plan: tenant.plan.to_string(),
        separation: tenant.separation.to_string(),
        bucket: tenant.bucket.map(|bucket| bucket.to_string()),
        status: if tenant.suspended_at.is_some() { SUSPENDED } else { ACTIVE },
        created_at: tenant.created_at.seconds(),
    }
}
