//! `/v1/versions` and `/v1/aliases`: what was learned, which of it is served, and how to go back.

use atelier_domain::VersionNumber;
use atelier_platform::{AdapterFiles, Platform, VersionList as Versions};
use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::caller::Authenticated;
use crate::error::ApiError;
use crate::extract::{PathId, WireJson};

/// A version: immutable, named by what is in it.
#[derive(Debug, Serialize, ToSchema)]
pub struct VersionObject {
    /// The name to send as `model` to get just this version.
    pub id: String,
    /// Always `version`.
    pub object: &'static str,
    /// Counts up within the tenant.
    pub number: u32,
    /// Content digest (BLAKE3, hex) of the adapter.
    pub digest: String,
    /// The version that was served when this one was learned.
    pub parent: Option<u32>,
    /// The run that made it.
    pub run: String,
    /// Its eval card.
    #[schema(value_type = Object)]
    pub eval: Value,
    /// The aliases that point at it.
    pub aliases: Vec<&'static str>,
    /// Unix seconds.
    pub created_at: i64,
}

/// Where the aliases point.
#[derive(Debug, Serialize, ToSchema)]
pub struct AliasesObject {
    /// What `atelier` resolves to on the plan `tuned`.
    pub live: Option<u32>,
    /// What was live before.
    pub previous: Option<u32>,
}

/// The tenant's versions and where its aliases point.
#[derive(Debug, Serialize, ToSchema)]
pub struct VersionList {
    /// Always `list`.
    pub object: &'static str,
    /// The versions, newest first.
    pub data: Vec<VersionObject>,
    /// Where the aliases point.
    pub aliases: AliasesObject,
    /// Always false: the list is whole.
    pub has_more: bool,
}

/// Body of `PUT /v1/aliases/live`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MoveAliasRequest {
    /// A version's number, or `previous`.
    #[schema(value_type = Object)]
    pub version: Target,
}

/// Where to point an alias.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "a version's number, or \"previous\"")]
pub enum Target {
    /// A version.
    Number(u32),
    /// A word for one.
    Word(Previous),
}

/// The one word that stands for a version.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Previous {
    /// What was live before.
    Previous,
}

/// `GET /v1/versions`.
pub async fn list_versions(
    State(platform): State<Platform>,
    Authenticated(caller): Authenticated,
) -> Result<Json<VersionList>, ApiError> {
    Ok(Json(version_list(platform.list_versions(&caller).await?)))
}

/// `PUT /v1/aliases/{alias}`.
pub async fn move_alias(
    State(platform): State<Platform>,
    Authenticated(caller): Authenticated,
    PathId(alias): PathId<String>,
    WireJson(body): WireJson<MoveAliasRequest>,
) -> Result<Json<VersionList>, ApiError> {
    let target = match body.version {
        Target::Word(Previous::Previous) => None,
        Target::Number(number) => Some(
            VersionNumber::try_from(i64::from(number))
                .map_err(|_| ApiError::not_found("No such version.", "version_not_found"))?,
        ),
    };
    Ok(Json(version_list(platform.move_alias(&caller, &alias, target).await?)))
}

/// `GET /v1/versions/{version}/adapter`: the two files that Python PEFT loads, as tar.gz.
pub async fn export_adapter(
    State(platform): State<Platform>,
    Authenticated(caller): Authenticated,
    PathId(version): PathId<VersionNumber>,
) -> Result<Response, ApiError> {
    let files = platform.export_adapter(&caller, version).await?;
    let archive = pack(&files).map_err(|_| {
        ApiError::with_status(StatusCode::INTERNAL_SERVER_ERROR, "The adapter could not be packed.", "internal_error")
    })?;
    Ok(([(header::CONTENT_TYPE, "application/gzip")], archive).into_response())
}

fn pack(files: &AdapterFiles) -> std::io::Result<Vec<u8>> {
    let gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let mut archive = tar::Builder::new(gzip);
    for (name, bytes) in [("adapter_config.json", &files.config), ("adapter_model.safetensors", &files.weights)] {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, bytes.as_slice())?;
    }
    archive.into_inner()?.finish()
}

fn version_list(list: Versions) -> VersionList {
    let (live, previous) = (list.aliases.live, list.aliases.previous);
    let data = list.versions.into_iter().map(|listed| {
        let version = listed.record;
        let pointing = [("live", live), ("previous", previous)];
        VersionObject {
            id: listed.model,
            object: "version",
            number: version.number.get(),
            digest: version.digest.to_string(),
            parent: version.parent.map(|parent| parent.get()),
            run: version.run.to_string(),
            eval: version.eval,
            aliases: pointing.iter().filter(|(_, to)| *to == Some(version.number)).map(|(name, _)| *name).collect(),
            created_at: version.created_at.seconds(),
        }
    });
    VersionList {
        object: "list",
        data: data.collect(),
        aliases: AliasesObject {
            live: live.map(|version| version.get()),
            previous: previous.map(|version| version.get()),
        },
        has_more: false,
    }
}
