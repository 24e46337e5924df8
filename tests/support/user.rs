//! People who use a server: each has a key or none.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::rc::Rc;
use std::sync::LazyLock;
use std::time::Duration;

use reqwest::Method;
use serde_json::Value;
use tokio::runtime::Runtime;

/// A server that does not answer within this is a failure of its own.
const ANSWER_PATIENCE: Duration = Duration::from_secs(120);

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime for tests")
});

static HTTP: LazyLock<reqwest::Client> = LazyLock::new(|| {
    // No connection outlives its request: the next one may be to a server that was killed and started again.
    client_trusting(&[]).pool_max_idle_per_host(0).build().expect("a client for tests")
});

/// A client to be, which trusts these certificates in PEM format and no others.
pub fn client_trusting(certificates: &[&str]) -> reqwest::ClientBuilder {
    // The first of many tests in one process does it.
    let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
    let certificates = certificates.iter().map(|pem| reqwest::Certificate::from_pem(pem.as_bytes()).unwrap());
    reqwest::Client::builder().no_proxy().timeout(ANSWER_PATIENCE).tls_certs_only(certificates)
}

/// Where requests run.
pub fn runtime() -> &'static Runtime {
    &RUNTIME
}

/// For tests that hold many requests open at once.
pub fn http() -> &'static reqwest::Client {
    &HTTP
}

/// Somebody with a key, or without.
#[derive(Clone)]
pub struct User {
    url: Rc<RefCell<String>>,
    key: Option<String>,
    headers: Vec<(String, String)>,
}

/// What the server answered.
#[derive(Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl User {
    pub fn new(url: Rc<RefCell<String>>, key: Option<&str>) -> Self {
        Self { url, key: key.map(str::to_owned), headers: Vec::new() }
    }

    /// The key, for whoever has one.
    pub fn key(&self) -> &str {
        self.key.as_deref().unwrap()
    }

    /// Somebody else at the same server.
    pub fn with_key(&self, key: &str) -> Self {
        Self { url: Rc::clone(&self.url), key: Some(key.to_owned()), headers: Vec::new() }
    }

    /// The same user, sending this header too.
    pub fn with_header(&self, name: &str, value: &str) -> Self {
        let mut user = self.clone();
        user.headers.push((name.to_owned(), value.to_owned()));
        user
    }

    /// The operator acting for a tenant, or somebody who claims to belong to one.
    pub fn acting_for(&self, tenant: &str) -> Self {
        self.with_header("openai-organization", tenant)
    }

    pub fn get(&self, path: &str) -> Answer {
        self.send("GET", path, None)
    }

    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.send("POST", path, Some(("application/json", body.to_string().into_bytes())))
    }

    pub fn put(&self, path: &str, body: &Value) -> Answer {
        self.send("PUT", path, Some(("application/json", body.to_string().into_bytes())))
    }

    pub fn patch(&self, path: &str, body: &Value) -> Answer {
        self.send("PATCH", path, Some(("application/json", body.to_string().into_bytes())))
    }

    pub fn delete(&self, path: &str) -> Answer {
        self.send("DELETE", path, None)
    }

    pub fn upload(&self, path: &str, archive: &[u8]) -> Answer {
        self.send("POST", path, Some(("application/gzip", archive.to_vec())))
    }

    /// Any request, to its answer's end.
    pub fn send(&self, method: &str, path: &str, body: Option<(&str, Vec<u8>)>) -> Answer {
        let request = self.request(method, path, body);
        RUNTIME.block_on(async {
            let response = request.send().await.unwrap_or_else(|error| panic!("{method} {path}: {error:?}"));
            let status = response.status().as_u16();
            let text = |value: &reqwest::header::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
            let headers =
                response.headers().iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect();
            let body = response.bytes().await.unwrap_or_else(|error| panic!("{method} {path}: {error:?}"));
            Answer { status, headers, body: body.to_vec() }
        })
    }

    /// A request, not yet sent.
    pub fn request(&self, method: &str, path: &str, body: Option<(&str, Vec<u8>)>) -> reqwest::RequestBuilder {
        let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
        let mut request = HTTP.request(method, format!("{}{path}", self.url.borrow()));
        if let Some(key) = &self.key {
            request = request.bearer_auth(key);
        }
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        match body {
            Some((content_type, bytes)) => request.header("content-type", content_type).body(bytes),
            None => request,
        }
    }

    /// A request whose target goes out byte for byte as it stands here: no client library would send some of them.
    pub fn raw(&self, method: &str, target: &str, body: Option<(&str, &[u8])>) -> Answer {
        let mut head =
            format!("{} {target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n", method.to_uppercase());
        if let Some(key) = &self.key {
            let _ = write!(head, "authorization: Bearer {key}\r\n");
        }
        for (name, value) in &self.headers {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        if let Some((content_type, bytes)) = body {
            let _ = write!(head, "content-type: {content_type}\r\ncontent-length: {}\r\n", bytes.len());
        }
        head.push_str("\r\n");
        let url = self.url.borrow();
        let address = url.split_once("://").map_or(url.as_str(), |(_, address)| address);
        let mut socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(ANSWER_PATIENCE)).unwrap();
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(body.map_or(&[], |(_, bytes)| bytes));
        // A server that refuses may close before it has read all.
        let _ = socket.write_all(&bytes);
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer);
        Answer::read(&answer).unwrap_or_else(|| panic!("{method} {target}: {:?}", String::from_utf8_lossy(&answer)))
    }

    /// The text of a completion's first choice.
    pub fn complete(&self, body: &Value) -> String {
        self.post("/v1/completions", body).ok()["choices"][0]["text"].as_str().unwrap().to_owned()
    }
}

impl Answer {
    /// Reads an answer as it came over the wire.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let mut lines = head.split("\r\n");
        let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let body = &bytes[end + 4..];
        let is_chunked = headers.iter().any(|(name, value)| name == "transfer-encoding" && value == "chunked");
        let body = if is_chunked { joined(body)? } else { body.to_vec() };
        Some(Self { status, headers, body })
    }

    /// The JSON of a success.
    pub fn ok(&self) -> Value {
        assert!((200..300).contains(&self.status), "{self:?}");
        self.json()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// The error of a refusal: its envelope must have all four keys and nothing of our inside.
    pub fn error(&self) -> Value {
        assert!(self.status >= 400, "{self:?}");
        let body = self.json();
        let error = &body["error"];
        let keys: Vec<&str> = error.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys, ["message", "type", "param", "code"], "{self:?}");
        assert!(error["message"].as_str().is_some_and(|message| message.len() > 10), "{self:?}");
        assert!(self.header("x-request-id").is_some(), "{self:?}");
        error.clone()
    }

    /// The events of a stream, `[DONE]` required and left out.
    pub fn frames(&self) -> Vec<Value> {
        assert_eq!(self.status, 200, "{self:?}");
        let text = self.text();
        let mut data: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("data:")).map(str::trim).collect();
        assert_eq!(data.pop(), Some("[DONE]"), "{text}");
        data.iter().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// The content of a chunked body.
fn joined(mut body: &[u8]) -> Option<Vec<u8>> {
    let mut whole = Vec::new();
    loop {
        let end = body.windows(2).position(|two| two == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&body[..end]).ok()?.trim(), 16).ok()?;
        let chunk = body.get(end + 2..end + 2 + size)?;
        if size == 0 {
            return Some(whole);
        }
        whole.extend_from_slice(chunk);
        body = body.get(end + 4 + size..)?;
    }
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HTTP {} {:?}\n{}", self.status, self.headers, self.text())
    }
}
