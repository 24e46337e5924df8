//! Panics on demand that quote the request, so that a test of the real binary can see that nothing of it comes out.
//! Only in builds with debug assertions, which are those of tests: a release knows no such header.

use axum::body::to_bytes;
use axum::extract::Request;
use axum::http::header;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::task::JoinHandle;

use atelier_platform::PlatformError;

use crate::error::ApiError;

/// Where to panic: `handler`, `task` or `blocking`.
const FAULT_HEADER: &str = "x-atelier-fault";
/// As much of a body as a panic quotes, bytes.
const QUOTED_BYTES_MAX: usize = 64 << 10;

/// Panics where the header says; without it, does nothing.
pub async fn provoke(request: Request, next: Next) -> Response {
    let Some(place) = request.headers().get(FAULT_HEADER).cloned() else { return next.run(request).await };
    let (head, body) = request.into_parts();
    let body = to_bytes(body, QUOTED_BYTES_MAX).await.unwrap_or_default();
    let key = head.headers.get(header::AUTHORIZATION).and_then(|key| key.to_str().ok()).unwrap_or_default();
    let quoted = format!("{} {key} {}", head.uri, String::from_utf8_lossy(&body));
    let task: JoinHandle<()> = match place.as_bytes() {
        b"task" => tokio::spawn(async move { panic!("{quoted}") }),
        b"blocking" => tokio::task::spawn_blocking(move || panic!("{quoted}")),
        _ => panic!("{quoted}"),
    };
    match task.await {
        Ok(()) => next.run(Request::from_parts(head, body.into())).await,
        Err(end) => ApiError::from(PlatformError::task(end)).into_response(),
    }
}
