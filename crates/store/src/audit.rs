//! The audit trail: who did what, written in the transaction that did it.

use atelier_access::right::{ReadAudit, ReadOperatorAudit};
use atelier_access::{Caller, Granted, Right};
use atelier_domain::limits::PAGE_ROWS_MAX;
use atelier_domain::{TenantId, Timestamp};
use serde_json::Value as Json;

use crate::error::StoreError;
use crate::open::Store;
use crate::sql::{Row, Transaction, values};

/// One entry of the trail.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditRecord {
    /// Its place in the trail, from 1 upwards.
    pub sequence: u64,
    /// When it was done.
    pub at: Timestamp,
    /// Who did it, as [`Caller`] prints.
    pub actor: String,
    /// What was done: the name of an [`atelier_access::Action`], or what the system does of itself.
    pub action: String,
    /// What it was done to.
    pub subject: String,
    /// More about it; never a prompt, a completion or a key.
    pub detail: Json,
}

impl Store {
    /// The tenant's trail after entry `after`, oldest first.
    ///
    /// # Errors
    /// What the database says.
    pub async fn audit(
        &self,
        grant: &Granted<ReadAudit>,
        after: u64,
        limit: usize,
    ) -> Result<Vec<AuditRecord>, StoreError> {
        const SQL: &str = "SELECT sequence, at, actor, action, subject, detail FROM audit
            WHERE tenant_id = $1 AND sequence > $2 ORDER BY sequence LIMIT $3";
        let database = self.tenant_database(grant.tenant()).await?;
        let rows = database.fetch_all(SQL, values![grant.tenant(), after, limit.min(PAGE_ROWS_MAX)]).await?;
        rows.iter().map(record_of).collect()
    }

    /// What was done to the installation, its tenants and their keys after entry `after`, oldest first.
    ///
    /// # Errors
    /// What the database says.
    pub async fn operator_audit(
        &self,
        _grant: &Granted<ReadOperatorAudit>,
        after: u64,
        limit: usize,
    ) -> Result<Vec<AuditRecord>, StoreError> {
        const SQL: &str = "SELECT sequence, at, actor, action, subject, detail FROM operator_audit
            WHERE sequence > $1 ORDER BY sequence LIMIT $2";
        let rows = self.control().fetch_all(SQL, values![after, limit.min(PAGE_ROWS_MAX)]).await?;
        rows.iter().map(record_of).collect()
    }

    /// Writes into the trail that a right was used for something that changes no row: a folder read, a model measured.
    ///
    /// # Errors
    /// What the database says.
    pub async fn record<R: Right>(&self, grant: &Granted<R>, subject: &str, detail: &Json) -> Result<(), StoreError> {
        match grant.right().tenant() {
            Some(tenant) => {
                let mut transaction = self.tenant_database(tenant).await?.begin().await?;
                append(&mut transaction, self.now(), tenant, grant.actor(), R::ACTION.as_str(), subject, detail)
                    .await?;
                transaction.commit().await
            }
            None => {
                let mut transaction = self.control().begin().await?;
                let action = R::ACTION.as_str();
                append_operator(&mut transaction, self.now(), None, grant.actor(), action, subject, detail).await?;
                transaction.commit().await
            }
        }
    }
}

/// Adds to a tenant's trail, inside the transaction that does what is recorded.
pub(crate) async fn append(
    transaction: &mut Transaction,
    now: Timestamp,
    tenant: TenantId,
    actor: &Caller,
    action: &str,
    subject: &str,
    detail: &Json,
) -> Result<(), StoreError> {
    const SQL: &str = "INSERT INTO audit (tenant_id, sequence, at, actor, action, subject, detail)
        SELECT $1, COALESCE(MAX(sequence), 0) + 1, $2, $3, $4, $5, $6 FROM audit WHERE tenant_id = $1";
    transaction.execute(SQL, values![tenant, now, actor.to_string(), action, subject, detail]).await.map(|_| ())
}

/// Adds to the operators' trail, inside the transaction that does what is recorded.
pub(crate) async fn append_operator(
    transaction: &mut Transaction,
    now: Timestamp,
    tenant: Option<TenantId>,
    actor: &Caller,
    action: &str,
    subject: &str,
    detail: &Json,
) -> Result<(), StoreError> {
    const SQL: &str = "INSERT INTO operator_audit (at, actor, action, tenant_id, subject, detail)
        VALUES ($1, $2, $3, $4, $5, $6)";
    transaction.execute(SQL, values![now, actor.to_string(), action, tenant, subject, detail]).await.map(|_| ())
}

fn record_of(row: &Row) -> Result<AuditRecord, StoreError> {
    Ok(AuditRecord {
        sequence: row.count("sequence")?,
        at: row.time("at")?,
        actor: row.text("actor")?,
        action: row.text("action")?,
        subject: row.text("subject")?,
        detail: row.json("detail")?,
    })
}
