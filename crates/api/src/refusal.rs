//! What is answered to those whom no handler hears: what cannot be read as a request, and who comes when there is no
//! place. The same envelope and headers as everywhere.

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::error::ApiError;
use crate::observe::{REQUEST_ID_HEADER, new_request_id, protect};

/// When somebody should come back for whom there was no place.
const RETRY_AFTER_SECONDS: u64 = 1;

/// A refusal, after which the connection ends.
pub struct Refusal {
    status: StatusCode,
    headers: HeaderMap,
    error: ApiError,
}

impl Refusal {
    /// There are as many connections as there may be, and all of them are at work.
    pub fn full() -> Self {
        let message = "The server has as many connections as it can take. Try again in a moment.";
        let mut refusal = Self::new(StatusCode::SERVICE_UNAVAILABLE, message, "overloaded");
        refusal.headers.insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECONDS));
        refusal
    }

    /// What came is no request that can be read; `status` is what HTTP calls that.
    pub fn unreadable(status: StatusCode) -> Self {
        let (message, code) = match status {
            StatusCode::PAYLOAD_TOO_LARGE => {
                ("The request body is larger than any endpoint allows. Send less at once.", "request_too_large")
            }
            StatusCode::URI_TOO_LONG | StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => {
                ("The request's address and headers are longer than this server reads.", "head_too_large")
            }
            _ => ("This is no HTTP/1.1 request that can be read. Mend it and send it again.", "invalid_request"),
        };
        Self::new(status, message, code)
    }

    fn new(status: StatusCode, message: &str, code: &str) -> Self {
        let mut headers = HeaderMap::new();
        protect(&mut headers);
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Ok(id) = HeaderValue::from_str(&new_request_id()) {
            headers.insert(HeaderName::from_static(REQUEST_ID_HEADER), id);
        }
        Self { status, headers, error: ApiError::with_status(status, message, code) }
    }

    /// The status.
    pub fn status(&self) -> u16 {
        self.status.as_u16()
    }

    /// As it goes over a connection that hyper does not write to.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Serialising our own plain structs cannot fail.
        let body = serde_json::to_vec(self.error.body()).unwrap_or_default();
        let mut bytes = format!("HTTP/1.1 {}\r\ncontent-length: {}\r\n", self.status, body.len()).into_bytes();
        for (name, value) in &self.headers {
            bytes.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
        }
        bytes.extend(b"\r\n");
        bytes.extend(body);
        bytes
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = self.error.into_response();
        response.headers_mut().extend(self.headers);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_reads_as_a_response() {
        let refusal = Refusal::unreadable(StatusCode::PAYLOAD_TOO_LARGE);
        let text = String::from_utf8(refusal.to_bytes()).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 413 Payload Too Large\r\n"), "{head}");
        assert!(head.contains(&format!("\r\ncontent-length: {}\r\n", body.len())), "{head}");
        for header in ["cache-control: no-store", "x-content-type-options: nosniff", "x-request-id: req_"] {
            assert!(head.contains(header), "{head}");
        }
        let error: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(error["error"]["code"], "request_too_large");
        assert_eq!(Refusal::full().into_response().headers()["retry-after"], "1");
    }
}
