//! `/v1/organization/sign_on`: which issuer a tenant trusts to say who its people are.

use atelier_domain::PersonRole;
use atelier_platform::{Platform, SetSignOn, SignOnRecord};
use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::caller::Authenticated;
use crate::error::ApiError;
use crate::extract::WireJson;
use crate::site::Site;
use crate::wire::Deleted;

/// Body of `PUT /v1/organization/sign_on`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetSignOnRequest {
    /// The issuer's address, letter by letter as its document has it: `https://…`.
    pub issuer: String,
    /// What the issuer calls this server.
    pub client_id: String,
    /// The secret that goes with it, kept sealed and never shown. The one that is known stays when absent and the client
    /// is the same; a public client has none.
    #[serde(default)]
    pub client_secret: Option<String>,
    /// Domains of email addresses whose people come uninvited; only who is invited when absent.
    #[serde(default)]
    pub domains: Vec<String>,
    /// What those become: `reader` (the default) or `owner`.
    #[serde(default)]
    pub role: Option<String>,
}

/// What is known of the issuer.
#[derive(Debug, Serialize, ToSchema)]
pub struct SignOnObject {
    /// Always `sign_on`.
    pub object: &'static str,
    /// Whether people can sign in.
    pub enabled: bool,
    /// The issuer's address; null when there is none.
    pub issuer: Option<String>,
    /// What it calls this server.
    pub client_id: Option<String>,
    /// Whether a secret is known. It is never shown.
    pub has_client_secret: bool,
    /// Domains of email addresses whose people come uninvited.
    pub domains: Vec<String>,
    /// What those become.
    pub role: Option<&'static str>,
    /// When it was set, in unix seconds.
    pub changed_at: Option<i64>,
    /// Where the issuer must let browsers return to: to be entered there.
    pub redirect_uri: String,
}

/// Whether people can sign in.
#[derive(Debug, Serialize, ToSchema)]
pub struct SignOnCheckObject {
    /// Always `sign_on.check`.
    pub object: &'static str,
    /// Whether the issuer is there and says of itself what it must.
    pub ok: bool,
    /// What is wrong; null when nothing is.
    pub problem: Option<String>,
}

/// `PUT /v1/organization/sign_on`.
pub async fn set_sign_on(
    State(platform): State<Platform>,
    State(site): State<Site>,
    Authenticated(caller): Authenticated,
    WireJson(body): WireJson<SetSignOnRequest>,
) -> Result<Json<SignOnObject>, ApiError> {
    let role = body.role.as_deref().map(role).transpose()?.unwrap_or(PersonRole::Reader);
    let SetSignOnRequest { issuer, client_id, client_secret, domains, .. } = body;
    let record = platform.set_sign_on(&caller, SetSignOn { issuer, client_id, client_secret, domains, role }).await?;
    Ok(Json(object(Some(record), &site)))
}

/// `GET /v1/organization/sign_on`.
pub async fn get_sign_on(
    State(platform): State<Platform>,
    State(site): State<Site>,
    Authenticated(caller): Authenticated,
) -> Result<Json<SignOnObject>, ApiError> {
    Ok(Json(object(platform.get_sign_on(&caller).await?, &site)))
}

/// `DELETE /v1/organization/sign_on`.
pub async fn delete_sign_on(
    State(platform): State<Platform>,
    Authenticated(caller): Authenticated,
) -> Result<Json<Deleted>, ApiError> {
    Ok(Json(Deleted::new(platform.delete_sign_on(&caller).await?, "sign_on.deleted")))
}

/// `GET /v1/organization/sign_on/check`.
pub async fn check_sign_on(
    State(platform): State<Platform>,
    Authenticated(caller): Authenticated,
) -> Result<Json<SignOnCheckObject>, ApiError> {
    let problem = platform.check_sign_on(&caller).await?;
    Ok(Json(SignOnCheckObject { object: "sign_on.check", ok: problem.is_none(), problem }))
}

fn role(word: &str) -> Result<PersonRole, ApiError> {
    word.parse().map_err(|_| ApiError::invalid("The role is `reader` or `owner`.", Some("role"), Some("invalid_value")))
}

fn object(record: Option<SignOnRecord>, site: &Site) -> SignOnObject {
    let known = record.as_ref();
    SignOnObject {
        object: "sign_on",
        enabled: known.is_some(),
        issuer: known.map(|record| record.issuer.clone()),
        client_id: known.map(|record| record.client_id.clone()),
        has_client_secret: known.is_some_and(|record| record.has_secret),
        domains: known.iter().flat_map(|record| &record.domains).map(ToString::to_string).collect(),
        role: known.map(|record| record.role.as_str()),
        changed_at: known.map(|record| record.changed_at.seconds()),
        redirect_uri: site.redirect_uri(),
    }
}
