//! Where each chain ends, kept in the control database: what is cut off at the end of a chain is missing there.
//!
//! The heads of chains in the control database move in the transaction that adds the event. The head of a chain in a
//! tenant's place cannot, since that may be another file or another database: it follows after the commit, and goes only
//! from one event to the very next. When it could not, because the process died or another writer was faster, the next
//! event of the tenant and the next start go along the chain from the head on and move it to the end. Until then what
//! lies beyond the head could be cut off unnoticed.

use atelier_domain::TenantId;
use atelier_domain::limits::AUDIT_CHECK_ROWS;

use super::chain::{Chain, ChainKey, Head, Walker};
use super::trail::{entry_of, place_of};
use super::{Advance, Unrecorded};
use crate::error::StoreError;
use crate::open::Store;
use crate::places::unless_damaged;
use crate::sql::{Database, Row, Transaction, values};

/// A page of a chain in the control database, from a row on.
pub(super) const CONTROL_PAGE: &str = "SELECT id, COALESCE(chain_sequence, 0) AS number, sequence AS place, at, actor,
    actor_key, actor_owner, project_id, action, subject, detail, hash FROM operator_audit
    WHERE COALESCE(tenant_id, '') = $1 AND sequence > $2 ORDER BY place LIMIT $3";
/// The same of one in a tenant's place.
pub(super) const WORK_PAGE: &str = "SELECT id, sequence AS number, sequence AS place, at, actor, actor_key, actor_owner,
    project_id, action, subject, detail, hash FROM audit WHERE tenant_id = $1 AND sequence > $2 ORDER BY place LIMIT $3";

/// Looks at a chain whose head others move meanwhile.
const CATCH_UPS_MAX: usize = 16;

const READ: &str = "SELECT sequence, hash FROM audit_heads WHERE chain = $1";

/// The statement that reads a page of this chain.
pub(super) fn page_of(chain: Chain) -> &'static str {
    match chain {
        Chain::Operator | Chain::Administration(_) => CONTROL_PAGE,
        Chain::Work(_) => WORK_PAGE,
    }
}

/// Whose rows the statement looks at.
pub(super) fn whose(chain: Chain) -> String {
    chain.tenant().map(|tenant| tenant.to_string()).unwrap_or_default()
}

/// Where a chain ends, asked inside of a transaction on the control database.
pub(super) async fn read_inside(transaction: &mut Transaction, chain: Chain) -> Result<Head, StoreError> {
    match transaction.fetch_optional(READ, values![chain.to_string()]).await? {
        Some(row) => head_of(&row),
        None => Err(StoreError::corrupt(format!("where the audit chain `{chain}` ends is not on record"))),
    }
}

/// Begins both chains of a new tenant.
pub(super) async fn begin(transaction: &mut Transaction, tenant: TenantId) -> Result<(), StoreError> {
    const SQL: &str = "INSERT INTO audit_heads (chain, tenant_id, sequence, hash) VALUES ($1, $2, $3, $4)";
    for chain in [Chain::Administration(tenant), Chain::Work(tenant)] {
        let Head { sequence, hash } = Head::GENESIS;
        transaction.execute(SQL, values![chain.to_string(), tenant, sequence, hash]).await?;
    }
    Ok(())
}

/// Moves a head on; false when it was not where it was thought to be.
pub(super) async fn replace(
    transaction: &mut Transaction,
    chain: Chain,
    from: Head,
    to: Head,
) -> Result<bool, StoreError> {
    const SQL: &str =
        "UPDATE audit_heads SET sequence = $4, hash = $5 WHERE chain = $1 AND sequence = $2 AND hash = $3";
    let moved = values![chain.to_string(), from.sequence, from.hash, to.sequence, to.hash];
    Ok(transaction.execute(SQL, moved).await? == 1)
}

/// Goes along the events of a chain from before there were hashes; gives the place after them.
pub(super) async fn link_unhashed(
    transaction: &mut Transaction,
    key: &ChainKey,
    chain: Chain,
) -> Result<Head, StoreError> {
    let mut walker = Walker::whole(key, chain, Head::GENESIS);
    let mut after = 0;
    loop {
        let rows = transaction.fetch_all(page_of(chain), values![whose(chain), after, AUDIT_CHECK_ROWS]).await?;
        for row in &rows {
            after = place_of(row)?;
            // Whatever is wrong there, a check finds again: it is no reason to lose the event that is to be added.
            let _ = walker.step(&entry_of(row)?);
        }
        if rows.len() < AUDIT_CHECK_ROWS {
            return Ok(walker.at());
        }
    }
}

impl Store {
    /// The control database, as far as the chain's tenant sees it.
    pub(super) fn control_of(&self, chain: Chain) -> Database {
        chain.tenant().map_or_else(|| self.control().clone(), |tenant| self.control_for(tenant))
    }

    /// Where a chain ends; none when that is not on record.
    pub(super) async fn read_head(&self, chain: Chain) -> Result<Option<Head>, StoreError> {
        self.control_of(chain).fetch_optional(READ, values![chain.to_string()]).await?.as_ref().map(head_of).transpose()
    }

    /// Lets the head of the chain in a tenant's place follow an event that is committed. It says nothing when it cannot:
    /// the event is there, and the next one or the next start makes up for it.
    pub(super) async fn advance_head(&self, advance: Advance) {
        let chain = Chain::Work(advance.tenant);
        let followed = match self.move_head(chain, advance.from, advance.to).await {
            Ok(true) => Ok(()),
            Ok(false) => self.catch_up(advance.tenant).await,
            Err(error) => Err(error),
        };
        if let Err(error) = followed {
            tracing::warn!(%chain, error = &error as &dyn std::error::Error, "the head of an audit chain lags");
        }
    }

    /// Moves the heads of the tenants' chains to their ends, as far as the chains are whole.
    pub(crate) async fn catch_up_all(&self) -> Result<(), StoreError> {
        for tenant in self.living_tenant_ids().await? {
            unless_damaged(tenant, self.catch_up(tenant).await)?;
        }
        Ok(())
    }

    /// Moves the head of the chain in a tenant's place to its end. A chain that is broken keeps its head where it is:
    /// the evidence stays.
    pub(super) async fn catch_up(&self, tenant: TenantId) -> Result<(), StoreError> {
        let chain = Chain::Work(tenant);
        for _ in 0..CATCH_UPS_MAX {
            let Some(head) = self.read_head(chain).await? else {
                tracing::error!(%chain, "where an audit chain ends is not on record: run `atelier audit verify`");
                return Ok(());
            };
            let Some(end) = self.end_beyond(tenant, head).await? else {
                tracing::error!(%chain, "an audit chain is broken: run `atelier audit verify`");
                return Ok(());
            };
            // Whoever was faster has not moved it as far, maybe.
            if end == head || self.move_head(chain, head, end).await? {
                return Ok(());
            }
        }
        Err(StoreError::Busy)
    }

    /// The last event with a hash, from the head on; none when the head is not there or what follows is not linked to it.
    async fn end_beyond(&self, tenant: TenantId, head: Head) -> Result<Option<Head>, StoreError> {
        let database = self.tenant_database(tenant).await?;
        let mut walker = Walker::beyond(&self.inner.chain_key, Chain::Work(tenant), head);
        // From the head itself on, which must be there.
        let mut after = head.sequence.saturating_sub(1);
        let mut is_linked = head == Head::GENESIS;
        let mut end = head;
        loop {
            let rows = database.fetch_all(WORK_PAGE, values![tenant, after, AUDIT_CHECK_ROWS]).await?;
            for row in &rows {
                after = place_of(row)?;
                let entry = entry_of(row)?;
                if entry.sequence == head.sequence {
                    is_linked = entry.hash == Some(head.hash);
                } else if !is_linked || walker.step(&entry).is_err() {
                    return Ok(None);
                } else if entry.hash.is_some() {
                    end = walker.at();
                }
            }
            if rows.len() < AUDIT_CHECK_ROWS {
                return Ok(is_linked.then_some(end));
            }
        }
    }

    async fn move_head(&self, chain: Chain, from: Head, to: Head) -> Result<bool, StoreError> {
        let mut transaction = self.control_of(chain).begin_beside_others().await?;
        let moved = replace(&mut transaction, chain, from, to).await?;
        transaction.commit(Unrecorded::Head.permit()).await?;
        Ok(moved)
    }
}

fn head_of(row: &Row) -> Result<Head, StoreError> {
    Ok(Head { sequence: row.count("sequence")?, hash: row.parsed("hash")? })
}
