//! Names that people and clients choose or send: tenants, suffixes, models.

use std::fmt;
use std::str::FromStr;

use crate::limits::{LABEL_BYTES_MAX, SLUG_BYTES_MAX};
use crate::{ParseError, VersionNumber, serde_by_text};

/// The model name that every client may use for ever: what it resolves to follows the key's tenant and plan.
pub const MODEL_ALIAS: &str = "atelier";
/// The name of the base model without any adapter.
pub const MODEL_BASE: &str = "atelier-base";
/// What the name of one version begins with, as OpenAI's fine-tuned models do.
const MODEL_VERSION_PREFIX: &str = "ft";
/// The suffix of versions whose run named none.
const SUFFIX_DEFAULT: &str = "code";

macro_rules! slug {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = ParseError;

            fn from_str(text: &str) -> Result<Self, ParseError> {
                if is_slug(text) {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(ParseError {
                        what: $what,
                        reason: "1 to 40 lowercase letters, digits and hyphens, not beginning with a hyphen",
                    })
                }
            }
        }

        serde_by_text!($name);
    };
}

slug!(
    /// A tenant's name: unique among living tenants, part of its models' names.
    TenantName, "tenant name"
);
slug!(
    /// What a version was trained for, part of its model name.
    Suffix, "model suffix"
);

impl Default for Suffix {
    fn default() -> Self {
        Self(SUFFIX_DEFAULT.to_owned())
    }
}

fn is_slug(text: &str) -> bool {
    text.len() <= SLUG_BYTES_MAX
        && text.starts_with(|first: char| first.is_ascii_lowercase() || first.is_ascii_digit())
        && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
}

/// What people call a key, a project or a person: free text of one line.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Label(String);

impl Label {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Label {
    type Err = ParseError;

    /// Spaces around it are taken away; control characters are refused, which could forge lines of a log or a terminal.
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let text = text.trim();
        let printable = !text.is_empty() && text.len() <= LABEL_BYTES_MAX && !text.chars().any(char::is_control);
        // What misleads is refused where a name is given; one that is stored stays.
        if printable {
            Ok(Self(text.to_owned()))
        } else {
            Err(ParseError { what: "name", reason: "1 to 200 bytes of text without line breaks" })
        }
    }
}

serde_by_text!(Label);

/// Whether a text may read otherwise than it is: it holds letters that turn the direction of others, or that nobody
/// sees. Joiners are not among them, which scripts and emoji need.
#[must_use]
pub fn misleads(text: &str) -> bool {
    text.chars().any(|letter| {
        matches!(letter,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
    })
}

/// A model's name as a client sends it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ModelName {
    /// `atelier`: what the caller's plan gives.
    Alias,
    /// `atelier-base`: the base alone.
    Base,
    /// `ft:atelier-base:<tenant>:<suffix>:<version>`: one version.
    Version {
        /// The tenant that trained it.
        tenant: TenantName,
        /// What it was trained for.
        suffix: Suffix,
        /// Its number inside the tenant.
        number: VersionNumber,
    },
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Alias => f.write_str(MODEL_ALIAS),
            Self::Base => f.write_str(MODEL_BASE),
            Self::Version { tenant, suffix, number } => {
                write!(f, "{MODEL_VERSION_PREFIX}:{MODEL_BASE}:{tenant}:{suffix}:{number}")
            }
        }
    }
}

impl FromStr for ModelName {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let error = ParseError {
            what: "model name",
            reason: "atelier, atelier-base or ft:atelier-base:<tenant>:<suffix>:<version>",
        };
        let mut parts = text.split(':');
        match (parts.next(), parts.next(), parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(MODEL_ALIAS), None, ..) => Ok(Self::Alias),
            (Some(MODEL_BASE), None, ..) => Ok(Self::Base),
            (Some(MODEL_VERSION_PREFIX), Some(MODEL_BASE), Some(tenant), Some(suffix), Some(number), None) => {
                Ok(Self::Version {
                    tenant: tenant.parse().map_err(|_| error)?,
                    suffix: suffix.parse().map_err(|_| error)?,
                    number: number.parse().map_err(|_| error)?,
                })
            }
            _ => Err(error),
        }
    }
}

serde_by_text!(ModelName);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn tenant_names_are_slugs() {
        let long = "a".repeat(41);
        for (text, valid) in [
            ("acme", true),
            ("a", true),
            ("9-lives", true),
            (&long[..40], true),
            (&long, false),
            ("", false),
            ("-a", false),
            ("Acme", false),
            ("a_b", false),
            ("a:b", false),
            ("a/b", false),
            ("é", false),
            ("a ", false),
        ] {
            assert_eq!(text.parse::<TenantName>().is_ok(), valid, "{text:?}");
        }
    }

    #[test]
    fn labels_are_one_line_of_text() {
        let long = "a".repeat(201);
        for (text, expected) in [
            ("CI of the shop", Some("CI of the shop")),
            ("  laptop ", Some("laptop")),
            ("Büro", Some("Büro")),
            (&long[..200], Some(&long[..200])),
            (&long, None),
            ("", None),
            ("   ", None),
            ("a\nb", None),
            ("a\u{1b}[31m", None),
        ] {
            assert_eq!(text.parse::<Label>().ok().as_ref().map(Label::as_str), expected, "{text:?}");
        }
    }

    #[test]
    fn what_reads_otherwise_than_it_is_misleads() {
        for (text, expected) in [
            ("Jo's editor", false),
            ("名前 🧑\u{200d}💻 نامه\u{200c}ها", false),
            ("\u{202e}gpj.exe", true),
            ("a\u{2066}b", true),
            ("\u{200b}", true),
            ("\u{feff}x", true),
            ("two\u{2028}lines", true),
        ] {
            assert_eq!(misleads(text), expected, "{text:?}");
        }
    }

    #[test]
    fn model_names_round_trip_or_are_refused() {
        for text in ["atelier", "atelier-base", "ft:atelier-base:acme:code:12"] {
            assert_eq!(text.parse::<ModelName>().map(|name| name.to_string()).as_deref(), Ok(text));
        }
        for text in [
            "",
            "atelier:",
            "gpt-4",
            "ft:atelier-base:acme:code",
            "ft:atelier-base:acme:code:0",
            "ft:atelier-base:acme:code:1:2",
            "ft:other:acme:code:1",
            "ft:atelier-base:A:code:1",
            "Atelier",
        ] {
            assert!(text.parse::<ModelName>().is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn every_version_name_parses_back(tenant in "[a-z0-9][a-z0-9-]{0,39}", suffix in "[a-z0-9][a-z0-9-]{0,39}", number in 1i64..=4_294_967_295) {
            let name = ModelName::Version {
                tenant: tenant.parse().unwrap(),
                suffix: suffix.parse().unwrap(),
                number: VersionNumber::try_from(number).unwrap(),
            };
            prop_assert_eq!(name.to_string().parse::<ModelName>(), Ok(name));
        }
    }
}
