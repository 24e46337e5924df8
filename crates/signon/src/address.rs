//! Which addresses are called: issuers are named by tenants, so an address is an attacker's until it was looked at
//! (server-side request forgery).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use atelier_domain::limits::ISSUER_URL_BYTES_MAX;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

use crate::error::SignOnError;

/// How far calls go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reach {
    /// To public addresses, by HTTPS.
    #[default]
    Public,
    /// Also to addresses of the operator's own network by HTTPS, and to this machine in the clear: the operator's word.
    Private,
}

impl Reach {
    /// An address that may be called, as far as its text tells: what a name resolves to is looked at when it is called.
    ///
    /// # Errors
    /// [`SignOnError::Address`] says what is wrong with it.
    pub fn check(self, text: &str) -> Result<Url, SignOnError> {
        let refuse = |why| Err(SignOnError::Address { why });
        if text.len() > ISSUER_URL_BYTES_MAX {
            return refuse("it is too long");
        }
        let Ok(url) = Url::parse(text) else { return refuse("it is no URL") };
        if !url.username().is_empty() || url.password().is_some() {
            return refuse("it holds a user name or a password");
        }
        if url.fragment().is_some() {
            return refuse("it has a fragment");
        }
        let is_this_machine = match url.host() {
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            Some(Host::Domain(name)) => name == "localhost",
            None => return refuse("it names no host"),
        };
        match (url.scheme(), self) {
            ("https", _) => {}
            ("http", Self::Private) if is_this_machine => {}
            _ => return refuse("it does not begin with https://"),
        }
        let is_allowed = match url.host() {
            Some(Host::Ipv4(address)) => self.allows(IpAddr::V4(address)),
            Some(Host::Ipv6(address)) => self.allows(IpAddr::V6(address)),
            _ => self == Self::Private || !is_this_machine,
        };
        if is_allowed {
            Ok(url)
        } else {
            refuse("it is not public; an operator who runs an issuer there starts the server with --private-issuers")
        }
    }

    /// Whether this address may be called.
    pub(crate) fn allows(self, address: IpAddr) -> bool {
        let never = address.is_unspecified() || address.is_multicast() || is_broadcast(address);
        !never && (self == Self::Private || is_public(address))
    }
}

/// Resolves names, and refuses those that stand for an address which may not be called: the answer that is looked at is
/// the one that is used, so a name cannot change its mind in between.
#[derive(Debug)]
pub(crate) struct Resolver(pub(crate) Reach);

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let reach = self.0;
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            // One that may not be called among others is no accident.
            if found.iter().any(|address| !reach.allows(address.ip())) {
                return Err("the name stands for an address that is not public".into());
            }
            let addresses: Addrs = Box::new(found.into_iter());
            Ok(addresses)
        })
    }
}

fn is_broadcast(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(address) if address.is_broadcast())
}

/// Whether anybody on the internet would reach the same machine by it.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let is_special = address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        // "This network"; carriers' own (RFC 6598); assignments of protocols; benchmarks; reserved.
        || a == 0
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 198 && (b == 18 || b == 19))
        || a >= 224;
    !is_special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    if let Some(inner) = inner_v4(address) {
        return is_public_v4(inner);
    }
    let [first, second, ..] = address.segments();
    // Only 2000::/3 is given out. Of it, not: Teredo and its neighbours (2001::/23), documentation.
    let is_given_out = first & 0xe000 == 0x2000;
    let is_special = (first == 0x2001 && (second < 0x0200 || second == 0x0db8)) || first == 0x3fff;
    is_given_out && !is_special
}

/// The IPv4 address that one of IPv6 leads to: mapped, compatible, translated (RFC 6052) or 6to4.
fn inner_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let segments = address.segments();
    let from = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Some(Ipv4Addr::new(a, b, c, d))
    };
    match segments {
        [0, 0, 0, 0, 0, 0xffff | 0, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => from(high, low),
        [0x2002, high, low, ..] => from(high, low),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(url: &str, public: bool, private: bool) {
        assert_eq!(Reach::Public.check(url).is_ok(), public, "{url} by public reach");
        assert_eq!(Reach::Private.check(url).is_ok(), private, "{url} by private reach");
    }

    #[test]
    fn only_public_addresses_unless_the_operator_says_so() {
        check("https://id.example.com", true, true);
        check("https://id.example.com:8443/realms/acme?x=y", true, true);
        check("https://1.1.1.1/", true, true);
        check("https://[2606:4700::1111]/", true, true);
        for private in [
            "https://127.0.0.1/",
            "https://localhost/",
            "https://10.1.2.3/",
            "https://172.16.0.1/",
            "https://192.168.1.1/",
            "https://169.254.169.254/latest/meta-data",
            "https://100.64.0.1/",
            "https://192.0.0.8/",
            "https://198.18.0.1/",
            "https://[::1]/",
            "https://[fd00::1]/",
            "https://[fe80::1]/",
            "https://[::ffff:127.0.0.1]/",
            "https://[::ffff:10.0.0.1]/",
            "https://[64:ff9b::a00:1]/",
            "https://[2002:7f00:1::]/",
            // Other spellings of 127.0.0.1 and 10.0.0.1.
            "https://2130706433/",
            "https://0x7f.1/",
            "https://012.0.0.1/",
        ] {
            check(private, false, true);
        }
        for this_machine in ["http://127.0.0.1:81/", "http://localhost:81/x", "http://[::1]:81"] {
            check(this_machine, false, true);
        }
        let long = format!("https://id.example.com/{}", "a".repeat(ISSUER_URL_BYTES_MAX));
        for never in [
            "",
            "id.example.com",
            "http://id.example.com/",
            "http://10.0.0.1/",
            "ftp://id.example.com/",
            "file:///etc/passwd",
            "data:text/plain,x",
            "https://jo@id.example.com/",
            "https://jo:secret@id.example.com/",
            "https://id.example.com/#x",
            "https://0.0.0.0/",
            "https://[::]/",
            "https://255.255.255.255/",
            "https://224.0.0.1/",
            "https://[ff02::1]/",
            &long,
        ] {
            check(never, false, false);
        }
    }

    #[tokio::test]
    async fn a_name_is_as_good_as_what_it_stands_for() {
        let resolve = |reach| async move { Resolver(reach).resolve("localhost".parse().unwrap()).await.is_ok() };
        assert!(!resolve(Reach::Public).await);
        assert!(resolve(Reach::Private).await);
    }
}
