//! An issuer's keys (JSON Web Key Set, RFC 7517).

use atelier_domain::limits::{ISSUER_KEYS_BYTES_MAX, ISSUER_KEYS_MAX};
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value as Json;
use url::Url;

use crate::error::SignOnError;
use crate::fetch::Fetcher;

/// Keys that a signature is checked with.
#[derive(Debug, Clone, Default)]
pub(crate) struct KeySet(Vec<Key>);

#[derive(Debug, Clone)]
struct Key {
    id: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<Json>,
}

impl KeySet {
    pub(crate) async fn fetch(fetcher: &Fetcher, url: &Url) -> Result<Self, SignOnError> {
        let document: Document = fetcher.get(url, "keys", ISSUER_KEYS_BYTES_MAX).await?;
        Self::read(document.keys)
    }

    /// What of them can check a signature; the others are passed over, as RFC 7517 wants it.
    fn read(keys: Vec<Json>) -> Result<Self, SignOnError> {
        if keys.len() > ISSUER_KEYS_MAX {
            return Err(SignOnError::Malformed { what: "keys" });
        }
        Ok(Self(keys.into_iter().filter_map(|key| read_key(serde_json::from_value(key).ok()?)).collect()))
    }

    /// The key for a token: the one that it names, or, where it names none, the only one that there is for its algorithm.
    pub(crate) fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Option<&DecodingKey> {
        let mut fitting = self.0.iter().filter(|key| key.algorithm == algorithm);
        match id {
            Some(id) => fitting.find(|key| key.id.as_deref() == Some(id)),
            None => fitting.next().filter(|_| fitting.next().is_none()),
        }
        .map(|key| &key.key)
    }
}

fn read_key(jwk: Jwk) -> Option<Key> {
    let algorithm = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => Algorithm::RS256,
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => Algorithm::ES256,
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => Algorithm::EdDSA,
        _ => return None,
    };
    let common = &jwk.common;
    let signs = common.public_key_use.as_ref().is_none_or(|used| *used == PublicKeyUse::Signature);
    let is_for_it = common.key_algorithm.is_none_or(|named| named == KeyAlgorithm::from(algorithm));
    if !signs || !is_for_it {
        return None;
    }
    Some(Key { id: common.key_id.clone(), algorithm, key: DecodingKey::from_jwk(&jwk).ok()? })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rsa(id: &str, extra: Json) -> Json {
        let mut key = json!({"kty": "RSA", "kid": id, "n": "AQAB", "e": "AQAB"});
        key.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        key
    }

    fn check(keys: Vec<Json>, id: Option<&str>, algorithm: Algorithm, expected: bool) {
        let shown = format!("{keys:?} {id:?} {algorithm:?}");
        assert_eq!(KeySet::read(keys).unwrap().find(id, algorithm).is_some(), expected, "{shown}");
    }

    #[test]
    fn a_key_serves_its_own_purpose_only() {
        let rs = Algorithm::RS256;
        check(vec![rsa("a", json!({}))], Some("a"), rs, true);
        check(vec![rsa("a", json!({"use": "sig", "alg": "RS256"}))], Some("a"), rs, true);
        check(vec![rsa("a", json!({"use": "enc"}))], Some("a"), rs, false);
        check(vec![rsa("a", json!({"alg": "RS512"}))], Some("a"), rs, false);
        check(vec![rsa("a", json!({"alg": "RSA-OAEP"}))], Some("a"), rs, false);
        check(vec![rsa("a", json!({}))], Some("b"), rs, false);
        check(vec![rsa("a", json!({}))], None, rs, true);
        check(vec![rsa("a", json!({})), rsa("b", json!({}))], None, rs, false);
        check(vec![rsa("a", json!({}))], Some("a"), Algorithm::ES256, false);
        let shared = json!({"kty": "oct", "kid": "a", "k": "c2VjcmV0", "alg": "HS256"});
        check(vec![shared], Some("a"), Algorithm::HS256, false);
        let odd = vec![json!(null), json!({"kty": "XYZ"}), json!([]), rsa("a", json!({}))];
        check(odd, Some("a"), rs, true);
        let other_curve = json!({"kty": "EC", "crv": "P-384", "kid": "a", "x": "AQAB", "y": "AQAB"});
        check(vec![other_curve], Some("a"), Algorithm::ES256, false);
    }

    #[test]
    fn more_keys_than_anybody_needs_are_refused() {
        let keys = (0..=ISSUER_KEYS_MAX).map(|id| rsa(&id.to_string(), json!({}))).collect();
        assert!(matches!(KeySet::read(keys), Err(SignOnError::Malformed { .. })));
    }
}
