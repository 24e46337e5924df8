//! The audit trail: who did what, written in the transaction that did it, as chains that show when they were changed.
//!
//! A tenant has two chains: what was done to its code and models lies beside those rows, in the tenant's place; what was
//! done to the tenant, its keys and its people lies in the control database. The installation has one of its own there.
//! Wherever a tenant's rows move, its chain moves with them; where each chain ends is kept in the control database.
//!
//! Nothing that changes rows is committed without either a `Recorded`, which only an event of the trail gives, or an
//! `Unrecorded` that names the reason.
//!
//! Layout: `events` lists what there is to record; `chain` hashes and walks; `heads` remembers where chains end;
//! [`trail`] reads, [`verify`] checks, `observer` writes down what the policy refused.

pub(crate) mod chain;
pub mod events;
mod heads;
pub(crate) mod observer;
pub mod trail;
pub mod verify;

use atelier_access::right::{CreateTenant, ReadSources, TenantRight};
use atelier_access::{Caller, Granted, KeyOwner, Right};
use atelier_domain::{AuditEventId, KeyId, ProjectId, TenantId, Timestamp, VersionNumber};
use serde_json::json;

use crate::error::StoreError;
use crate::open::{Store, random_bytes};
use crate::sql::{Transaction, Value, values};
use chain::{Chain, ChainKey, Entry, Head};
use events::{EXPORT_ADAPTER, Event, Own};

/// What a commit needs. Only this module makes one.
#[derive(Debug)]
pub(crate) struct Permit(());

/// The proof that a transaction holds an event of the trail.
#[derive(Debug)]
#[must_use = "commit with it"]
pub(crate) struct Recorded {
    /// Where the chain of a tenant's place goes on from and to: its head lies elsewhere and follows after the commit.
    advance: Option<Advance>,
}

/// A step of a chain whose head does not lie beside it.
#[derive(Debug, Clone, Copy)]
struct Advance {
    tenant: TenantId,
    from: Head,
    to: Head,
}

/// Why a transaction leaves no event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unrecorded {
    /// The usage ledger is append-only and its own record; when a key was last used is no deed.
    Ledger,
    /// The schema's steps keep a history of their own.
    Schema,
    /// Whose a place is, rows on their way to another and places that are left over: making, moving and deleting the
    /// tenant is recorded where it is decided.
    Place,
    /// Claims, signs of life, progress, checkpoints and retries of a job: its start and its end are recorded.
    Job,
    /// Where a chain ends.
    Head,
    /// Data keys, which are made and destroyed with their tenants, and rows that are sealed: they say what they said.
    Keys,
    /// What a test needs.
    #[cfg(test)]
    Test,
}

impl Unrecorded {
    /// The commit that goes without an event.
    pub(crate) fn permit(self) -> Permit {
        Permit(())
    }
}

/// Who did it, as the trail keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Actor {
    text: String,
    key: Option<KeyId>,
    owner: Option<String>,
    project: Option<ProjectId>,
}

impl Actor {
    pub(crate) fn of(caller: &Caller) -> Self {
        let owner = caller.owner().map(|owner| match owner {
            KeyOwner::User(user) => user.to_string(),
            KeyOwner::ServiceAccount(account) => account.to_string(),
        });
        Self { text: caller.to_string(), key: caller.key(), owner, project: caller.project() }
    }
}

impl Store {
    /// Commits a transaction that holds an event.
    pub(crate) async fn commit(&self, transaction: Transaction, recorded: Recorded) -> Result<(), StoreError> {
        transaction.commit(Permit(())).await?;
        if let Some(advance) = recorded.advance {
            self.advance_head(advance).await;
        }
        Ok(())
    }

    /// Adds to the chain in the tenant's place, inside the transaction there that does what is recorded.
    pub(crate) async fn record_work<R: TenantRight>(
        &self,
        transaction: &mut Transaction,
        grant: &Granted<R>,
        event: Event<R>,
    ) -> Result<Recorded, StoreError> {
        const LAST: &str = "SELECT sequence, hash FROM audit WHERE tenant_id = $1 ORDER BY sequence DESC LIMIT 1";
        const INSERT: &str =
            "INSERT INTO audit (tenant_id, sequence, at, actor, action, subject, detail, id, actor_key,
            actor_owner, project_id, hash) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)";
        let tenant = grant.tenant();
        let (chain, key) = (Chain::Work(tenant), &self.inner.chain_key);
        let last = transaction.fetch_optional(LAST, values![tenant]).await?;
        let from = match last {
            None => Head::GENESIS,
            Some(row) => match row.optional_parsed("hash")? {
                Some(hash) => Head { sequence: row.count("sequence")?, hash },
                None => heads::link_unhashed(transaction, key, chain).await?,
            },
        };
        let actor = Actor::of(grant.actor());
        let entry = entry_of(key, chain, from, self.now(), actor, event)?;
        transaction.execute(INSERT, row_of(chain, &entry)).await?;
        Ok(Recorded { advance: Some(Advance { tenant, from, to: entry.head() }) })
    }

    /// Adds to what was done to the tenant, inside the transaction on the control database that does it.
    pub(crate) async fn record_administration<R: TenantRight>(
        &self,
        transaction: &mut Transaction,
        grant: &Granted<R>,
        event: Event<R>,
    ) -> Result<Recorded, StoreError> {
        let chain = Chain::Administration(grant.tenant());
        self.append_by(transaction, chain, grant.actor(), event).await
    }

    /// Begins the chains of a tenant that is made in this transaction on the control database.
    pub(crate) async fn record_making(
        &self,
        transaction: &mut Transaction,
        grant: &Granted<CreateTenant>,
        tenant: TenantId,
        event: Event<CreateTenant>,
    ) -> Result<Recorded, StoreError> {
        heads::begin(transaction, tenant).await?;
        let chain = Chain::Administration(tenant);
        self.append_by(transaction, chain, grant.actor(), event).await
    }

    /// Adds to what was done to the installation.
    pub(crate) async fn record_operation<R: Right>(
        &self,
        transaction: &mut Transaction,
        grant: &Granted<R>,
        event: Event<R>,
    ) -> Result<Recorded, StoreError> {
        self.append_by(transaction, Chain::Operator, grant.actor(), event).await
    }

    /// Adds what the store does to the installation of itself.
    pub(crate) async fn record_own(
        &self,
        transaction: &mut Transaction,
        event: Event<Own>,
    ) -> Result<Recorded, StoreError> {
        self.append_by(transaction, Chain::Operator, &Self::system(), event).await
    }

    /// Adds what was done now, and by whom, to a chain of the control database.
    async fn append_by<K>(
        &self,
        transaction: &mut Transaction,
        chain: Chain,
        caller: &Caller,
        event: Event<K>,
    ) -> Result<Recorded, StoreError> {
        append(transaction, &self.inner.chain_key, chain, self.now(), Actor::of(caller), event).await
    }

    /// Writes into the trail that a version's adapter was given out.
    ///
    /// # Errors
    /// What the database says.
    pub async fn record_export(&self, grant: &Granted<ReadSources>, version: VersionNumber) -> Result<(), StoreError> {
        let mut transaction = self.tenant_database(grant.tenant()).await?.begin().await?;
        let recorded = self.record_work(&mut transaction, grant, EXPORT_ADAPTER.of(version, json!({}))).await?;
        self.commit(transaction, recorded).await
    }
}

/// Adds to a chain of the control database, whose head lies beside it.
pub(crate) async fn append<K>(
    transaction: &mut Transaction,
    key: &ChainKey,
    chain: Chain,
    now: Timestamp,
    actor: Actor,
    event: Event<K>,
) -> Result<Recorded, StoreError> {
    const INSERT: &str =
        "INSERT INTO operator_audit (tenant_id, chain_sequence, at, actor, action, subject, detail, id,
        actor_key, actor_owner, project_id, hash) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)";
    let head = heads::read_inside(transaction, chain).await?;
    let from = if head == Head::GENESIS { heads::link_unhashed(transaction, key, chain).await? } else { head };
    let entry = entry_of(key, chain, from, now, actor, event)?;
    transaction.execute(INSERT, row_of(chain, &entry)).await?;
    if !heads::replace(transaction, chain, head, entry.head()).await? {
        // Another server took the turn that was thought to be this one's.
        return Err(StoreError::Busy);
    }
    Ok(Recorded { advance: None })
}

/// An entry as both tables of events take it.
fn row_of(chain: Chain, entry: &Entry) -> Vec<Value> {
    let Entry { sequence, at, actor, action, subject, detail, id, hash, .. } = entry;
    values![
        chain.tenant(),
        *sequence,
        *at,
        actor.text.as_str(),
        action.as_str(),
        subject.as_str(),
        detail.as_str(),
        *id,
        actor.key,
        actor.owner.as_deref(),
        actor.project,
        *hash
    ]
}

fn entry_of<K>(
    key: &ChainKey,
    chain: Chain,
    from: Head,
    now: Timestamp,
    actor: Actor,
    event: Event<K>,
) -> Result<Entry, StoreError> {
    let mut entry = Entry {
        id: AuditEventId::generate(now, random_bytes()?),
        sequence: from.sequence + 1,
        at: now,
        actor,
        action: event.name.to_owned(),
        subject: event.subject,
        detail: event.detail.to_string(),
        // Says that there will be one.
        hash: Some(from.hash),
    };
    entry.hash = Some(key.link(chain, from.hash, &entry));
    Ok(entry)
}
