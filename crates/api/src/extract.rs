//! Request parts → typed values, with refusals in the wire's own envelope instead of the framework's plain text.

use std::error::Error;

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::{StatusCode, request::Parts};
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};
use tower_http::timeout::TimeoutError;

use crate::error::ApiError;

/// A JSON body. The content type is not asked for: several editors leave it out.
pub struct WireJson<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for WireJson<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let body = Bytes::from_request(request, state).await.map_err(body_refused)?;
        parse_json(&body).map(Self)
    }
}

/// Parses a JSON body, which is an object; the error says where and why.
pub fn parse_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    // serde takes a list for an object whose fields come in order.
    if body.trim_ascii_start().starts_with(b"[") {
        return Err(ApiError::invalid(
            "We could not parse the JSON body of your request: it is a list, and must be an object. Mend the body and \
             send it again.",
            None,
            Some("invalid_json"),
        ));
    }
    serde_json::from_slice(body).map_err(|error| {
        ApiError::invalid(
            format!("We could not parse the JSON body of your request: {error}. Mend the body and send it again."),
            None,
            Some("invalid_json"),
        )
    })
}

/// An object inside of a body, and not a list in its place.
pub fn object<'de, D: Deserializer<'de>, T: DeserializeOwned>(deserializer: D) -> Result<T, D::Error> {
    let fields = Map::deserialize(deserializer)?;
    T::deserialize(Value::Object(fields)).map_err(D::Error::custom)
}

/// The same where there may be none.
pub fn optional_object<'de, D: Deserializer<'de>, T: DeserializeOwned>(deserializer: D) -> Result<Option<T>, D::Error> {
    let fields = Option::<Map<String, Value>>::deserialize(deserializer)?;
    fields.map(|fields| T::deserialize(Value::Object(fields)).map_err(D::Error::custom)).transpose()
}

/// The query string.
pub struct WireQuery<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for WireQuery<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let query = parts.uri.query().unwrap_or_default();
        serde_html_form::from_str(query)
            .map(Self)
            .map_err(|error| ApiError::invalid(format!("Invalid query string: {error}."), None, Some("invalid_query")))
    }
}

/// One id or name in the path. What does not parse, or is no text, cannot exist: 404, like any other stranger.
pub struct PathId<T>(pub T);

impl<S: Send + Sync, T: std::str::FromStr + Send> FromRequestParts<S> for PathId<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let text: Result<Path<String>, PathRejection> = Path::from_request_parts(parts, state).await;
        text.ok()
            .and_then(|Path(text)| text.parse().ok())
            .map(Self)
            .ok_or_else(|| ApiError::not_found("No such resource, or not one of yours.", "not_found"))
    }
}

/// Two ids in the path, in their order there.
pub struct PathIds<A, B>(pub A, pub B);

impl<S, A, B> FromRequestParts<S> for PathIds<A, B>
where
    S: Send + Sync,
    A: std::str::FromStr + Send,
    B: std::str::FromStr + Send,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let texts: Result<Path<(String, String)>, PathRejection> = Path::from_request_parts(parts, state).await;
        texts
            .ok()
            .and_then(|Path((one, other))| Some(Self(one.parse().ok()?, other.parse().ok()?)))
            .ok_or_else(|| ApiError::not_found("No such resource, or not one of yours.", "not_found"))
    }
}

/// What the framework refused while reading a body.
pub fn body_refused(rejection: BytesRejection) -> ApiError {
    if is_timeout(&rejection) {
        return ApiError::with_status(
            StatusCode::REQUEST_TIMEOUT,
            "The request body came too slowly. Send it again over a better line, or in smaller parts.",
            "request_timeout",
        );
    }
    match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => ApiError::with_status(
            StatusCode::PAYLOAD_TOO_LARGE,
            "The request body is larger than this endpoint allows. Send less at once.",
            "request_too_large",
        ),
        _ => ApiError::invalid("The request body could not be read to its end.", None, Some("invalid_body")),
    }
}

fn is_timeout(rejection: &BytesRejection) -> bool {
    let mut causes = std::iter::successors(Some(rejection as &(dyn Error + 'static)), |&error| error.source());
    causes.any(|error| error.is::<TimeoutError>())
}
