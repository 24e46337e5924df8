//! The text of an API key: `atl_<o|t>_<public id>_<secret><checksum>`. The secret of an invite is of the same form, with
//! the letter `i`, and is kept and checked in the same way; so are a browser's session (`s`), and what a program fetches
//! its key with after signing in (`c`).
//!
//! The public id finds the key's row; the secret proves possession; the checksum lets a secret scanner, and us, tell a
//! key from noise without a look-up. Only a keyed hash of the secret is ever stored.

use std::fmt;
use std::str::FromStr;

use atelier_domain::{
    InviteId, KeyId, Label, ParseError, ProjectId, Role, Scopes, ServiceAccountId, TenantId, Timestamp, UserId,
};
use subtle::ConstantTimeEq;

/// Random bytes that a key takes: 11 for the public id, 32 for the secret.
pub const KEY_RANDOM_BYTES: usize = PUBLIC_ID_RANDOM_BYTES + SECRET_RANDOM_BYTES;

const PUBLIC_ID_RANDOM_BYTES: usize = 11;
const SECRET_RANDOM_BYTES: usize = 32;
/// 62^16 > 2^88.
const PUBLIC_ID_CHARS: usize = 16;
/// 62^43 > 2^256.
const SECRET_CHARS: usize = 43;
/// 62^6 > 2^32.
const CHECKSUM_CHARS: usize = 6;
const BRAND: &str = "atl";
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// Separates this use of the pepper from any other.
const SECRET_HASH_TAG: &[u8] = b"atelier api key secret v1";
/// The same for keys of other uses.
const SUBKEY_TAG: &[u8] = b"atelier subkey v1";

const PARSE_ERROR: ParseError = ParseError { what: "API key", reason: "atl_ and the rest as it was shown once" };

/// Whom a key is for, readable from its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyKind {
    /// The operator of the installation.
    Operator,
    /// One tenant.
    Tenant,
    /// Somebody who is invited by a tenant: good for accepting, once.
    Invite,
    /// A browser in which a person of one tenant signed in.
    Session,
    /// A program for which a person signed in: good for fetching its key, once.
    Code,
}

impl KeyKind {
    const ALL: [Self; 5] = [Self::Operator, Self::Tenant, Self::Invite, Self::Session, Self::Code];

    /// The kind of key that a role has.
    #[must_use]
    pub fn of(role: Role) -> Self {
        match role {
            Role::Operator => Self::Operator,
            Role::Admin | Role::Member | Role::Service | Role::Reader => Self::Tenant,
        }
    }

    fn letter(self) -> &'static str {
        match self {
            Self::Operator => "o",
            Self::Tenant => "t",
            Self::Invite => "i",
            Self::Session => "s",
            Self::Code => "c",
        }
    }
}

/// The part of a key that names it: safe to show and to store.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PublicId(String);

impl PublicId {
    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What may be shown of the text of the key that it names.
    #[must_use]
    pub fn redacted(&self, kind: KeyKind) -> String {
        format!("{BRAND}_{}_{self}_…", kind.letter())
    }
}

impl FromStr for PublicId {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let valid = text.len() == PUBLIC_ID_CHARS && is_base62(text);
        if valid {
            Ok(Self(text.to_owned()))
        } else {
            Err(ParseError { what: "public key id", reason: "16 letters and digits" })
        }
    }
}

impl fmt::Display for PublicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A whole API key, secret included. It exists while a key is created or checked, and is never printed by accident:
/// only [`ApiKey::reveal`] gives its text.
#[derive(Clone)]
pub struct ApiKey {
    kind: KeyKind,
    public_id: PublicId,
    secret: String,
}

impl ApiKey {
    /// A new key from fresh random bytes of a cryptographic source.
    #[must_use]
    pub fn generate(kind: KeyKind, random: [u8; KEY_RANDOM_BYTES]) -> Self {
        let (public_id, secret) = random.split_at(PUBLIC_ID_RANDOM_BYTES);
        Self {
            kind,
            public_id: PublicId(to_base62(public_id, PUBLIC_ID_CHARS)),
            secret: to_base62(secret, SECRET_CHARS),
        }
    }

    /// Reads a key's text; the checksum is verified, nothing is looked up.
    ///
    /// # Errors
    /// The text is not a key's, or a character of it was lost or changed.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let mut parts = text.split('_');
        let (Some(BRAND), Some(letter), Some(public_id), Some(tail), None) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(PARSE_ERROR);
        };
        let kind = KeyKind::ALL.into_iter().find(|kind| kind.letter() == letter).ok_or(PARSE_ERROR)?;
        let public_id = public_id.parse().map_err(|_| PARSE_ERROR)?;
        if tail.len() != SECRET_CHARS + CHECKSUM_CHARS || !is_base62(tail) {
            return Err(PARSE_ERROR);
        }
        let (secret, checksum) = tail.split_at(SECRET_CHARS);
        let key = Self { kind, public_id, secret: secret.to_owned() };
        if key.checksum() == checksum { Ok(key) } else { Err(PARSE_ERROR) }
    }

    /// The key's text, to be shown once and then forgotten.
    #[must_use]
    pub fn reveal(&self) -> String {
        format!("{}{}", self.checked_part(), self.checksum())
    }

    /// Whom the key is for.
    #[must_use]
    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// The part that names the key.
    #[must_use]
    pub fn public_id(&self) -> &PublicId {
        &self.public_id
    }

    /// What may be shown of the key's text.
    #[must_use]
    pub fn redacted(&self) -> String {
        self.public_id.redacted(self.kind)
    }

    /// What is stored of the secret. The secret has 256 bits of its own, so a fast keyed hash is enough: there is
    /// nothing to guess, and the pepper makes a stolen database useless for checking guesses.
    #[must_use]
    pub fn secret_hash(&self, pepper: &Pepper) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_keyed(&pepper.0);
        for field in [SECRET_HASH_TAG, self.public_id.0.as_bytes(), self.secret.as_bytes()] {
            hasher.update(&u64::try_from(field.len()).unwrap_or(u64::MAX).to_le_bytes());
            hasher.update(field);
        }
        *hasher.finalize().as_bytes()
    }

    /// Whether this is what was stored of the secret; it takes the same time wherever they differ.
    #[must_use]
    pub fn has_hash(&self, stored: &[u8; 32], pepper: &Pepper) -> bool {
        self.secret_hash(pepper).ct_eq(stored).into()
    }

    fn checked_part(&self) -> String {
        format!("{BRAND}_{}_{}_{}", self.kind.letter(), self.public_id, self.secret)
    }

    fn checksum(&self) -> String {
        to_base62(&crc32fast::hash(self.checked_part().as_bytes()).to_be_bytes(), CHECKSUM_CHARS)
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiKey({})", self.redacted())
    }
}

/// The installation's secret that keys the hashes of all key secrets; kept outside the database.
#[derive(Clone)]
pub struct Pepper([u8; 32]);

impl Pepper {
    /// A pepper from its bytes.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// A key for another use, from which neither the pepper nor the key of any third use can be told.
    #[must_use]
    pub fn subkey(&self, purpose: &'static str) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        for field in [SUBKEY_TAG, purpose.as_bytes()] {
            hasher.update(&u64::try_from(field.len()).unwrap_or(u64::MAX).to_le_bytes());
            hasher.update(field);
        }
        *hasher.finalize().as_bytes()
    }
}

impl fmt::Debug for Pepper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pepper(…)")
    }
}

/// What is stored about a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRecord {
    /// The row's id, as usage and audit name the key.
    pub id: KeyId,
    /// The part of the key's text that finds this record.
    pub public_id: PublicId,
    /// The tenant whose key this is; none for the operator's.
    pub tenant: Option<TenantId>,
    /// What people call the key.
    pub name: Option<Label>,
    /// What the key may be.
    pub role: Role,
    /// What it is for.
    pub purpose: KeyPurpose,
    /// What of the role's rights it has.
    pub scopes: Scopes,
    /// The project that its use is counted for.
    pub project: Option<ProjectId>,
    /// Who holds it, where that is known.
    pub owner: Option<KeyOwner>,
    /// [`ApiKey::secret_hash`] of the key.
    pub secret_hash: [u8; 32],
    /// When the key was made.
    pub created_at: Timestamp,
    /// From when on the key is worthless by its making.
    pub expires_at: Option<Timestamp>,
    /// From when on the key is worthless because somebody said so.
    pub revoked_at: Option<Timestamp>,
    /// Whether its tenant may do nothing for now.
    pub is_suspended: bool,
}

impl KeyRecord {
    /// The kind of text that the key has.
    #[must_use]
    pub fn kind(&self) -> KeyKind {
        match self.purpose {
            KeyPurpose::Session => KeyKind::Session,
            KeyPurpose::Key | KeyPurpose::Login => KeyKind::of(self.role),
        }
    }

    /// Whether the key is good for anything at this time.
    #[must_use]
    pub fn lives_at(&self, now: Timestamp) -> bool {
        [self.expires_at, self.revoked_at].into_iter().flatten().all(|end| now < end)
    }
}

/// What a key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum KeyPurpose {
    /// For whatever whoever made it wants.
    #[default]
    Key,
    /// For a browser in which somebody signed in; sent as a cookie only.
    Session,
    /// For a command line or an editor for which somebody signed in.
    Login,
}

impl KeyPurpose {
    /// Every one of them.
    pub const ALL: [Self; 3] = [Self::Key, Self::Session, Self::Login];

    /// Its name on every interface.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Session => "session",
            Self::Login => "login",
        }
    }
}

impl FromStr for KeyPurpose {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let known = Self::ALL.into_iter().find(|known| known.as_str() == text);
        known.ok_or(ParseError { what: "purpose of a key", reason: "key, session or login" })
    }
}

/// What is stored about the secret of an invite that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InviteSecret {
    /// The invite.
    pub id: InviteId,
    /// The part of the secret's text that finds this record.
    pub public_id: PublicId,
    /// Who invites.
    pub tenant: TenantId,
    /// [`ApiKey::secret_hash`] of the secret.
    pub secret_hash: [u8; 32],
    /// From when on it is worthless.
    pub expires_at: Timestamp,
    /// Whether the tenant may do nothing for now.
    pub is_suspended: bool,
}

/// Who holds a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyOwner {
    /// A person.
    User(UserId),
    /// A machine.
    ServiceAccount(ServiceAccountId),
}

fn is_base62(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// The bytes as one big-endian number in base 62, padded on the left to `width` digits. Every number of these bytes
/// must fit: the constants above say why it does.
fn to_base62(bytes: &[u8], width: usize) -> String {
    let mut number = bytes.to_vec();
    let mut digits = vec![b'0'; width];
    for digit in digits.iter_mut().rev() {
        let mut remainder = 0u32;
        for byte in &mut number {
            let value = remainder << 8 | u32::from(*byte);
            *byte = u8::try_from(value / 62).unwrap_or(u8::MAX);
            remainder = value % 62;
        }
        *digit = ALPHABET[remainder as usize];
    }
    debug_assert!(number.iter().all(|byte| *byte == 0), "the number has more digits than the field");
    digits.into_iter().map(char::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EXAMPLE: [u8; KEY_RANDOM_BYTES] = [7; KEY_RANDOM_BYTES];

    fn key_bytes() -> impl Strategy<Value = [u8; KEY_RANDOM_BYTES]> {
        proptest::collection::vec(any::<u8>(), KEY_RANDOM_BYTES).prop_map(|bytes| bytes.try_into().unwrap())
    }

    #[test]
    fn the_text_keeps_its_published_shape() {
        for (kind, letter) in [
            (KeyKind::Operator, "o"),
            (KeyKind::Tenant, "t"),
            (KeyKind::Invite, "i"),
            (KeyKind::Session, "s"),
            (KeyKind::Code, "c"),
        ] {
            let text = ApiKey::generate(kind, EXAMPLE).reveal();
            let parts: Vec<&str> = text.split('_').collect();
            assert_eq!((parts[0], parts[1], parts[2].len(), parts[3].len()), ("atl", letter, 16, 49));
        }
    }

    #[test]
    fn a_key_never_prints_its_secret() {
        let key = ApiKey::generate(KeyKind::Tenant, EXAMPLE);
        let secret = &key.reveal()[23..];
        assert!(!format!("{key:?}").contains(&secret[..8]));
        assert!(!format!("{:?}", Pepper::new([9; 32])).contains('9'));
    }

    #[test]
    fn the_largest_numbers_fit_their_fields() {
        let key = ApiKey::generate(KeyKind::Tenant, [255; KEY_RANDOM_BYTES]);
        assert!(ApiKey::parse(&key.reveal()).is_ok());
    }

    proptest! {
        #[test]
        fn keys_round_trip(random in key_bytes(), pepper in any::<[u8; 32]>()) {
            let key = ApiKey::generate(KeyKind::Tenant, random);
            let read = ApiKey::parse(&key.reveal()).unwrap();
            prop_assert_eq!(read.public_id(), key.public_id());
            prop_assert_eq!(read.kind(), key.kind());
            let pepper = Pepper::new(pepper);
            prop_assert_eq!(read.secret_hash(&pepper), key.secret_hash(&pepper));
        }

        #[test]
        fn one_changed_character_is_noticed(random in key_bytes(), at in 0usize..72, with in "[0-9A-Za-z_]") {
            let text = ApiKey::generate(KeyKind::Operator, random).reveal();
            let mut changed = text.clone();
            changed.replace_range(at..=at, &with);
            prop_assert_eq!(ApiKey::parse(&changed).is_ok(), changed == text);
        }

        #[test]
        fn a_cut_or_lengthened_key_is_refused(random in key_bytes(), length in 0usize..72, more in ".{1,3}") {
            let text = ApiKey::generate(KeyKind::Tenant, random).reveal();
            prop_assert!(ApiKey::parse(&text[..length]).is_err());
            for longer in [format!("{text}{more}"), format!("{more}{text}")] {
                prop_assert!(ApiKey::parse(&longer).is_err());
            }
        }

        #[test]
        fn other_secrets_and_peppers_hash_otherwise(a in key_bytes(), b in key_bytes(), pepper in any::<[u8; 32]>()) {
            prop_assume!(a != b);
            let (first, second) = (ApiKey::generate(KeyKind::Tenant, a), ApiKey::generate(KeyKind::Tenant, b));
            prop_assert_ne!(first.reveal(), second.reveal());
            prop_assert_ne!(first.secret_hash(&Pepper::new(pepper)), second.secret_hash(&Pepper::new(pepper)));
            let mut other = pepper;
            other[0] ^= 1;
            prop_assert_ne!(first.secret_hash(&Pepper::new(pepper)), first.secret_hash(&Pepper::new(other)));
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in ".*") {
            let _ = ApiKey::parse(&text);
        }
    }
}
