//! `/v1/organization/projects`.

use atelier_domain::{ProjectId, Timestamp};
use atelier_platform::{Platform, ProjectRecord};
use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{page_object, page_query};
use crate::caller::Authenticated;
use crate::error::ApiError;
use crate::extract::{PathId, WireJson, WireQuery};

/// Body of `POST /v1/organization/projects`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateProjectRequest {
    /// What to call it.
    pub name: String,
}

/// Body of `POST /v1/organization/projects/{project_id}`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ModifyProjectRequest {
    /// What to call it; as it is when absent.
    pub name: Option<String>,
}

/// Query of `GET /v1/organization/projects`.
#[derive(Debug, Deserialize)]
pub struct ProjectsQuery {
    after: Option<String>,
    limit: Option<usize>,
    #[serde(default)]
    include_archived: bool,
}

/// A project.
#[derive(Debug, Serialize, ToSchema)]
pub struct ProjectObject {
    /// `proj_…`
    pub id: String,
    /// Always `organization.project`.
    pub object: &'static str,
    /// What it is called.
    pub name: String,
    /// Unix seconds.
    pub created_at: i64,
    /// Unix seconds; null while it is not archived.
    pub archived_at: Option<i64>,
    /// `active` or `archived`.
    pub status: &'static str,
}

page_object!(
    /// Projects, oldest first.
    ProjectList of ProjectObject
);

/// `POST /v1/organization/projects`.
pub async fn create_project(
    State(platform): State<Platform>,
    Authenticated(caller): Authenticated,
    WireJson(body): WireJson<CreateProjectRequest>,
) -> Result<Json<ProjectObject>, ApiError> {
    Ok(Json(object(platform.create_project(&caller, &body.name).await?)))
}

/// `GET /v1/organization/projects`.
pub async fn list_projects(
    State(platform): State<Platform>,
    Authenticated(caller): Authenticated,
    WireQuery(query): WireQuery<ProjectsQuery>,
) -> Result<Json<ProjectList>, ApiError> {
    let page = page_query(query.after.as_deref(), query.limit)?;
    let page = platform.list_projects(&caller, page, query.include_archived).await?;
    Ok(Json(ProjectList::of(page, object)))
}

/// `GET /v1/organization/projects/{project_id}`.
pub async fn get_project(
    State(platform): State<Platform>,
    Authenticated(caller): Authenticated,
    PathId(project): PathId<ProjectId>,
) -> Result<Json<ProjectObject>, ApiError> {
    Ok(Json(object(platform.get_project(&caller, project).await?)))
}

/// `POST /v1/organization/projects/{project_id}`.
pub async fn modify_project(
    State(platform): State<Platform>,
    Authenticated(caller): Authenticated,
    PathId(project): PathId<ProjectId>,
    WireJson(body): WireJson<ModifyProjectRequest>,
) -> Result<Json<ProjectObject>, ApiError> {
    Ok(Json(object(platform.modify_project(&caller, project, body.name.as_deref()).await?)))
}

/// `POST /v1/organization/projects/{project_id}/archive`.
pub async fn archive_project(
    State(platform): State<Platform>,
    Authenticated(caller): Authenticated,
    PathId(project): PathId<ProjectId>,
) -> Result<Json<ProjectObject>, ApiError> {
    Ok(Json(object(platform.archive_project(&caller, project).await?)))
}

fn object(project: ProjectRecord) -> ProjectObject {
    ProjectObject {
        id: project.id.to_string(),
        object: "organization.project",
        name: project.name.to_string(),
        created_at: project.created_at.seconds(),
        archived_at: project.archived_at.map(Timestamp::seconds),
        status: if project.archived_at.is_some() { "archived" } else { "active" },
    }
}
