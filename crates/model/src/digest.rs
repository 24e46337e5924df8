//! Content digests: what an adapter is called, and which base it belongs to.

use std::fmt;
use std::str::FromStr;

/// BLAKE3 of some content; printed as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

/// The text is not 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a digest is 64 hexadecimal digits")]
pub struct NotADigest;

impl FromStr for Digest {
    type Err = NotADigest;

    fn from_str(text: &str) -> Result<Self, NotADigest> {
        let hash = blake3::Hash::from_hex(text).map_err(|_| NotADigest)?;
        Ok(Self(*hash.as_bytes()))
    }
}

/// Hashes tagged, length-prefixed fields, so that no two different lists of fields share a digest.
pub(crate) struct FieldHasher(blake3::Hasher);

impl FieldHasher {
    /// `purpose` separates this digest from every other kind.
    pub(crate) fn new(purpose: &str) -> Self {
        let mut hasher = Self(blake3::Hasher::new());
        hasher.field("purpose", purpose.as_bytes());
        hasher
    }

    pub(crate) fn field(&mut self, tag: &str, content: &[u8]) {
        for part in [tag.as_bytes(), content] {
            self.0.update(&(part.len() as u64).to_le_bytes());
            self.0.update(part);
        }
    }

    pub(crate) fn finish(&self) -> Digest {
        Digest(*self.0.finalize().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trip_and_refusals() {
        let digest = Digest(std::array::from_fn(|i| (i * 37) as u8));
        assert_eq!(digest.to_string().parse(), Ok(digest));
        for bad in ["", "00", &"g".repeat(64), &"0".repeat(63), &"0".repeat(65)] {
            assert_eq!(bad.parse::<Digest>(), Err(NotADigest), "{bad:?}");
        }
    }

    #[test]
    fn fields_do_not_run_into_each_other() {
        let of = |fields: &[(&str, &[u8])]| {
            let mut hasher = FieldHasher::new("test");
            for (tag, content) in fields {
                hasher.field(tag, content);
            }
            hasher.finish()
        };
        assert_ne!(of(&[("a", b"bc")]), of(&[("ab", b"c")]));
        assert_ne!(of(&[("a", b"b"), ("c", b"")]), of(&[("a", b"bc")]));
        assert_eq!(of(&[("a", b"b")]), of(&[("a", b"b")]));
    }
}
