//! `atelier login` and `atelier logout`: a key of one's own by signing in with a browser (RFC 8252: the browser brings a
//! code to a port on this machine, and only this process can make a key of it).

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use atelier_api::page;
use atelier_domain::limits::{SIGN_IN_CODE_TIME_MAX, SIGN_IN_TIME_MAX};
use atelier_platform::{Program, pkce_challenge, random_secret};
use clap::Args;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::client::{Client, Place};
use crate::credentials::{Credential, Credentials};
use crate::output::Output;

/// Bytes of a request that the browser sends here: its head fits, and nobody sends more.
const REQUEST_BYTES_MAX: usize = 16 << 10;
/// How long one connection may take to say what it wants.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Where to sign in.
#[derive(Debug, Clone, Args)]
pub struct LoginArgs {
    /// The organization's name.
    #[arg(value_name = "ORGANIZATION")]
    pub organization: String,
    /// The server; the one that ATELIER_URL names, or that runs on the data folder, when absent.
    #[arg(long, value_name = "URL")]
    pub server: Option<String>,
    /// Only print the address, for a browser that you open yourself on this machine.
    #[arg(long)]
    pub no_browser: bool,
}

/// Signs in and keeps the key.
pub async fn log_in(place: &Place, args: LoginArgs, output: Output) -> Result<()> {
    let url = match args.server {
        Some(url) => url.trim_end_matches('/').to_owned(),
        None => place.url()?.0,
    };
    let client = Client::without_key(&url)?;
    let (verifier, state) = (random_secret()?, random_secret()?);
    let challenge = pkce_challenge(&verifier);
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("no port on 127.0.0.1 is free")?;
    let port = listener.local_addr()?.port();
    let organization = args.organization.trim().to_ascii_lowercase();
    if organization.is_empty() || !organization.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        bail!("The name of an organization has lower-case letters, digits and hyphens.");
    }
    let address = format!("{url}/sign-in?organization={organization}&port={port}&state={state}&challenge={challenge}");
    eprintln!("Sign in with your browser, and continue there if it shows {}:", Program::phrase(&challenge));
    eprintln!("  {address}");
    if !args.no_browser {
        open_browser(&address);
    }
    let patience = SIGN_IN_TIME_MAX + SIGN_IN_CODE_TIME_MAX;
    let code = tokio::time::timeout(patience, wait_for_code(&listener, &state))
        .await
        .context("Nobody signed in. Run `atelier login` again.")??;
    let key = client.send(Method::POST, "/v1/sign_in/keys", &json!({"code": code, "verifier": verifier})).await?;
    let text = |name: &str| key[name].as_str().map(str::to_owned);
    let credential = Credential {
        key: text("value").context("the server's answer holds no key")?,
        organization,
        email: text("email").unwrap_or_default(),
        expires_at: key["expires_at"].as_i64(),
    };
    let mut credentials = Credentials::read()?;
    let path = credentials.keep(&url, credential.clone())?;
    let object = json!({
        "server": url, "organization": credential.organization, "email": credential.email,
        "expires_at": credential.expires_at, "credentials": path.display().to_string(),
    });
    output.result(&object, || {
        format!(
            "Signed in to {} as {}. The key is kept in {}, for a day; `atelier logout` ends it.",
            credential.organization,
            credential.email,
            path.display()
        )
    })
}

/// Ends the key and forgets it.
pub async fn log_out(place: &Place, output: Output) -> Result<()> {
    let mut credentials = Credentials::read()?;
    let url = match place.url() {
        Ok((url, _)) if credentials.of(&url).is_some() => url,
        _ => credentials.last.clone().context("Nobody is signed in here.")?,
    };
    let known = credentials.of(&url).context("Nobody is signed in here.")?;
    let ended = Client::new(&url, &known.key)?.send(Method::DELETE, "/v1/session", &Value::Null).await;
    // A key that is past its time need not be ended; one that cannot be ended now is still not kept.
    credentials.forget(&url)?;
    let object = json!({"server": url, "ended": ended.is_ok()});
    output.result(&object, || match &ended {
        Ok(_) => format!("Signed out of {url}."),
        Err(error) => format!("The key of {url} is forgotten; the server did not end it: {error:#}"),
    })
}

/// The code that the browser brings, with our state; whoever else calls hears nothing.
async fn wait_for_code(listener: &TcpListener, state: &str) -> Result<String> {
    loop {
        let (mut stream, _) = listener.accept().await?;
        let read = tokio::time::timeout(REQUEST_TIMEOUT, read_target(&mut stream)).await;
        let code = read.ok().and_then(Result::ok).and_then(|target| code_of(&target, state));
        let (status, text) = match code {
            Some(_) => ("200 OK", page::html("Signed in", "<p>Close this page and go back to your terminal.</p>")),
            None => ("404 Not Found", page::html("Not found", "<p>There is nothing here.</p>")),
        };
        let answer = format!(
            "HTTP/1.1 {status}\r\ncontent-type: text/html; charset=utf-8\r\ncontent-length: {}\r\n\
             content-security-policy: {}\r\ncache-control: no-store\r\nreferrer-policy: no-referrer\r\nconnection: close\r\n\r\n{text}",
            text.len(),
            page::POLICY
        );
        // A browser that has gone has brought its code all the same.
        let _ = stream.write_all(answer.as_bytes()).await;
        let _ = stream.shutdown().await;
        if let Some(code) = code {
            return Ok(code);
        }
    }
}

/// The target of a request, as `/callback?…`.
async fn read_target(stream: &mut TcpStream) -> Result<String> {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let mut buffer = [0; 1_024];
        let count = stream.read(&mut buffer).await?;
        if count == 0 || head.len() + count > REQUEST_BYTES_MAX {
            bail!("no request");
        }
        head.extend_from_slice(&buffer[..count]);
    }
    let line = String::from_utf8_lossy(&head);
    let mut words = line.lines().next().unwrap_or_default().split(' ');
    match (words.next(), words.next()) {
        (Some("GET"), Some(target)) => Ok(target.to_owned()),
        _ => bail!("no request"),
    }
}

/// The code in a target that names our state. Both are of letters that a URL carries as they are.
fn code_of(target: &str, state: &str) -> Option<String> {
    let query = target.strip_prefix("/callback?")?;
    let value = |name: &str| {
        let mut values = query.split('&').filter_map(|pair| pair.split_once('=')).filter(|(known, _)| *known == name);
        values.next().map(|(_, value)| value.to_owned()).filter(|_| values.next().is_none())
    };
    if value("state").as_deref() == Some(state) { value("code").filter(|code| !code.is_empty()) } else { None }
}

/// Asks the desktop for its browser; where there is none, the address is on the screen.
fn open_browser(address: &str) {
    let program = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    let _ = Command::new(program).arg(address).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ones_own_answer_counts() {
        for (target, expected) in [
            ("/callback?code=c&state=s", Some("c")),
            ("/callback?state=s&code=c", Some("c")),
            ("/callback?code=c&state=t", None),
            ("/callback?code=c", None),
            ("/callback?state=s", None),
            ("/callback?code=&state=s", None),
            ("/callback?code=c&code=d&state=s", None),
            ("/callback?code=c&state=t&state=s", None),
            ("/other?code=c&state=s", None),
            ("/favicon.ico", None),
        ] {
            assert_eq!(code_of(target, "s").as_deref(), expected, "{target}");
        }
    }
}
