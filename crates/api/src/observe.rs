//! Around every request: an id, the time it took, and a response of ours even when a handler panics.

use std::any::Any;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::error::ApiError;
use crate::state::AppState;

/// Sent with every response, and written in the log line of anything that went wrong inside.
pub const REQUEST_ID_HEADER: &str = "x-request-id";

/// How long the server took, in milliseconds, as OpenAI names it.
const PROCESSING_HEADER: &str = "openai-processing-ms";

/// The route label of requests that match no route.
const NO_ROUTE: &str = "none";

/// Gives the request an id, measures it, logs one line without anything of its content.
pub async fn observe(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let id = format!("req_{}", uuid::Uuid::now_v7().simple());
    let method = request.method().to_string();
    let route =
        request.extensions().get::<MatchedPath>().map_or_else(|| NO_ROUTE.to_owned(), |path| path.as_str().to_owned());
    let span = tracing::info_span!("request", id, route, method);
    let started = Instant::now();
    let mut response = tracing::Instrument::instrument(next.run(request), span.clone()).await;
    let duration = started.elapsed();
    let status = response.status().as_u16();
    state.metrics.answered(&route, &method, status, duration);
    span.in_scope(|| tracing::info!(status, duration_ms = duration.as_millis(), "answered"));
    let headers = response.headers_mut();
    // Answers are one caller's: no cache keeps them, and no browser makes a page of them.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Ok(value) = HeaderValue::from_str(&id) {
        headers.insert(REQUEST_ID_HEADER, value);
    }
    headers.insert(PROCESSING_HEADER, HeaderValue::from(duration.as_millis().try_into().unwrap_or(u64::MAX)));
    response
}

/// A panic in a handler becomes our envelope; what it said goes nowhere, since it could quote a request.
pub fn panicked(_: Box<dyn Any + Send + 'static>) -> Response {
    tracing::error!("a handler panicked");
    ApiError::with_status(
        StatusCode::INTERNAL_SERVER_ERROR,
        "The server had an error while processing your request. Try again; if it persists, give the operator the \
         x-request-id of this response.",
        "internal_error",
    )
    .into_response()
}
