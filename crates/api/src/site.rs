//! What browsers call this server, and what they keep for it: cookies, and from where a request with one may come.

use axum::http::{HeaderMap, HeaderValue, Method, header};

use crate::error::ApiError;

/// Where the browser is while somebody signs in: the issuer sends it back here.
pub const CALLBACK_PATH: &str = "/sign-in/callback";
/// The cookie of a session.
const SESSION: &str = "atelier-session";
/// What the cookies of sign-ins that are under way begin with.
const SIGN_IN: &str = "atelier-sign-in-";
/// Browsers take a cookie of such a name only by HTTPS, for this host alone and for all of it.
const HOST_PREFIX: &str = "__Host-";
/// What a browser says of itself where a request comes from (Fetch metadata).
const FETCH_SITE: &str = "sec-fetch-site";

/// This server as browsers know it.
#[derive(Debug, Clone)]
pub struct Site {
    url: String,
    origin: String,
    is_secure: bool,
}

impl Site {
    /// A server that is called so.
    pub fn new(url: &str) -> Self {
        let url = url.trim_end_matches('/').to_owned();
        let is_secure = url.starts_with("https://");
        let host_begins = url.find("://").map_or(0, |at| at + 3);
        let host_ends = url[host_begins..].find('/').map_or(url.len(), |at| host_begins + at);
        let origin = url[..host_ends].to_ascii_lowercase();
        let default_port = if is_secure { ":443" } else { ":80" };
        let origin = origin.strip_suffix(default_port).map(str::to_owned).unwrap_or(origin);
        Self { url, origin, is_secure }
    }

    /// Where issuers send browsers back to.
    pub fn redirect_uri(&self) -> String {
        format!("{}{CALLBACK_PATH}", self.url)
    }

    /// The session that the browser has.
    pub fn session<'a>(&self, headers: &'a HeaderMap) -> Option<&'a str> {
        cookie(headers, &self.name(SESSION))
    }

    /// What the browser kept of a sign-in.
    pub fn sign_in<'a>(&self, headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
        cookie(headers, &self.name(&format!("{SIGN_IN}{name}")))
    }

    /// Has the browser keep a session for so many seconds; none to forget it.
    pub fn keep_session(&self, session: &str, seconds: u64) -> Option<HeaderValue> {
        self.keep(SESSION, session, seconds)
    }

    /// The same for a sign-in that is under way.
    pub fn keep_sign_in(&self, name: &str, kept: &str, seconds: u64) -> Option<HeaderValue> {
        self.keep(&format!("{SIGN_IN}{name}"), kept, seconds)
    }

    /// Refuses a request that changes something and was made by another site's page: a browser sends its cookies along.
    ///
    /// # Errors
    /// 403 unless the browser says that it comes from here.
    pub fn must_be_own(&self, method: &Method, headers: &HeaderMap) -> Result<(), ApiError> {
        if method.is_safe() {
            return Ok(());
        }
        let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let is_own = match (text(header::ORIGIN.as_str()), text(FETCH_SITE)) {
            (Some(origin), _) => origin == self.origin,
            (None, Some(site)) => site == "same-origin",
            (None, None) => false,
        };
        if is_own {
            return Ok(());
        }
        Err(ApiError::with_status(
            axum::http::StatusCode::FORBIDDEN,
            "A browser's session changes nothing on the word of another site. Send the request from this server's own \
             pages, with its Origin; programs use a key.",
            "cross_site_request",
        ))
    }

    /// Whether another site's page sent the browser here, by a link, a form or a redirect. Not where somebody typed the
    /// address or a program opened it; and an old browser does not say.
    pub fn is_sent_by_others(headers: &HeaderMap) -> bool {
        headers.get(FETCH_SITE).is_some_and(|site| site != "same-origin" && site != "none")
    }

    fn name(&self, name: &str) -> String {
        if self.is_secure { format!("{HOST_PREFIX}{name}") } else { name.to_owned() }
    }

    fn keep(&self, name: &str, value: &str, seconds: u64) -> Option<HeaderValue> {
        let secure = if self.is_secure { "; Secure" } else { "" };
        let name = self.name(name);
        HeaderValue::from_str(&format!("{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}"))
            .ok()
    }
}

/// The value of a cookie. Of two with one name neither counts: one of them was planted.
fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let lines = headers.get_all(header::COOKIE).into_iter().filter_map(|line| line.to_str().ok());
    let pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let mut values = pairs.filter(|(known, _)| *known == name).map(|(_, value)| value);
    values.next().filter(|_| values.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect::<HeaderMap>()
    }

    #[test]
    fn only_its_own_pages_change_something() {
        let check = |url: &str, method: Method, pairs: &[(&'static str, &str)], expected: bool| {
            let is_let_in = Site::new(url).must_be_own(&method, &headers(pairs)).is_ok();
            assert_eq!(is_let_in, expected, "{url} {method} {pairs:?}");
        };
        let own = "https://atelier.example.com";
        check(own, Method::GET, &[("origin", "https://evil.example.com")], true);
        check(own, Method::POST, &[("origin", own)], true);
        check("https://Atelier.example.com:443/path/", Method::POST, &[("origin", own)], true);
        check("http://127.0.0.1:8080", Method::DELETE, &[("origin", "http://127.0.0.1:8080")], true);
        check(own, Method::POST, &[("sec-fetch-site", "same-origin")], true);
        for pairs in [
            &[][..],
            &[("origin", "null")],
            &[("origin", "")],
            &[("origin", "http://atelier.example.com")],
            &[("origin", "https://atelier.example.com.evil.example")],
            &[("origin", "https://atelier.example.com:8443")],
            &[("sec-fetch-site", "same-site")],
            &[("sec-fetch-site", "cross-site")],
            &[("sec-fetch-site", "none")],
            &[("origin", "https://evil.example.com"), ("sec-fetch-site", "same-origin")],
            &[("referer", "https://atelier.example.com/")],
        ] {
            for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
                check(own, method, pairs, false);
            }
        }
    }

    #[test]
    fn a_cookie_counts_once() {
        let site = Site::new("https://atelier.example.com");
        let session = |line: &str| site.session(&headers(&[("cookie", line)])).map(str::to_owned);
        assert_eq!(session("a=b; __Host-atelier-session=s; c=d").as_deref(), Some("s"));
        assert_eq!(session("__Host-atelier-session=s; __Host-atelier-session=t"), None);
        assert_eq!(session("atelier-session=s"), None, "a name that another host could plant");
        assert_eq!(session("x__Host-atelier-session=s"), None);
        let kept = site.keep_session("s", 60).unwrap();
        let expected = "__Host-atelier-session=s; Path=/; Max-Age=60; HttpOnly; SameSite=Lax; Secure";
        assert_eq!(kept.to_str().unwrap(), expected);
        let plain = Site::new("http://127.0.0.1:8080").keep_session("s", 60).unwrap();
        assert_eq!(plain.to_str().unwrap(), "atelier-session=s; Path=/; Max-Age=60; HttpOnly; SameSite=Lax");
        assert!(site.keep_session("s\r\nx: y", 60).is_none());
    }
}
