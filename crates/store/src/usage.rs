//! Usage: reservation before the first token, settlement after the last, and the sums over both.

use std::collections::BTreeMap;

use atelier_access::right::{CorrectUsage, Meter, ReadUsage};
use atelier_access::{Denied, Granted, KeyOwner};
use atelier_domain::limits::{USAGE_BUCKETS_DAY_MAX, USAGE_BUCKETS_HOUR_MAX, USAGE_BUCKETS_MINUTE_MAX};
use atelier_domain::{KeyId, MicroUnits, ProjectId, RequestId, TenantId, Timestamp, TokenCounts, TokenPrice, UserId};
use parking_lot::Mutex;

use crate::audit::events::CORRECT_USAGE;
use crate::error::StoreError;
use crate::ledger::{self, Change, CorrectionRow, Leaver, ReservationRow};
use crate::models::Serving;
use crate::open::Store;
use crate::sql::{Row, values};
use crate::text_enum;

text_enum! {
    /// How a metered request ended.
    Outcome {
        /// All tokens were given.
        Finished => "finished",
        /// The client went away.
        Disconnected => "disconnected",
        /// The engine failed.
        Failed => "failed",
        /// Its reservation was dropped unsettled.
        Abandoned => "abandoned",
        /// The server died, and the next one settled it at its last checkpoint.
        Recovered => "recovered",
    }
}

/// A request to be metered.
#[derive(Debug, Clone, Copy)]
pub struct NewReservation<'a> {
    /// The request.
    pub request: RequestId,
    /// What serves it.
    pub serving: &'a Serving,
}

/// Proof that a request stands in the ledger. Settle it; one that is dropped is settled at its last checkpoint, and one
/// whose process dies is settled so at the next start.
#[derive(Debug)]
#[must_use]
pub struct Reservation {
    request: RequestId,
    tenant: TenantId,
    price: TokenPrice,
    last: Mutex<TokenCounts>,
    leaver: Option<Leaver>,
}

impl Reservation {
    /// The request.
    #[must_use]
    pub fn request(&self) -> RequestId {
        self.request
    }

    /// Whose request it is.
    #[must_use]
    pub fn tenant(&self) -> TenantId {
        self.tenant
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some(leaver) = self.leaver.take() {
            let tokens = *self.last.get_mut();
            let (request, cost) = (self.request, self.price.cost(tokens));
            leaver.leave(Change::Settle { request, tokens, cost, outcome: Outcome::Abandoned });
        }
    }
}

/// The width of a bucket, as OpenAI's usage API has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BucketWidth {
    /// `1m`
    Minute,
    /// `1h`
    Hour,
    /// `1d`, from midnight UTC
    Day,
}

impl BucketWidth {
    /// Seconds of a bucket.
    #[must_use]
    pub fn seconds(self) -> i64 {
        match self {
            Self::Minute => 60,
            Self::Hour => 3_600,
            Self::Day => 86_400,
        }
    }

    /// Buckets in one answer at most.
    #[must_use]
    pub fn buckets_max(self) -> usize {
        match self {
            Self::Minute => USAGE_BUCKETS_MINUTE_MAX,
            Self::Hour => USAGE_BUCKETS_HOUR_MAX,
            Self::Day => USAGE_BUCKETS_DAY_MAX,
        }
    }

    fn micros(self) -> i64 {
        self.seconds() * 1_000_000
    }
}

/// A question to the ledger.
#[derive(Debug, Clone)]
pub struct UsageQuery {
    /// From here on; the first bucket begins at or before it.
    pub start: Timestamp,
    /// Up to here; none for the present.
    pub end: Option<Timestamp>,
    /// The width of the buckets.
    pub width: BucketWidth,
    /// Whether to sum each model by itself.
    pub group_by_model: bool,
    /// Whether to sum each key by itself.
    pub group_by_key: bool,
    /// Whether to sum each project by itself.
    pub group_by_project: bool,
    /// Whether to sum each person by itself.
    pub group_by_user: bool,
    /// These models only; all when empty.
    pub models: Vec<String>,
    /// These keys only; all when empty.
    pub keys: Vec<KeyId>,
    /// These projects only; all when empty.
    pub projects: Vec<ProjectId>,
    /// The keys of these people only; all when empty.
    pub users: Vec<UserId>,
    /// At most this many buckets, and never more than [`BucketWidth::buckets_max`].
    pub buckets_max: usize,
}

/// An answer of the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsagePage {
    /// The buckets in order of time, those without usage included.
    pub buckets: Vec<UsageBucket>,
    /// Where the next page starts, if there is more.
    pub next: Option<Timestamp>,
}

/// The usage of a stretch of time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageBucket {
    /// Its first moment.
    pub start: Timestamp,
    /// The moment after its last.
    pub end: Timestamp,
    /// One entry per group; none without usage.
    pub results: Vec<UsageResult>,
}

/// The usage of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageResult {
    /// The model, when grouped by model.
    pub model: Option<String>,
    /// The key, when grouped by key and the requests showed one.
    pub key: Option<KeyId>,
    /// The project, when grouped by project: of what names none, the default one.
    pub project: Option<ProjectId>,
    /// The person, when grouped by person and a person held the key.
    pub user: Option<UserId>,
    /// Tokens of settled requests.
    pub tokens: TokenCounts,
    /// Requests that were accepted, settled or not.
    pub requests: u64,
    /// What the tokens cost.
    pub cost: MicroUnits,
}

/// A change of what a request is counted for.
#[derive(Debug, Clone)]
pub struct Correction {
    /// The request.
    pub request: RequestId,
    /// Tokens of the prompt to add; negative to take away.
    pub input: i64,
    /// Cached tokens of the prompt to add.
    pub input_cached: i64,
    /// Generated tokens to add.
    pub output: i64,
    /// What to add to the cost.
    pub cost: MicroUnits,
    /// Why.
    pub reason: String,
}

impl Store {
    /// Writes that a request was accepted; it is on disk when this returns, so call it before the first token.
    ///
    /// # Errors
    /// [`StoreError::AlreadyFinished`] when the request's id was used before; [`StoreError::DiskFull`];
    /// [`StoreError::LedgerBehind`].
    pub async fn reserve(&self, grant: &Granted<Meter>, new: NewReservation<'_>) -> Result<Reservation, StoreError> {
        if self.ledger_is_behind() {
            return Err(StoreError::LedgerBehind);
        }
        let NewReservation { request, serving } = new;
        if serving.tenant() != grant.tenant() {
            return Err(Denied::Hidden.into());
        }
        let price = serving.plan().token_price();
        let row = ReservationRow {
            request,
            tenant: grant.tenant(),
            key: grant.actor().key(),
            project: grant.actor().project(),
            user: grant.actor().owner().and_then(|owner| match owner {
                KeyOwner::User(user) => Some(user),
                KeyOwner::ServiceAccount(_) => None,
            }),
            model: serving.model().to_owned(),
            plan: serving.plan(),
            price,
            accepted_at: self.now(),
        };
        // It exists before it is written: when this call is cancelled on its way, dropping it leaves a settlement behind
        // the reservation in the queue, which is nothing if the reservation never got there.
        let leaver = Some(self.inner.ledger.leaver());
        let mut reservation = Reservation { request, tenant: grant.tenant(), price, last: Mutex::default(), leaver };
        let written = self.inner.ledger.write(Change::Reserve(row)).await;
        if written.is_err() {
            reservation.leaver = None;
        }
        written.map(|()| reservation)
    }

    /// Writes how many tokens the request has used so far: what it is settled at if its server dies.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`]; [`StoreError::LedgerBehind`].
    pub async fn checkpoint(&self, reservation: &Reservation, tokens: TokenCounts) -> Result<(), StoreError> {
        *reservation.last.lock() = tokens;
        self.inner.ledger.write(Change::Checkpoint { request: reservation.request, tokens }).await
    }

    /// Writes what the request used in the end.
    ///
    /// # Errors
    /// [`StoreError::LedgerBehind`]: it is kept, and written when it can be; should the server die before, the next start
    /// settles it at its last checkpoint.
    pub async fn settle(
        &self,
        mut reservation: Reservation,
        tokens: TokenCounts,
        outcome: Outcome,
    ) -> Result<(), StoreError> {
        *reservation.last.lock() = tokens;
        let (request, cost) = (reservation.request, reservation.price.cost(tokens));
        let settled = self.inner.ledger.write(Change::Settle { request, tokens, cost, outcome }).await;
        // Only now: when this call is cancelled on its way, dropping the reservation settles it.
        reservation.leaver = None;
        settled
    }

    /// Whether usage cannot be written at present, so that nothing new is accepted.
    #[must_use]
    pub fn ledger_is_behind(&self) -> bool {
        self.inner.ledger.is_behind()
    }

    /// What the tenant used; by the key of one project, what that used.
    ///
    /// # Errors
    /// What the database says.
    pub async fn usage(&self, grant: &Granted<ReadUsage>, query: &UsageQuery) -> Result<UsagePage, StoreError> {
        const SQL: &str = "SELECT accepted_at / $4 AS bucket, model, key_id, project_id, user_id,
            SUM(CASE WHEN kind = 'reservation' THEN 1 ELSE 0 END) AS requests, CAST(SUM(input_tokens) AS BIGINT) AS input_tokens,
            CAST(SUM(input_cached_tokens) AS BIGINT) AS input_cached_tokens, CAST(SUM(output_tokens) AS BIGINT) AS output_tokens, CAST(SUM(cost) AS BIGINT) AS cost
            FROM usage_events WHERE tenant_id = $1 AND accepted_at >= $2 AND accepted_at < $3
            GROUP BY accepted_at / $4, model, key_id, project_id, user_id
            ORDER BY bucket, model, key_id, project_id, user_id";
        let width = query.width.micros();
        let frame = frame_of(query, self.now());
        let (from, to) = (frame.first * width, frame.end.micros().min(frame.last * width));
        let from = from.max(query.start.micros());
        let rows = self.control_for(grant.tenant()).fetch_all(SQL, values![grant.tenant(), from, to, width]).await?;
        let mut groups: BTreeMap<i64, Vec<UsageResult>> = BTreeMap::new();
        let usual = ProjectId::default_of(grant.tenant());
        for row in &rows {
            if let Some(result) = result_of(row, query, usual, grant.project())? {
                add_to_groups(groups.entry(row.int("bucket")?).or_default(), result);
            }
        }
        let buckets = (frame.first..frame.last).map(|bucket| UsageBucket {
            start: Timestamp::from_micros(bucket * width),
            end: Timestamp::from_micros((bucket + 1) * width),
            results: groups.remove(&bucket).unwrap_or_default(),
        });
        let buckets = buckets.collect();
        Ok(UsagePage { buckets, next: frame.more.then(|| Timestamp::from_micros(frame.last * width)) })
    }

    /// Corrects what a request is counted for, by a row of its own.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when no such request was ever accepted.
    pub async fn correct_usage(&self, grant: &Granted<CorrectUsage>, correction: Correction) -> Result<(), StoreError> {
        let Correction { request, input, input_cached, output, cost, reason } = correction;
        let detail = serde_json::json!({"tokens": [input, input_cached, output], "cost": cost});
        let row = CorrectionRow { request, tokens: [input, input_cached, output], cost, reason };
        let mut transaction = self.control().begin().await?;
        if !ledger::correct(&mut transaction, self.now(), &row).await? {
            return Err(StoreError::NotFound { what: "request" });
        }
        let recorded = self.record_operation(&mut transaction, grant, CORRECT_USAGE.of(request, detail)).await?;
        self.commit(transaction, recorded).await
    }
}

/// The buckets that an answer covers, counted from the epoch: `first` up to but without `last`.
struct Frame {
    first: i64,
    last: i64,
    end: Timestamp,
    more: bool,
}

fn frame_of(query: &UsageQuery, now: Timestamp) -> Frame {
    let width = query.width.micros();
    let first = query.start.micros().max(0).div_euclid(width);
    // The present moment itself belongs to the answer.
    let end = query.end.unwrap_or(Timestamp::from_micros(now.micros().saturating_add(1)));
    let wanted = end.micros().max(0).saturating_add(width - 1).div_euclid(width).max(first);
    let room = i64::try_from(query.buckets_max.min(query.width.buckets_max())).unwrap_or(i64::MAX);
    let last = wanted.min(first.saturating_add(room));
    Frame { first, last, end, more: last < wanted }
}

/// A row of the sums as its group's entry; none when the query is not about it.
fn result_of(
    row: &Row,
    query: &UsageQuery,
    usual: ProjectId,
    only: Option<ProjectId>,
) -> Result<Option<UsageResult>, StoreError> {
    let (model, key): (String, Option<KeyId>) = (row.text("model")?, row.optional_parsed("key_id")?);
    let model_asked = query.models.is_empty() || query.models.contains(&model);
    let key_asked = query.keys.is_empty() || key.is_some_and(|key| query.keys.contains(&key));
    let project = row.optional_parsed("project_id")?.unwrap_or(usual);
    let user: Option<UserId> = row.optional_parsed("user_id")?;
    let project_asked = query.projects.is_empty() || query.projects.contains(&project);
    let user_asked = query.users.is_empty() || user.is_some_and(|user| query.users.contains(&user));
    let is_seen = only.is_none_or(|only| only == project);
    if !(model_asked && key_asked && project_asked && user_asked && is_seen) {
        return Ok(None);
    }
    // A correction may bring a sum below nothing; no client expects a negative count.
    let sum = |column| Ok::<u64, StoreError>(u64::try_from(row.int(column)?).unwrap_or(0));
    Ok(Some(UsageResult {
        model: query.group_by_model.then_some(model),
        key: if query.group_by_key { key } else { None },
        project: query.group_by_project.then_some(project),
        user: if query.group_by_user { user } else { None },
        tokens: TokenCounts {
            input: sum("input_tokens")?,
            input_cached: sum("input_cached_tokens")?,
            output: sum("output_tokens")?,
        },
        requests: row.count("requests")?,
        cost: MicroUnits::new(row.int("cost")?),
    }))
}

fn add_to_groups(groups: &mut Vec<UsageResult>, result: UsageResult) {
    let of_group = |group: &UsageResult| {
        (&group.model, group.key, group.project, group.user) == (&result.model, result.key, result.project, result.user)
    };
    match groups.iter_mut().find(|group| of_group(group)) {
        Some(group) => {
            group.tokens = group.tokens + result.tokens;
            group.requests += result.requests;
            group.cost = group.cost + result.cost;
        }
        None => groups.push(result),
    }
}
