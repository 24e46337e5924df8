//! Key, or browser's session → who. The only place where a request's identity comes from; a body, a query or a foreign header never names
//! a tenant.

use atelier_access::Caller;
use axum::extract::FromRequestParts;
use axum::http::{HeaderMap, header, request::Parts};

use crate::error::ApiError;
use crate::state::AppState;

/// With an operator's key: which tenant to act for, by name or id. With a tenant's key: must be that tenant.
pub const ORGANIZATION_HEADER: &str = "openai-organization";

/// A caller whose key was checked; what it may do is for `access` to say.
pub struct Authenticated(pub Caller);

impl FromRequestParts<AppState> for Authenticated {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let caller =
            match (parts.headers.contains_key(header::AUTHORIZATION), with_session(state, &parts.headers).await) {
                (false, Some(caller)) => {
                    state.site.must_be_own(&parts.method, &parts.headers)?;
                    caller?
                }
                _ => state.platform.authenticate(bearer(&parts.headers)?).await?,
            };
        let Some(organization) = parts.headers.get(ORGANIZATION_HEADER) else { return Ok(Self(caller)) };
        let organization = organization.to_str().map_err(|_| {
            ApiError::invalid(
                "The OpenAI-Organization header must be a tenant's name or id in ASCII.",
                None,
                Some("invalid_organization"),
            )
        })?;
        Ok(Self(state.platform.acting_for(&caller, organization).await?))
    }
}

/// Who the browser's session is, where it sends one and no key.
pub async fn with_session(state: &AppState, headers: &HeaderMap) -> Option<Result<Caller, ApiError>> {
    if headers.contains_key(header::AUTHORIZATION) {
        return None;
    }
    let session = state.site.session(headers)?;
    Some(state.platform.authenticate_session(session).await.map_err(ApiError::from))
}

fn bearer(headers: &HeaderMap) -> Result<&str, ApiError> {
    let missing = || {
        ApiError::not_authenticated(
            "You did not provide an API key. Send it in the Authorization header: 'Authorization: Bearer YOUR_KEY'.",
        )
    };
    let value = headers.get(header::AUTHORIZATION).ok_or_else(missing)?.to_str().map_err(|_| missing())?;
    let (scheme, key) = value.split_once(' ').ok_or_else(missing)?;
    if !scheme.eq_ignore_ascii_case("bearer") || key.trim().is_empty() {
        return Err(missing());
    }
    Ok(key.trim())
}
