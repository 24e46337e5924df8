//! The pages that a browser sees: plain, readable in the light and in the dark, on a telephone and without a script.

use axum::http::{HeaderMap, HeaderValue, header};

/// How pages look. Within the page, since nothing is loaded; browsers take it by its digest, which the policy names.
const STYLE: &str = include_str!("page.css");
/// Nothing is loaded or run, no other style than ours counts, and no other page frames this one. Forms may lead to
/// whatever issuer a tenant has: browsers hold also what a form is redirected to against this.
pub const POLICY: &str = "default-src 'none'; style-src 'sha256-RO0mvUqauPO4BYf1gMQWsns1VNcHItRyC15uD3otMxY='; form-action https: http:; frame-ancestors 'none'; \
                          base-uri 'none'";

/// A whole page. The title is escaped here; the body is markup, in which whoever wrote it has escaped what he did not
/// write.
#[must_use]
pub fn html(title: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>{0} – Atelier</title>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<style>{STYLE}</style>\n</head>\n\
         <body>\n<main>\n<p class=\"of\">Atelier</p>\n<h1>{0}</h1>\n{body}\n</main>\n</body>\n</html>\n",
        escape(title)
    )
}

/// Has a browser hold to the policy, and tell no other server from where it comes. It does tell ours: a form that came
/// with `no-referrer` is sent with `Origin: null`, as if another site had made it up.
pub(crate) fn guard(headers: &mut HeaderMap) {
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
}

/// A sentence as HTML: escaped, and what stands between backquotes set as code.
#[must_use]
pub fn sentence(text: &str) -> String {
    let parts: Vec<&str> = text.split('`').collect();
    let is_paired = parts.len() % 2 == 1;
    let mut markup = String::new();
    for (at, part) in parts.iter().enumerate() {
        let part = escape(part);
        match (is_paired, at % 2) {
            (true, 1) => markup.push_str(&format!("<code>{part}</code>")),
            (false, _) if at > 0 => markup.push_str(&format!("`{part}")),
            _ => markup.push_str(&part),
        }
    }
    markup
}

/// Text as HTML shows it, between tags and within quoted attributes.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            letter => escaped.push(letter),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    #[test]
    fn nothing_that_is_shown_is_markup() {
        assert_eq!(escape("<a href='x'>&\"</a>"), "&lt;a href=&#39;x&#39;&gt;&amp;&quot;&lt;/a&gt;");
    }

    #[test]
    fn what_stands_between_backquotes_is_code() {
        assert_eq!(sentence("Run `atelier <x>` again."), "Run <code>atelier &lt;x&gt;</code> again.");
        assert_eq!(sentence("a ` b <"), "a ` b &lt;");
        assert_eq!(sentence(""), "");
    }

    #[test]
    fn the_policy_names_the_style_that_pages_have() {
        let digest = STANDARD.encode(ring::digest::digest(&ring::digest::SHA256, STYLE.as_bytes()));
        assert!(POLICY.contains(&format!("style-src 'sha256-{digest}'")), "the style's digest is {digest}");
        assert!(html("x", "").contains(&format!("<style>{STYLE}</style>")));
    }
}
