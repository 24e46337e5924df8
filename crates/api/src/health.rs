//! Liveness and readiness, for people and for Kubernetes. They tell nothing about tenants.

use atelier_platform::Platform;
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

/// `GET /readyz`: the base is loaded and the store answers; false while starting or draining.
pub async fn read_readiness(State(platform): State<Platform>) -> Response {
    if platform.ready() {
        return Json(HealthObject { status: "ok" }).into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, Json(HealthObject { status: "draining" })).into_response()
}
