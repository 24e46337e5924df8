//! `/v1/sources`: code that a tenant gives to learn from. Immutable once given; delete and give again to change.

use std::path::Path;

use atelier_domain::SourceId;
use atelier_platform::{Platform, SourceRecord};
use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderMap, StatusCode, header};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::caller::Authenticated;
use crate::error::ApiError;
use crate::extract::{PathId, WireQuery, body_refused, parse_json};
use crate::wire::{Deleted, list_object};

/// Content types under which clients send a tar.gz.
const ARCHIVE_TYPES: [&str; 4] =
    ["application/gzip", "application/x-gzip", "application/x-gtar", "application/octet-stream"];

/// A folder on the server, where the operator allows it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateSourceRequest {
    /// The folder's absolute path on the server.
    pub path: String,
    /// What to call it; the folder's name when absent.
    pub name: Option<String>,
}

/// The query of an upload.
#[derive(Debug, Deserialize)]
pub struct UploadQuery {
    name: Option<String>,
}

/// A source.
#[derive(Debug, Serialize, ToSchema)]
pub struct SourceObject {
    /// `src_…`.
    pub id: String,
    /// Always `source`.
    pub object: &'static str,
    /// Its name.
    pub name: String,
    /// Size of the archive.
    pub bytes: u64,
    /// Content digest (BLAKE3, hex) of the archive.
    pub digest: String,
    /// Unix seconds.
    pub created_at: i64,
}

list_object! {
    /// The tenant's sources.
    SourceList of SourceObject
}

/// `POST /v1/sources`: a tar.gz as the body, or JSON that names a folder on the server.
pub async fn create_source(
    State(platform): State<Platform>,
    Authenticated(caller): Authenticated,
    WireQuery(query): WireQuery<UploadQuery>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<(StatusCode, Json<SourceObject>), ApiError> {
    let body = body.map_err(body_refused)?;
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let content_type = content_type.split(';').next().unwrap_or_default().trim();
    let source = if ARCHIVE_TYPES.contains(&content_type) {
        let name = query.name.as_deref().unwrap_or("upload");
        platform.create_source_from_archive(&caller, name, body).await?
    } else if content_type == "application/json" {
        let request: CreateSourceRequest = parse_json(&body)?;
        let path = Path::new(&request.path);
        let folder = path.file_name().map(|name| name.to_string_lossy().into_owned());
        let name = request.name.or(folder).unwrap_or_else(|| "folder".to_owned());
        platform.create_source_from_path(&caller, &name, path).await?
    } else {
        return Err(ApiError::with_status(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "Send a tar.gz with content type application/gzip, or JSON {\"path\": …} with application/json.",
            "unsupported_media_type",
        ));
    };
    Ok((StatusCode::CREATED, Json(source_object(source))))
}

/// `GET /v1/sources`.
pub async fn list_sources(
    State(platform): State<Platform>,
    Authenticated(caller): Authenticated,
) -> Result<Json<SourceList>, ApiError> {
    let sources = platform.list_sources(&caller).await?;
    Ok(Json(SourceList::whole(sources.into_iter().map(source_object).collect())))
}

/// `GET /v1/sources/{source}`.
pub async fn get_source(
    State(platform): State<Platform>,
    Authenticated(caller): Authenticated,
    PathId(id): PathId<SourceId>,
) -> Result<Json<SourceObject>, ApiError> {
    Ok(Json(source_object(platform.get_source(&caller, id).await?)))
}

/// `DELETE /v1/sources/{source}`.
pub async fn delete_source(
    State(platform): State<Platform>,
    Authenticated(caller): Authenticated,
    PathId(id): PathId<SourceId>,
) -> Result<Json<Deleted>, ApiError> {
    platform.delete_source(&caller, id).await?;
    Ok(Json(Deleted::new(id, "source.deleted")))
}

fn source_object(source: SourceRecord) -> SourceObject {
    SourceObject {
        id: source.id.to_string(),
        object: "source",
        name: source.name,
        bytes: source.bytes,
        digest: source.digest.to_string(),
        created_at: source.created_at.seconds(),
    }
}
