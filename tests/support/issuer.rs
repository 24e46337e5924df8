//! An issuer of the tests' own: OpenID Connect over HTTP in a process of its own, which does as it should until it is
//! told to lie. It is this very test binary, run again for the test at the end of this file.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::{SecureRandom, SystemRandom};
use ring::rsa::PublicKeyComponents;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use ring::{digest, hmac};
use serde_json::{Value, json};

use super::user::{http, runtime};

/// Says to the test below that it is to be an issuer.
const VARIABLE: &str = "ATELIER_TEST_ISSUER";
const LISTENS: &str = "issuer listens on ";
pub const CLIENT_ID: &str = "atelier-test";
pub const CLIENT_SECRET: &str = "a secret of the test's: +/%&";
/// A private key that guards nothing: of this issuer alone.
const RSA_KEY: &str = include_str!("issuer-rsa-key.txt");
/// Bytes of a document that is too large for anybody.
const HUGE_BYTES: usize = 2 << 20;

/// A running issuer. Ends when dropped.
pub struct Issuer {
    child: Child,
    pub url: String,
}

impl Issuer {
    pub fn start() -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "support::issuer::the_issuer_itself", "--nocapture", "--test-threads=1"])
            .env(VARIABLE, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let url = loop {
            let line = lines.next().expect("the issuer says where it listens").unwrap();
            if let Some((_, url)) = line.split_once(LISTENS) {
                break url.to_owned();
            }
        };
        // What else it prints goes nowhere.
        thread::spawn(move || lines.for_each(drop));
        Self { child, url }
    }

    /// How it does from here on: what is named changes, the rest is as it should be.
    pub fn does(&self, behaviour: Value) {
        let request = http().post(format!("{}/test/behaviour", self.url)).body(behaviour.to_string());
        assert!(runtime().block_on(async { request.send().await }).unwrap().status().is_success());
    }

    /// Who signs in there.
    pub fn person(&self, subject: &str, email: &str) -> Value {
        json!({"sub": subject, "email": email, "email_verified": true, "name": "Jo <b>Doe</b>"})
    }

    /// How often something was asked for.
    pub fn count(&self, path: &str) -> u64 {
        let counts = async {
            let answer = http().get(format!("{}/test/counts", self.url)).send().await.unwrap();
            answer.json::<Value>().await.unwrap()
        };
        runtime().block_on(counts)[path].as_u64().unwrap_or(0)
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A code that was given out, and what it was asked for with.
struct Grant {
    nonce: String,
    challenge: String,
    redirect_uri: String,
}

struct State {
    url: String,
    behaviour: Mutex<Value>,
    grants: Mutex<HashMap<String, Grant>>,
    /// Access tokens that were given out.
    opens: Mutex<HashSet<String>>,
    counts: Mutex<BTreeMap<String, u64>>,
    rsa: RsaKeyPair,
    ec: EcdsaKeyPair,
    ed: Ed25519KeyPair,
    other: Ed25519KeyPair,
}

struct Request {
    method: String,
    path: String,
    query: HashMap<String, String>,
    authorization: Option<String>,
    body: String,
}

struct Response {
    status: u16,
    location: Option<String>,
    body: Vec<u8>,
}

impl Response {
    fn json(status: u16, json: &Value) -> Self {
        Self { status, location: None, body: json.to_string().into_bytes() }
    }

    fn redirect(to: String) -> Self {
        Self { status: 302, location: Some(to), body: Vec::new() }
    }
}

/// Nobody can guess it: what two issuers give out is never the same.
fn random_text() -> String {
    let mut random = [0; 16];
    SystemRandom::new().fill(&mut random).unwrap();
    URL_SAFE_NO_PAD.encode(random)
}

fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let code = (bytes[at] == b'%').then(|| text.get(at + 1..at + 3)).flatten();
        match code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(byte) => {
                decoded.push(byte);
                at += 3;
            }
            None => {
                decoded.push(if bytes[at] == b'+' { b' ' } else { bytes[at] });
                at += 1;
            }
        }
    }
    String::from_utf8(decoded).unwrap()
}

fn encode(text: &str) -> String {
    text.bytes()
        .map(|byte| if byte.is_ascii_alphanumeric() { (byte as char).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

fn pairs(text: &str) -> HashMap<String, String> {
    text.split('&').filter_map(|pair| pair.split_once('=')).map(|(name, value)| (decode(name), decode(value))).collect()
}

fn read(stream: &TcpStream) -> Option<Request> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let (mut authorization, mut length) = (None, 0);
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let Some((name, value)) = header.trim_end().split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "authorization" => authorization = Some(value.to_owned()),
            "content-length" => length = value.parse().ok()?,
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let (path, query) = (path.to_owned(), pairs(query));
    Some(Request { method, path, query, authorization, body: String::from_utf8(body).ok()? })
}

impl State {
    fn told(&self, name: &str) -> Value {
        self.behaviour.lock().unwrap()[name].clone()
    }

    fn answer(&self, request: &Request) -> Response {
        *self.counts.lock().unwrap().entry(request.path.clone()).or_default() += 1;
        if self.told("slow") == json!(request.path) {
            thread::sleep(Duration::from_secs(8));
        }
        if self.told("huge") == json!(request.path) {
            return Response::json(200, &json!({"padding": "x".repeat(HUGE_BYTES)}));
        }
        if self.told("redirects") == json!(request.path) {
            return Response::redirect(format!("{}/elsewhere{}", self.url, request.path));
        }
        match (request.method.as_str(), request.path.trim_start_matches("/elsewhere")) {
            ("GET", "/.well-known/openid-configuration") => Response::json(200, &self.document()),
            ("GET", "/jwks") => Response::json(200, &json!({"keys": self.keys()})),
            ("GET", "/authorize") => self.authorize(request),
            ("POST", "/token") => self.exchange(request),
            ("GET", "/userinfo") => self.tell_more(request),
            ("POST", "/test/behaviour") => {
                *self.behaviour.lock().unwrap() = serde_json::from_str(&request.body).unwrap();
                Response::json(200, &json!({}))
            }
            ("GET", "/test/counts") => Response::json(200, &json!(*self.counts.lock().unwrap())),
            _ => Response::json(404, &json!({"error": "not_found"})),
        }
    }

    fn document(&self) -> Value {
        let at = |path: &str| format!("{}{path}", self.url);
        let mut document = json!({
            "issuer": self.url, "authorization_endpoint": at("/authorize"), "token_endpoint": at("/token"),
            "jwks_uri": at("/jwks"), "userinfo_endpoint": at("/userinfo"),
            "authorization_response_iss_parameter_supported": true,
            "token_endpoint_auth_methods_supported": ["client_secret_basic"],
        });
        for (name, value) in self.told("document").as_object().into_iter().flatten() {
            document[name] = value.clone();
        }
        document
    }

    /// Public keys, named for what they are and how often they were changed.
    fn keys(&self) -> Vec<Value> {
        let components: PublicKeyComponents<Vec<u8>> = self.rsa.public().into();
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let point = self.ec.public_key().as_ref();
        let (rsa, ec, ed) = (self.kid("RS256"), self.kid("ES256"), self.kid("EdDSA"));
        vec![
            json!({"kty": "RSA", "kid": rsa, "use": "sig", "n": text(&components.n), "e": text(&components.e)}),
            json!({"kty": "EC", "crv": "P-256", "kid": ec, "x": text(&point[1..33]), "y": text(&point[33..])}),
            json!({"kty": "OKP", "crv": "Ed25519", "kid": ed, "x": text(self.ed.public_key().as_ref())}),
            json!({"kty": "XYZ", "kid": "odd"}),
        ]
    }

    fn kid(&self, algorithm: &str) -> String {
        format!("{algorithm}-{}", self.told("rotation").as_u64().unwrap_or(0))
    }

    /// Lets whoever comes in at once, as the person that it was told of.
    fn authorize(&self, request: &Request) -> Response {
        let given = |name: &str| request.query.get(name).cloned().unwrap_or_default();
        let as_it_must = given("client_id") == CLIENT_ID
            && given("response_type") == "code"
            && given("code_challenge_method") == "S256"
            && given("scope").split(' ').any(|scope| scope == "openid")
            && ["nonce", "state", "code_challenge"].iter().all(|name| given(name).len() >= 43);
        if !as_it_must {
            return Response::json(400, &json!({"error": "invalid_request"}));
        }
        let issuer = self.told("iss_parameter");
        let issuer = if issuer.is_null() { json!(self.url) } else { issuer };
        let issuer = issuer.as_str().map(|issuer| format!("&iss={}", encode(issuer))).unwrap_or_default();
        let to = format!("{}?state={}{issuer}", given("redirect_uri"), given("state"));
        if let Some(error) = self.told("error").as_str() {
            return Response::redirect(format!("{to}&error={}&error_description=%3Cb%3Ex", encode(error)));
        }
        let mut grants = self.grants.lock().unwrap();
        let code = format!("code-{}", random_text());
        let (nonce, challenge, redirect_uri) = (given("nonce"), given("code_challenge"), given("redirect_uri"));
        grants.insert(code.clone(), Grant { nonce, challenge, redirect_uri });
        Response::redirect(format!("{to}&code={}", encode(&code)))
    }

    fn exchange(&self, request: &Request) -> Response {
        let form = pairs(&request.body);
        let given = |name: &str| form.get(name).cloned().unwrap_or_default();
        let basic = format!("Basic {}", STANDARD.encode(format!("{}:{}", CLIENT_ID, form_encode(CLIENT_SECRET))));
        let in_form = self.told("document")["token_endpoint_auth_methods_supported"] == json!(["client_secret_post"]);
        let is_client = if in_form {
            given("client_id") == CLIENT_ID
                && given("client_secret") == CLIENT_SECRET
                && request.authorization.is_none()
        } else {
            request.authorization.as_deref() == Some(&basic)
        };
        if !is_client {
            return Response::json(401, &json!({"error": "invalid_client"}));
        }
        // A code is good once, whoever shows it.
        let Some(grant) = self.grants.lock().unwrap().remove(&given("code")) else {
            return Response::json(400, &json!({"error": "invalid_grant"}));
        };
        let shown = URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, given("code_verifier").as_bytes()));
        if shown != grant.challenge || given("redirect_uri") != grant.redirect_uri {
            return Response::json(400, &json!({"error": "invalid_grant"}));
        }
        let access = format!("access-{}", random_text());
        self.opens.lock().unwrap().insert(access.clone());
        Response::json(200, &json!({"token_type": "Bearer", "access_token": access, "id_token": self.token(&grant)}))
    }

    /// The userinfo endpoint: the person, as it was told to say beside the ID token.
    fn tell_more(&self, request: &Request) -> Response {
        let shown = request.authorization.as_deref().and_then(|value| value.strip_prefix("Bearer "));
        if !shown.is_some_and(|access| self.opens.lock().unwrap().remove(access)) {
            return Response::json(401, &json!({"error": "invalid_token"}));
        }
        let mut person = self.told("person");
        for told in ["claims", "userinfo"] {
            for (name, value) in self.told(told).as_object().into_iter().flatten() {
                person[name] = value.clone();
            }
        }
        Response::json(200, &person)
    }

    fn token(&self, grant: &Grant) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let mut claims = json!({
            "iss": self.url, "aud": CLIENT_ID, "exp": now + 300, "iat": now, "nonce": grant.nonce,
            "sub": "nobody", "email": "nobody@example.com", "email_verified": true,
        });
        for told in ["person", "claims"] {
            for (name, value) in self.told(told).as_object().into_iter().flatten() {
                claims[name] = value.clone();
            }
        }
        // As an issuer does that keeps what the scopes are for apart from the ID token.
        if self.told("thin") == json!(true) {
            ["email", "email_verified", "name"].iter().for_each(|name| claims[*name] = Value::Null);
        }
        let algorithm = self.told("algorithm").as_str().unwrap_or("RS256").to_owned();
        let kid = self.told("kid").as_str().map_or_else(|| self.kid(&algorithm), str::to_owned);
        let part = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
        let message = format!("{}.{}", part(&json!({"alg": algorithm, "typ": "JWT", "kid": kid})), part(&claims));
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(self.sign(&algorithm, message.as_bytes())))
    }

    fn sign(&self, algorithm: &str, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        if self.told("signed_by_another") == json!(true) {
            return self.other.sign(message).as_ref().to_vec();
        }
        match algorithm {
            "RS256" => {
                let mut signature = vec![0; self.rsa.public().modulus_len()];
                self.rsa.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).unwrap();
                signature
            }
            "ES256" => self.ec.sign(&random, message).unwrap().as_ref().to_vec(),
            "EdDSA" => self.ed.sign(message).as_ref().to_vec(),
            // What anybody can make who knows the public key.
            "HS256" => {
                let shared = hmac::Key::new(hmac::HMAC_SHA256, self.rsa.public().as_ref());
                hmac::sign(&shared, message).as_ref().to_vec()
            }
            _ => Vec::new(),
        }
    }
}

/// As forms are encoded: what a client's parts are in its header.
fn form_encode(text: &str) -> String {
    let letter = |byte: u8| match byte {
        b' ' => "+".to_owned(),
        byte if byte.is_ascii_alphanumeric() || b"*-._".contains(&byte) => (byte as char).to_string(),
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(letter).collect()
}

fn serve(state: &State, mut stream: TcpStream) {
    let _ = stream.set_read_timeout(Some(Duration::from_secs(10)));
    let Some(request) = read(&stream) else { return };
    let Response { status, location, body } = state.answer(&request);
    let location = location.map(|to| format!("location: {to}\r\n")).unwrap_or_default();
    let head = format!(
        "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n{location}connection: close\r\n\r\n",
        body.len()
    );
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
}

/// Is an issuer where it was started as one, until whoever started it ends; nothing among other tests.
#[test]
fn the_issuer_itself() {
    if std::env::var_os(VARIABLE).is_none() {
        return;
    }
    // The end of the one who started it ends its pipe.
    thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::abort();
    });
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let random = SystemRandom::new();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
    let rsa: String = RSA_KEY.split_whitespace().collect();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let state = Arc::new(State {
        url: url.clone(),
        behaviour: Mutex::default(),
        grants: Mutex::default(),
        opens: Mutex::default(),
        counts: Mutex::default(),
        rsa: RsaKeyPair::from_der(&STANDARD.decode(rsa).unwrap()).unwrap(),
        ec: EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random).unwrap(),
        ed: Ed25519KeyPair::from_seed_unchecked(&[1; 32]).unwrap(),
        other: Ed25519KeyPair::from_seed_unchecked(&[2; 32]).unwrap(),
    });
    // Past what the test runner captures.
    writeln!(std::io::stdout(), "\n{LISTENS}{url}").unwrap();
    for stream in listener.incoming().flatten() {
        let state = Arc::clone(&state);
        thread::spawn(move || serve(&state, stream));
    }
}
