//! Signing in: the way to the issuer and the way back.

use std::fmt;

use atelier_domain::limits::{ISSUER_ANSWER_BYTES_MAX, SIGN_IN_TIME_MAX};
use atelier_domain::{TenantId, Timestamp};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::digest;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;
use url::{Url, form_urlencoded};
use zeroize::Zeroizing;

use crate::address::Reach;
use crate::crypto;
use crate::discovery::{Discovered, SecretIn};
use crate::error::{PersonFault, SignOnError};
use crate::fetch::{Fetched, Fetcher};
use crate::issuers::{Issuer, Issuers, Places};
use crate::keys::KeySet;
use crate::token::{Expected, Identity, Profile, Signed};

/// What is asked of the issuer: an ID token, with email address and name.
const SCOPE: &str = "openid email profile";
/// Random bytes of a state, a nonce and a verifier each: nobody guesses 256 bits.
const RANDOM_BYTES: usize = 32;
/// Bytes of the word that an issuer has for what went wrong.
const ERROR_BYTES_MAX: usize = 64;
const TOKEN_ANSWER: &str = "answer to a code";
const USERINFO: &str = "userinfo";

/// Who Atelier is to an issuer.
#[derive(Debug, Clone)]
pub struct IssuerClient {
    /// Whose issuer it is.
    pub tenant: TenantId,
    /// The issuer, as it calls itself.
    pub issuer: String,
    /// Its name for Atelier.
    pub client_id: String,
    /// What proves that to the issuer; none for a public client, which PKCE alone protects.
    pub secret: Option<ClientSecret>,
}

/// The secret of a client. Printed as nothing, overwritten when dropped.
#[derive(Clone)]
pub struct ClientSecret(Zeroizing<String>);

impl ClientSecret {
    /// From its text.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// To be sealed, or sent to the issuer.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ClientSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientSecret(..)")
    }
}

/// What the browser that began keeps until it comes back. Secret: seal it.
#[derive(Clone, Serialize, Deserialize)]
pub struct Pending {
    issuer: String,
    client_id: String,
    state: String,
    nonce: String,
    verifier: String,
    begun_at: Timestamp,
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending").field("begun_at", &self.begun_at).finish_non_exhaustive()
    }
}

/// A sign-in that has begun.
#[derive(Debug)]
pub struct Begun {
    /// Where to send the browser.
    pub url: String,
    /// What it must bring back.
    pub pending: Pending,
    /// The state: names the sign-in among those of one browser.
    pub state: String,
}

/// What the browser brings back from the issuer.
#[derive(Clone, Default)]
pub struct Answer {
    /// The state that it was sent with.
    pub state: Option<String>,
    /// What is exchanged for the ID token.
    pub code: Option<String>,
    /// Who answers (RFC 9207).
    pub issuer: Option<String>,
    /// What went wrong.
    pub error: Option<String>,
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").field("has_code", &self.code.is_some()).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct TokenAnswer {
    id_token: Option<String>,
    access_token: Option<String>,
}

/// What a code was exchanged for.
struct Tokens {
    id: String,
    /// Opens the userinfo endpoint, and is good for nothing else here.
    access: Option<Zeroizing<String>>,
}

#[derive(Deserialize)]
struct TokenError {
    error: Option<String>,
}

/// Signs people in at issuers.
#[derive(Debug)]
pub struct SignOn {
    fetcher: Fetcher,
    issuers: Issuers,
    places: Places,
}

impl SignOn {
    /// With calls that go this far.
    ///
    /// # Errors
    /// [`SignOnError::Unreachable`] when the system has no certificates to trust.
    pub fn new(reach: Reach) -> Result<Self, SignOnError> {
        crypto::install();
        Ok(Self { fetcher: Fetcher::new(reach)?, issuers: Issuers::default(), places: Places::default() })
    }

    /// How far calls go.
    #[must_use]
    pub fn reach(&self) -> Reach {
        self.fetcher.reach()
    }

    /// Whether a tenant's issuer is there and says of itself what it must; asks it anew.
    ///
    /// # Errors
    /// What is wrong with it.
    pub async fn check(&self, tenant: TenantId, issuer: &str) -> Result<(), SignOnError> {
        let _place = self.places.enter(tenant)?;
        self.issuers.forget(issuer);
        let issuer = self.issuers.get(issuer);
        let document = issuer.document(&self.fetcher).await?;
        KeySet::fetch(&self.fetcher, &document.keys).await.map(|_| ())
    }

    /// Begins: where the browser goes, and what it must bring back to `redirect_uri`.
    ///
    /// # Errors
    /// What is wrong with the issuer.
    pub async fn begin(&self, client: &IssuerClient, redirect_uri: &str, now: Timestamp) -> Result<Begun, SignOnError> {
        let _place = self.places.enter(client.tenant)?;
        let issuer = self.issuers.get(&client.issuer);
        let document = issuer.document(&self.fetcher).await?;
        let (state, nonce, verifier) = (random_text()?, random_text()?, random_text()?);
        let mut url = document.authorization.clone();
        url.query_pairs_mut()
            .append_pair("response_type", "code")
            .append_pair("client_id", &client.client_id)
            .append_pair("redirect_uri", redirect_uri)
            .append_pair("scope", SCOPE)
            .append_pair("state", &state)
            .append_pair("nonce", &nonce)
            .append_pair("code_challenge", &challenge(&verifier))
            .append_pair("code_challenge_method", "S256");
        let pending = Pending {
            issuer: client.issuer.clone(),
            client_id: client.client_id.clone(),
            state: state.clone(),
            nonce,
            verifier,
            begun_at: now,
        };
        Ok(Begun { url: url.into(), pending, state })
    }

    /// Finishes: who signed in. `client` is as it is now; when it changed since, the sign-in counts for nothing.
    ///
    /// # Errors
    /// Why nobody did.
    pub async fn finish(
        &self,
        client: &IssuerClient,
        redirect_uri: &str,
        pending: &Pending,
        answer: &Answer,
        now: Timestamp,
    ) -> Result<Identity, SignOnError> {
        let state = answer.state.as_deref().unwrap_or_default();
        let is_its_answer = bool::from(state.as_bytes().ct_eq(pending.state.as_bytes()));
        let is_in_time = now >= pending.begun_at && now.since(pending.begun_at) < SIGN_IN_TIME_MAX;
        let is_its_client = pending.issuer == client.issuer && pending.client_id == client.client_id;
        if !(is_its_answer && is_in_time && is_its_client) {
            return Err(SignOnError::NotBegun);
        }
        let _place = self.places.enter(client.tenant)?;
        let issuer = self.issuers.get(&client.issuer);
        let document = issuer.document(&self.fetcher).await?;
        match &answer.issuer {
            Some(named) if *named != client.issuer => return Err(SignOnError::AnswerOfOther),
            None if document.names_itself => return Err(SignOnError::AnswerOfOther),
            _ => {}
        }
        if let Some(error) = &answer.error {
            return Err(SignOnError::Refused { error: word(error) });
        }
        let code = answer.code.as_deref().filter(|code| !code.is_empty()).ok_or(SignOnError::NotBegun)?;
        let answered = self.exchange(client, &document, redirect_uri, &pending.verifier, code).await?;
        let tokens = tokens(&answered)?;
        let profile = self.profile(&issuer, client, &tokens.id, &pending.nonce, now).await?;
        let profile = match (&document.userinfo, &tokens.access) {
            (Some(url), Some(access)) if !profile.names_an_address() => self.ask_more(url, access, profile).await?,
            _ => profile,
        };
        Ok(profile.identity()?)
    }

    async fn exchange(
        &self,
        client: &IssuerClient,
        document: &Discovered,
        redirect_uri: &str,
        verifier: &str,
        code: &str,
    ) -> Result<Fetched, SignOnError> {
        let (form, basic) = token_request(client, document, redirect_uri, verifier, code);
        self.fetcher.post(&document.token, form, basic.as_deref(), TOKEN_ANSWER, ISSUER_ANSWER_BYTES_MAX).await
    }

    async fn profile(
        &self,
        issuer: &Issuer,
        client: &IssuerClient,
        token: &str,
        nonce: &str,
        now: Timestamp,
    ) -> Result<Profile, SignOnError> {
        let signed = Signed::read(token)?;
        let key = issuer.key_of(&self.fetcher, &signed).await?;
        let expected = Expected { issuer: &client.issuer, client_id: &client.client_id, nonce, now };
        Ok(signed.verify(&key, expected)?)
    }

    /// Asks the userinfo endpoint for the address: where an access token is given too, an issuer need not put into the
    /// ID token what the scopes `email` and `profile` are for (OpenID Connect Core 1.0, section 5.4). Its answer counts
    /// for the subject of the ID token only (section 5.3.2).
    async fn ask_more(&self, url: &Url, access: &str, profile: Profile) -> Result<Profile, SignOnError> {
        let told: Profile = self.fetcher.get_with(url, access, USERINFO, ISSUER_ANSWER_BYTES_MAX).await?;
        if told.subject != profile.subject {
            return Err(PersonFault::AnotherPerson.into());
        }
        Ok(profile.with_address_of(told))
    }
}

/// The form that exchanges a code, and the `Authorization` header that goes with it.
fn token_request(
    client: &IssuerClient,
    document: &Discovered,
    redirect_uri: &str,
    verifier: &str,
    code: &str,
) -> (String, Option<String>) {
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.append_pair("grant_type", "authorization_code")
        .append_pair("code", code)
        .append_pair("redirect_uri", redirect_uri)
        .append_pair("code_verifier", verifier);
    let mut basic = None;
    match (&client.secret, document.secret_in) {
        (Some(secret), SecretIn::Header) => basic = Some(basic_of(&client.client_id, secret.expose())),
        (Some(secret), SecretIn::Form) => {
            form.append_pair("client_id", &client.client_id).append_pair("client_secret", secret.expose());
        }
        (None, _) => {
            form.append_pair("client_id", &client.client_id);
        }
    }
    (form.finish(), basic)
}

fn tokens(answered: &Fetched) -> Result<Tokens, SignOnError> {
    if answered.status != 200 {
        return Err(match answered.json::<TokenError>() {
            Ok(TokenError { error: Some(error) }) => SignOnError::CodeRefused { error: word(&error) },
            _ => SignOnError::Status { what: TOKEN_ANSWER, status: answered.status },
        });
    }
    let TokenAnswer { id_token, access_token } = answered.json()?;
    let id = id_token.ok_or(SignOnError::Malformed { what: TOKEN_ANSWER })?;
    Ok(Tokens { id, access: access_token.map(Zeroizing::new) })
}

/// The `Authorization` header of a client, whose parts are encoded first (RFC 6749, section 2.3.1).
fn basic_of(client_id: &str, secret: &str) -> String {
    let encode = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    format!("Basic {}", STANDARD.encode(format!("{}:{}", encode(client_id), encode(secret))))
}

/// What an issuer calls a fault, fit to be shown: its letters only.
fn word(text: &str) -> String {
    let letters = text.chars().filter(|letter| letter.is_ascii_alphanumeric() || "_-.".contains(*letter));
    let word: String = letters.take(ERROR_BYTES_MAX).collect();
    if word.is_empty() { "nothing".to_owned() } else { word }
}

/// A text that nobody guesses: 256 random bits in base64 for URLs.
///
/// # Errors
/// [`SignOnError::Random`].
pub fn random_text() -> Result<String, SignOnError> {
    let mut bytes = [0; RANDOM_BYTES];
    getrandom::fill(&mut bytes).map_err(|_| SignOnError::Random)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

/// The challenge of a verifier (RFC 7636, S256).
#[must_use]
pub fn challenge(verifier: &str) -> String {
    URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, verifier.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_challenge_is_that_of_the_rfc() {
        // RFC 7636, appendix B.
        let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        assert_eq!(challenge(verifier), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
    }

    #[test]
    fn a_clients_header_keeps_what_separates_apart() {
        assert_eq!(basic_of("a:b", "c d/é"), format!("Basic {}", STANDARD.encode("a%3Ab:c+d%2F%C3%A9")));
    }

    #[test]
    fn what_an_issuer_says_is_shown_as_a_word() {
        assert_eq!(word("access_denied"), "access_denied");
        assert_eq!(word("<script>alert(1)</script>"), "scriptalert1script");
        assert_eq!(word("\u{1b}[31m"), "31m");
        assert_eq!(word("é"), "nothing");
        assert_eq!(word(&"a".repeat(1_000)).len(), ERROR_BYTES_MAX);
    }

    #[test]
    fn nothing_secret_is_printed() {
        let client = IssuerClient {
            tenant: TenantId::generate(Timestamp::from_seconds(1), [1; 10]),
            issuer: "i".into(),
            client_id: "c".into(),
            secret: Some(ClientSecret::new("hush".into())),
        };
        let pending = Pending {
            issuer: String::new(),
            client_id: String::new(),
            state: "hush".into(),
            nonce: "hush".into(),
            verifier: "hush".into(),
            begun_at: Timestamp::from_seconds(1),
        };
        let answer = Answer { code: Some("hush".into()), state: Some("hush".into()), ..Answer::default() };
        assert!(!format!("{client:?} {pending:?} {answer:?}").contains("hush"));
    }
}
