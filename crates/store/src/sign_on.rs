//! Which issuer a tenant trusts to say who its people are, and whom of those that it vouches for.

use atelier_access::Granted;
use atelier_access::right::{FindSignOn, ManageSignOn, ReadSignOn, SignIn};
use atelier_domain::limits::{CLIENT_ID_BYTES_MAX, CLIENT_SECRET_BYTES_MAX, ISSUER_URL_BYTES_MAX, SIGN_ON_DOMAINS_MAX};
use atelier_domain::{Digest, EmailDomain, PersonRole, TenantId, TenantName, Timestamp};
use atelier_seal::Bound;
use serde_json::json;

use crate::audit::events::{REMOVE_SIGN_ON, SET_SIGN_ON};
use crate::error::StoreError;
use crate::key_cache::announce;
use crate::open::Store;
use crate::sql::{Row, Transaction, values};

/// What a tenant has said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignOnRecord {
    /// The issuer, as it calls itself.
    pub issuer: String,
    /// Its name for Atelier.
    pub client_id: String,
    /// Whether there is a secret that goes with it.
    pub has_secret: bool,
    /// Domains of addresses whose people come uninvited; nobody does when there is none.
    pub domains: Vec<EmailDomain>,
    /// What those become.
    pub role: PersonRole,
    /// When it was said.
    pub changed_at: Timestamp,
}

/// What a tenant says.
#[derive(Clone)]
pub struct NewSignOn {
    /// The issuer, as it calls itself.
    pub issuer: String,
    /// Its name for Atelier.
    pub client_id: String,
    /// The secret that goes with it. The one that is known stays when this is absent and the client is the same.
    pub secret: Option<String>,
    /// Domains of addresses whose people come uninvited.
    pub domains: Vec<EmailDomain>,
    /// What those become.
    pub role: PersonRole,
}

impl std::fmt::Debug for NewSignOn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewSignOn").field("has_secret", &self.secret.is_some()).finish_non_exhaustive()
    }
}

/// A tenant's client with its secret: for signing in only.
#[derive(Clone)]
pub struct SignOnClient {
    /// What the tenant has said.
    pub record: SignOnRecord,
    /// The client's secret, where it has one.
    pub secret: Option<String>,
}

impl std::fmt::Debug for SignOnClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SignOnClient").field("record", &self.record).finish_non_exhaustive()
    }
}

impl Store {
    /// Says which issuer the tenant trusts, in place of what was said before. With another issuer, or another client,
    /// everybody must sign in anew: what signing in gave before is worthless within a second.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`], [`StoreError::TooMany`]; [`StoreError::NotFound`] once the tenant is deleted.
    pub async fn set_sign_on(&self, grant: &Granted<ManageSignOn>, new: NewSignOn) -> Result<SignOnRecord, StoreError> {
        const SQL: &str = "INSERT INTO sign_on (tenant_id, issuer, client_id, client_secret, domains, role, changed_at)
            VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (tenant_id) DO UPDATE SET issuer = excluded.issuer,
            client_id = excluded.client_id, client_secret = excluded.client_secret, domains = excluded.domains,
            role = excluded.role, changed_at = excluded.changed_at";
        check_sizes(&new)?;
        let (tenant, now) = (grant.tenant(), self.now());
        let keys = self.data_keys(tenant).await?;
        let mut transaction = self.control_for(tenant).begin().await?;
        self.living_tenant(&mut transaction, tenant).await?;
        let before = transaction.fetch_optional(READ, values![tenant]).await?;
        let is_same_client = match &before {
            Some(row) => row.text("issuer")? == new.issuer && row.text("client_id")? == new.client_id,
            None => true,
        };
        let secret = match (&new.secret, &before) {
            (Some(secret), _) => Some(keys.seal_text(&secret_bound(&new.issuer, &new.client_id), secret)?),
            (None, Some(row)) if is_same_client => row.optional_text("client_secret")?,
            (None, _) => None,
        };
        let has_secret = secret.is_some();
        let domains = new.domains.iter().map(EmailDomain::as_str).collect::<Vec<_>>().join(",");
        let row = values![tenant, new.issuer.as_str(), new.client_id.as_str(), secret, domains, new.role, now];
        transaction.execute(SQL, row).await?;
        if !is_same_client {
            self.end_sign_ins(&mut transaction, tenant).await?;
        }
        let detail = json!({
            // Names that a tenant chose are not in the trail; whether it is the same issuer can be told.
            "issuer_digest": Digest::of(new.issuer.as_bytes()).to_string(),
            "has_secret": has_secret,
            "domains": new.domains.len(),
            "role": new.role.as_str(),
        });
        let recorded = self.record_administration(&mut transaction, grant, SET_SIGN_ON.of(tenant, detail)).await?;
        self.commit(transaction, recorded).await?;
        self.inner.keys.forget_all();
        let NewSignOn { issuer, client_id, domains, role, .. } = new;
        Ok(SignOnRecord { issuer, client_id, has_secret, domains, role, changed_at: now })
    }

    /// What the tenant has said, if anything.
    ///
    /// # Errors
    /// What the database says.
    pub async fn sign_on(&self, grant: &Granted<ReadSignOn>) -> Result<Option<SignOnRecord>, StoreError> {
        let row = self.control_for(grant.tenant()).fetch_optional(READ, values![grant.tenant()]).await?;
        row.as_ref().map(record_of).transpose()
    }

    /// Trusts no issuer any more; what signing in gave is worthless within a second. Says whether there was one.
    ///
    /// # Errors
    /// What the database says.
    pub async fn remove_sign_on(&self, grant: &Granted<ManageSignOn>) -> Result<bool, StoreError> {
        let tenant = grant.tenant();
        let mut transaction = self.control_for(tenant).begin().await?;
        if transaction.execute("DELETE FROM sign_on WHERE tenant_id = $1", values![tenant]).await? == 0 {
            return Ok(false);
        }
        self.end_sign_ins(&mut transaction, tenant).await?;
        let event = REMOVE_SIGN_ON.of(tenant, json!({}));
        let recorded = self.record_administration(&mut transaction, grant, event).await?;
        self.commit(transaction, recorded).await?;
        self.inner.keys.forget_all();
        Ok(true)
    }

    /// The living tenant of this name, if people sign in to it.
    ///
    /// # Errors
    /// What the database says.
    pub async fn find_sign_on(
        &self,
        _grant: &Granted<FindSignOn>,
        name: &TenantName,
    ) -> Result<Option<TenantId>, StoreError> {
        const SQL: &str = "SELECT id FROM tenants JOIN sign_on ON sign_on.tenant_id = tenants.id
            WHERE name = $1 AND deleted_at IS NULL AND suspended_at IS NULL";
        let row = self.control().fetch_optional(SQL, values![name]).await?;
        row.map(|row| row.parsed("id")).transpose()
    }

    /// The tenant's client, with its secret.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when nobody signs in to it; [`StoreError::DoesNotOpen`] when the secret was given for
    /// another issuer or client than stands there.
    pub async fn sign_on_client(&self, grant: &Granted<SignIn>) -> Result<SignOnClient, StoreError> {
        let tenant = grant.tenant();
        let keys = self.data_keys(tenant).await?;
        let row = self.control_for(tenant).fetch_optional(READ, values![tenant]).await?.ok_or(NOT_FOUND)?;
        let record = record_of(&row)?;
        let secret = match row.optional_text("client_secret")? {
            Some(sealed) => Some(keys.open_text(&secret_bound(&record.issuer, &record.client_id), &sealed)?),
            None => None,
        };
        Ok(SignOnClient { record, secret })
    }

    /// Ends all that signing in gave anybody of the tenant.
    async fn end_sign_ins(&self, transaction: &mut Transaction, tenant: TenantId) -> Result<(), StoreError> {
        const REVOKE: &str =
            "UPDATE keys SET revoked_at = $2 WHERE tenant_id = $1 AND purpose <> 'key' AND revoked_at IS NULL";
        transaction.execute(REVOKE, values![tenant, self.now()]).await?;
        transaction.execute("DELETE FROM sign_in_codes WHERE tenant_id = $1", values![tenant]).await?;
        announce(transaction).await
    }
}

pub(crate) const NOT_FOUND: StoreError = StoreError::NotFound { what: "sign-on" };

pub(crate) const READ: &str = "SELECT issuer, client_id, client_secret, domains, role, changed_at FROM sign_on
    WHERE tenant_id = $1";

/// A secret is sealed for whom it is shown to: with another issuer in its row it does not open.
pub(crate) fn secret_bound(issuer: &str, client_id: &str) -> Bound {
    Bound::new("sign_on.client_secret", &[&issuer, &client_id])
}

fn check_sizes(new: &NewSignOn) -> Result<(), StoreError> {
    let secret_bytes = new.secret.as_ref().map_or(0, String::len);
    for (what, bytes, limit) in [
        ("the issuer", new.issuer.len(), ISSUER_URL_BYTES_MAX),
        ("the client id", new.client_id.len(), CLIENT_ID_BYTES_MAX),
        ("the client secret", secret_bytes, CLIENT_SECRET_BYTES_MAX),
    ] {
        if bytes > limit {
            return Err(StoreError::TooLarge { what, limit });
        }
    }
    if new.domains.len() > SIGN_ON_DOMAINS_MAX {
        return Err(StoreError::TooMany { what: "domains", limit: SIGN_ON_DOMAINS_MAX });
    }
    Ok(())
}

pub(crate) fn record_of(row: &Row) -> Result<SignOnRecord, StoreError> {
    let damaged = |_| StoreError::corrupt("the domains of a sign-on");
    let domains = row.text("domains")?;
    let domains = domains.split(',').filter(|domain| !domain.is_empty());
    Ok(SignOnRecord {
        issuer: row.text("issuer")?,
        client_id: row.text("client_id")?,
        has_secret: row.optional_text("client_secret")?.is_some(),
        domains: domains.map(str::parse).collect::<Result<_, _>>().map_err(damaged)?,
        role: row.parsed("role")?,
        changed_at: row.time("changed_at")?,
    })
}
