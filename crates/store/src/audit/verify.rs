//! Whether the trail is what was written: each chain, from its first event to where it is said to end.

use atelier_access::right::{ReadAudit, ReadOperatorAudit};
use atelier_access::{Denied, Granted};
use atelier_domain::limits::AUDIT_CHECK_ROWS;
use atelier_domain::{Digest, TenantId};

pub use super::chain::{Break, ChainKind, Fault};

use super::chain::{Chain, Head, Walker};
use super::heads::{page_of, whose};
use super::trail::{entry_of, place_of};
use crate::error::StoreError;
use crate::open::Store;
use crate::sql::{Database, values};

/// What a check of one chain found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainReport {
    /// What the chain tells.
    pub kind: ChainKind,
    /// Whose it is; none for the installation's.
    pub tenant: Option<TenantId>,
    /// Events that are as they were written, up to the first that is not.
    pub events: u64,
    /// The hash of the last of them: noted elsewhere, it shows later that nothing before it was rolled back.
    pub hash: Digest,
    /// Where the chain is not whole.
    pub broken: Option<Break>,
}

impl Store {
    /// Checks both chains of the tenant.
    ///
    /// # Errors
    /// [`Denied::Hidden`] for the key of one project: a chain is the whole tenant's.
    pub async fn verify_audit(&self, grant: &Granted<ReadAudit>) -> Result<Vec<ChainReport>, StoreError> {
        let tenant = grant.tenant();
        if grant.project().is_some() {
            return Err(Denied::Hidden.into());
        }
        Ok(vec![self.check_chain(Chain::Administration(tenant)).await?, self.check_chain(Chain::Work(tenant)).await?])
    }

    /// Checks every chain there is. Of a deleted tenant what was done to it is kept.
    ///
    /// # Errors
    /// What the control database says. A tenant's place that cannot be read is a finding.
    pub async fn verify_operator_audit(
        &self,
        _grant: &Granted<ReadOperatorAudit>,
    ) -> Result<Vec<ChainReport>, StoreError> {
        const TENANTS: &str = "SELECT id, deleted_at FROM tenants ORDER BY id";
        let mut reports = vec![self.check_chain(Chain::Operator).await?];
        for row in self.control().fetch_all(TENANTS, values![]).await? {
            let tenant: TenantId = row.parsed("id")?;
            reports.push(self.check_chain(Chain::Administration(tenant)).await?);
            if row.optional_time("deleted_at")?.is_none() {
                reports.push(self.check_elsewhere(tenant).await);
            }
        }
        Ok(reports)
    }

    async fn check_elsewhere(&self, tenant: TenantId) -> ChainReport {
        let chain = Chain::Work(tenant);
        match self.check_chain(chain).await {
            Ok(report) => report,
            Err(error) => {
                tracing::error!(%chain, error = &error as &dyn std::error::Error, "an audit chain cannot be read");
                let broken = Some(Break { sequence: 1, event: None, fault: Fault::Unreadable });
                let Head { hash, .. } = Head::GENESIS;
                ChainReport { kind: chain.kind(), tenant: Some(tenant), events: 0, hash, broken }
            }
        }
    }

    async fn check_chain(&self, chain: Chain) -> Result<ChainReport, StoreError> {
        // The head first: what is written meanwhile lies beyond it.
        let head = self.read_head(chain).await?;
        let mut walker = Walker::whole(&self.inner.chain_key, chain, head.unwrap_or(Head::GENESIS));
        let broken = match chain {
            Chain::Operator | Chain::Administration(_) => walk(&self.control_of(chain), chain, &mut walker).await?,
            Chain::Work(tenant) => walk(&*self.tenant_database(tenant).await?, chain, &mut walker).await?,
        };
        let headless = Break { sequence: walker.at().sequence, event: None, fault: Fault::Headless };
        let broken = broken.or((head.is_none()).then_some(headless)).or(walker.end().err());
        let Head { sequence: events, hash } = walker.at();
        Ok(ChainReport { kind: chain.kind(), tenant: chain.tenant(), events, hash, broken })
    }
}

/// Goes along a chain as far as it is whole.
async fn walk(database: &Database, chain: Chain, walker: &mut Walker<'_>) -> Result<Option<Break>, StoreError> {
    let mut after = 0;
    loop {
        let rows = database.fetch_all(page_of(chain), values![whose(chain), after, AUDIT_CHECK_ROWS]).await?;
        for row in &rows {
            after = place_of(row)?;
            // What does not read as an event is not one that was written.
            let Ok(entry) = entry_of(row) else {
                let sequence = walker.at().sequence + 1;
                return Ok(Some(Break { sequence, event: None, fault: Fault::Altered }));
            };
            if let Err(broken) = walker.step(&entry) {
                return Ok(Some(broken));
            }
        }
        if rows.len() < AUDIT_CHECK_ROWS {
            return Ok(None);
        }
    }
}
