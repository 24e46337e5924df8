//! A small client of our own API: how the commands reach the running server.

use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use reqwest::{Method, RequestBuilder, Response, Url};
use serde_json::Value;

use crate::credentials::Credentials;
use crate::environment;

/// The file in the data folder that says where the server listens.
pub const URL_FILE: &str = "server-url";

/// The file in the data folder that holds the operator's key, mode 0600.
pub const OPERATOR_KEY_FILE: &str = "operator-key";

/// How an operator's key begins.
const OPERATOR_KEY_PREFIX: &str = "atl_o_";

/// Where a command looks for its server.
#[derive(Debug, Clone)]
pub struct Place {
    /// The data folder.
    pub data: PathBuf,
    /// Whether the command line names it: then the server of the environment is not the one that is meant.
    pub is_told: bool,
}

impl Place {
    /// Whether there is something to find a server by.
    pub fn names_a_server(&self) -> bool {
        self.data.join(URL_FILE).exists() || (!self.is_told && environment::url().is_some())
    }

    /// What a further command must say to mean the same folder.
    pub fn flag(&self) -> String {
        if self.is_told { format!(" --data {}", self.data.display()) } else { String::new() }
    }

    /// The server's address, and how to have one there if nobody answers.
    pub fn url(&self) -> Result<(String, String)> {
        let told = environment::url();
        if let Some(url) = told.as_ref().filter(|_| !self.is_told) {
            if !url.starts_with("http://") && !url.starts_with("https://") {
                bail!("ATELIER_URL must begin with http:// or https://, as http://127.0.0.1:8080; it is `{url}`.");
            }
            let url = url.trim_end_matches('/').to_owned();
            return Ok((url, "ATELIER_URL names it: is that right, and does the server run?".to_owned()));
        }
        let data = self.data.display();
        let start = format!("Start it with `atelier serve --data {data}`.");
        let Some(url) = read_line(&self.data, URL_FILE)? else {
            if let Some(url) = Credentials::read()?.last.filter(|_| !self.is_told) {
                return Ok((url, "You signed in there last: does the server still run?".to_owned()));
            }
            let passed_over = if told.is_some() { ", and --data goes before ATELIER_URL" } else { "" };
            bail!(
                "No server runs on {data}{passed_over}. Start one with `atelier serve --data {data}`, or set ATELIER_URL \
                 and ATELIER_KEY and leave --data out, to ask one elsewhere."
            );
        };
        Ok((url, start))
    }

    fn key(&self, url: &str) -> Result<String> {
        let of_folder = || read_line(&self.data, OPERATOR_KEY_FILE);
        let key = if self.is_told {
            of_folder()?.or_else(environment::key)
        } else {
            environment::key().map_or_else(of_folder, |key| Ok(Some(key)))?
        };
        if let Some(key) = key {
            return Ok(key);
        }
        let credentials = Credentials::read()?;
        let signed_in = credentials.of(url).with_context(|| {
            let file = self.data.join(OPERATOR_KEY_FILE);
            let file = file.display();
            format!("No key to ask with: {file} is not there, and nobody is signed in. Set ATELIER_KEY, or run `atelier login`.")
        })?;
        Ok(signed_in.key.clone())
    }
}

/// What a server answered instead of doing it.
#[derive(Debug)]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// A stable word for programs, empty where the server said none.
    pub code: String,
    message: String,
    url: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (HTTP {} from {})", self.message, self.status, self.url)
    }
}

impl std::error::Error for Refusal {}

/// A server and a key for it.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    url: String,
    key: String,
    tenant: Option<String>,
    /// What to do where nobody answers.
    advice: String,
}

impl Client {
    /// Finds server and key: in the data folder where the command line names it, else by ATELIER_URL and ATELIER_KEY,
    /// else in the data folder that there is without, else where somebody signed in.
    pub fn find(place: &Place) -> Result<Self> {
        let (url, advice) = place.url()?;
        let key = place.key(&url)?;
        Ok(Self { advice, ..Self::new(url, key)? })
    }

    /// A client that shows no key.
    pub fn without_key(url: &str) -> Result<Self> {
        Self::new(url, "")
    }

    /// A client of the server at `url`.
    pub fn new(url: impl Into<String>, key: impl Into<String>) -> Result<Self> {
        let url = url.into().trim_end_matches('/').to_owned();
        // The server may be this very process; a proxy of the environment has no place between.
        let http = trusting(reqwest::Client::builder().no_proxy(), &url)?;
        Ok(Self { http, url, key: key.into(), tenant: None, advice: String::new() })
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
        let mut request = self.http.request(method, format!("{}{path}", self.url));
        if !self.key.is_empty() {
            request = request.bearer_auth(&self.key);
        }
        match &self.tenant {
            Some(tenant) => request.header("openai-organization", tenant),
            None => request,
        }
    }

    async fn json(&self, request: RequestBuilder) -> Result<Value> {
        let answer = self.check(request).await?.json().await;
        answer.with_context(|| format!("{} does not answer as Atelier does. Is it the right address?", self.url))
    }

    fn unreachable(&self, error: reqwest::Error) -> anyhow::Error {
        let (url, advice) = (&self.url, &self.advice);
        let has_connected = !error.is_connect();
        let error = anyhow::Error::from(error.without_url());
        // Only its text says so: the client knows nothing of the TLS library.
        if error.chain().any(|cause| cause.to_string().contains("CaUsedAsEndEntity")) {
            return anyhow!(
                "The server at {url} shows the certificate of an authority as its own. Give it one that the authority \
                 signed, or a self-signed one that is no authority's (basicConstraints CA:FALSE), and name that in \
                 ATELIER_CA."
            );
        }
        if error.chain().any(|cause| cause.to_string().contains("certificate")) {
            return error.context(format!(
                "The server at {url} is not known by its certificate. ATELIER_CA names a file with those to trust; \
                 ATELIER_URL or `serve --url` calls the server by the name in its certificate."
            ));
        }
        if has_connected {
            return anyhow!("The server at {url} broke off ({}). Does it still run?", error.root_cause());
        }
        // What the system says adds nothing where nobody listens.
        let nobody = |cause: &std::io::Error| cause.kind() == ErrorKind::ConnectionRefused;
        if error.chain().filter_map(|cause| cause.downcast_ref()).any(nobody) {
            return anyhow!("No server answers at {url}. {advice}");
        }
        anyhow!("No server answers at {url} ({}). {advice}", error.root_cause())
    }

    async fn check(&self, request: RequestBuilder) -> Result<Response> {
        let response = request.send().await.map_err(|error| self.unreachable(error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let (status, asked) = (response.status(), response.url().clone());
        let body: Value = response.json().await.unwrap_or_default();
        let Some(message) = body["error"]["message"].as_str() else {
            bail!("{} answered HTTP {status} without saying why. Is it an Atelier server?", self.url);
        };
        let code = body["error"]["code"].as_str().unwrap_or_default().to_owned();
        let message = self.in_words_of_flags(&code, &asked).unwrap_or_else(|| message.to_owned());
        Err(Refusal { status: status.as_u16(), code, message, url: self.url.clone() }.into())
    }

    /// What the server says in words of headers and paths, in those of the command line.
    fn in_words_of_flags(&self, code: &str, asked: &Url) -> Option<String> {
        match code {
            "organization_required" => {
                Some("An operator's key must say for which tenant it asks: name one with --tenant.".to_owned())
            }
            "plan_without_learning" => Some(format!(
                "The tenant's plan is served by the base alone, which never learns from a tenant's code. Next: atelier \
                 tenant plan {} tuned",
                self.tenant.as_deref().unwrap_or("NAME")
            )),
            "organization_not_found" => {
                let in_path = || asked.path().strip_prefix("/v1/tenants/")?.split('/').next();
                let tenant = self.tenant.as_deref().or_else(in_path)?;
                Some(format!(
                    "There is no tenant `{tenant}`, or it is not this key's. `atelier tenant list` lists all of them for \
                     an operator."
                ))
            }
            _ => None,
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
            let chunk = self.response.chunk().await.context("The server broke off in the middle of its answer.")?;
            match chunk {
                Some(chunk) => self.buffer.extend_from_slice(&chunk),
                None => return Ok(None),
            }
        }
    }
}

/// The line that a file of the data folder holds; none where there is no such file.
fn read_line(data: &Path, file: &str) -> Result<Option<String>> {
    let path = data.join(file);
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error).with_context(|| format!("Cannot read {}", path.display())),
    }
}
