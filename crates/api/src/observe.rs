//! Around every request: an id, the time it took, and a response of ours even when a handler panics.

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tracing::Span;

use crate::error::ApiError;
use crate::metrics::Metrics;
use crate::state::AppState;

/// Sent with every response, and written in the log line of anything that went wrong inside.
pub const REQUEST_ID_HEADER: &str = "x-request-id";

/// How long the server took, in milliseconds, as OpenAI names it.
const PROCESSING_HEADER: &str = "openai-processing-ms";

/// The route label of requests that match no route.
pub(crate) const NO_ROUTE: &str = "none";

/// The method label of every method that no endpoint takes, and of requests that were never read.
pub(crate) const OTHER_METHOD: &str = "other";

/// The status under which a client is counted that did not wait for its answer, as nginx has it. Nobody is sent it.
const CLIENT_GONE: u16 = 499;

/// Gives the request an id, measures it, logs one line without anything of its content.
pub async fn observe(State(state): State<AppState>, mut request: Request, next: Next) -> Response {
    let id = new_request_id();
    let method = method_label(request.method());
    let route =
        request.extensions().get::<MatchedPath>().map_or_else(|| NO_ROUTE.to_owned(), |path| path.as_str().to_owned());
    let span = tracing::info_span!("request", id, route, method);
    // Whoever prints the headers prints no key.
    if let Some(key) = request.headers_mut().get_mut(header::AUTHORIZATION) {
        key.set_sensitive(true);
    }
    let begun = Begun { metrics: Arc::clone(&state.metrics), route, method, span, at: Instant::now(), ended: false };
    let mut response = tracing::Instrument::instrument(next.run(request), begun.span.clone()).await;
    let duration = begun.answered(response.status());
    let headers = response.headers_mut();
    protect(headers);
    if let Ok(value) = HeaderValue::from_str(&id) {
        headers.insert(REQUEST_ID_HEADER, value);
    }
    headers.insert(PROCESSING_HEADER, HeaderValue::from(duration.as_millis().try_into().unwrap_or(u64::MAX)));
    response
}

/// What an answer and the log name a request by.
pub(crate) fn new_request_id() -> String {
    format!("req_{}", uuid::Uuid::now_v7().simple())
}

/// Answers are one caller's: no cache keeps them, and no browser makes a page of them.
pub(crate) fn protect(headers: &mut HeaderMap) {
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
}

/// A request that is being answered. Dropped unanswered, its client is gone, which counts too.
struct Begun {
    metrics: Arc<Metrics>,
    route: String,
    method: &'static str,
    span: Span,
    at: Instant,
    ended: bool,
}

impl Begun {
    fn answered(mut self, status: StatusCode) -> Duration {
        self.end(status.as_u16())
    }

    fn end(&mut self, status: u16) -> Duration {
        self.ended = true;
        let duration = self.at.elapsed();
        self.metrics.answered(&self.route, self.method, status, duration);
        self.span.in_scope(|| tracing::info!(status, duration_ms = duration.as_millis(), "answered"));
        duration
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        if !self.ended {
            self.end(CLIENT_GONE);
        }
    }
}

/// A method as a label: those that endpoints take and those that clients try, each by its name, and one name for all
/// that somebody may make up.
fn method_label(method: &Method) -> &'static str {
    const KNOWN: [&str; 7] = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"];
    KNOWN.into_iter().find(|known| *known == method.as_str()).unwrap_or(OTHER_METHOD)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_that_somebody_makes_up_share_a_label() {
        for (method, expected) in [("GET", "GET"), ("PATCH", "PATCH"), ("TRACE", "other"), ("QUOKKA", "other")] {
            assert_eq!(method_label(&method.parse().unwrap()), expected);
        }
    }

    #[test]
    fn a_client_that_is_gone_before_its_answer_is_counted() {
        let metrics = Arc::new(Metrics::default());
        let begun = |route: &str| Begun {
            metrics: Arc::clone(&metrics),
            route: route.to_owned(),
            method: "POST",
            span: Span::none(),
            at: Instant::now(),
            ended: false,
        };
        drop(begun("/gone"));
        begun("/stayed").answered(StatusCode::OK);
        let text = metrics.encode().unwrap();
        let counted = |line: &str| assert!(text.contains(line), "{line}: {text}");
        counted("atelier_http_requests_total{route=\"/gone\",method=\"POST\",status=\"499\"} 1");
        counted("atelier_http_requests_total{route=\"/stayed\",method=\"POST\",status=\"200\"} 1");
    }
}
