//! An issuer's document (OpenID Connect Discovery 1.0).

use atelier_domain::limits::{ISSUER_DOCUMENT_BYTES_MAX, ISSUER_URL_BYTES_MAX};
use serde::Deserialize;
use url::Url;

use crate::error::SignOnError;
use crate::fetch::Fetcher;

const WELL_KNOWN: &str = "/.well-known/openid-configuration";
const WHAT: &str = "document";

/// How the issuer wants the client's secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SecretIn {
    /// In the `Authorization` header.
    Header,
    /// In the form.
    Form,
}

/// What is used of the document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Discovered {
    /// Where a browser is sent.
    pub(crate) authorization: Url,
    /// Where a code is exchanged.
    pub(crate) token: Url,
    /// Where the keys are.
    pub(crate) keys: Url,
    /// Where more is said of who signed in.
    pub(crate) userinfo: Option<Url>,
    pub(crate) secret_in: SecretIn,
    /// Whether the answer names the issuer (RFC 9207): then it must.
    pub(crate) names_itself: bool,
}

#[derive(Deserialize)]
struct Document {
    issuer: String,
    authorization_endpoint: String,
    token_endpoint: String,
    jwks_uri: String,
    userinfo_endpoint: Option<String>,
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
}

/// Fetches the document of an issuer, which must call itself exactly so.
pub(crate) async fn discover(fetcher: &Fetcher, issuer: &str) -> Result<Discovered, SignOnError> {
    let url = fetcher.reach().check(&document_address(issuer))?;
    let document: Document = fetcher.get(&url, WHAT, ISSUER_DOCUMENT_BYTES_MAX).await?;
    if document.issuer != issuer {
        return Err(SignOnError::OtherIssuer { named: shown(&document.issuer) });
    }
    let methods = document.token_endpoint_auth_methods_supported;
    let takes = |method: &str| methods.as_ref().is_some_and(|methods| methods.iter().any(|known| known == method));
    // The header is what an issuer takes that says nothing.
    let is_form_only = takes("client_secret_post") && !takes("client_secret_basic");
    Ok(Discovered {
        authorization: fetcher.reach().check(&document.authorization_endpoint)?,
        token: fetcher.reach().check(&document.token_endpoint)?,
        keys: fetcher.reach().check(&document.jwks_uri)?,
        userinfo: document.userinfo_endpoint.as_deref().map(|url| fetcher.reach().check(url)).transpose()?,
        secret_in: if is_form_only { SecretIn::Form } else { SecretIn::Header },
        names_itself: document.authorization_response_iss_parameter_supported,
    })
}

/// What an issuer calls itself, fit to be shown: an address in plain letters, or nothing of it.
fn shown(issuer: &str) -> String {
    let is_plain = issuer.len() <= ISSUER_URL_BYTES_MAX && issuer.bytes().all(|byte| byte.is_ascii_graphic());
    if is_plain && Url::parse(issuer).is_ok() { issuer.to_owned() } else { "by what is no address".to_owned() }
}

/// Where the document of an issuer lies: a slash at the issuer's end is left out.
fn document_address(issuer: &str) -> String {
    format!("{}{WELL_KNOWN}", issuer.strip_suffix('/').unwrap_or(issuer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_issuers_own_name_is_shown_if_it_is_one() {
        assert_eq!(shown("https://id.example.com/"), "https://id.example.com/");
        for odd in ["", "id", "https://id.example.com/ x", "https://id.example.com/\u{1b}[31m", "https://é.example.com"]
        {
            assert_eq!(shown(odd), "by what is no address", "{odd:?}");
        }
    }

    #[test]
    fn the_document_lies_beneath_the_issuer() {
        let expected = "https://id.example.com/realms/a/.well-known/openid-configuration";
        for issuer in ["https://id.example.com/realms/a", "https://id.example.com/realms/a/"] {
            assert_eq!(document_address(issuer), expected);
        }
    }
}
