//! ID tokens: whether one is good, and who it says signed in (OpenID Connect Core 1.0, section 3.1.3.7).

use atelier_domain::Timestamp;
use atelier_domain::limits::{ISSUER_CLOCK_SKEW, SIGN_IN_TIME_MAX};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation, decode, decode_header};
use serde::Deserialize;
use serde_json::Value as Json;
use subtle::ConstantTimeEq;

use crate::error::{PersonFault, TokenFault};

/// The only signatures that are believed.
const ALGORITHMS: [Algorithm; 3] = [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA];
/// Letters of a subject, as OpenID Connect has it.
const SUBJECT_CHARS_MAX: usize = 255;
/// The type that an ID token says to be, if it says one: tokens for other purposes are signed with the same keys.
const TYPE: &str = "JWT";

/// Head, claims and signature.
const PARTS: usize = 3;

/// Who signed in, as far as the issuer says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The name that the issuer never gives to anybody else.
    pub subject: String,
    /// An email address that the issuer vouches for; not parsed.
    pub email: String,
    /// What the person is called, if the issuer says so.
    pub name: Option<String>,
}

/// What an issuer says of a person, in an ID token or beside it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct Profile {
    #[serde(rename = "sub")]
    pub(crate) subject: String,
    email: Option<String>,
    email_verified: Option<Json>,
    name: Option<Json>,
}

impl Profile {
    /// Whether it says of the email address what must be known, be it good or bad.
    pub(crate) fn names_an_address(&self) -> bool {
        self.email.is_some() && self.email_verified.is_some()
    }

    /// With the address from elsewhere: the address and the word that it is verified come from one place.
    pub(crate) fn with_address_of(self, other: Self) -> Self {
        let Self { email, email_verified, name, .. } = other;
        Self { subject: self.subject, email, email_verified, name: name.or(self.name) }
    }

    /// Who it is, if the issuer vouches for the address.
    pub(crate) fn identity(self) -> Result<Identity, PersonFault> {
        let email = self.email.filter(|email| !email.is_empty()).ok_or(PersonFault::NoEmail)?;
        // Some issuers send the word instead of the value.
        let is_verified = self.email_verified.is_some_and(|verified| verified == true || verified == "true");
        if !is_verified {
            return Err(PersonFault::EmailNotVerified);
        }
        let name = self.name.and_then(|name| name.as_str().map(str::to_owned));
        Ok(Identity { subject: self.subject, email, name })
    }
}

/// What a token must say.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expected<'a> {
    pub(crate) issuer: &'a str,
    pub(crate) client_id: &'a str,
    pub(crate) nonce: &'a str,
    pub(crate) now: Timestamp,
}

/// A token that is one of ours by its form, and the name of the key that it is signed with.
#[derive(Debug, Clone)]
pub(crate) struct Signed<'a> {
    text: &'a str,
    pub(crate) algorithm: Algorithm,
    pub(crate) key: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Claims {
    iss: Option<String>,
    sub: Option<String>,
    aud: Option<Audience>,
    azp: Option<String>,
    exp: Option<f64>,
    iat: Option<f64>,
    nbf: Option<f64>,
    nonce: Option<String>,
    email: Option<String>,
    email_verified: Option<Json>,
    name: Option<Json>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

impl<'a> Signed<'a> {
    /// Reads the head of a token.
    pub(crate) fn read(text: &'a str) -> Result<Self, TokenFault> {
        if text.split('.').count() != PARTS {
            return Err(TokenFault::Malformed);
        }
        let head = text.split('.').next().unwrap_or_default();
        let Header { alg, typ, crit, kid, .. } = match decode_header(text) {
            Ok(header) => header,
            // Names of algorithms that the library does not know, `none` among them, do not parse.
            Err(_) if names_an_algorithm(head) => return Err(TokenFault::Algorithm),
            Err(_) => return Err(TokenFault::Malformed),
        };
        if !ALGORITHMS.contains(&alg) {
            return Err(TokenFault::Algorithm);
        }
        if crit.is_some() {
            return Err(TokenFault::Critical);
        }
        if typ.is_some_and(|typ| !typ.eq_ignore_ascii_case(TYPE)) {
            return Err(TokenFault::Malformed);
        }
        Ok(Self { text, algorithm: alg, key: kid })
    }

    /// What it says of the person, if it is signed with this key and says what it must.
    pub(crate) fn verify(&self, key: &DecodingKey, expected: Expected<'_>) -> Result<Profile, TokenFault> {
        let mut validation = Validation::new(self.algorithm);
        // What the library would check, it would check against the system's clock and more mildly than `check`.
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_aud = false;
        let claims: Claims = decode(self.text, key, &validation)
            .map_err(|error| match error.kind() {
                ErrorKind::InvalidSignature => TokenFault::Signature,
                ErrorKind::InvalidAlgorithm | ErrorKind::UnsupportedAlgorithm => TokenFault::Algorithm,
                _ => TokenFault::Malformed,
            })?
            .claims;
        check(claims, expected)
    }
}

fn names_an_algorithm(head: &str) -> bool {
    use base64::Engine;
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(head).unwrap_or_default();
    serde_json::from_slice::<Json>(&bytes).is_ok_and(|head| head["alg"].is_string())
}

fn check(claims: Claims, expected: Expected<'_>) -> Result<Profile, TokenFault> {
    if claims.iss.as_deref() != Some(expected.issuer) {
        return Err(TokenFault::Issuer);
    }
    check_audience(&claims, expected.client_id)?;
    check_times(&claims, expected.now)?;
    let nonce = claims.nonce.unwrap_or_default();
    if !bool::from(nonce.as_bytes().ct_eq(expected.nonce.as_bytes())) {
        return Err(TokenFault::Nonce);
    }
    let is_subject = |subject: &String| {
        !subject.is_empty()
            && subject.len() <= SUBJECT_CHARS_MAX
            && subject.bytes().all(|byte| (0x20..0x7f).contains(&byte))
    };
    let subject = claims.sub.filter(is_subject).ok_or(TokenFault::Subject)?;
    let Claims { email, email_verified, name, .. } = claims;
    Ok(Profile { subject, email, email_verified, name })
}

/// For us, and, where it is for others too, given to us.
fn check_audience(claims: &Claims, client_id: &str) -> Result<(), TokenFault> {
    let is_ours = match &claims.aud {
        Some(Audience::One(one)) => one == client_id,
        Some(Audience::Several(several)) => {
            let is_among_them = several.iter().any(|one| one == client_id);
            is_among_them && (several.len() == 1 || claims.azp.is_some())
        }
        None => false,
    };
    let is_given_to_us = claims.azp.as_ref().is_none_or(|party| party == client_id);
    if is_ours && is_given_to_us { Ok(()) } else { Err(TokenFault::Audience) }
}

fn check_times(claims: &Claims, now: Timestamp) -> Result<(), TokenFault> {
    let (now, skew) = (now.seconds() as f64, ISSUER_CLOCK_SKEW.as_secs_f64());
    // A comparison with what is no number is false.
    let lives = claims.exp.is_some_and(|end| now - skew < end);
    if !lives {
        return Err(TokenFault::Expired);
    }
    let oldest = now - SIGN_IN_TIME_MAX.as_secs_f64() - skew;
    let was_made_for_this = claims.iat.is_some_and(|made| oldest <= made && made <= now + skew);
    let has_begun = claims.nbf.is_none_or(|begin| begin <= now + skew);
    if was_made_for_this && has_begun { Ok(()) } else { Err(TokenFault::IssuedAt) }
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use ring::hmac;
    use ring::rand::SystemRandom;
    use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
    use serde_json::json;

    use super::*;

    const NOW: i64 = 1_800_000_000;
    const EXPECTED: Expected<'_> = Expected {
        issuer: "https://id.example.com",
        client_id: "atelier",
        nonce: "n-1",
        now: Timestamp::from_seconds(NOW),
    };

    enum Signer {
        Ed25519(Ed25519KeyPair),
        P256(EcdsaKeyPair),
    }

    impl Signer {
        fn ed25519() -> Self {
            Self::Ed25519(Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap())
        }

        fn p256() -> Self {
            let random = SystemRandom::new();
            let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
            Self::P256(EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random).unwrap())
        }

        fn key(&self) -> DecodingKey {
            match self {
                Self::Ed25519(pair) => DecodingKey::from_ed_der(pair.public_key().as_ref()),
                Self::P256(pair) => DecodingKey::from_ec_der(pair.public_key().as_ref()),
            }
        }

        fn sign(&self, message: &[u8]) -> Vec<u8> {
            match self {
                Self::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
                Self::P256(pair) => pair.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec(),
            }
        }

        fn token(&self, header: &Json, claims: &Json) -> String {
            let message = message(header, claims);
            format!("{message}.{}", URL_SAFE_NO_PAD.encode(self.sign(message.as_bytes())))
        }
    }

    fn message(header: &Json, claims: &Json) -> String {
        let part = |json: &Json| URL_SAFE_NO_PAD.encode(json.to_string());
        format!("{}.{}", part(header), part(claims))
    }

    fn claims(change: Json) -> Json {
        let mut claims = json!({
            "iss": EXPECTED.issuer, "sub": "u-1", "aud": "atelier", "exp": NOW + 300, "iat": NOW, "nonce": "n-1",
            "email": "jo@example.com", "email_verified": true, "name": "Jo",
        });
        for (name, value) in change.as_object().unwrap() {
            claims[name] = value.clone();
        }
        claims
    }

    fn verify(token: &str, key: &DecodingKey) -> Result<Profile, TokenFault> {
        crate::crypto::install();
        Signed::read(token)?.verify(key, EXPECTED)
    }

    #[track_caller]
    fn check_claims(change: Json, expected: Result<(), TokenFault>) {
        let signer = Signer::ed25519();
        let token = signer.token(&json!({"alg": "EdDSA", "typ": "JWT"}), &claims(change.clone()));
        assert_eq!(verify(&token, &signer.key()).map(|_| ()), expected, "{change}");
    }

    #[test]
    fn a_token_says_all_that_it_must() {
        use TokenFault as F;
        check_claims(json!({}), Ok(()));
        for iss in [json!(null), json!("https://id.example.com/"), json!("https://evil.example.com"), json!("")] {
            check_claims(json!({"iss": iss}), Err(F::Issuer));
        }
        check_claims(json!({"aud": ["atelier"]}), Ok(()));
        check_claims(json!({"aud": ["atelier"], "azp": "atelier"}), Ok(()));
        check_claims(json!({"aud": ["other", "atelier"], "azp": "atelier"}), Ok(()));
        for (aud, azp) in [
            (json!(null), json!(null)),
            (json!("other"), json!(null)),
            (json!([]), json!(null)),
            (json!(["other"]), json!("atelier")),
            (json!(["other", "atelier"]), json!(null)),
            (json!(["other", "atelier"]), json!("other")),
            (json!("atelier"), json!("other")),
        ] {
            check_claims(json!({"aud": aud, "azp": azp}), Err(F::Audience));
        }
        check_claims(json!({"exp": NOW - 59}), Ok(()));
        for exp in [json!(NOW - 60), json!(0), json!(null)] {
            check_claims(json!({"exp": exp}), Err(F::Expired));
        }
        check_claims(json!({"iat": NOW + 60}), Ok(()));
        check_claims(json!({"iat": NOW - 660}), Ok(()));
        for iat in [json!(NOW + 61), json!(NOW - 661), json!(null)] {
            check_claims(json!({"iat": iat}), Err(F::IssuedAt));
        }
        check_claims(json!({"nbf": NOW + 61}), Err(F::IssuedAt));
        for nonce in [json!(null), json!(""), json!("n-2"), json!("n-11")] {
            check_claims(json!({"nonce": nonce}), Err(F::Nonce));
        }
        for sub in [json!(null), json!(""), json!("a".repeat(256)), json!("ü"), json!("a\nb")] {
            check_claims(json!({"sub": sub}), Err(F::Subject));
        }
        check_claims(json!({"name": 5, "email": null, "email_verified": null}), Ok(()));
        for odd in [json!({"exp": "soon"}), json!({"aud": 5}), json!({"email": ["a@b.c"]})] {
            check_claims(odd, Err(F::Malformed));
        }
    }

    fn profile(change: &Json) -> Profile {
        serde_json::from_value(claims(change.clone())).unwrap()
    }

    #[test]
    fn the_issuer_vouches_for_the_address() {
        let check = |change: Json, expected: Result<(), PersonFault>| {
            assert_eq!(profile(&change).identity().map(|_| ()), expected, "{change}");
        };
        for email in [json!(null), json!("")] {
            check(json!({"email": email}), Err(PersonFault::NoEmail));
        }
        check(json!({"email_verified": "true"}), Ok(()));
        for verified in [json!(null), json!(false), json!("false"), json!(1), json!("yes")] {
            check(json!({"email_verified": verified}), Err(PersonFault::EmailNotVerified));
        }
        check(json!({"name": 5}), Ok(()));
    }

    #[test]
    fn an_address_and_its_verification_come_from_one_place() {
        let silent = profile(&json!({"email": null, "email_verified": null, "name": null}));
        let half = profile(&json!({"email_verified": null}));
        assert!(!silent.names_an_address() && !half.names_an_address() && profile(&json!({})).names_an_address());
        assert!(profile(&json!({"email_verified": false})).names_an_address(), "a no is an answer");
        let other = profile(&json!({"sub": "u-2", "email": "al@example.com", "name": null}));
        let identity = half.with_address_of(other.clone()).identity().unwrap();
        assert_eq!((identity.subject.as_str(), identity.email.as_str()), ("u-1", "al@example.com"));
        assert_eq!(identity.name.as_deref(), Some("Jo"));
        // One that says nothing takes nothing of the first's.
        assert_eq!(other.with_address_of(silent).identity(), Err(PersonFault::NoEmail));
    }

    #[test]
    fn only_the_issuers_own_signature_counts() {
        for (signer, alg) in [(Signer::ed25519(), "EdDSA"), (Signer::p256(), "ES256")] {
            let token = signer.token(&json!({"alg": alg, "kid": "k"}), &claims(json!({})));
            let identity = verify(&token, &signer.key()).unwrap().identity().unwrap();
            assert_eq!((identity.subject.as_str(), identity.name.as_deref()), ("u-1", Some("Jo")));
            let (head, rest) = token.split_once('.').unwrap();
            let (body, signature) = rest.split_once('.').unwrap();
            let other = message(&json!({"alg": alg, "kid": "k"}), &claims(json!({"sub": "u-2"})));
            assert_eq!(verify(&format!("{other}.{signature}"), &signer.key()), Err(TokenFault::Signature));
            for cut in [format!("{head}.{body}."), format!("{head}.{body}.AAAA")] {
                assert_eq!(verify(&cut, &signer.key()), Err(TokenFault::Signature), "{cut}");
            }
            for malformed in ["", "a.b.c", head, &format!("{head}.{body}"), &format!("{token}.x"), "..", "e30.e30.e30"]
            {
                assert_eq!(verify(malformed, &signer.key()), Err(TokenFault::Malformed), "{malformed}");
            }
        }
        // The algorithm of one kind of key with a key of another.
        let token = Signer::ed25519().token(&json!({"alg": "EdDSA"}), &claims(json!({})));
        assert_eq!(verify(&token, &Signer::p256().key()), Err(TokenFault::Algorithm));
    }

    #[test]
    fn other_algorithms_prove_nothing() {
        let signer = Signer::ed25519();
        let Signer::Ed25519(pair) = &signer else { unreachable!() };
        for alg in ["none", "None", "NONE", "nOnE", "HS256", "HS384", "RS384", "PS256", "ES384", "ES256K", "A128KW"] {
            let message = message(&json!({"alg": alg}), &claims(json!({})));
            // What anybody can make who has the public key.
            let shared = hmac::Key::new(hmac::HMAC_SHA256, pair.public_key().as_ref());
            let tag = URL_SAFE_NO_PAD.encode(hmac::sign(&shared, message.as_bytes()));
            for token in [format!("{message}.{tag}"), format!("{message}.")] {
                assert_eq!(verify(&token, &signer.key()), Err(TokenFault::Algorithm), "{alg}");
            }
        }
        let critical = signer.token(&json!({"alg": "EdDSA", "crit": ["b64"], "b64": false}), &claims(json!({})));
        assert_eq!(verify(&critical, &signer.key()), Err(TokenFault::Critical));
        let access = signer.token(&json!({"alg": "EdDSA", "typ": "at+jwt"}), &claims(json!({})));
        assert_eq!(verify(&access, &signer.key()), Err(TokenFault::Malformed));
    }
}
