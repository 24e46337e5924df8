//! The only file that names the database driver: pools, transactions, values and rows.
//!
//! A `Database` has one writing connection and some reading ones. Statements are constants in the common subset of SQLite
//! and PostgreSQL with `$1` parameters; a second database becomes a second variant of `Pools`, `Transaction` and `Row`.

use std::error::Error;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use atelier_domain::limits::DATABASE_BUSY_TIMEOUT;
use atelier_domain::{
    Digest, JobId, KeyId, Plan, RequestId, Role, RunId, SourceId, Suffix, TenantId, TenantName, Timestamp,
    VersionNumber,
};
use serde_json::Value as Json;
use sqlx::sqlite::{
    SqliteArguments, SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow,
    SqliteSynchronous,
};
use sqlx::{ConnectOptions, Row as _, Sqlite};

use crate::error::StoreError;

/// SQLite's primary result code for a full disk.
const SQLITE_FULL: i64 = 13;
/// The extended result codes keep the primary one in their lowest byte.
const SQLITE_PRIMARY_CODE: i64 = 0xff;

/// One database: a file with its connections.
#[derive(Debug, Clone)]
pub(crate) struct Database {
    pools: Pools,
}

#[derive(Debug, Clone)]
enum Pools {
    /// One writer, because SQLite has one anyway and waiting in a queue is fairer than retrying on a lock.
    Sqlite { writer: SqlitePool, readers: SqlitePool },
}

impl Database {
    /// Opens a SQLite file; it is made when `create` says so and must be there otherwise.
    pub(crate) async fn open_sqlite(file: &Path, create: bool, readers_max: u32) -> Result<Self, StoreError> {
        if !create && !file.exists() {
            return Err(StoreError::NotFound { what: "tenant" });
        }
        let options = SqliteConnectOptions::new()
            .filename(file)
            .create_if_missing(create)
            .foreign_keys(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(DATABASE_BUSY_TIMEOUT)
            .disable_statement_logging();
        let writer = SqlitePoolOptions::new()
            .max_connections(1)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_with(options.clone())
            .await
            .map_err(|error| failed("open", error))?;
        let readers = SqlitePoolOptions::new()
            .max_connections(readers_max)
            .min_connections(0)
            .connect_lazy_with(options.create_if_missing(false).pragma("query_only", "1"));
        Ok(Self { pools: Pools::Sqlite { writer, readers } })
    }

    /// Begins a writing transaction; dropped without `commit`, it never happened. It takes the write lock at once: a
    /// transaction that reads first and then writes would fail without waiting when another wrote in between.
    pub(crate) async fn begin(&self) -> Result<Transaction, StoreError> {
        const BEGIN: &str = "BEGIN IMMEDIATE";
        match &self.pools {
            Pools::Sqlite { writer, .. } => {
                writer.begin_with(BEGIN).await.map(Transaction::Sqlite).map_err(|error| failed(BEGIN, error))
            }
        }
    }

    pub(crate) async fn fetch_all(&self, sql: &'static str, values: Vec<Value>) -> Result<Vec<Row>, StoreError> {
        match &self.pools {
            Pools::Sqlite { readers, .. } => {
                let rows = bound(sql, values).fetch_all(readers).await;
                rows.map(|rows| rows.into_iter().map(Row::Sqlite).collect()).map_err(|error| failed(sql, error))
            }
        }
    }

    pub(crate) async fn fetch_optional(
        &self,
        sql: &'static str,
        values: Vec<Value>,
    ) -> Result<Option<Row>, StoreError> {
        match &self.pools {
            Pools::Sqlite { readers, .. } => {
                let row = bound(sql, values).fetch_optional(readers).await;
                row.map(|row| row.map(Row::Sqlite)).map_err(|error| failed(sql, error))
            }
        }
    }

    /// Waits for what is in flight and closes every connection.
    pub(crate) async fn close(&self) {
        match &self.pools {
            Pools::Sqlite { writer, readers } => {
                readers.close().await;
                writer.close().await;
            }
        }
    }
}

/// A writing transaction.
#[derive(Debug)]
pub(crate) enum Transaction {
    Sqlite(sqlx::Transaction<'static, Sqlite>),
}

impl Transaction {
    /// Runs a statement; gives how many rows it touched.
    pub(crate) async fn execute(&mut self, sql: &'static str, values: Vec<Value>) -> Result<u64, StoreError> {
        match self {
            Self::Sqlite(transaction) => {
                let done = bound(sql, values).execute(&mut **transaction).await;
                done.map(|done| done.rows_affected()).map_err(|error| failed(sql, error))
            }
        }
    }

    /// Runs a migration: several statements, no values.
    pub(crate) async fn execute_script(&mut self, script: &'static str) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(transaction) => {
                let done = sqlx::raw_sql(script).execute(&mut **transaction).await;
                done.map(|_| ()).map_err(|error| failed("migration", error))
            }
        }
    }

    pub(crate) async fn fetch_all(&mut self, sql: &'static str, values: Vec<Value>) -> Result<Vec<Row>, StoreError> {
        match self {
            Self::Sqlite(transaction) => {
                let rows = bound(sql, values).fetch_all(&mut **transaction).await;
                rows.map(|rows| rows.into_iter().map(Row::Sqlite).collect()).map_err(|error| failed(sql, error))
            }
        }
    }

    pub(crate) async fn fetch_optional(
        &mut self,
        sql: &'static str,
        values: Vec<Value>,
    ) -> Result<Option<Row>, StoreError> {
        match self {
            Self::Sqlite(transaction) => {
                let row = bound(sql, values).fetch_optional(&mut **transaction).await;
                row.map(|row| row.map(Row::Sqlite)).map_err(|error| failed(sql, error))
            }
        }
    }

    /// The first row of a statement that always gives one.
    pub(crate) async fn fetch_one(&mut self, sql: &'static str, values: Vec<Value>) -> Result<Row, StoreError> {
        self.fetch_optional(sql, values).await?.ok_or_else(|| StoreError::corrupt(format!("no row from: {sql}")))
    }

    pub(crate) async fn commit(self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(transaction) => transaction.commit().await.map_err(|error| failed("COMMIT", error)),
        }
    }
}

fn bound(sql: &'static str, values: Vec<Value>) -> sqlx::query::Query<'static, Sqlite, SqliteArguments> {
    values.into_iter().fold(sqlx::query(sql), |query, value| match value {
        Value::Null => query.bind(None::<i64>),
        Value::Int(int) => query.bind(int),
        Value::Text(text) => query.bind(text),
        Value::Blob(blob) => query.bind(blob),
    })
}

fn failed(statement: &'static str, error: sqlx::Error) -> StoreError {
    if let sqlx::Error::PoolClosed = error {
        return StoreError::ShuttingDown;
    }
    let code = error.as_database_error().and_then(|error| error.code()).and_then(|code| code.parse::<i64>().ok());
    if code.is_some_and(|code| code & SQLITE_PRIMARY_CODE == SQLITE_FULL) {
        return StoreError::DiskFull;
    }
    StoreError::Database { statement, source: Arc::new(error) as Arc<dyn Error + Send + Sync> }
}

/// A value of a parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Null,
    Int(i64),
    Text(String),
    Blob(Vec<u8>),
}

impl From<i64> for Value {
    fn from(int: i64) -> Self {
        Self::Int(int)
    }
}

impl From<u32> for Value {
    fn from(int: u32) -> Self {
        Self::Int(i64::from(int))
    }
}

impl From<u64> for Value {
    /// Counts beyond the signed range do not occur; one would be stored as the largest.
    fn from(int: u64) -> Self {
        Self::Int(i64::try_from(int).unwrap_or(i64::MAX))
    }
}

impl From<usize> for Value {
    fn from(int: usize) -> Self {
        Self::Int(i64::try_from(int).unwrap_or(i64::MAX))
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&[u8]> for Value {
    fn from(bytes: &[u8]) -> Self {
        Self::Blob(bytes.to_vec())
    }
}

impl From<Timestamp> for Value {
    fn from(time: Timestamp) -> Self {
        Self::Int(time.micros())
    }
}

impl From<VersionNumber> for Value {
    fn from(number: VersionNumber) -> Self {
        Self::Int(i64::from(number.get()))
    }
}

impl From<&Json> for Value {
    fn from(json: &Json) -> Self {
        Self::Text(json.to_string())
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

macro_rules! value_by_text {
    ($($name:ty),*) => {
        $(impl From<$name> for Value {
            fn from(value: $name) -> Self {
                Self::Text(value.to_string())
            }
        })*
    };
}

value_by_text!(TenantId, KeyId, SourceId, RunId, JobId, RequestId, Digest, Plan, Role, &TenantName, &Suffix);

/// The values of a statement's parameters, in order.
macro_rules! values {
    ($($value:expr),* $(,)?) => { vec![$(crate::sql::Value::from($value)),*] };
}
pub(crate) use values;

/// A row of an answer.
#[derive(Debug)]
pub(crate) enum Row {
    Sqlite(SqliteRow),
}

impl Row {
    fn get<'r, T>(&'r self, column: &'static str) -> Result<T, StoreError>
    where
        T: sqlx::Decode<'r, Sqlite> + sqlx::Type<Sqlite>,
    {
        match self {
            Self::Sqlite(row) => {
                row.try_get(column).map_err(|error| StoreError::corrupt(format!("column {column}: {error}")))
            }
        }
    }

    pub(crate) fn int(&self, column: &'static str) -> Result<i64, StoreError> {
        self.get(column)
    }

    pub(crate) fn count(&self, column: &'static str) -> Result<u64, StoreError> {
        u64::try_from(self.int(column)?).map_err(|_| StoreError::corrupt(format!("column {column} is negative")))
    }

    pub(crate) fn optional_count(&self, column: &'static str) -> Result<Option<u64>, StoreError> {
        self.get::<Option<i64>>(column)?.map(|_| self.count(column)).transpose()
    }

    pub(crate) fn flag(&self, column: &'static str) -> Result<bool, StoreError> {
        Ok(self.int(column)? != 0)
    }

    pub(crate) fn text(&self, column: &'static str) -> Result<String, StoreError> {
        self.get(column)
    }

    pub(crate) fn optional_text(&self, column: &'static str) -> Result<Option<String>, StoreError> {
        self.get(column)
    }

    pub(crate) fn bytes<const N: usize>(&self, column: &'static str) -> Result<[u8; N], StoreError> {
        let bytes: Vec<u8> = self.get(column)?;
        bytes.try_into().map_err(|_| StoreError::corrupt(format!("column {column} has not {N} bytes")))
    }

    pub(crate) fn optional_bytes<const N: usize>(&self, column: &'static str) -> Result<Option<[u8; N]>, StoreError> {
        self.get::<Option<Vec<u8>>>(column)?.map(|_| self.bytes(column)).transpose()
    }

    pub(crate) fn time(&self, column: &'static str) -> Result<Timestamp, StoreError> {
        self.int(column).map(Timestamp::from_micros)
    }

    pub(crate) fn optional_time(&self, column: &'static str) -> Result<Option<Timestamp>, StoreError> {
        Ok(self.get::<Option<i64>>(column)?.map(Timestamp::from_micros))
    }

    /// A value that is stored as its text.
    pub(crate) fn parsed<T: FromStr>(&self, column: &'static str) -> Result<T, StoreError> {
        self.text(column)?.parse().map_err(|_| StoreError::corrupt(format!("column {column} has an unknown form")))
    }

    pub(crate) fn optional_parsed<T: FromStr>(&self, column: &'static str) -> Result<Option<T>, StoreError> {
        self.optional_text(column)?.map(|_| self.parsed(column)).transpose()
    }

    pub(crate) fn version(&self, column: &'static str) -> Result<VersionNumber, StoreError> {
        VersionNumber::try_from(self.int(column)?)
            .map_err(|error| StoreError::corrupt(format!("column {column}: {error}")))
    }

    pub(crate) fn optional_version(&self, column: &'static str) -> Result<Option<VersionNumber>, StoreError> {
        self.get::<Option<i64>>(column)?.map(|_| self.version(column)).transpose()
    }

    pub(crate) fn json(&self, column: &'static str) -> Result<Json, StoreError> {
        serde_json::from_str(&self.text(column)?)
            .map_err(|error| StoreError::corrupt(format!("column {column}: {error}")))
    }

    pub(crate) fn optional_json(&self, column: &'static str) -> Result<Option<Json>, StoreError> {
        self.optional_text(column)?.map(|_| self.json(column)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_full_disk_is_called_so_and_loses_only_what_did_not_fit() {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::open_sqlite(&folder.path().join("a.db"), true, 1).await.unwrap();
        let mut transaction = database.begin().await.unwrap();
        transaction.execute("CREATE TABLE notes (text TEXT)", values![]).await.unwrap();
        transaction.execute("INSERT INTO notes VALUES ($1)", values!["kept"]).await.unwrap();
        transaction.commit().await.unwrap();

        let mut transaction = database.begin().await.unwrap();
        // SQLite answers as on a full disk when the file may not grow.
        transaction.fetch_all("PRAGMA max_page_count = 4", values![]).await.unwrap();
        let large = transaction.execute("INSERT INTO notes VALUES ($1)", values!["x".repeat(100_000)]).await;
        assert!(matches!(large, Err(StoreError::DiskFull)), "{large:?}");
        drop(transaction);
        let rows = database.fetch_all("SELECT text FROM notes", values![]).await.unwrap();
        assert_eq!(rows.iter().map(|row| row.text("text").unwrap()).collect::<Vec<_>>(), ["kept"]);
    }

    #[tokio::test]
    async fn readers_cannot_write_and_a_dropped_transaction_never_happened() {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::open_sqlite(&folder.path().join("a.db"), true, 1).await.unwrap();
        let mut transaction = database.begin().await.unwrap();
        transaction.execute("CREATE TABLE notes (text TEXT)", values![]).await.unwrap();
        transaction.commit().await.unwrap();
        let mut transaction = database.begin().await.unwrap();
        transaction.execute("INSERT INTO notes VALUES ($1)", values!["dropped"]).await.unwrap();
        drop(transaction);
        assert!(database.fetch_all("INSERT INTO notes VALUES ('read') RETURNING text", values![]).await.is_err());
        assert!(database.fetch_all("SELECT text FROM notes", values![]).await.unwrap().is_empty());
    }
}
