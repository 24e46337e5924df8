//! What is remembered of issuers, document and keys, for a while; and how many of its issuers' answers a tenant waits for.

use std::collections::HashMap;
use std::sync::Arc;

use atelier_domain::TenantId;
use atelier_domain::limits::{
    ISSUER_CACHE_TIME, ISSUER_KEYS_REFETCH_INTERVAL, ISSUER_REQUESTS_OF_TENANT_MAX as TENANT_REQUESTS_MAX,
    ISSUERS_CACHED_MAX,
};
use jsonwebtoken::DecodingKey;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::discovery::{Discovered, discover};
use crate::error::{SignOnError, TokenFault};
use crate::fetch::Fetcher;
use crate::keys::KeySet;
use crate::token::Signed;

/// Issuers by the name that they have for themselves.
#[derive(Debug, Default)]
pub(crate) struct Issuers(Mutex<HashMap<String, Arc<Issuer>>>);

/// One issuer.
#[derive(Debug)]
pub(crate) struct Issuer {
    name: String,
    /// Who comes while another fetches waits for what that one gets.
    document: tokio::sync::Mutex<Option<(Instant, Arc<Discovered>)>>,
    keys: tokio::sync::Mutex<Option<(Instant, KeySet)>>,
}

/// Places among those who wait for an issuer's answer, so many for each tenant: a tenant names as many issuers as it
/// likes, and those that hang leave room for the others' all the same.
#[derive(Debug, Default)]
pub(crate) struct Places(Mutex<HashMap<TenantId, Arc<Semaphore>>>);

impl Places {
    /// A place, until it is dropped.
    pub(crate) fn enter(&self, tenant: TenantId) -> Result<OwnedSemaphorePermit, SignOnError> {
        let mut known = self.0.lock();
        if known.len() >= ISSUERS_CACHED_MAX && !known.contains_key(&tenant) {
            known.retain(|_, places| places.available_permits() < TENANT_REQUESTS_MAX);
        }
        let places = known.entry(tenant).or_insert_with(|| Arc::new(Semaphore::new(TENANT_REQUESTS_MAX)));
        Arc::clone(places).try_acquire_owned().map_err(|_| SignOnError::Busy)
    }
}

impl Issuers {
    pub(crate) fn get(&self, name: &str) -> Arc<Issuer> {
        let mut known = self.0.lock();
        if let Some(issuer) = known.get(name) {
            return Arc::clone(issuer);
        }
        if known.len() >= ISSUERS_CACHED_MAX {
            known.clear();
        }
        let issuer = Arc::new(Issuer::new(name));
        known.insert(name.to_owned(), Arc::clone(&issuer));
        issuer
    }

    /// Forgets one, so that it is asked anew.
    pub(crate) fn forget(&self, name: &str) {
        self.0.lock().remove(name);
    }
}

impl Issuer {
    fn new(name: &str) -> Self {
        Self { name: name.to_owned(), document: tokio::sync::Mutex::default(), keys: tokio::sync::Mutex::default() }
    }

    /// What the issuer says of itself, at most [`ISSUER_CACHE_TIME`] ago.
    pub(crate) async fn document(&self, fetcher: &Fetcher) -> Result<Arc<Discovered>, SignOnError> {
        let mut document = self.document.lock().await;
        if let Some((at, known)) = &*document
            && at.elapsed() < ISSUER_CACHE_TIME
        {
            return Ok(Arc::clone(known));
        }
        let fresh = Arc::new(discover(fetcher, &self.name).await?);
        *document = Some((Instant::now(), Arc::clone(&fresh)));
        Ok(fresh)
    }

    /// The key that a token is signed with. One that is not known may be new, and is looked for, not too often.
    pub(crate) async fn key_of(&self, fetcher: &Fetcher, token: &Signed<'_>) -> Result<DecodingKey, SignOnError> {
        let document = self.document(fetcher).await?;
        let mut keys = self.keys.lock().await;
        let find = |keys: &KeySet| keys.find(token.key.as_deref(), token.algorithm).cloned();
        let age = keys.as_ref().map(|(at, _)| at.elapsed());
        let known = keys.as_ref().filter(|(at, _)| at.elapsed() < ISSUER_CACHE_TIME).and_then(|(_, keys)| find(keys));
        if let Some(key) = known {
            return Ok(key);
        }
        if age.is_some_and(|age| age < ISSUER_KEYS_REFETCH_INTERVAL) {
            return Err(TokenFault::UnknownKey.into());
        }
        let fresh = KeySet::fetch(fetcher, &document.keys).await?;
        let found = find(&fresh);
        *keys = Some((Instant::now(), fresh));
        found.ok_or_else(|| TokenFault::UnknownKey.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use atelier_domain::Timestamp;

    #[test]
    fn a_tenant_takes_its_own_places_only_whatever_it_asks() {
        let tenant = |number: u8| TenantId::generate(Timestamp::from_seconds(1), [number; 10]);
        let places = Places::default();
        let taken: Vec<_> = (0..TENANT_REQUESTS_MAX).map(|_| places.enter(tenant(1)).unwrap()).collect();
        assert!(matches!(places.enter(tenant(1)), Err(SignOnError::Busy)));
        for number in 2..=u8::MAX {
            drop(places.enter(tenant(number)).unwrap());
        }
        assert!(places.0.lock().len() <= ISSUERS_CACHED_MAX);
        assert!(places.enter(tenant(1)).is_err(), "what is taken is remembered");
        drop(taken);
        assert!(places.enter(tenant(1)).is_ok());
    }
}
