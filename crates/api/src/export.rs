//! `/v1/organization/export`: a whole tenant, to take elsewhere.

use atelier_platform::Platform;
use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::stream;

use crate::caller::Authenticated;
use crate::error::ApiError;

/// What a browser would call it.
const FILE_NAME: &str = "attachment; filename=\"organization.tar.gz\"";

/// `GET /v1/organization/export`: the archive, as it is made. One that is cut short ends without its last chunk, so that
/// no client takes it for whole.
pub async fn export_organization(
    State(platform): State<Platform>,
    Authenticated(caller): Authenticated,
) -> Result<Response, ApiError> {
    let export = platform.export_tenant(&caller).await?;
    let chunks = stream::unfold(export, |mut export| async move {
        let chunk = export.next().await?;
        if let Err(error) = &chunk {
            tracing::warn!(error = error as &dyn std::error::Error, "an export was cut short");
        }
        Some((chunk, export))
    });
    let headers = [(header::CONTENT_TYPE, "application/gzip"), (header::CONTENT_DISPOSITION, FILE_NAME)];
    Ok((headers, Body::from_stream(chunks)).into_response())
}
