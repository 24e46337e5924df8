//! A small client of our own API: how the commands reach the running server.

use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use reqwest::{Method, RequestBuilder, Response};
use serde_json::Value;

use crate::environment;

/// The file in the data folder that says where the server listens.
pub const URL_FILE: &str = "server-url";

/// The file in the data folder that holds the operator's key, mode 0600.
pub const OPERATOR_KEY_FILE: &str = "operator-key";

/// How an operator's key begins.
const OPERATOR_KEY_PREFIX: &str = "atl_o_";

/// A server and a key for it.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    url: String,
    key: String,
    tenant: Option<String>,
}

impl Client {
    /// Finds the server by ATELIER_URL and ATELIER_KEY, else by what it left in its data folder.
    pub fn find(data: &Path) -> Result<Self> {
        let url = match environment::url() {
            Some(url) => url,
            None => read_line(data, URL_FILE).with_context(|| {
                format!(
                    "No server found for {}. Start one with `atelier serve --data {0}`, or set ATELIER_URL and \
                     ATELIER_KEY.",
                    data.display()
                )
            })?,
        };
        let key = match environment::key() {
            Some(key) => key,
            None => read_line(data, OPERATOR_KEY_FILE)
                .with_context(|| format!("No key: {} holds none. Set ATELIER_KEY.", data.display()))?,
        };
        Self::new(url, key)
    }

    /// A client of the server at `url`.
    pub fn new(url: impl Into<String>, key: impl Into<String>) -> Result<Self> {
        let url = url.into().trim_end_matches('/').to_owned();
        // The server may be this very process; a proxy of the environment has no place between.
        let http = trusting(reqwest::Client::builder().no_proxy(), &url)?;
        Ok(Self { http, url, key: key.into(), tenant: None })
    }

    /// The same client, acting for a tenant.
    pub fn for_tenant(mut self, tenant: Option<&str>) -> Self {
        self.tenant = tenant.map(str::to_owned);
        self
    }

    /// Whether it speaks for the installation: by an operator's key, and for no tenant.
    pub fn is_of_the_installation(&self) -> bool {
        self.tenant.is_none() && self.key.starts_with(OPERATOR_KEY_PREFIX)
    }

    /// Where the server listens.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// GETs a JSON object.
    pub async fn get(&self, path: &str) -> Result<Value> {
        self.json(self.request(Method::GET, path)).await
    }

    /// Sends a JSON object and receives one.
    pub async fn send(&self, method: Method, path: &str, body: &Value) -> Result<Value> {
        self.json(self.request(method, path).json(body)).await
    }

    /// Sends bytes of a content type and receives a JSON object.
    pub async fn upload(&self, path: &str, content_type: &str, body: Vec<u8>) -> Result<Value> {
        let request = self.request(Method::POST, path).header("content-type", content_type).body(body);
        self.json(request).await
    }

    /// Sends a JSON object and receives a stream of server-sent events' data.
    pub async fn stream(&self, path: &str, body: &Value) -> Result<Frames> {
        let response = self.check(self.request(Method::POST, path).json(body)).await?;
        Ok(Frames { response, buffer: Vec::new() })
    }

    /// GETs bytes into a file, as they come; how many there were. The connection's end says whether they are all.
    pub async fn download(&self, path: &str, file: &mut std::fs::File) -> Result<u64> {
        let mut response = self.check(self.request(Method::GET, path)).await?;
        let mut bytes = 0;
        while let Some(chunk) = response.chunk().await.context("The server broke off; nothing was kept.")? {
            std::io::Write::write_all(file, &chunk)?;
            bytes += chunk.len() as u64;
        }
        Ok(bytes)
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.url)).bearer_auth(&self.key);
        match &self.tenant {
            Some(tenant) => request.header("openai-organization", tenant),
            None => request,
        }
    }

    async fn json(&self, request: RequestBuilder) -> Result<Value> {
        Ok(self.check(request).await?.json().await?)
    }

    fn unreachable(&self, error: reqwest::Error) -> anyhow::Error {
        let error = anyhow::Error::from(error);
        // Only its text says so: the client knows nothing of the TLS library.
        let advice = if error.chain().any(|cause| cause.to_string().contains("certificate")) {
            "is not known by its certificate. ATELIER_CA names a file with those to trust; ATELIER_URL or `serve --url` \
             calls the server by the name in its certificate."
        } else {
            "does not answer. Is `atelier serve` running? `atelier doctor` looks."
        };
        error.context(format!("The server at {} {advice}", self.url))
    }

    async fn check(&self, request: RequestBuilder) -> Result<Response> {
        let response = request.send().await.map_err(|error| self.unreachable(error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let body: Value = response.json().await.unwrap_or_default();
        match body["error"]["message"].as_str() {
            Some(message) => bail!("{message} (HTTP {})", status.as_u16()),
            None => bail!("The server answered HTTP {status} without saying why."),
        }
    }
}

/// A client that trusts the certificates of ATELIER_CA, or else the system's; no system needs any for plain HTTP.
fn trusting(builder: reqwest::ClientBuilder, url: &str) -> Result<reqwest::Client> {
    if !url.starts_with("https://") {
        return Ok(builder.tls_certs_only([]).build()?);
    }
    let Some(path) = environment::trusted_certificates() else {
        return builder.build().context(
            "This system has no certificates to trust. Set ATELIER_CA to a file with those that signed the server's.",
        );
    };
    let trusted = std::fs::read(&path).map_err(anyhow::Error::from).and_then(|pem| {
        let certificates = reqwest::Certificate::from_pem_bundle(&pem)?;
        if certificates.is_empty() {
            bail!("there is none in it");
        }
        Ok(builder.tls_certs_only(certificates).build()?)
    });
    trusted.with_context(|| format!("ATELIER_CA must name a file of certificates in PEM format: {}.", path.display()))
}

/// The data of server-sent events, one by one.
pub struct Frames {
    response: Response,
    buffer: Vec<u8>,
}

impl Frames {
    /// The next event's JSON; none after `[DONE]` or the end.
    pub async fn next(&mut self) -> Result<Option<Value>> {
        loop {
            while let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\n\n") {
                let event: Vec<u8> = self.buffer.drain(..end + 2).collect();
                let Some(data) = String::from_utf8_lossy(&event)
                    .lines()
                    .find_map(|line| line.strip_prefix("data:").map(|data| data.trim_start().to_owned()))
                else {
                    continue;
                };
                if data == "[DONE]" {
                    return Ok(None);
                }
                let value: Value = serde_json::from_str(&data)?;
                if let Some(message) = value["error"]["message"].as_str() {
                    return Err(anyhow!("{message}"));
                }
                return Ok(Some(value));
            }
            match self.response.chunk().await? {
                Some(chunk) => self.buffer.extend_from_slice(&chunk),
                None => return Ok(None),
            }
        }
    }
}

fn read_line(data: &Path, file: &str) -> Result<String> {
    Ok(std::fs::read_to_string(data.join(file))?.trim().to_owned())
}
