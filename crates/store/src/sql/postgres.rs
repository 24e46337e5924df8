//! PostgreSQL: one pool of connections under the application's role, and transactions that are opened in one place.
//!
//! A connection of the pool never belongs to anybody between two transactions: who is looking is set for the
//! transaction only, a transaction is begun in a task of its own so that a caller who goes away does not leave one
//! half begun, and a connection that comes back in one anyhow is closed.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use atelier_domain::limits::{
    DATABASE_BUSY_TIMEOUT, POSTGRES_CONNECTIONS_MAX, POSTGRES_IDLE_TRANSACTION_MAX, POSTGRES_STATEMENTS_MAX,
    POSTGRES_TENANT_CONNECTIONS_MAX,
};
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{
    PgArgumentBuffer, PgArguments, PgConnectOptions, PgConnection, PgPool, PgPoolOptions, PgTypeInfo,
};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Encode, Postgres, Type};
use tokio::sync::{Mutex, OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

use super::row::Row;
use super::value::Value;
use super::{Database, Scope};
use crate::error::StoreError;
use crate::open::DatabaseUrls;

/// Sets whose transaction it is, and where its tables are, until its end. What a schema does not have is not looked
/// for elsewhere, least of all among temporary tables.
const SETTINGS: &str = "SELECT set_config('app.tenant', $1, true), set_config('app.scope', $2, true),
    set_config('search_path', $3 || ', pg_temp', true)";
/// The same, and waits until no other transaction of this scope writes in this schema.
const SETTINGS_AND_TURN: &str = "SELECT set_config('app.tenant', $1, true), set_config('app.scope', $2, true),
    set_config('search_path', $3 || ', pg_temp', true),
    pg_advisory_xact_lock(hashtextextended($3 || ' ' || $1, 0))";
/// Whether a connection is as it was when it was new. Sent as a simple query, whose time is the transaction's unless it
/// runs inside an older one; inside a failed one it fails.
const IS_CLEAN: &str = "SELECT now() = statement_timestamp()
    AND coalesce(current_setting('app.tenant', true), '') = '' AND coalesce(current_setting('app.scope', true), '') = ''";
/// Which servers are at work on a database, as a lock that each holds a share of.
const SERVERS_LOCK: i64 = 0x0061_7465_6c69_6572;

/// What is not found when a database is not there.
pub(crate) const DATABASE: &str = "database";

/// The name of a schema that there never is.
const NOWHERE: &str = "atelier_nowhere";

/// What a transaction is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    Read,
    WriteInTurn,
    WriteBesideOthers,
    /// Reads what was there when it began, throughout.
    Snapshot,
}

/// A PostgreSQL server under the application's role, and where it is given under the owner's.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    pool: PgPool,
    application: Box<PgConnectOptions>,
    owner: Option<Box<PgConnectOptions>>,
}

impl Server {
    /// Connects as the application.
    pub(crate) async fn connect(urls: &DatabaseUrls) -> Result<Self, StoreError> {
        let application = Box::new(options_of(&urls.application)?);
        let owner = urls.owner.as_deref().map(options_of).transpose()?.map(Box::new);
        let pool = pool_of(&application, POSTGRES_CONNECTIONS_MAX);
        match pool.acquire().await {
            // The pool has tried again and again, and does not say why in vain.
            Err(sqlx::Error::PoolTimedOut) => {
                let connection = application.connect().await.map_err(|error| failed("connect", error))?;
                connection.close().await.map_err(|error| failed("close", error))?;
                return Err(StoreError::Busy);
            }
            acquired => drop(acquired.map_err(|error| failed("connect", error))?),
        }
        Ok(Self { pool, application, owner })
    }

    /// A schema of the database that was connected to. Its connections are everybody's.
    pub(crate) fn schema(&self, schema: &str, scope: Scope) -> Database {
        Place::new(self.pool.clone(), schema, false).in_scope(scope)
    }

    /// The same through one connection that nobody else takes.
    pub(crate) fn schema_apart(&self, schema: &str, scope: Scope) -> Database {
        Place::new(pool_of(&self.application, 1), schema, true).in_scope(scope)
    }

    /// The schema under the owner's role; none when the owner is not known.
    pub(crate) fn schema_as_owner(&self, schema: &str) -> Option<Database> {
        let owner = self.owner.as_ref()?;
        Some(Place::new(pool_of(owner, 1), schema, true).in_scope(Scope::Control))
    }

    /// Another database of the same server. It has connections of its own: close it.
    pub(crate) fn in_database(&self, name: &str) -> Self {
        let at = |options: &PgConnectOptions| Box::new(options.clone().database(name));
        let application = at(&self.application);
        Self {
            pool: pool_of(&application, POSTGRES_TENANT_CONNECTIONS_MAX),
            application,
            owner: self.owner.as_deref().map(at),
        }
    }

    /// A schema of a database that nobody else has opened; closing it closes the connections.
    pub(crate) fn own_schema(self, schema: &str, scope: Scope) -> Database {
        Place::new(self.pool, schema, true).in_scope(scope)
    }

    /// Makes a database that only the owner and the application may enter.
    pub(crate) async fn create_database(&self, name: &str) -> Result<(), StoreError> {
        let role = self.application_role().replace('"', "\"\"");
        let mut owner = self.owner_connection().await?;
        // Names of databases and roles cannot be parameters. This one was made from a tenant's id.
        for statement in [
            format!("CREATE DATABASE \"{name}\""),
            format!("REVOKE ALL ON DATABASE \"{name}\" FROM PUBLIC"),
            format!("GRANT CONNECT ON DATABASE \"{name}\" TO \"{role}\""),
        ] {
            run(&mut owner, "CREATE DATABASE", statement).await?;
        }
        owner.close().await.map_err(|error| failed("close", error))
    }

    /// Removes a database and whoever is in it.
    pub(crate) async fn drop_database(&self, name: &str) -> Result<(), StoreError> {
        let mut owner = self.owner_connection().await?;
        let drop = format!("DROP DATABASE IF EXISTS \"{name}\"");
        // The plain form waits some seconds for those who are leaving; only an owner who may end the sessions of the
        // application's role can force out who stays.
        if run(&mut owner, "DROP DATABASE", drop.clone()).await.is_err() {
            run(&mut owner, "DROP DATABASE", drop + " WITH (FORCE)").await?;
        }
        owner.close().await.map_err(|error| failed("close", error))
    }

    /// Whether there is somebody who may change tables.
    pub(crate) fn knows_owner(&self) -> bool {
        self.owner.is_some()
    }

    /// Writes tables anew, without what was ever deleted from them, where the owner is known; as many as can be, and the
    /// first reason why one cannot. Busy while somebody may still see what was deleted.
    pub(crate) async fn rewrite_tables(&self, tables: &[&str]) -> Result<(), StoreError> {
        if self.owner.is_none() {
            return Ok(());
        }
        let mut owner = self.owner_connection().await?;
        let unseen = tokio::time::timeout(DATABASE_BUSY_TIMEOUT, until_unseen(&mut owner)).await;
        unseen.map_err(|_| StoreError::Busy)??;
        let mut written = Ok(());
        for table in tables {
            written = written.and(run(&mut owner, "VACUUM", format!("VACUUM (FULL) {table}")).await);
        }
        owner.close().await.map_err(|error| failed("close", error))?;
        written
    }

    async fn owner_connection(&self) -> Result<PgConnection, StoreError> {
        let owner = self.owner.as_ref().ok_or(StoreError::OwnerNeeded)?;
        owner.connect().await.map_err(|error| failed("connect as the owner", error))
    }

    /// The application's role, as the database calls it.
    pub(crate) fn application_role(&self) -> &str {
        self.application.get_username()
    }

    /// How many connections lie idle, and how many of them are not clean.
    pub(crate) async fn idle_connections(&self) -> Result<(usize, usize), StoreError> {
        // All at once, so that none is looked at twice.
        let mut held = Vec::new();
        while let Some(connection) = self.pool.try_acquire() {
            held.push(connection);
        }
        let mut unclean = 0;
        for connection in &mut held {
            let clean = sqlx::raw_sql(IS_CLEAN).fetch_one(&mut **connection).await;
            let clean = clean.and_then(|row| sqlx::Row::try_get::<bool, _>(&row, 0));
            unclean += usize::from(!clean.is_ok_and(|clean| clean));
        }
        Ok((held.len(), unclean))
    }

    /// Says that a server is at work, until it is dropped; and whether it is the only one.
    pub(crate) async fn hold(&self) -> Result<Hold, StoreError> {
        let mut connection = self.application.connect().await.map_err(|error| failed("connect", error))?;
        let alone = try_lock(&mut connection).await?;
        let hold = Hold(Arc::new(Mutex::new(HoldConnection { connection, alone })));
        if !alone {
            hold.share().await?;
        }
        Ok(hold)
    }

    pub(crate) async fn close(&self) {
        self.pool.close().await;
    }
}

/// Waits until no transaction sees any more what was deleted before now. `VACUUM (FULL)` keeps what the oldest snapshot
/// of this database may see, its own among them, and that goes back to the oldest transaction that writes anywhere on
/// the server.
async fn until_unseen(connection: &mut PgConnection) -> Result<(), StoreError> {
    const NOW: &str = "SELECT CAST(pg_current_xact_id() AS TEXT)";
    const IS_UNSEEN: &str = "SELECT pg_snapshot_xmin(pg_current_snapshot()) >= CAST($1 AS xid8) AND NOT EXISTS (
        SELECT FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
            AND age(backend_xmin) > age(xid(CAST($1 AS xid8))))";
    const PAUSE: Duration = Duration::from_millis(10);
    let now: String = sqlx::query_scalar(NOW).fetch_one(&mut *connection).await.map_err(|error| failed(NOW, error))?;
    loop {
        let unseen = sqlx::query_scalar(IS_UNSEEN).bind(&now).fetch_one(&mut *connection).await;
        if unseen.map_err(|error| failed(IS_UNSEEN, error))? {
            return Ok(());
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn run(connection: &mut PgConnection, what: &'static str, statement: String) -> Result<(), StoreError> {
    let done = sqlx::raw_sql(AssertSqlSafe(statement)).execute(connection).await;
    done.map(|_| ()).map_err(|error| failed(what, error))
}

fn options_of(url: &str) -> Result<PgConnectOptions, StoreError> {
    // The driver takes any scheme for its own.
    if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
        return Err(StoreError::BadAddress);
    }
    // The driver's error may repeat what it could not read.
    let options: PgConnectOptions = url.parse().map_err(|_: sqlx::Error| StoreError::BadAddress)?;
    let seconds = |time: Duration| format!("{}s", time.as_secs());
    Ok(options
        .application_name("atelier")
        .statement_cache_capacity(POSTGRES_STATEMENTS_MAX)
        .options([
            ("lock_timeout", seconds(DATABASE_BUSY_TIMEOUT)),
            ("idle_in_transaction_session_timeout", seconds(POSTGRES_IDLE_TRANSACTION_MAX)),
            ("client_min_messages", "warning".to_owned()),
        ])
        .disable_statement_logging())
}

/// A pool into which a connection comes back clean or not at all.
fn pool_of(options: &PgConnectOptions, connections_max: u32) -> PgPool {
    PgPoolOptions::new()
        .max_connections(connections_max)
        .min_connections(0)
        .acquire_timeout(DATABASE_BUSY_TIMEOUT)
        .after_release(|connection, _| Box::pin(is_clean(connection)))
        .connect_lazy_with(options.clone())
}

async fn is_clean(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    let row = sqlx::raw_sql(IS_CLEAN).fetch_one(connection).await?;
    let clean: bool = sqlx::Row::try_get(&row, 0)?;
    if !clean {
        tracing::warn!("closed a database connection that came back inside a transaction");
    }
    Ok(clean)
}

/// A server's share of the lock that says who is at work.
#[derive(Debug, Clone)]
pub(crate) struct Hold(Arc<Mutex<HoldConnection>>);

#[derive(Debug)]
struct HoldConnection {
    connection: PgConnection,
    alone: bool,
}

impl Hold {
    /// Whether no other server was at work when it began, and none can begin before [`Hold::share`].
    pub(crate) async fn is_alone(&self) -> bool {
        self.0.lock().await.alone
    }

    /// Keeps other servers from beginning, until [`Hold::share`]; false when there are some already.
    pub(crate) async fn take_alone(&self) -> Result<bool, StoreError> {
        let mut held = self.0.lock().await;
        held.alone = try_lock(&mut held.connection).await?;
        Ok(held.alone)
    }

    /// Lets other servers work beside this one.
    pub(crate) async fn share(&self) -> Result<(), StoreError> {
        const SHARE: &str = "SELECT pg_advisory_lock_shared($1)";
        const UNLOCK: &str = "SELECT pg_advisory_unlock($1)";
        let mut held = self.0.lock().await;
        let shared = sqlx::query(SHARE).bind(SERVERS_LOCK).execute(&mut held.connection).await;
        shared.map_err(|error| failed(SHARE, error))?;
        if std::mem::take(&mut held.alone) {
            let unlocked = sqlx::query(UNLOCK).bind(SERVERS_LOCK).execute(&mut held.connection).await;
            unlocked.map_err(|error| failed(UNLOCK, error))?;
        }
        Ok(())
    }

    pub(crate) async fn release(&self) {
        const UNLOCK_ALL: &str = "SELECT pg_advisory_unlock_all()";
        let mut held = self.0.lock().await;
        // A connection that is lost has lost its locks.
        let _ = sqlx::query(UNLOCK_ALL).execute(&mut held.connection).await;
    }
}

async fn try_lock(connection: &mut PgConnection) -> Result<bool, StoreError> {
    const SQL: &str = "SELECT pg_try_advisory_lock($1)";
    let locked = sqlx::query_scalar(SQL).bind(SERVERS_LOCK).fetch_one(connection).await;
    locked.map_err(|error| failed(SQL, error))
}

/// A schema of a database. Where it is can be changed while nobody is in a transaction there.
#[derive(Debug, Clone)]
pub(super) struct Place {
    here: Arc<RwLock<Here>>,
}

#[derive(Debug, Clone)]
struct Here {
    pool: PgPool,
    schema: String,
    /// Whether the connections are this place's alone.
    owns_pool: bool,
}

impl Place {
    fn new(pool: PgPool, schema: &str, owns_pool: bool) -> Self {
        Self { here: Arc::new(RwLock::new(Here { pool, schema: schema.to_owned(), owns_pool })) }
    }

    fn in_scope(self, scope: Scope) -> Database {
        Database { place: super::Place::Postgres(self), scope }
    }

    /// The one way into a transaction. In a task of its own: a caller who is dropped while `BEGIN` is on its way would
    /// otherwise leave a connection to the pool that is inside of a transaction and does not know it.
    pub(super) async fn begin(&self, scope: Scope, manner: Manner) -> Result<Transaction, StoreError> {
        let here = Arc::clone(&self.here).read_owned().await;
        let begun = tokio::spawn(open(here, scope, manner)).await;
        begun.map_err(|_| StoreError::ShuttingDown)?
    }

    pub(super) async fn pause(&self) -> Result<Pause, StoreError> {
        let paused = tokio::time::timeout(DATABASE_BUSY_TIMEOUT, Arc::clone(&self.here).write_owned()).await;
        paused.map(Pause).map_err(|_| StoreError::Busy)
    }

    pub(super) async fn close(&self) {
        let here = self.here.read().await;
        if here.owns_pool {
            here.pool.close().await;
        }
    }
}

/// A place in which nobody is, and which nobody enters, until this is dropped.
#[derive(Debug)]
pub(crate) struct Pause(OwnedRwLockWriteGuard<Here>);

impl Pause {
    /// Ends the pause; whoever had the old place has this one from here on.
    pub(crate) async fn goes_to(mut self, place: &Database) {
        let super::Place::Postgres(place) = &place.place else { return };
        let old = std::mem::replace(&mut *self.0, place.here.read().await.clone());
        drop(self);
        if old.owns_pool {
            old.pool.close().await;
        }
    }

    /// Ends the pause; whoever had the place has none from here on.
    pub(crate) fn goes_nowhere(mut self) {
        NOWHERE.clone_into(&mut self.0.schema);
    }
}

async fn open(here: OwnedRwLockReadGuard<Here>, scope: Scope, manner: Manner) -> Result<Transaction, StoreError> {
    let (begin, settings) = match manner {
        Manner::Read => ("BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY", SETTINGS),
        Manner::Snapshot => ("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", SETTINGS),
        Manner::WriteInTurn => ("BEGIN ISOLATION LEVEL READ COMMITTED", SETTINGS_AND_TURN),
        Manner::WriteBesideOthers => ("BEGIN ISOLATION LEVEL READ COMMITTED", SETTINGS),
    };
    let mut begun = here.pool.begin_with(begin).await;
    // Connections that were idle while the database restarted are dead. Nothing has happened on them yet.
    for _ in 0..POSTGRES_CONNECTIONS_MAX {
        if !matches!(&begun, Err(error) if is_lost(error)) {
            break;
        }
        begun = here.pool.begin_with(begin).await;
    }
    let begun = begun.map_err(|error| failed(begin, error))?;
    let mut transaction = Transaction { inner: begun, here };
    let (tenant, name) = match scope {
        Scope::Control => (String::new(), "control"),
        Scope::Tenant(tenant) => (tenant.to_string(), "tenant"),
    };
    let schema = transaction.here.schema.clone();
    transaction.execute(settings, vec![tenant.into(), name.into(), schema.into()]).await?;
    Ok(transaction)
}

/// A transaction that knows whose it is. While it lives its place stays where it is.
#[derive(Debug)]
pub(crate) struct Transaction {
    // First: the connection goes back before the place may move.
    inner: sqlx::Transaction<'static, Postgres>,
    here: OwnedRwLockReadGuard<Here>,
}

impl Transaction {
    pub(super) async fn execute(&mut self, sql: &'static str, values: Vec<Value>) -> Result<u64, StoreError> {
        let done = bound(sql, values)?.execute(&mut *self.inner).await;
        done.map(|done| done.rows_affected()).map_err(|error| failed(sql, error))
    }

    pub(super) async fn execute_script(&mut self, script: &'static str) -> Result<(), StoreError> {
        let done = sqlx::raw_sql(script).execute(&mut *self.inner).await;
        done.map(|_| ()).map_err(|error| failed("migration", error))
    }

    pub(super) async fn fetch_all(&mut self, sql: &'static str, values: Vec<Value>) -> Result<Vec<Row>, StoreError> {
        let rows = bound(sql, values)?.fetch_all(&mut *self.inner).await;
        rows.map(|rows| rows.into_iter().map(Row::Postgres).collect()).map_err(|error| failed(sql, error))
    }

    pub(super) async fn fetch_optional(
        &mut self,
        sql: &'static str,
        values: Vec<Value>,
    ) -> Result<Option<Row>, StoreError> {
        let row = bound(sql, values)?.fetch_optional(&mut *self.inner).await;
        row.map(|row| row.map(Row::Postgres)).map_err(|error| failed(sql, error))
    }

    pub(super) async fn commit(self) -> Result<(), StoreError> {
        self.inner.commit().await.map_err(|error| failed("COMMIT", error))
    }
}

/// A null of whatever type its place in the statement has.
struct Null;

impl Type<Postgres> for Null {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(0))
    }
}

impl Encode<'_, Postgres> for Null {
    fn encode_by_ref(&self, _: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        Ok(IsNull::Yes)
    }
}

fn bound(
    sql: &'static str,
    values: Vec<Value>,
) -> Result<sqlx::query::Query<'static, Postgres, PgArguments>, StoreError> {
    values.into_iter().try_fold(sqlx::query(sql), |query, value| {
        value.check()?;
        Ok(match value {
            Value::Null => query.bind(Null),
            Value::Int(int) => query.bind(int),
            Value::Text(text) => query.bind(text),
            Value::Blob(blob) => query.bind(blob),
        })
    })
}

fn is_lost(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::WorkerCrashed => true,
        // 08: connection exception; 57P01 to 57P03: the database is told to stop, or starts.
        error => code_of(error).is_some_and(|code| code.starts_with("08") || code.starts_with("57P0")),
    }
}

fn code_of(error: &sqlx::Error) -> Option<String> {
    error.as_database_error().and_then(|error| error.code()).map(|code| code.into_owned())
}

fn failed(statement: &'static str, error: sqlx::Error) -> StoreError {
    match error {
        sqlx::Error::PoolClosed => return StoreError::ShuttingDown,
        sqlx::Error::PoolTimedOut => return StoreError::Busy,
        _ => {}
    }
    let lost = is_lost(&error);
    let code = code_of(&error);
    let source = Arc::new(error) as Arc<dyn Error + Send + Sync>;
    match code.as_deref() {
        Some("53100") => StoreError::DiskFull,
        Some("3D000") => StoreError::NotFound { what: DATABASE },
        Some("23505") => StoreError::AlreadyThere { statement },
        // Serialization failure, deadlock, lock not available, too many connections.
        Some("40001" | "40P01" | "55P03" | "53300") => StoreError::Busy,
        _ if lost => StoreError::Unreachable { source },
        _ => StoreError::Database { statement, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The maintenance database of the tests' server, where the application owns and sees nothing.
    fn options() -> PgConnectOptions {
        let socket = std::env::var("ATELIER_TEST_POSTGRES").expect("cargo nextest starts the server");
        options_of(&format!("postgres:///postgres?host={socket}&user=atelier_app")).unwrap()
    }

    #[tokio::test]
    async fn a_connection_that_comes_back_inside_a_transaction_is_closed() {
        let pool = pool_of(&options(), 1);
        let process = "SELECT pg_backend_pid()";
        for (dirt, is_kept) in [
            ("SELECT 1", true),
            ("BEGIN", false),
            ("BEGIN; SELECT set_config('app.tenant', 'x', true)", false),
            ("SELECT set_config('app.scope', 'control', false)", false),
        ] {
            let mut connection = pool.acquire().await.unwrap();
            let before: i32 = sqlx::query_scalar(process).fetch_one(&mut *connection).await.unwrap();
            sqlx::raw_sql(dirt).execute(&mut *connection).await.unwrap();
            drop(connection);
            let mut connection = pool.acquire().await.unwrap();
            let after: i32 = sqlx::query_scalar(process).fetch_one(&mut *connection).await.unwrap();
            assert_eq!(before == after, is_kept, "{dirt}");
            assert!(is_clean(&mut connection).await.unwrap(), "{dirt}");
        }
        // One in a failed transaction answers nothing, and is closed for that.
        let mut connection = pool.acquire().await.unwrap();
        assert!(sqlx::raw_sql("BEGIN; SELECT 1 / 0").execute(&mut *connection).await.is_err());
        assert!(is_clean(&mut connection).await.is_err());
        drop(connection);
        assert!(is_clean(&mut pool.acquire().await.unwrap()).await.unwrap());
    }

    #[tokio::test]
    async fn connections_that_lie_idle_are_counted_and_those_that_are_not_clean() {
        // A pool that takes back whatever comes.
        let pool = PgPoolOptions::new().max_connections(3).connect_lazy_with(options());
        let server = Server { pool: pool.clone(), application: Box::new(options()), owner: None };
        assert_eq!(server.idle_connections().await.unwrap(), (0, 0));
        let mut held = Vec::new();
        for dirt in ["SELECT 1", "BEGIN", "SELECT set_config('app.tenant', 'x', false)"] {
            let mut connection = pool.acquire().await.unwrap();
            sqlx::raw_sql(dirt).execute(&mut *connection).await.unwrap();
            held.push(connection);
        }
        assert_eq!(server.idle_connections().await.unwrap(), (0, 0), "none is idle");
        drop(held);
        while pool.num_idle() < 3 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(server.idle_connections().await.unwrap(), (3, 2));
    }

    #[tokio::test]
    async fn who_had_a_place_that_went_nowhere_or_is_closed_has_none() {
        let pool = pool_of(&options(), 2);
        let shared = Place::new(pool.clone(), "public", false);
        let path = async |place: &Place| {
            let mut transaction = place.begin(Scope::Control, Manner::Read).await?;
            let path = "SELECT current_setting('search_path') AS path";
            transaction.fetch_optional(path, vec![]).await?.unwrap().text("path")
        };
        assert_eq!(path(&shared).await.unwrap(), "public, pg_temp");
        shared.clone().pause().await.unwrap().goes_nowhere();
        assert_eq!(path(&shared).await.unwrap(), format!("{NOWHERE}, pg_temp"));
        shared.close().await;
        path(&shared).await.expect("the connections are everybody's");
        let own = Place::new(pool, "public", true);
        own.close().await;
        assert!(matches!(path(&own).await, Err(StoreError::ShuttingDown)));
    }

    #[tokio::test]
    async fn errors_have_names() {
        let place = Place::new(pool_of(&options(), 2), "public", true);
        let mut transaction = place.begin(Scope::Control, Manner::WriteInTurn).await.unwrap();
        let raised = |code: &'static str| format!("DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '{code}'; END $$");
        for (code, expected) in [
            ("53100", "DiskFull"),
            ("23505", "AlreadyThere"),
            ("40001", "Busy"),
            ("40P01", "Busy"),
            ("3D000", "NotFound"),
            ("57P01", "Unreachable"),
        ] {
            let statement: &'static str = raised(code).leak();
            let error = transaction.execute(statement, vec![]).await.unwrap_err();
            assert!(format!("{error:?}").starts_with(expected), "{code}: {error:?}");
            transaction = place.begin(Scope::Control, Manner::WriteBesideOthers).await.unwrap();
        }
        let error = transaction.execute("SELECT $1", vec![Value::from("a\0b")]).await.unwrap_err();
        assert!(matches!(error, StoreError::NulInText), "{error:?}");
        drop(transaction);
        let urls = DatabaseUrls { application: "postgres:///x?host=/nowhere&user=x".to_owned(), owner: None };
        assert!(matches!(Server::connect(&urls).await, Err(StoreError::Unreachable { .. })));
        let urls = DatabaseUrls { application: "mysql://x@localhost/x".to_owned(), owner: None };
        assert!(matches!(Server::connect(&urls).await, Err(StoreError::BadAddress)));
    }

    #[tokio::test]
    async fn a_database_that_restarts_costs_no_request() {
        let place = Place::new(pool_of(&options(), 4), "public", true);
        let (mut held, mut processes) = (Vec::new(), Vec::new());
        for _ in 0..4 {
            let mut transaction = place.begin(Scope::Control, Manner::Read).await.unwrap();
            let process = "SELECT CAST(pg_backend_pid() AS TEXT) AS process";
            let row = transaction.fetch_optional(process, vec![]).await.unwrap().unwrap();
            processes.push(row.text("process").unwrap());
            held.push(transaction);
        }
        drop(held);
        let socket = std::env::var("ATELIER_TEST_POSTGRES").unwrap();
        let programs = std::env::var("ATELIER_TEST_POSTGRES_PROGRAMS").unwrap();
        let kill = format!("SELECT pg_terminate_backend(pid) FROM unnest(ARRAY[{}]) AS pid", processes.join(", "));
        let killed = std::process::Command::new(format!("{programs}/psql"))
            .args(["-qXAt", "-h", &socket, "-U", "postgres", "-c", &kill])
            .output()
            .unwrap();
        assert!(killed.status.success(), "{killed:?}");
        place.begin(Scope::Control, Manner::Read).await.unwrap();
    }
}
