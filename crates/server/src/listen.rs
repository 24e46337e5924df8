//! The socket: where it may listen, and who gets a connection.
//!
//! An address that others can reach is listened on only through [`Listen`], which asks for TLS or for the operator's
//! word that a proxy speaks it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use atelier_api::Metrics;
use axum::Router;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use crate::cli::ListenArgs;
use crate::connection::Connection;
use crate::places::{Place, Places};
use crate::tls::{Certificates, TlsFiles};

/// Pause after the system gave no connection, as when file handles are used up: they come back as others close.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// `IP:PORT` or `NAME:PORT` → an address. A name is looked up once, here: what is checked is what is listened on.
///
/// # Errors
/// Text of another form, or a name that this machine knows no address of.
pub fn address(text: &str) -> Result<SocketAddr> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let Some((name, port)) = text.rsplit_once(':').and_then(|(name, port)| Some((name, port.parse::<u16>().ok()?)))
    else {
        bail!("it is an address and a port, as 127.0.0.1:8080, [::1]:8080 or localhost:8080");
    };
    let found = (name, port).to_socket_addrs().map(Iterator::collect::<Vec<_>>).unwrap_or_default();
    // Clients that are told 127.0.0.1 everywhere find a server that listens on `localhost`.
    let best = found.iter().find(|address| address.is_ipv4()).or(found.first());
    best.copied().with_context(|| format!("this machine knows no address of `{name}`"))
}

/// An address that is safe to listen on in the way it says.
#[derive(Debug)]
pub struct Listen {
    address: SocketAddr,
    tls: Option<TlsFiles>,
    url: Option<String>,
}

impl Listen {
    /// What the flags say, unless keys and code would be sent in the clear over a network.
    pub fn from_args(args: ListenArgs) -> Result<Self> {
        let tls = match (args.tls_cert, args.tls_key) {
            (Some(certificate), Some(key)) => Some(TlsFiles { certificate, key }),
            _ => None,
        };
        if !args.listen.ip().is_loopback() && tls.is_none() && !args.allow_plaintext {
            bail!(
                "Others can reach {}, and without TLS their keys and code could be read on the way. Give --tls-cert \
                 and --tls-key; or listen on 127.0.0.1 behind a proxy that speaks TLS; or, where that proxy is on \
                 another machine and nobody else can reach this address, say --allow-plaintext.",
                args.listen
            );
        }
        let url = args.url.map(|url| url.trim_end_matches('/').to_owned());
        if url.as_ref().is_some_and(|url| !url.starts_with("http://") && !url.starts_with("https://")) {
            bail!("--url must begin with https:// or http://.");
        }
        Ok(Self { address: args.listen, tls, url })
    }

    /// An address that only this machine can reach, in the clear.
    pub fn loopback(address: SocketAddr) -> Result<Self> {
        if !address.ip().is_loopback() {
            bail!("Others can reach {address}, and this command speaks no TLS. Listen on 127.0.0.1, or use `serve`.");
        }
        Ok(Self { address, tls: None, url: None })
    }
}

/// A socket that listens.
pub struct Listener {
    socket: TcpListener,
    certificates: Option<Certificates>,
    url: String,
}

impl Listener {
    /// Binds the address and reads the certificate.
    pub async fn bind(listen: Listen) -> Result<Self> {
        let address = listen.address;
        let certificates = match listen.tls {
            Some(files) => Some(Certificates::load(files).await?),
            None => None,
        };
        let socket = TcpListener::bind(address).await.with_context(|| {
            format!("Cannot listen on {address}. Is another server running there? Choose another with --listen.")
        })?;
        let scheme = if certificates.is_some() { "https" } else { "http" };
        let url = match listen.url {
            Some(url) => url,
            None => format!("{scheme}://{}", callable(socket.local_addr()?)),
        };
        Ok(Self { socket, certificates, url })
    }

    /// What clients call it.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Answers until told to stop, then lets open requests end.
    pub async fn serve(self, router: Router, metrics: Arc<Metrics>, stopped: oneshot::Receiver<()>) {
        let places = Places::default();
        let open = GracefulShutdown::new();
        let mut stopped = pin!(stopped);
        loop {
            let (place, socket) = tokio::select! {
                // A dropped sender stops the server too.
                _ = &mut stopped => break,
                accepted = accept(&self.socket, &places) => accepted,
            };
            let connection = Connection {
                acceptor: self.certificates.as_ref().map(Certificates::acceptor),
                router: router.clone(),
                metrics: Arc::clone(&metrics),
                watcher: open.watcher(),
                place: Arc::clone(&place),
            };
            place.belongs_to(tokio::spawn(connection.serve(socket)).abort_handle());
        }
        drop(self.socket);
        open.shutdown().await;
    }
}

/// The address under which this machine reaches a socket that listens on all of its addresses.
fn callable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        });
    }
    address
}

/// A connection first, then its place: only who comes makes another give way. Those after it wait in the kernel, and
/// cost nothing here.
async fn accept(socket: &TcpListener, places: &Places) -> (Arc<Place>, TcpStream) {
    loop {
        match socket.accept().await {
            Ok((stream, _)) => return (places.take().await, stream),
            Err(error) => {
                tracing::warn!(%error, "no connection could be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(listen: &str, tls: bool, allow_plaintext: bool, expected: bool) {
        let file = tls.then(|| "file.pem".into());
        let (tls_cert, tls_key) = (file.clone(), file);
        let args = ListenArgs { listen: listen.parse().unwrap(), tls_cert, tls_key, allow_plaintext, url: None };
        assert_eq!(Listen::from_args(args).is_ok(), expected, "{listen}, TLS {tls}, plaintext {allow_plaintext}");
        assert!(!Listen::loopback(listen.parse().unwrap()).is_ok_and(|listen| !listen.address.ip().is_loopback()));
    }

    #[test]
    fn what_others_can_reach_needs_tls_or_a_word() {
        for loopback in ["127.0.0.1:80", "127.8.9.1:0", "[::1]:80"] {
            check(loopback, false, false, true);
            check(loopback, true, false, true);
        }
        for public in ["0.0.0.0:80", "[::]:80", "192.168.0.2:80", "10.0.0.1:80", "203.0.113.9:443", "[fe80::1]:80"] {
            check(public, false, false, false);
            check(public, true, false, true);
            check(public, false, true, true);
        }
        // An IPv4 address in IPv6 clothes is loopback to the kernel, but not to those who read a firewall's rules.
        check("[::ffff:127.0.0.1]:80", false, false, false);
    }

    #[test]
    fn addresses_have_numbers_or_names_and_always_a_port() {
        for (text, expected) in [
            ("127.0.0.1:80", "127.0.0.1:80"),
            ("[::1]:80", "[::1]:80"),
            ("localhost:80", "127.0.0.1:80"),
            ("0.0.0.0:0", "0.0.0.0:0"),
        ] {
            assert_eq!(address(text).unwrap(), expected.parse().unwrap(), "{text}");
        }
        for (text, expected) in [
            ("localhost", "and a port"),
            ("127.0.0.1", "and a port"),
            ("", "and a port"),
            ("localhost:http", "and a port"),
            ("localhost:99999", "and a port"),
            ("no.such.name.invalid:80", "no address of `no.such.name.invalid`"),
        ] {
            let error = address(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn a_socket_on_all_addresses_is_called_by_loopback() {
        for (bound, called) in [
            ("0.0.0.0:81", "127.0.0.1:81"),
            ("[::]:81", "[::1]:81"),
            ("10.0.0.1:81", "10.0.0.1:81"),
            ("[::1]:81", "[::1]:81"),
        ] {
            assert_eq!(callable(bound.parse().unwrap()), called.parse().unwrap());
        }
    }
}
