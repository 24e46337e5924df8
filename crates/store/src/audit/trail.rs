//! Reading the trail: a tenant's, which is both of its chains by time, and the installation's.

use atelier_access::right::{ReadAudit, ReadOperatorAudit};
use atelier_access::{Granted, KeyOwner};
use atelier_domain::limits::AUDIT_PAGE_ROWS_MAX;
use atelier_domain::{AuditEventId, Digest, KeyId, ProjectId, TenantId, Timestamp};
use serde_json::Value as Json;

use super::Actor;
use super::chain::{ChainKind, Entry};
use super::events::EventType;
use crate::error::StoreError;
use crate::open::Store;
use crate::sql::{Database, Row, Value, values};

/// Who did something, as it was recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditActor {
    /// As [`atelier_access::Caller`] prints.
    pub text: String,
    /// The key that was shown.
    pub key: Option<KeyId>,
    /// Who held the key.
    pub owner: Option<KeyOwner>,
}

/// One event of the trail.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditRecord {
    /// Its id.
    pub id: AuditEventId,
    /// The chain that it stands in.
    pub chain: ChainKind,
    /// The tenant that it is about.
    pub tenant: Option<TenantId>,
    /// Its place in the chain, from 1 upwards; 0 for one from before there were chains.
    pub sequence: u64,
    /// When it was done.
    pub at: Timestamp,
    /// Who did it.
    pub actor: AuditActor,
    /// The project of the key by which it was done.
    pub project: Option<ProjectId>,
    /// What was done, as the database calls it: see [`EventType`].
    pub action: String,
    /// What it was done to: an id or a number.
    pub subject: String,
    /// More about it.
    pub detail: Json,
    /// The event's hash, which commits to all before it; none for one from before there were hashes.
    pub hash: Option<Digest>,
}

/// Which events to read, newest first.
#[derive(Debug, Clone, Default)]
pub struct AuditQuery {
    /// Those older than this one.
    pub after: Option<AuditEventId>,
    /// Those newer than this one; the nearest of them, unless `after` says from where on.
    pub before: Option<AuditEventId>,
    /// From here on.
    pub from: Option<Timestamp>,
    /// Up to here, exclusive.
    pub until: Option<Timestamp>,
    /// Of these kinds only; of all when empty.
    pub types: Vec<EventType>,
    /// By these keys, people or machines only; by all when empty.
    pub actors: Vec<String>,
    /// By keys of these projects only; of all and none when empty.
    pub projects: Vec<ProjectId>,
    /// Done to these only; to all when empty.
    pub subjects: Vec<String>,
    /// At most this many, and never more than [`AUDIT_PAGE_ROWS_MAX`].
    pub limit: usize,
}

/// A page of the trail.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditPage {
    /// The events, newest first.
    pub records: Vec<AuditRecord>,
    /// Whether there are more in the direction of the question.
    pub has_more: bool,
}

// A list of values is one text, `,one,two,`: the column is looked for in it between commas. Ids and names of events hold
// neither commas nor signs that LIKE would take for others than themselves or for a single one.
macro_rules! question {
    ($number:literal, $from:literal, $order:literal) => {
        concat!(
            "SELECT tenant_id, id, ",
            $number,
            " AS number, sequence AS place, at, actor, actor_key, actor_owner, project_id, action, subject, detail, hash
            FROM ",
            $from,
            " AND at >= $2 AND at < $3 AND ($4 = '' OR $4 LIKE '%,' || action || ',%')
            AND ($5 = '' OR $5 LIKE '%,' || actor_key || ',%' OR $5 LIKE '%,' || actor_owner || ',%')
            AND ($6 = '' OR $6 LIKE '%,' || project_id || ',%') AND ($7 = '' OR $7 LIKE '%,' || subject || ',%')
            AND (at, sequence, id) > ($8, $9, $10) AND (at, sequence, id) < ($11, $12, $13) ORDER BY ",
            $order,
            " LIMIT $14"
        )
    };
}

macro_rules! statements {
    ($kind:expr, $number:literal, $from:literal) => {
        Table {
            kind: $kind,
            older: question!($number, $from, "at DESC, place DESC, id DESC"),
            newer: question!($number, $from, "at, place, id"),
            cursor: concat!("SELECT at, sequence AS place, id FROM ", $from, " AND id = $2"),
        }
    };
}

/// What is asked of one table. The first value says whose events are meant.
struct Table {
    kind: Option<ChainKind>,
    older: &'static str,
    newer: &'static str,
    cursor: &'static str,
}

const WORK: Table = statements!(Some(ChainKind::Work), "sequence", "audit WHERE tenant_id = $1");
const ADMINISTRATION: Table =
    statements!(Some(ChainKind::Administration), "COALESCE(chain_sequence, 0)", "operator_audit WHERE tenant_id = $1");
/// All of the control database: for the installation's operator.
const INSTALLATION: Table = statements!(None, "COALESCE(chain_sequence, 0)", "operator_audit WHERE $1 = 'all'");

/// Where an event stands in the trail as it is read: by time, and among those of one moment by place and id.
type Place = (i64, i64, String);

impl Store {
    /// A page of the tenant's trail: what was done to its code and models, and what was done to it; for the key of one
    /// project, what was done by that project's keys.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when the tenant has no event to begin after or before.
    pub async fn audit(&self, grant: &Granted<ReadAudit>, query: &AuditQuery) -> Result<AuditPage, StoreError> {
        let tenant = grant.tenant();
        let work = self.tenant_database(tenant).await?;
        let control = self.control_for(tenant);
        let own;
        let query = match grant.project() {
            None => query,
            Some(project) if query.projects.is_empty() || query.projects.contains(&project) => {
                own = AuditQuery { projects: vec![project], ..query.clone() };
                &own
            }
            Some(_) => return Ok(AuditPage { records: Vec::new(), has_more: false }),
        };
        read(&tenant.to_string(), &[(&*work, WORK), (&control, ADMINISTRATION)], query).await
    }

    /// A page of what was done to the installation, its tenants and their keys.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when there is no event to begin after or before.
    pub async fn operator_audit(
        &self,
        _grant: &Granted<ReadOperatorAudit>,
        query: &AuditQuery,
    ) -> Result<AuditPage, StoreError> {
        read("all", &[(self.control(), INSTALLATION)], query).await
    }
}

async fn read(whose: &str, tables: &[(&Database, Table)], query: &AuditQuery) -> Result<AuditPage, StoreError> {
    let limit = query.limit.clamp(1, AUDIT_PAGE_ROWS_MAX);
    // Towards the past, unless all that is said is where to come from there.
    let goes_back = query.after.is_some() || query.before.is_none();
    let newest = match query.after {
        Some(event) => place_in(whose, tables, event).await?,
        None => (i64::MAX, i64::MAX, String::new()),
    };
    let oldest = match query.before {
        Some(event) => place_in(whose, tables, event).await?,
        None => (i64::MIN, i64::MIN, String::new()),
    };
    let mut found: Vec<(Place, AuditRecord)> = Vec::new();
    for (database, table) in tables {
        let statement = if goes_back { table.older } else { table.newer };
        for row in database.fetch_all(statement, asked(whose, query, [&oldest, &newest], limit + 1)).await? {
            found.push((reading_place_of(&row)?, record_of(&row, table.kind)?));
        }
    }
    found.sort_by(|(one, _), (other, _)| if goes_back { other.cmp(one) } else { one.cmp(other) });
    let has_more = found.len() > limit;
    found.truncate(limit);
    if !goes_back {
        found.reverse();
    }
    Ok(AuditPage { records: found.into_iter().map(|(_, record)| record).collect(), has_more })
}

/// The place of an event that is named, in whichever of the tables it stands.
async fn place_in(whose: &str, tables: &[(&Database, Table)], event: AuditEventId) -> Result<Place, StoreError> {
    for (database, table) in tables {
        if let Some(row) = database.fetch_optional(table.cursor, values![whose, event]).await? {
            return reading_place_of(&row);
        }
    }
    Err(StoreError::NotFound { what: "event" })
}

fn asked(whose: &str, query: &AuditQuery, [oldest, newest]: [&Place; 2], rows: usize) -> Vec<Value> {
    let list = |values: Vec<String>| {
        if values.is_empty() { String::new() } else { format!(",{},", values.join(",")) }
    };
    let types = query.types.iter().map(|kind| kind.stored.to_owned()).collect();
    let projects = query.projects.iter().map(ToString::to_string).collect();
    values![
        whose,
        query.from.unwrap_or(Timestamp::from_micros(i64::MIN)),
        query.until.unwrap_or(Timestamp::from_micros(i64::MAX)),
        list(types),
        list(query.actors.clone()),
        list(projects),
        list(query.subjects.clone()),
        oldest.0,
        oldest.1,
        oldest.2.as_str(),
        newest.0,
        newest.1,
        newest.2.as_str(),
        rows
    ]
}

fn reading_place_of(row: &Row) -> Result<Place, StoreError> {
    Ok((row.int("at")?, row.int("place")?, row.text("id")?))
}

/// Where the next page of a chain goes on.
pub(super) fn place_of(row: &Row) -> Result<u64, StoreError> {
    row.count("place")
}

/// An event as it is stored.
pub(super) fn entry_of(row: &Row) -> Result<Entry, StoreError> {
    Ok(Entry {
        id: row.parsed("id")?,
        sequence: row.count("number")?,
        at: row.time("at")?,
        actor: Actor {
            text: row.text("actor")?,
            key: row.optional_parsed("actor_key")?,
            owner: row.optional_text("actor_owner")?,
            project: row.optional_parsed("project_id")?,
        },
        action: row.text("action")?,
        subject: row.text("subject")?,
        detail: row.text("detail")?,
        hash: row.optional_parsed("hash")?,
    })
}

fn record_of(row: &Row, kind: Option<ChainKind>) -> Result<AuditRecord, StoreError> {
    let Entry { id, sequence, at, actor, action, subject, detail, hash } = entry_of(row)?;
    let tenant: Option<TenantId> = row.optional_parsed("tenant_id")?;
    let of_control = if tenant.is_some() { ChainKind::Administration } else { ChainKind::Operator };
    let owner = actor.owner.as_deref().and_then(|owner| {
        let user = owner.parse().map(KeyOwner::User);
        user.or_else(|_| owner.parse().map(KeyOwner::ServiceAccount)).ok()
    });
    // From before there was a column for it.
    let key = actor.key.or_else(|| actor.text.split(' ').nth(1)?.parse().ok());
    Ok(AuditRecord {
        id,
        chain: kind.unwrap_or(of_control),
        tenant,
        sequence,
        at,
        actor: AuditActor { text: actor.text, key, owner },
        project: actor.project,
        action,
        subject,
        detail: serde_json::from_str(&detail)
            .map_err(|error| StoreError::corrupt(format!("the detail of event {id}: {error}")))?,
        hash,
    })
}
