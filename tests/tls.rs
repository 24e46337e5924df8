//! HTTPS: who is let in, who is turned away, and a certificate that is renewed while the server runs.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;

use crate::support::{Command, Process, World, client_trusting, runtime, wait_until};

/// Somebody who signs certificates.
struct Authority(CertifiedIssuer<'static, KeyPair>);

/// The files that `serve` is given.
struct Files {
    certificate: PathBuf,
    key: PathBuf,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn pem(&self) -> String {
        self.0.pem()
    }

    /// Writes a certificate for this machine and its key into a folder, over what lies there.
    fn issue(&self, folder: &Path) -> Files {
        let key = KeyPair::generate().unwrap();
        let names = vec!["127.0.0.1".to_owned()];
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &self.0).unwrap();
        let files = Files { certificate: folder.join("server.pem"), key: folder.join("server.key") };
        fs::write(&files.certificate, certificate.pem()).unwrap();
        fs::write(&files.key, key.serialize_pem()).unwrap();
        files
    }
}

impl Files {
    fn arguments(&self) -> [&str; 4] {
        ["--tls-cert", self.certificate.to_str().unwrap(), "--tls-key", self.key.to_str().unwrap()]
    }
}

/// The status and version of an answer to somebody who trusts these certificates; a new connection each time.
fn health(url: &str, trusted: &[&str]) -> Result<(u16, reqwest::Version), reqwest::Error> {
    runtime().block_on(async {
        let client = client_trusting(trusted).build().unwrap();
        let answer = client.get(format!("{url}/healthz")).send().await?;
        Ok((answer.status().as_u16(), answer.version()))
    })
}

fn check_refused(url: &str, trusted: &[&str]) {
    let error = health(url, trusted).unwrap_err();
    assert!(format!("{error:?}").contains("InvalidCertificate"), "{error:?}");
}

#[test]
fn https_for_those_who_trust_the_certificate_and_for_nobody_else() {
    let home = TempDir::new().unwrap();
    let (authority, other) = (Authority::new("ours"), Authority::new("other"));
    let files = authority.issue(home.path());
    let world = World::start_with(&files.arguments(), &[]);
    let url = world.url();
    assert!(url.starts_with("https://127.0.0.1:"), "{url}");
    let good = health(&url, &[&authority.pem()]).unwrap();
    assert_eq!(good, (200, reqwest::Version::HTTP_11));
    check_refused(&url, &[&other.pem()]);
    check_refused(&url, &[]);
    // The certificate is for the address that it names, and for no other.
    check_refused(&url.replace("127.0.0.1", "localhost"), &[&authority.pem()]);

    // Plain HTTP gets no word of HTTP back, and nothing that it sent is acted on.
    let mut plain = TcpStream::connect(url.trim_start_matches("https://")).unwrap();
    plain.write_all(b"GET /healthz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    // A reset is as good as an end.
    let _ = plain.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(!answer.contains("HTTP") && !answer.contains("ok"), "{answer:?}");
    assert!(!world.log().contains("/healthz\" method=\"GET\" status=400"), "{}", world.log());

    // Our own commands.
    let trusted = home.path().join("trusted.pem");
    fs::write(&trusted, authority.pem()).unwrap();
    let trusting = [("ATELIER_CA", trusted.to_str().unwrap())];
    let created = world.cli_with(&trusting, &["tenant", "create", "acme", "--plan", "shared"]).object();
    assert_eq!(created["name"], "acme", "{created:#}");
    let listed = world.cli_with(&trusting, &["tenant", "list"]);
    assert!(listed.object().to_string().contains("acme"), "{listed:?}");
    let strangers = home.path().join("strangers.pem");
    fs::write(&strangers, other.pem()).unwrap();
    let refused = world.cli_with(&[("ATELIER_CA", strangers.to_str().unwrap())], &["tenant", "list"]);
    assert!(refused.refusal().contains("ATELIER_CA names a file"), "{refused:?}");
    let without = world.cli(&["tenant", "list"]);
    assert!(without.refusal().contains("ATELIER_CA"), "{without:?}");
    for (content, name) in [(Some("no certificate"), "prose.pem"), (None, "nowhere.pem")] {
        let path = home.path().join(name);
        if let Some(content) = content {
            fs::write(&path, content).unwrap();
        }
        let refused = world.cli_with(&[("ATELIER_CA", path.to_str().unwrap())], &["tenant", "list"]);
        assert!(refused.refusal().contains(&format!("PEM format: {}", path.display())), "{refused:?}");
    }
}

#[test]
fn a_renewed_certificate_is_served_without_a_restart() {
    let home = TempDir::new().unwrap();
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let files = old.issue(home.path());
    let world = World::start_with(&files.arguments(), &[]);
    let url = world.url();
    health(&url, &[&old.pem()]).unwrap();
    // A connection that is open stays as it is.
    let kept = client_trusting(&[&old.pem()]).pool_max_idle_per_host(1).build().unwrap();
    let ask = || runtime().block_on(async { kept.get(format!("{url}/healthz")).send().await?.bytes().await });
    ask().unwrap();

    new.issue(home.path());
    wait_until("the renewed certificate is not served", || health(&url, &[&new.pem()]).is_ok());
    check_refused(&url, &[&old.pem()]);
    ask().unwrap();

    for (content, word) in [("", "holds no certificate"), (&*new.pem(), "do not belong together")] {
        fs::write(&files.certificate, content).unwrap();
        wait_until(word, || world.log().contains(word));
        health(&url, &[&new.pem()]).unwrap();
    }
    fs::remove_file(&files.key).unwrap();
    wait_until("a key that is gone is noticed", || world.log().contains("Cannot read the private key"));
    health(&url, &[&new.pem()]).unwrap();
    old.issue(home.path());
    wait_until("files that are whole again are served", || health(&url, &[&old.pem()]).is_ok());
    assert!(!world.log().contains("PRIVATE KEY"), "{}", world.log());
}

/// Runs a command that is expected to refuse to start.
fn refused(arguments: &[&str], word: &str) {
    let home = TempDir::new().unwrap();
    let data = home.path().join("data");
    let all = [arguments, &["--data", data.to_str().unwrap()]].concat();
    let refused = Command::run(&all);
    assert!(!refused.succeeded && refused.stderr.contains(word), "{arguments:?}: {refused:?}");
    assert!(!data.exists(), "nothing was begun");
}

#[test]
fn an_address_that_others_can_reach_is_refused_without_tls() {
    let home = TempDir::new().unwrap();
    let files = Authority::new("ours").issue(home.path());
    let [cert_flag, cert, key_flag, key] = files.arguments();
    for public in ["0.0.0.0:0", "[::]:0", "192.0.2.1:80"] {
        refused(&["serve", "--listen", public], "Give --tls-cert and --tls-key");
        refused(&["demo", "--exit", "--listen", public], "Listen on 127.0.0.1");
    }
    refused(&["serve", "--listen", "0.0.0.0:0", cert_flag, cert], "--tls-key");
    refused(&["serve", "--listen", "0.0.0.0:0", key_flag, key], "--tls-cert");
    refused(&["serve", "--allow-plaintext", cert_flag, cert, key_flag, key], "cannot be used with");
    refused(&["serve", cert_flag, "nowhere.pem", key_flag, key], "Cannot read the certificate nowhere.pem");
    refused(&["serve", cert_flag, cert, key_flag, cert], "holds no private key");
    refused(&["serve", cert_flag, key, key_flag, key], "holds no certificate");
    refused(&["serve", "--url", "atelier.example.com"], "--url must begin with");

    let serve = |arguments: &[&str]| {
        let folder = TempDir::new_in(home.path()).unwrap();
        let data = folder.path().join("data");
        let always = ["--data", data.to_str().unwrap(), "--listen", "0.0.0.0:0", "--threads", "1", "--json"];
        let mut process = Process::spawn(folder.path(), &[], &[&always, arguments].concat(), &[]);
        let url = process.announced()["url"].as_str().unwrap().to_owned();
        assert_eq!(fs::read_to_string(data.join("server-url")).unwrap().trim(), url);
        (process, folder, url)
    };
    let (_process, _folder, url) = serve(&["--allow-plaintext"]);
    assert!(url.starts_with("http://127.0.0.1:"), "{url}");
    assert_eq!(health(&url, &[]).unwrap().0, 200);
    let (_process, _folder, url) = serve(&[cert_flag, cert, key_flag, key, "--url", "https://atelier.example.com/"]);
    assert_eq!(url, "https://atelier.example.com");
}
