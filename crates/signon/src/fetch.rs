//! Calling an issuer: the only place here with a connection.

use std::time::Duration;

use atelier_domain::limits::{ISSUER_REQUESTS_MAX, ISSUER_TIMEOUT};
use reqwest::{Client, RequestBuilder, Response, header, redirect};
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;
use url::Url;

use crate::address::{Reach, Resolver};
use crate::error::SignOnError;

/// Connections to one host that are kept for the next sign-in, and how long.
const IDLE_CONNECTIONS_MAX: usize = 2;
const IDLE_TIME_MAX: Duration = Duration::from_secs(30);
/// How an issuer's log knows us.
const USER_AGENT: &str = concat!("atelier/", env!("CARGO_PKG_VERSION"));

/// Calls issuers, within limits.
#[derive(Debug)]
pub(crate) struct Fetcher {
    http: Client,
    reach: Reach,
    places: Semaphore,
}

/// What an issuer answered: success or not, and its JSON.
pub(crate) struct Fetched {
    pub(crate) status: u16,
    body: Vec<u8>,
    what: &'static str,
}

impl Fetcher {
    pub(crate) fn new(reach: Reach) -> Result<Self, SignOnError> {
        let http = Client::builder()
            .user_agent(USER_AGENT)
            // A proxy of the environment would resolve names where nobody looks at what they stand for.
            .no_proxy()
            .redirect(redirect::Policy::none())
            .referer(false)
            .http1_only()
            .connect_timeout(ISSUER_TIMEOUT)
            .timeout(ISSUER_TIMEOUT)
            .https_only(reach == Reach::Public)
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .pool_idle_timeout(IDLE_TIME_MAX)
            .dns_resolver(Resolver(reach))
            .build()
            .map_err(|error| unreachable("connection", error))?;
        Ok(Self { http, reach, places: Semaphore::new(ISSUER_REQUESTS_MAX) })
    }

    pub(crate) fn reach(&self) -> Reach {
        self.reach
    }

    /// A JSON document.
    pub(crate) async fn get<T: DeserializeOwned>(
        &self,
        url: &Url,
        what: &'static str,
        bytes_max: usize,
    ) -> Result<T, SignOnError> {
        self.send(self.http.get(url.clone()), what, bytes_max).await?.success()
    }

    /// A JSON document that is for whoever has the token.
    pub(crate) async fn get_with<T: DeserializeOwned>(
        &self,
        url: &Url,
        token: &str,
        what: &'static str,
        bytes_max: usize,
    ) -> Result<T, SignOnError> {
        self.send(self.http.get(url.clone()).bearer_auth(token), what, bytes_max).await?.success()
    }

    /// Sends a form; `basic` is the value of the `Authorization` header, where there is one.
    pub(crate) async fn post(
        &self,
        url: &Url,
        form: String,
        basic: Option<&str>,
        what: &'static str,
        bytes_max: usize,
    ) -> Result<Fetched, SignOnError> {
        let mut request =
            self.http.post(url.clone()).header(header::CONTENT_TYPE, "application/x-www-form-urlencoded").body(form);
        if let Some(basic) = basic {
            request = request.header(header::AUTHORIZATION, basic);
        }
        self.send(request, what, bytes_max).await
    }

    async fn send(
        &self,
        request: RequestBuilder,
        what: &'static str,
        bytes_max: usize,
    ) -> Result<Fetched, SignOnError> {
        let _place = self.places.try_acquire().map_err(|_| SignOnError::Busy)?;
        let request = request.header(header::ACCEPT, "application/json");
        let response = request.send().await.map_err(|error| unreachable(what, error))?;
        let status = response.status().as_u16();
        Ok(Fetched { status, body: read(response, what, bytes_max).await?, what })
    }
}

impl Fetched {
    fn success<T: DeserializeOwned>(&self) -> Result<T, SignOnError> {
        if self.status == 200 { self.json() } else { Err(SignOnError::Status { what: self.what, status: self.status }) }
    }

    pub(crate) fn json<T: DeserializeOwned>(&self) -> Result<T, SignOnError> {
        serde_json::from_slice(&self.body).map_err(|_| SignOnError::Malformed { what: self.what })
    }
}

/// Reads to the end, or until it is too much; what a header says of the length is not believed.
async fn read(mut response: Response, what: &'static str, bytes_max: usize) -> Result<Vec<u8>, SignOnError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| unreachable(what, error))? {
        if body.len() + chunk.len() > bytes_max {
            return Err(SignOnError::TooLarge { what, limit: bytes_max });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// Without the URL, which an issuer's document may have put something secret into.
fn unreachable(what: &'static str, error: reqwest::Error) -> SignOnError {
    SignOnError::Unreachable { what, source: Box::new(error.without_url()) }
}
