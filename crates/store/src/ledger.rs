//! The ledger's writer: one task that commits what many requests wrote, together.
//!
//! While one group is being synced to disk the next gathers in the queue; so a lone writer waits for one sync, and many
//! writers share one. What a call answered is on disk.
//!
//! When the disk is full or the database away, settlements are kept in memory and tried again until they are written.
//! Meanwhile nothing new is accepted, and what runs is cut soon (see `Meter` of the platform): so what a client was told
//! never goes far beyond what is on disk.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use atelier_domain::limits::{
    LEDGER_ATTEMPTS_MAX, LEDGER_RETRY_PAUSE_MAX, LEDGER_RETRY_PAUSE_MIN, USAGE_GROUP_ROWS_MAX, USAGE_QUEUE_ROWS_MAX,
};
use atelier_domain::{
    Clock, KeyId, MicroUnits, Plan, ProjectId, RequestId, TenantId, Timestamp, TokenCounts, TokenPrice, UserId,
};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::audit::Unrecorded;
use crate::error::StoreError;
use crate::sql::{Database, Row, Transaction, values};
use crate::usage::Outcome;

/// The handle of the writer.
#[derive(Debug)]
pub(crate) struct Ledger {
    queue: mpsc::Sender<Entry>,
    writer: Mutex<Option<JoinHandle<()>>>,
    behind: Arc<AtomicBool>,
}

/// What a reservation puts into the ledger.
#[derive(Debug, Clone)]
pub(crate) struct ReservationRow {
    pub(crate) request: RequestId,
    pub(crate) tenant: TenantId,
    pub(crate) key: Option<KeyId>,
    pub(crate) project: Option<ProjectId>,
    pub(crate) user: Option<UserId>,
    pub(crate) model: String,
    pub(crate) plan: Plan,
    pub(crate) price: TokenPrice,
    pub(crate) accepted_at: Timestamp,
}

/// What a correction puts into the ledger, signs and all.
#[derive(Debug, Clone)]
pub(crate) struct CorrectionRow {
    pub(crate) request: RequestId,
    pub(crate) tokens: [i64; 3],
    pub(crate) cost: MicroUnits,
    pub(crate) reason: String,
}

/// What is to be written.
#[derive(Debug)]
pub(crate) enum Change {
    Reserve(ReservationRow),
    Checkpoint { request: RequestId, tokens: TokenCounts },
    Settle { request: RequestId, tokens: TokenCounts, cost: MicroUnits, outcome: Outcome },
    TouchKey { key: KeyId, at: Timestamp },
}

type Answer = oneshot::Sender<Result<(), StoreError>>;

#[derive(Debug)]
enum Entry {
    Write(Change, Option<Answer>),
    Close,
}

impl Ledger {
    /// Settles what a killed process left open. Only for a server that is alone: what another has open is not left.
    pub(crate) async fn recover(control: &Database, now: Timestamp) -> Result<(), StoreError> {
        recover(control, now).await
    }

    /// Starts the writer; the database is closed when it ends.
    pub(crate) fn start(control: Database, clock: Arc<dyn Clock>) -> Self {
        let (queue, entries) = mpsc::channel(USAGE_QUEUE_ROWS_MAX);
        let behind = Arc::new(AtomicBool::new(false));
        let writer = Writer {
            control,
            clock,
            behind: Arc::clone(&behind),
            owed: VecDeque::new(),
            pause: LEDGER_RETRY_PAUSE_MIN,
            retry_at: None,
        };
        Self { queue, writer: Mutex::new(Some(tokio::spawn(writer.run(entries)))), behind }
    }

    /// Whether it cannot be written at present.
    pub(crate) fn is_behind(&self) -> bool {
        self.behind.load(Ordering::Acquire)
    }

    /// Writes a change and waits until it is on disk.
    ///
    /// # Errors
    /// [`StoreError::LedgerBehind`]: a settlement is kept and written when it can be, anything else is refused.
    pub(crate) async fn write(&self, change: Change) -> Result<(), StoreError> {
        let (answer, answered) = oneshot::channel();
        self.queue.send(Entry::Write(change, Some(answer))).await.map_err(|_| StoreError::ShuttingDown)?;
        answered.await.map_err(|_| StoreError::ShuttingDown)?
    }

    /// A way to leave a change behind without waiting: for a reservation that is dropped.
    pub(crate) fn leaver(&self) -> Leaver {
        Leaver(self.queue.downgrade())
    }

    /// Notes when a key was last used, if there is room: nothing depends on it.
    pub(crate) fn touch_key(&self, key: KeyId, at: Timestamp) {
        let _ = self.queue.try_send(Entry::Write(Change::TouchKey { key, at }, None));
    }

    /// Writes what is queued and ends the writer.
    pub(crate) async fn close(&self) {
        let writer = self.writer.lock().take();
        if let Some(writer) = writer {
            // Both fail only when the writer is gone already.
            let _ = self.queue.send(Entry::Close).await;
            let _ = writer.await;
        }
    }
}

/// Leaves changes behind for the writer as long as it lives.
#[derive(Debug, Clone)]
pub(crate) struct Leaver(mpsc::WeakSender<Entry>);

impl Leaver {
    /// False when nobody will write it: the next start settles the request then.
    pub(crate) fn leave(&self, change: Change) -> bool {
        self.0.upgrade().is_some_and(|queue| queue.try_send(Entry::Write(change, None)).is_ok())
    }
}

/// The task that writes.
struct Writer {
    control: Database,
    clock: Arc<dyn Clock>,
    behind: Arc<AtomicBool>,
    /// Settlements that could not be written, oldest first. There are never more than there were open reservations when
    /// the writing failed: none is made until they are written.
    owed: VecDeque<Change>,
    /// How long to wait before the next attempt, once one has failed.
    pause: Duration,
    /// When that is; none while all is well.
    retry_at: Option<Instant>,
}

impl Writer {
    async fn run(mut self, mut entries: mpsc::Receiver<Entry>) {
        let mut gathered = Vec::with_capacity(USAGE_GROUP_ROWS_MAX);
        let mut group = Vec::with_capacity(USAGE_GROUP_ROWS_MAX);
        let mut closing = false;
        while !closing && self.receive(&mut entries, &mut gathered).await {
            for entry in gathered.drain(..) {
                match entry {
                    Entry::Write(change, answer) => group.push((change, answer)),
                    Entry::Close => {
                        closing = true;
                        entries.close();
                    }
                }
            }
            self.write(&mut group).await;
            if closing {
                // What was sent before the channel closed is still answered for.
                while let Ok(entry) = entries.try_recv() {
                    if let Entry::Write(change, answer) = entry {
                        group.push((change, answer));
                    }
                }
                self.write(&mut group).await;
            }
        }
        self.give_up().await;
        self.control.close().await;
    }

    /// Waits for changes, or until it is time to try again. False when nobody can send any more.
    async fn receive(&mut self, entries: &mut mpsc::Receiver<Entry>, gathered: &mut Vec<Entry>) -> bool {
        let Some(retry_at) = self.retry_at else {
            return entries.recv_many(gathered, USAGE_GROUP_ROWS_MAX).await > 0;
        };
        tokio::select! {
            biased;
            () = tokio::time::sleep_until(retry_at) => {
                self.catch_up().await;
                true
            }
            received = entries.recv_many(gathered, USAGE_GROUP_ROWS_MAX) => received > 0,
        }
    }

    /// Commits a group and answers for it. What cannot be written is refused, but for settlements: those are kept.
    async fn write(&mut self, group: &mut Vec<(Change, Option<Answer>)>) {
        if group.is_empty() {
            return;
        }
        let written = match self.retry_at {
            Some(_) => Err(StoreError::LedgerBehind),
            None => self.commit(group.iter().map(|(change, _)| change)).await,
        };
        if let (Err(error), None) = (&written, self.retry_at) {
            tracing::error!(error = error as &dyn std::error::Error, "the usage ledger cannot be written");
            self.fall_behind();
        }
        for (at, (change, answer)) in group.drain(..).enumerate() {
            let result = match &written {
                Ok(results) => results[at].clone(),
                Err(error) => Err(self.keep(change, error)),
            };
            if let Some(answer) = answer {
                // Whoever asked may be gone: their reservation has left a settlement behind then.
                let _ = answer.send(result);
            }
        }
    }

    /// Keeps what must not be lost; says what its sender is told.
    fn keep(&mut self, change: Change, error: &StoreError) -> StoreError {
        match (change, error) {
            (change @ Change::Settle { .. }, _) => {
                self.owed.push_back(change);
                StoreError::LedgerBehind
            }
            // The database may have got it, and its answer been lost: then it must not stay open. If not, this is nothing.
            (Change::Reserve(row), StoreError::Unreachable { .. }) => {
                let (tokens, outcome) = (TokenCounts::default(), Outcome::Failed);
                self.owed.push_back(Change::Settle {
                    request: row.request,
                    tokens,
                    cost: row.price.cost(tokens),
                    outcome,
                });
                error.clone()
            }
            _ => error.clone(),
        }
    }

    /// From here on nothing new is begun until [`Writer::catch_up`] succeeds.
    fn fall_behind(&mut self) {
        self.behind.store(true, Ordering::Release);
        self.retry_at = Some(Instant::now() + self.pause);
        self.pause = (self.pause * 2).min(LEDGER_RETRY_PAUSE_MAX);
    }

    /// Writes what is owed. Where nothing is, the next change tries whether it can be written.
    async fn catch_up(&mut self) {
        let owed = self.owed.len();
        while !self.owed.is_empty() {
            let count = self.owed.len().min(USAGE_GROUP_ROWS_MAX);
            match self.commit(self.owed.range(..count)).await {
                Ok(_) => drop(self.owed.drain(..count)),
                Err(error) => {
                    tracing::debug!(
                        error = &error as &dyn std::error::Error,
                        "the usage ledger still cannot be written"
                    );
                    self.fall_behind();
                    return;
                }
            }
        }
        self.retry_at = None;
        if owed > 0 {
            self.pause = LEDGER_RETRY_PAUSE_MIN;
            tracing::info!(settlements = owed, "the usage ledger has caught up");
        }
        self.behind.store(false, Ordering::Release);
    }

    /// The last attempt of a server that stops.
    async fn give_up(&mut self) {
        self.catch_up().await;
        if !self.owed.is_empty() {
            let settlements = self.owed.len();
            tracing::error!(settlements, "requests stay unsettled; the next start settles each at its last checkpoint");
        }
    }

    /// Commits changes together, tried again while others are at it.
    async fn commit<'a>(
        &self,
        changes: impl Iterator<Item = &'a Change> + Clone + Send,
    ) -> Result<Vec<Result<(), StoreError>>, StoreError> {
        let mut written = commit_group(&self.control, self.clock.now(), changes.clone()).await;
        for _ in 1..LEDGER_ATTEMPTS_MAX {
            if !matches!(written, Err(StoreError::Busy)) {
                break;
            }
            written = commit_group(&self.control, self.clock.now(), changes.clone()).await;
        }
        written
    }
}

/// One transaction for all changes. A change that fails for reasons of its own says so and spares the others.
async fn commit_group<'a>(
    control: &Database,
    now: Timestamp,
    changes: impl Iterator<Item = &'a Change> + Send,
) -> Result<Vec<Result<(), StoreError>>, StoreError> {
    // Every change is right whatever others write meanwhile: there are no two writers for one request.
    let mut transaction = control.begin_beside_others().await?;
    let mut results = Vec::new();
    for change in changes {
        results.push(apply(&mut transaction, now, change).await?);
    }
    transaction.commit(Unrecorded::Ledger.permit()).await?;
    Ok(results)
}

/// The outer error is the database's and takes the group down; the inner one is this change's own.
async fn apply(
    transaction: &mut Transaction,
    now: Timestamp,
    change: &Change,
) -> Result<Result<(), StoreError>, StoreError> {
    match change {
        Change::Reserve(row) => reserve(transaction, now, row).await,
        Change::Checkpoint { request, tokens } => checkpoint(transaction, *request, *tokens).await.map(Ok),
        Change::Settle { request, tokens, cost, outcome } => {
            settle(transaction, now, *request, *tokens, *cost, *outcome).await.map(Ok)
        }
        Change::TouchKey { key, at } => {
            const SQL: &str = "UPDATE keys SET last_used_at = $2 WHERE id = $1";
            transaction.execute(SQL, values![*key, *at]).await.map(|_| Ok(()))
        }
    }
}

async fn reserve(
    transaction: &mut Transaction,
    now: Timestamp,
    row: &ReservationRow,
) -> Result<Result<(), StoreError>, StoreError> {
    const EVENT: &str =
        "INSERT INTO usage_events (kind, request_id, tenant_id, key_id, model, plan, accepted_at, written_at,
        input_tokens, input_cached_tokens, output_tokens, price_input, price_input_cached, price_output, cost,
        project_id, user_id)
        VALUES ('reservation', $1, $2, $3, $4, $5, $6, $7, 0, 0, 0, $8, $9, $10, 0, $11, $12) ON CONFLICT DO NOTHING";
    const OPEN: &str = "INSERT INTO usage_open (request_id, input_tokens, input_cached_tokens, output_tokens)
        VALUES ($1, 0, 0, 0)";
    let TokenPrice { input, input_cached, output } = row.price;
    let event = values![
        row.request,
        row.tenant,
        row.key,
        row.model.as_str(),
        row.plan,
        row.accepted_at,
        now,
        input,
        input_cached,
        output,
        row.project,
        row.user
    ];
    if transaction.execute(EVENT, event).await? == 0 {
        return Ok(Err(StoreError::AlreadyFinished));
    }
    transaction.execute(OPEN, values![row.request]).await.map(|_| Ok(()))
}

/// A checkpoint after the settlement finds no open row and is nothing.
async fn checkpoint(transaction: &mut Transaction, request: RequestId, tokens: TokenCounts) -> Result<(), StoreError> {
    const SQL: &str = "UPDATE usage_open SET input_tokens = $2, input_cached_tokens = $3, output_tokens = $4
        WHERE request_id = $1";
    let row = values![request, tokens.input, tokens.input_cached, tokens.output];
    transaction.execute(SQL, row).await.map(|_| ())
}

/// A second settlement of a request is nothing: the first stands.
async fn settle(
    transaction: &mut Transaction,
    now: Timestamp,
    request: RequestId,
    tokens: TokenCounts,
    cost: MicroUnits,
    outcome: Outcome,
) -> Result<(), StoreError> {
    const EVENT: &str =
        "INSERT INTO usage_events (kind, request_id, tenant_id, key_id, model, plan, accepted_at, written_at,
        input_tokens, input_cached_tokens, output_tokens, price_input, price_input_cached, price_output, cost, outcome,
        project_id, user_id)
        SELECT 'settlement', request_id, tenant_id, key_id, model, plan, accepted_at, $2,
        $3, $4, $5, price_input, price_input_cached, price_output, $6, $7, project_id, user_id
        FROM usage_events WHERE request_id = $1 AND kind = 'reservation' ON CONFLICT DO NOTHING";
    let TokenCounts { input, input_cached, output } = tokens;
    transaction
        .execute(EVENT, values![request, now, input, input_cached, output, cost.get(), outcome.as_str()])
        .await?;
    transaction.execute("DELETE FROM usage_open WHERE request_id = $1", values![request]).await.map(|_| ())
}

/// Adds a correction; false when no such request was ever accepted. Right beside the writer: there is one row for each
/// correction, and none of the writer's is looked at but a reservation.
pub(crate) async fn correct(
    transaction: &mut Transaction,
    now: Timestamp,
    row: &CorrectionRow,
) -> Result<bool, StoreError> {
    const SQL: &str =
        "INSERT INTO usage_events (kind, request_id, tenant_id, key_id, model, plan, accepted_at, written_at,
        input_tokens, input_cached_tokens, output_tokens, price_input, price_input_cached, price_output, cost, reason,
        project_id, user_id)
        SELECT 'correction', request_id, tenant_id, key_id, model, plan, accepted_at, $2,
        $3, $4, $5, price_input, price_input_cached, price_output, $6, $7, project_id, user_id
        FROM usage_events WHERE request_id = $1 AND kind = 'reservation'";
    let [input, input_cached, output] = row.tokens;
    let values = values![row.request, now, input, input_cached, output, row.cost.get(), row.reason.as_str()];
    Ok(transaction.execute(SQL, values).await? > 0)
}

/// Settles every request that a killed process left open, at its last checkpoint.
async fn recover(control: &Database, now: Timestamp) -> Result<(), StoreError> {
    const OPEN: &str = "SELECT usage_open.request_id AS request_id, usage_open.input_tokens AS input_tokens,
        usage_open.input_cached_tokens AS input_cached_tokens, usage_open.output_tokens AS output_tokens,
        price_input, price_input_cached, price_output
        FROM usage_open JOIN usage_events
        ON usage_events.request_id = usage_open.request_id AND usage_events.kind = 'reservation'";
    let mut transaction = control.begin().await?;
    let open = transaction.fetch_all(OPEN, values![]).await?;
    for row in &open {
        let (tokens, price) = (tokens_of(row)?, price_of(row)?);
        let request = row.parsed("request_id")?;
        settle(&mut transaction, now, request, tokens, price.cost(tokens), Outcome::Recovered).await?;
    }
    transaction.commit(Unrecorded::Ledger.permit()).await?;
    if !open.is_empty() {
        tracing::warn!(requests = open.len(), "settled requests that the last server left open");
    }
    Ok(())
}

fn tokens_of(row: &Row) -> Result<TokenCounts, StoreError> {
    Ok(TokenCounts {
        input: row.count("input_tokens")?,
        input_cached: row.count("input_cached_tokens")?,
        output: row.count("output_tokens")?,
    })
}

fn price_of(row: &Row) -> Result<TokenPrice, StoreError> {
    Ok(TokenPrice {
        input: row.int("price_input")?,
        input_cached: row.int("price_input_cached")?,
        output: row.int("price_output")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::migrate;
    use crate::sql::Scope;

    const NOW: Timestamp = Timestamp::from_seconds(1);

    async fn control() -> (tempfile::TempDir, Database) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("control.db");
        let control = Database::open_sqlite(&file, true, 1, Scope::Control).await.unwrap();
        migrate::migrate(&control, "control.db", migrate::CONTROL.sqlite, NOW).await.unwrap();
        (folder, control)
    }

    fn reservation(number: u8) -> ReservationRow {
        ReservationRow {
            request: RequestId::generate(NOW, [number; 10]),
            tenant: TenantId::generate(NOW, [2; 10]),
            key: None,
            project: None,
            user: None,
            model: "atelier".to_owned(),
            plan: Plan::Shared,
            price: Plan::Shared.token_price(),
            accepted_at: NOW,
        }
    }

    fn settlement(row: &ReservationRow, output: u64) -> Change {
        let tokens = TokenCounts { output, ..TokenCounts::default() };
        Change::Settle { request: row.request, tokens, cost: row.price.cost(tokens), outcome: Outcome::Finished }
    }

    async fn run(control: &Database, statement: &'static str) {
        let mut transaction = control.begin().await.unwrap();
        transaction.execute_script(statement).await.unwrap();
        transaction.commit(Unrecorded::Test.permit()).await.unwrap();
    }

    /// As a disk that is full: nothing more goes in.
    const FILL: &str = "CREATE TRIGGER full_disk BEFORE INSERT ON usage_events BEGIN SELECT RAISE(ABORT, 'full'); END";
    const EMPTY: &str = "DROP TRIGGER full_disk";

    #[tokio::test]
    async fn settlements_outlive_a_time_in_which_nothing_can_be_written() {
        let (_folder, control) = control().await;
        let ledger = Ledger::start(control.clone(), Arc::new(atelier_domain::SystemClock));
        let rows: Vec<ReservationRow> = (0..4).map(reservation).collect();
        for row in &rows[..3] {
            ledger.write(Change::Reserve(row.clone())).await.unwrap();
        }
        run(&control, FILL).await;
        assert!(!ledger.is_behind(), "nobody has tried yet");
        let leaver = ledger.leaver();
        for (at, row) in rows[..2].iter().enumerate() {
            let told = ledger.write(settlement(row, 10 + at as u64)).await;
            assert!(matches!(told, Err(StoreError::LedgerBehind)), "{told:?}");
        }
        assert!(leaver.leave(settlement(&rows[2], 12)), "one that nobody waits for");
        assert!(ledger.is_behind());
        let refused = ledger.write(Change::Reserve(rows[3].clone())).await;
        assert!(matches!(refused, Err(StoreError::LedgerBehind)), "{refused:?}");
        let settled = "SELECT output_tokens FROM usage_events WHERE kind = 'settlement' ORDER BY output_tokens";
        // It goes on trying in vain.
        tokio::time::sleep(LEDGER_RETRY_PAUSE_MIN * 3).await;
        assert!(control.fetch_all(settled, values![]).await.unwrap().is_empty() && ledger.is_behind());

        run(&control, EMPTY).await;
        while ledger.is_behind() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let booked = control.fetch_all(settled, values![]).await.unwrap();
        let booked: Vec<i64> = booked.iter().map(|row| row.int("output_tokens").unwrap()).collect();
        assert_eq!(booked, [10, 11, 12]);
        let open = "SELECT request_id FROM usage_open";
        assert!(control.fetch_all(open, values![]).await.unwrap().is_empty());
        ledger.write(Change::Reserve(rows[3].clone())).await.unwrap();
        ledger.close().await;
    }

    #[tokio::test]
    async fn a_server_may_stop_while_nothing_can_be_written() {
        let (folder, control) = control().await;
        let ledger = Ledger::start(control.clone(), Arc::new(atelier_domain::SystemClock));
        let row = reservation(1);
        ledger.write(Change::Reserve(row.clone())).await.unwrap();
        let tokens = TokenCounts { output: 64, ..TokenCounts::default() };
        ledger.write(Change::Checkpoint { request: row.request, tokens }).await.unwrap();
        run(&control, FILL).await;
        assert!(ledger.write(settlement(&row, 70)).await.is_err());
        ledger.close().await;
        // The next start finds what the last checkpoint said.
        let file = folder.path().join("control.db");
        let control = Database::open_sqlite(&file, true, 1, Scope::Control).await.unwrap();
        run(&control, EMPTY).await;
        recover(&control, NOW).await.unwrap();
        let settled = "SELECT output_tokens, outcome FROM usage_events WHERE kind = 'settlement'";
        let settled = control.fetch_optional(settled, values![]).await.unwrap().unwrap();
        assert_eq!(
            (settled.int("output_tokens").unwrap(), settled.text("outcome").unwrap().as_str()),
            (64, "recovered")
        );
    }

    #[tokio::test]
    async fn the_ledger_is_append_only() {
        let (_folder, control) = control().await;
        let mut transaction = control.begin().await.unwrap();
        reserve(&mut transaction, NOW, &reservation(1)).await.unwrap().unwrap();
        transaction.commit(Unrecorded::Test.permit()).await.unwrap();
        for statement in ["UPDATE usage_events SET cost = 0", "DELETE FROM usage_events"] {
            let mut transaction = control.begin().await.unwrap();
            assert!(transaction.execute(statement, values![]).await.is_err(), "{statement}");
        }
    }
}
