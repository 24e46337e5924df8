//! Whom a tenant trusts to say who its people are.

use std::collections::HashMap;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use atelier_access::{Caller, Granted, right};
use atelier_domain::limits::{ISSUERS_CACHED_MAX, SIGN_IN_REFUSALS_NOTED_MAX};
use atelier_domain::{EmailDomain, PersonRole, TenantId};
use atelier_signon::{Reach, SignOn, SignOnError};
use atelier_store::NewSignOn;
pub use atelier_store::SignOnRecord;
use parking_lot::Mutex;

use crate::error::PlatformError;
use crate::models::tenant_of;
use crate::platform::Platform;

/// How long refusals of one tenant are counted together.
const REFUSALS_WINDOW: Duration = Duration::from_secs(60);

/// What a tenant says of its issuer.
#[derive(Clone)]
pub struct SetSignOn {
    /// The issuer, as it calls itself.
    pub issuer: String,
    /// Its name for Atelier.
    pub client_id: String,
    /// The secret that goes with it; the one that is known when absent.
    pub client_secret: Option<String>,
    /// Domains of addresses whose people come uninvited.
    pub domains: Vec<String>,
    /// What those become.
    pub role: PersonRole,
}

/// The client that calls issuers, made when somebody first needs it, and what was refused of late.
#[derive(Debug)]
pub(crate) struct SignOnService {
    reach: Reach,
    client: OnceLock<SignOn>,
    refusals: Mutex<HashMap<TenantId, (Instant, u32)>>,
}

impl SignOnService {
    pub(crate) fn new(private_issuers: bool) -> Self {
        let reach = if private_issuers { Reach::Private } else { Reach::Public };
        Self { reach, client: OnceLock::new(), refusals: Mutex::default() }
    }

    pub(crate) fn client(&self) -> Result<&SignOn, SignOnError> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let made = SignOn::new(self.reach)?;
        Ok(self.client.get_or_init(|| made))
    }

    /// Whether one more refusal of this tenant's is worth a line of its trail.
    pub(crate) fn notes_refusal(&self, tenant: TenantId) -> bool {
        let mut refusals = self.refusals.lock();
        if refusals.len() >= ISSUERS_CACHED_MAX {
            refusals.retain(|_, (since, _)| since.elapsed() < REFUSALS_WINDOW);
        }
        if refusals.len() >= ISSUERS_CACHED_MAX && !refusals.contains_key(&tenant) {
            return false;
        }
        let (since, count) = refusals.entry(tenant).or_insert_with(|| (Instant::now(), 0));
        if since.elapsed() >= REFUSALS_WINDOW {
            (*since, *count) = (Instant::now(), 0);
        }
        *count = count.saturating_add(1);
        *count <= SIGN_IN_REFUSALS_NOTED_MAX
    }
}

impl Platform {
    /// Says whom the caller's tenant trusts. Where that is another one than before, everybody must sign in anew.
    ///
    /// # Errors
    /// When the caller may not, or something about it cannot be.
    pub async fn set_sign_on(&self, caller: &Caller, set: SetSignOn) -> Result<SignOnRecord, PlatformError> {
        let grant = caller.grant(right::ManageSignOn { tenant: tenant_of(caller)? })?;
        self.sign_on().reach.check(&set.issuer).map_err(|error| {
            let message = format!("'issuer' must be the https:// address of one: {error}.");
            PlatformError::invalid(message, "issuer", "invalid_value")
        })?;
        let is_printable = |text: &str| !text.is_empty() && text.chars().all(|letter| (' '..='~').contains(&letter));
        if !is_printable(&set.client_id) {
            let message = "'client_id' is what the issuer calls this server: printable ASCII.";
            return Err(PlatformError::invalid(message, "client_id", "invalid_value"));
        }
        if set.client_secret.as_deref().is_some_and(str::is_empty) {
            let message =
                "'client_secret' is empty. Leave it out to keep the one that is known, or for a public client.";
            return Err(PlatformError::invalid(message, "client_secret", "invalid_value"));
        }
        let domains: Result<Vec<EmailDomain>, _> = set.domains.iter().map(|domain| domain.parse()).collect();
        let domains =
            domains.map_err(|error| PlatformError::invalid(format!("{error}."), "domains", "invalid_value"))?;
        let SetSignOn { issuer, client_id, client_secret: secret, role, .. } = set;
        let new = NewSignOn { issuer, client_id, secret, domains, role };
        Ok(self.store().set_sign_on(&grant, new).await?)
    }

    /// Whom the caller's tenant trusts, if anybody.
    ///
    /// # Errors
    /// When the caller may not.
    pub async fn get_sign_on(&self, caller: &Caller) -> Result<Option<SignOnRecord>, PlatformError> {
        Ok(self.store().sign_on(&reads(caller)?).await?)
    }

    /// Trusts nobody any more.
    ///
    /// # Errors
    /// When the caller may not.
    pub async fn delete_sign_on(&self, caller: &Caller) -> Result<TenantId, PlatformError> {
        let grant = caller.grant(right::ManageSignOn { tenant: tenant_of(caller)? })?;
        self.store().remove_sign_on(&grant).await?;
        Ok(grant.tenant())
    }

    /// What is wrong with the issuer of the caller's tenant, which is asked now; nothing when people can sign in.
    ///
    /// # Errors
    /// When the caller may not.
    pub async fn check_sign_on(&self, caller: &Caller) -> Result<Option<String>, PlatformError> {
        let grant = reads(caller)?;
        let Some(record) = self.store().sign_on(&grant).await? else {
            return Ok(Some("No issuer is set: nobody signs in. Set one.".to_owned()));
        };
        let checked = async { self.sign_on().client()?.check(grant.tenant(), &record.issuer).await }.await;
        Ok(checked.err().map(|error| sentence(&error)))
    }
}

/// An error and its causes as one sentence.
pub(crate) fn sentence(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let mut text = causes.map(ToString::to_string).collect::<Vec<_>>().join(": ");
    if let Some(first) = text.get(..1).map(str::to_uppercase) {
        text.replace_range(..1, &first);
    }
    if !text.ends_with('.') {
        text.push('.');
    }
    text
}

fn reads(caller: &Caller) -> Result<Granted<right::ReadSignOn>, PlatformError> {
    Ok(caller.grant(right::ReadSignOn { tenant: tenant_of(caller)? })?)
}

#[cfg(test)]
mod tests {
    use atelier_domain::Timestamp;

    use super::*;

    #[test]
    fn a_flood_of_refusals_is_a_few_lines() {
        let service = SignOnService::new(false);
        let tenant = |byte| TenantId::generate(Timestamp::from_seconds(1), [byte; 10]);
        let noted = (0..1_000).filter(|_| service.notes_refusal(tenant(1))).count();
        assert_eq!(noted, SIGN_IN_REFUSALS_NOTED_MAX as usize);
        assert!(service.notes_refusal(tenant(2)), "one tenant's do not silence another's");
    }
}
