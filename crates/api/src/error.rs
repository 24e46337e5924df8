//! The one error envelope of the wire: `{"error": {"message", "type", "param", "code"}}`, all four keys always there.
//!
//! Source: OpenAI's error object; the unmodified clients map the status to their exception classes
//! and obey `retry-after` and `x-should-retry`.

use atelier_platform::{ErrorKind, PlatformError};
use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// The body of every response that is not a success, and of an error frame inside a stream.
#[derive(Debug, Clone, Serialize)]
pub struct ErrorBody {
    /// The error itself.
    pub error: ErrorDetail,
}

/// What went wrong and what to do about it.
#[derive(Debug, Clone, Serialize)]
pub struct ErrorDetail {
    /// A sentence for people: what was wrong and what to do next.
    pub message: String,
    /// The family of the error, such as `invalid_request_error`.
    pub r#type: &'static str,
    /// The request parameter at fault, where there is one.
    pub param: Option<String>,
    /// A stable word for programs, such as `model_not_found`.
    pub code: Option<String>,
}

/// An error with its HTTP status and retry advice.
#[derive(Debug, Clone)]
pub struct ApiError {
    status: StatusCode,
    body: ErrorBody,
    retry_after_ms: Option<u64>,
}

impl ApiError {
    /// 400: the request itself is wrong; `param` names the field at fault.
    pub fn invalid(message: impl Into<String>, param: Option<&str>, code: Option<&str>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", message, param, code)
    }

    /// 401: no key, or a key that is not valid. Never repeats the key.
    pub fn not_authenticated(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "invalid_request_error", message, None, Some("invalid_api_key"))
    }

    /// 404: not there, or not the caller's to see; the two read the same.
    pub fn not_found(message: impl Into<String>, code: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "invalid_request_error", message, None, Some(code))
    }

    /// Any other status, for what the framework itself refuses (body too large, unknown method).
    pub fn with_status(status: StatusCode, message: impl Into<String>, code: &str) -> Self {
        Self::new(status, "invalid_request_error", message, None, Some(code))
    }

    fn new(
        status: StatusCode,
        kind: &'static str,
        message: impl Into<String>,
        param: Option<&str>,
        code: Option<&str>,
    ) -> Self {
        let detail = ErrorDetail {
            message: message.into(),
            r#type: kind,
            param: param.map(str::to_owned),
            code: code.map(str::to_owned),
        };
        Self { status, body: ErrorBody { error: detail }, retry_after_ms: None }
    }

    /// The status, for a page.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The envelope, for an error frame inside a stream whose status is already sent.
    pub fn body(&self) -> &ErrorBody {
        &self.body
    }
}

impl From<PlatformError> for ApiError {
    fn from(error: PlatformError) -> Self {
        let message = error.to_string();
        match error.kind() {
            ErrorKind::InvalidRequest { param, code } => Self::invalid(message, param, code),
            ErrorKind::NotAuthenticated => Self::not_authenticated(message),
            ErrorKind::Forbidden { code } => Self::with_status(StatusCode::FORBIDDEN, message, code),
            ErrorKind::NotFound { code } => Self::not_found(message, code),
            ErrorKind::Conflict { code } => Self::with_status(StatusCode::CONFLICT, message, code),
            ErrorKind::TooManyRequests { retry_after_ms } => Self {
                retry_after_ms: Some(retry_after_ms),
                ..Self::new(
                    StatusCode::TOO_MANY_REQUESTS,
                    "rate_limit_error",
                    message,
                    None,
                    Some("rate_limit_exceeded"),
                )
            },
            ErrorKind::Overloaded { retry_after_ms } => Self {
                retry_after_ms: Some(retry_after_ms),
                ..Self::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", message, None, Some("overloaded"))
            },
            ErrorKind::Internal => {
                // Logged once, here where it is handled; the cause stays inside.
                tracing::error!(error = &error as &dyn std::error::Error, "request failed inside");
                Self::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "server_error",
                    "The server had an error while processing your request. Try again; if it persists, give the \
                     operator the x-request-id of this response.",
                    None,
                    Some("internal_error"),
                )
            }
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body)).into_response();
        let headers = response.headers_mut();
        if let Some(ms) = self.retry_after_ms {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(ms.div_ceil(1000).max(1)));
            headers.insert("retry-after-ms", HeaderValue::from(ms));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
