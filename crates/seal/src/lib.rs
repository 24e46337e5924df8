//! Sealing: encryption that also says what the content is and where it belongs.
//!
//! AES-256-GCM-SIV (RFC 8452) under a random nonce of 96 bits. What is sealed is bound to the tenant, to its kind and to
//! the fields that name it; under any other binding it does not open. A repeated nonce would show only that two contents
//! under one binding are the same.
//!
//! A crate of its own because the cipher's loops are generic and so are compiled where it is used: this little is
//! optimised in tests too, and the store, which is large, need not be.

use std::fmt::{self, Display, Write};

use aes::Aes256;
use aes_gcm_siv::{AeadInOut, AesGcmSiv, KeyInit, Nonce, Tag};
use atelier_domain::TenantId;
use zeroize::Zeroizing;

/// Why nothing was sealed, or no key was made.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The operating system gave no random bytes.
    #[error("cannot get random bytes: {0}")]
    Random(getrandom::Error),
    /// The content is longer than the cipher takes, 64 GiB.
    #[error("what is to be sealed is too large")]
    TooLarge,
}

/// Bytes of every key here.
pub const KEY_BYTES: usize = 32;
/// Begins every sealed content: the version of the layout.
const FORMAT: u8 = 1;
const GENERATION_BYTES: usize = size_of::<u32>();
const NONCE_BYTES: usize = 12;
/// Format, generation of the key (big-endian) and nonce; then the content as long as it was, then the tag.
const HEADER_BYTES: usize = 1 + GENERATION_BYTES + NONCE_BYTES;
const TAG_BYTES: usize = 16;
/// Bytes by which what is sealed is longer than what it was.
pub const OVERHEAD_BYTES: usize = HEADER_BYTES + TAG_BYTES;

/// A secret of this module's length. Overwritten when it is dropped, and printed as nothing.
#[derive(Clone)]
pub struct SecretKey(Zeroizing<[u8; KEY_BYTES]>);

impl SecretKey {
    /// The key of these bytes.
    pub fn new(bytes: [u8; KEY_BYTES]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// A key of the operating system's random bytes.
    ///
    /// # Errors
    /// There are none.
    pub fn generate() -> Result<Self, SealError> {
        random_bytes().map(Self::new)
    }

    /// Only to be wrapped, written to its file, or derived from.
    pub fn expose(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }

    /// A key for one purpose: one says nothing about another, nor about this.
    pub fn derive(&self, purpose: &str) -> Self {
        Self::new(blake3::derive_key(purpose, self.expose()))
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(..)")
    }
}

/// What a content is, and the fields that say which one: a source's name, of this id. Written to errors as it is, so no
/// field of it is a secret.
#[derive(Debug, Clone)]
pub struct Bound {
    kind: &'static str,
    fields: Vec<String>,
}

impl Bound {
    /// A kind of content, and the fields that name one.
    pub fn new(kind: &'static str, fields: &[&dyn Display]) -> Self {
        Self { kind, fields: fields.iter().map(ToString::to_string).collect() }
    }

    /// Every field with its length before it, so that no two bindings are the same bytes.
    fn associated_data(&self, header: &[u8], tenant: TenantId) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut add = |field: &[u8]| {
            bytes.extend_from_slice(&(field.len() as u64).to_le_bytes());
            bytes.extend_from_slice(field);
        };
        add(header);
        add(tenant.as_bytes());
        add(self.kind.as_bytes());
        self.fields.iter().for_each(|field| add(field.as_bytes()));
        bytes
    }
}

impl Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind)?;
        self.fields.iter().try_for_each(|field| write!(f, " {field}"))
    }
}

/// Seals a content under a key of this generation.
///
/// # Errors
/// There are no random bytes, or the content is longer than 64 GiB.
pub fn seal(
    key: &SecretKey,
    generation: u32,
    tenant: TenantId,
    bound: &Bound,
    content: &[u8],
) -> Result<Vec<u8>, SealError> {
    let nonce: [u8; NONCE_BYTES] = random_bytes()?;
    let mut sealed = Vec::with_capacity(content.len() + OVERHEAD_BYTES);
    sealed.push(FORMAT);
    sealed.extend_from_slice(&generation.to_be_bytes());
    let associated = bound.associated_data(&sealed, tenant);
    sealed.extend_from_slice(&nonce);
    sealed.extend_from_slice(content);
    let tag =
        cipher(key).encrypt_inout_detached(&Nonce::from(nonce), &associated, (&mut sealed[HEADER_BYTES..]).into());
    sealed.extend_from_slice(&tag.map_err(|_| SealError::TooLarge)?);
    Ok(sealed)
}

/// The generation of the key that this was sealed with; none when it was not sealed here.
pub fn generation_of(sealed: &[u8]) -> Option<u32> {
    if sealed.len() < OVERHEAD_BYTES || sealed[0] != FORMAT {
        return None;
    }
    sealed[1..=GENERATION_BYTES].try_into().ok().map(u32::from_be_bytes)
}

/// Opens in place: the bytes of the content, which lie where they were sealed. None when it was sealed with another key,
/// bound to something else or changed; the bytes are as they were then.
pub fn open<'a>(key: &SecretKey, tenant: TenantId, bound: &Bound, sealed: &'a mut [u8]) -> Option<&'a mut [u8]> {
    generation_of(sealed)?;
    let (header, rest) = sealed.split_at_mut(HEADER_BYTES);
    let (content, tag) = rest.split_at_mut(rest.len() - TAG_BYTES);
    let (prefix, nonce) = header.split_at(1 + GENERATION_BYTES);
    let nonce = Nonce::try_from(nonce).ok()?;
    let tag = Tag::try_from(&*tag).ok()?;
    let associated = bound.associated_data(prefix, tenant);
    cipher(key).decrypt_inout_detached(&nonce, &associated, (&mut *content).into(), &tag).ok()?;
    Some(content)
}

/// Where the content lies in what is sealed, whose length is given.
///
/// # Panics
/// If nothing sealed is so short.
pub fn content_range(sealed_bytes: usize) -> std::ops::Range<usize> {
    HEADER_BYTES..sealed_bytes - TAG_BYTES
}

/// A keyed hash, as text: the same content gives the same hash, and nothing is learned from it without the key.
pub fn keyed_hash(key: &SecretKey, kind: &str, content: &[u8]) -> String {
    let mut hasher = blake3::Hasher::new_keyed(key.expose());
    for field in [kind.as_bytes(), content] {
        hasher.update(&(field.len() as u64).to_le_bytes()).update(field);
    }
    let mut text = String::with_capacity(2 * KEY_BYTES);
    for byte in hasher.finalize().as_bytes() {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn random_bytes<const N: usize>() -> Result<[u8; N], SealError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(SealError::Random)?;
    Ok(bytes)
}

fn cipher(key: &SecretKey) -> AesGcmSiv<Aes256> {
    AesGcmSiv::new(key.expose().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use atelier_domain::Timestamp;
    use proptest::prelude::*;

    fn tenant(byte: u8) -> TenantId {
        TenantId::generate(Timestamp::from_seconds(1), [byte; 10])
    }

    fn opened(key: &SecretKey, tenant: TenantId, bound: &Bound, sealed: &[u8]) -> Option<Vec<u8>> {
        open(key, tenant, bound, &mut sealed.to_vec()).map(|content| content.to_vec())
    }

    proptest! {
        #[test]
        fn what_is_sealed_opens_in_its_own_place_only(
            content in proptest::collection::vec(any::<u8>(), 0..200),
            fields in proptest::collection::vec("[a-z0-9]{0,6}", 1..4),
            which in any::<prop::sample::Index>(),
            at in any::<prop::sample::Index>(),
            bit in 0u8..8,
            generation in any::<u32>(),
        ) {
            let (key, other_key) = (SecretKey::new([1; KEY_BYTES]), SecretKey::new([2; KEY_BYTES]));
            let bound = Bound { kind: "a column", fields: fields.clone() };
            let sealed = seal(&key, generation, tenant(1), &bound, &content).unwrap();
            prop_assert_eq!(sealed.len(), content.len() + OVERHEAD_BYTES);
            prop_assert_eq!(generation_of(&sealed), Some(generation));
            prop_assert_eq!(opened(&key, tenant(1), &bound, &sealed), Some(content.clone()));

            // Another key, tenant or kind.
            prop_assert_eq!(opened(&other_key, tenant(1), &bound, &sealed), None);
            prop_assert_eq!(opened(&key, tenant(2), &bound, &sealed), None);
            prop_assert_eq!(opened(&key, tenant(1), &Bound { kind: "another", ..bound.clone() }, &sealed), None);
            // Each field changed, left out, added, split.
            let mut other = bound.clone();
            other.fields[which.index(fields.len())].push('!');
            prop_assert_eq!(opened(&key, tenant(1), &other, &sealed), None);
            let mut other = bound.clone();
            other.fields.remove(which.index(fields.len()));
            prop_assert_eq!(opened(&key, tenant(1), &other, &sealed), None);
            let mut other = bound.clone();
            other.fields.push(String::new());
            prop_assert_eq!(opened(&key, tenant(1), &other, &sealed), None);
            if fields.len() > 1 {
                let mut other = bound.clone();
                let last = other.fields.pop().unwrap();
                other.fields.last_mut().unwrap().push_str(&last);
                prop_assert_eq!(opened(&key, tenant(1), &other, &sealed), None);
            }
            // Each bit, header and tag included; any cut.
            let mut changed = sealed.clone();
            changed[at.index(sealed.len())] ^= 1 << bit;
            prop_assert_eq!(opened(&key, tenant(1), &bound, &changed), None);
            prop_assert_eq!(opened(&key, tenant(1), &bound, &sealed[..at.index(sealed.len())]), None);
            // The same once more is other bytes.
            prop_assert_ne!(seal(&key, generation, tenant(1), &bound, &content).unwrap(), sealed);
        }
    }

    #[test]
    fn what_does_not_open_is_left_as_it_was() {
        let bound = Bound::new("a column", &[&1]);
        let mut sealed = seal(&SecretKey::new([1; KEY_BYTES]), 1, tenant(1), &bound, b"content").unwrap();
        let before = sealed.clone();
        assert!(open(&SecretKey::new([2; KEY_BYTES]), tenant(1), &bound, &mut sealed).is_none());
        assert_eq!(sealed, before);
    }

    /// Against RFC 8452, appendix C.2: the cipher is the one that is meant.
    #[test]
    fn the_cipher_is_that_of_the_rfc() {
        let mut key = [0; KEY_BYTES];
        key[0] = 1;
        let mut nonce = [0; NONCE_BYTES];
        nonce[0] = 3;
        let mut content = [1, 0, 0, 0, 0, 0, 0, 0];
        let tag = cipher(&SecretKey::new(key))
            .encrypt_inout_detached(&Nonce::from(nonce), b"", content.as_mut_slice().into())
            .unwrap();
        assert_eq!(content, [0xc2, 0xef, 0x32, 0x8e, 0x5c, 0x71, 0xc8, 0x3b]);
        assert_eq!(tag.as_slice(), 0x843122130f7364b761e0b97427e3df28_u128.to_be_bytes());
    }

    #[test]
    fn keys_print_as_nothing_and_serve_one_purpose() {
        let key = SecretKey::new([7; KEY_BYTES]);
        assert_eq!(format!("{key:?}"), "SecretKey(..)");
        assert_ne!(key.derive("one").expose(), key.derive("other").expose());
        assert_ne!(key.derive("one").expose(), key.expose());
        assert_eq!(keyed_hash(&key, "kind", b"content"), keyed_hash(&key, "kind", b"content"));
        assert_ne!(keyed_hash(&key, "kind", b"content"), keyed_hash(&key, "kin", b"dcontent"));
        assert_ne!(keyed_hash(&key, "kind", b"content"), keyed_hash(&key.derive("one"), "kind", b"content"));
    }
}
