//! People of a tenant: how they are known, and what they are to the tenant and to its projects. The words are those of
//! OpenAI's admin API.

use std::fmt;
use std::str::FromStr;

use crate::limits::{EMAIL_BYTES_MAX, EMAIL_LOCAL_BYTES_MAX};
use crate::{ParseError, serde_by_text};

/// An address that a person is known by, in small letters: two spellings of one address are one person.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Email(String);

impl Email {
    /// The address as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Email {
    /// What stands behind the @.
    #[must_use]
    pub fn domain(&self) -> EmailDomain {
        EmailDomain(self.0.split_once('@').map(|(_, domain)| domain).unwrap_or_default().to_owned())
    }
}

/// The part of addresses that a company has for itself, in small letters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EmailDomain(String);

impl EmailDomain {
    /// The domain as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EmailDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for EmailDomain {
    type Err = ParseError;

    /// What may stand behind the @ of an [`Email`]; a domain does not stand for those beneath it.
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let text = text.trim().to_ascii_lowercase();
        if text.len() <= EMAIL_BYTES_MAX && is_domain(&text) {
            Ok(Self(text))
        } else {
            Err(ParseError { what: "domain", reason: "an ASCII domain such as example.com" })
        }
    }
}

impl fmt::Display for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Email {
    type Err = ParseError;

    /// What mail systems in use deliver to: no quoted names, no comments, no addresses of machines by number. Letters
    /// outside of ASCII are refused, since look-alikes would be other people.
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let text = text.trim().to_ascii_lowercase();
        let well_formed = text.len() <= EMAIL_BYTES_MAX
            && text.split_once('@').is_some_and(|(local, domain)| is_local_part(local) && is_domain(domain));
        if well_formed {
            Ok(Self(text))
        } else {
            Err(ParseError { what: "email address", reason: "an ASCII address such as jo@example.com" })
        }
    }
}

serde_by_text!(Email);

fn is_local_part(local: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~.".contains(&byte);
    local.len() <= EMAIL_LOCAL_BYTES_MAX && local.bytes().all(allowed) && local.split('.').all(|part| !part.is_empty())
}

fn is_domain(domain: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    let is_label = |label: &str| {
        !label.is_empty() && label.bytes().all(allowed) && !label.starts_with('-') && !label.ends_with('-')
    };
    domain.contains('.') && domain.split('.').all(is_label)
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident, $what:literal, $reason:literal { $($(#[$variant_doc:meta])* $variant:ident => $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
        }

        impl $name {
            /// Every one of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Its name on every interface.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)*
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = ParseError;

            fn from_str(text: &str) -> Result<Self, ParseError> {
                let known = Self::ALL.iter().find(|known| known.as_str() == text);
                known.copied().ok_or(ParseError { what: $what, reason: $reason })
            }
        }

        serde_by_text!($name);
    };
}

words!(
    /// What a person is to the tenant.
    PersonRole, "role of a person", "owner or reader" {
        /// Manages it: an admin's keys may be his.
        Owner => "owner",
        /// Looks at it, and uses it in the projects that he belongs to.
        Reader => "reader",
    }
);

words!(
    /// What a person or a machine is to a project.
    ProjectRole, "role in a project", "owner or member" {
        /// Answers for it. May no more than a member yet.
        Owner => "owner",
        /// Uses it.
        Member => "member",
    }
);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(text: &str, expected: Option<&str>) {
        assert_eq!(text.parse::<Email>().ok().as_ref().map(Email::as_str), expected, "{text:?}");
    }

    #[test]
    fn an_address_has_one_spelling() {
        check("jo@example.com", Some("jo@example.com"));
        check(" Jo.Smith+ci@Example.Com\n", Some("jo.smith+ci@example.com"));
        check("o'neil@mail.example.co.uk", Some("o'neil@mail.example.co.uk"));
        for text in [
            "",
            "@",
            "jo",
            "jo@",
            "@example.com",
            "jo@localhost",
            "jo@@example.com",
            "jo@ex@ample.com",
            "j o@example.com",
            ".jo@example.com",
            "jo.@example.com",
            "jo..jo@example.com",
            "jo@-example.com",
            "jo@example-.com",
            "jo@.com",
            "jo@example..com",
            "jo@example.com.",
            "jö@example.com",
            "jo@exämple.com",
            "jo@example.com\nbcc:x",
            "<jo@example.com>",
            "jo@example.com,al@example.com",
            "\"jo\"@example.com",
            "jo\0@example.com",
        ] {
            check(text, None);
        }
        check(
            &format!("{}@example.com", "a".repeat(EMAIL_LOCAL_BYTES_MAX)),
            Some(&format!("{}@example.com", "a".repeat(EMAIL_LOCAL_BYTES_MAX))),
        );
        check(&format!("{}@example.com", "a".repeat(EMAIL_LOCAL_BYTES_MAX + 1)), None);
        check(&format!("jo@{}com", "a.".repeat(EMAIL_BYTES_MAX / 2)), None);
    }

    #[test]
    fn a_domain_is_what_stands_behind_the_at() {
        let email: Email = "Jo@Mail.Example.Com".parse().unwrap();
        assert_eq!(email.domain(), " MAIL.example.com".parse().unwrap());
        assert_ne!(email.domain(), "example.com".parse().unwrap(), "one does not stand for those beneath");
        for text in ["", "com", "@example.com", "*.example.com", "exa mple.com", "example.com.", "exämple.com"] {
            assert!(text.parse::<EmailDomain>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn roles_parse_back() {
        for role in PersonRole::ALL {
            assert_eq!(role.as_str().parse(), Ok(*role));
        }
        for role in ProjectRole::ALL {
            assert_eq!(role.as_str().parse(), Ok(*role));
        }
        assert!("operator".parse::<PersonRole>().is_err() && "Owner".parse::<ProjectRole>().is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in ".*") {
            if let Ok(email) = text.parse::<Email>() {
                prop_assert_eq!(email.as_str().parse::<Email>(), Ok(email.clone()));
            }
        }
    }
}
