//! The name of a bucket on an S3-compatible store.

use std::fmt;
use std::str::FromStr;

use crate::limits::{BUCKET_NAME_BYTES_MAX, BUCKET_NAME_BYTES_MIN};
use crate::{ParseError, serde_by_text};

/// A bucket's name: what S3 takes, without dots, which no certificate for a virtual host covers.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BucketName(String);

impl BucketName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BucketName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for BucketName {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let fits = (BUCKET_NAME_BYTES_MIN..=BUCKET_NAME_BYTES_MAX).contains(&text.len());
        let is_of_signs = text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'));
        if fits && is_of_signs && !text.starts_with('-') && !text.ends_with('-') {
            return Ok(Self(text.to_owned()));
        }
        let reason = "3 to 63 lowercase letters, digits and hyphens, neither beginning nor ending with a hyphen";
        Err(ParseError { what: "bucket name", reason })
    }
}

serde_by_text!(BucketName);

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, is_name: bool) {
        assert_eq!(text.parse::<BucketName>().is_ok(), is_name, "{text:?}");
    }

    #[test]
    fn a_bucket_is_named_as_s3_has_it_without_dots() {
        check("acme-code", true);
        check("a1b", true);
        check(&"a".repeat(63), true);
        for wrong in ["", "ab", "-abc", "abc-", "Acme", "a.b.c", "a/b", "a_b_c", "a b c", "äbc", &"a".repeat(64)] {
            check(wrong, false);
        }
    }
}
