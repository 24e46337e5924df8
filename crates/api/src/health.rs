//! Liveness and readiness, for people and for Kubernetes. They tell nothing about tenants.

use atelier_platform::{Platform, Readiness};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

/// The answer of both.
#[derive(Debug, Serialize, ToSchema)]
pub struct HealthObject {
    /// `ok`, or why not.
    pub status: &'static str,
}

/// `GET /healthz`: the process lives.
pub async fn read_health() -> Json<HealthObject> {
    Json(HealthObject { status: "ok" })
}

/// `GET /readyz`: requests are taken, database and blob store answer; 503 while the server closes, and while usage cannot
/// be written.
pub async fn read_readiness(State(platform): State<Platform>) -> Response {
    let status = match platform.readiness().await {
        Readiness::Ready => return Json(HealthObject { status: "ok" }).into_response(),
        Readiness::Draining => "draining",
        Readiness::LedgerBehind => "usage cannot be written",
        Readiness::DatabaseAway => "database_unreachable",
        Readiness::BlobsAway => "blobs_unreachable",
    };
    (StatusCode::SERVICE_UNAVAILABLE, Json(HealthObject { status })).into_response()
}
