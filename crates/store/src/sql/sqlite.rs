//! SQLite: a file with one writing connection and some reading ones.

use std::error::Error;
use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use atelier_domain::limits::DATABASE_BUSY_TIMEOUT;
use sqlx::sqlite::{
    SqliteArguments, SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{ConnectOptions, Sqlite};

use super::row::Row;
use super::value::Value;
use crate::error::StoreError;
use crate::private_files;

/// SQLite's primary result code for a full disk.
const SQLITE_FULL: i64 = 13;
/// SQLite's primary result code for a lock that another process holds for too long.
const SQLITE_BUSY: i64 = 5;
/// SQLite's primary result codes for a file that is cut or scribbled over, and for one that is no database.
const SQLITE_CORRUPT: i64 = 11;
const SQLITE_NOTADB: i64 = 26;
/// The extended result codes keep the primary one in their lowest byte.
const SQLITE_PRIMARY_CODE: i64 = 0xff;
/// SQLite's extended result codes for a unique index and a primary key that have the value already.
const SQLITE_CONSTRAINT_UNIQUE: i64 = 2_067;
const SQLITE_CONSTRAINT_PRIMARYKEY: i64 = 1_555;

/// One writer, because SQLite has one anyway and waiting in a queue is fairer than retrying on a lock.
#[derive(Debug, Clone)]
pub(super) struct Pools {
    writer: SqlitePool,
    readers: SqlitePool,
    /// Which file it is, for people.
    place: Arc<str>,
}

/// Lets nobody but the server's own user read a database, its log and its index.
pub(crate) fn keep_private(file: &Path) -> Result<(), StoreError> {
    for suffix in ["", "-wal", "-shm"] {
        let mut path = file.to_owned().into_os_string();
        path.push(suffix);
        match fs::set_permissions(&path, Permissions::from_mode(private_files::MODE)) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(StoreError::io(format!("make {} private", file.display()), error));
            }
            _ => {}
        }
    }
    Ok(())
}

impl Pools {
    pub(super) async fn open(file: &Path, create: bool, readers_max: u32) -> Result<Self, StoreError> {
        if !create && !file.exists() {
            return Err(StoreError::NotFound { what: "tenant" });
        }
        let place: Arc<str> = file.display().to_string().into();
        if create {
            // SQLite would let the whole group read it. Its log and its index are made like it.
            private_files::open(file).map_err(|error| StoreError::io(format!("make {place}"), error))?;
        }
        let options = SqliteConnectOptions::new()
            .filename(file)
            .create_if_missing(create)
            .foreign_keys(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(DATABASE_BUSY_TIMEOUT)
            // What is deleted is overwritten.
            .pragma("secure_delete", "1")
            .disable_statement_logging();
        let writer = SqlitePoolOptions::new()
            .max_connections(1)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_with(options.clone())
            .await
            .map_err(|error| failed(&place, "open", error))?;
        let readers = SqlitePoolOptions::new()
            .max_connections(readers_max)
            .min_connections(0)
            .connect_lazy_with(options.create_if_missing(false).pragma("query_only", "1"));
        Ok(Self { writer, readers, place })
    }

    /// Takes the write lock at once: a transaction that reads first and then writes would fail without waiting when
    /// another wrote in between.
    pub(super) async fn begin(&self) -> Result<Transaction, StoreError> {
        const BEGIN: &str = "BEGIN IMMEDIATE";
        let mut begun = self.writer.begin_with(BEGIN).await;
        if let Err(sqlx::Error::InvalidSavePointStatement) = begun {
            // SQLite ends a transaction by itself when the disk is full. The driver then cannot end it, and believes for
            // ever that its connection is inside one: a new connection is not.
            let wedged = self.writer.acquire().await.map_err(|error| failed(&self.place, BEGIN, error))?;
            wedged.close().await.map_err(|error| failed(&self.place, BEGIN, error))?;
            begun = self.writer.begin_with(BEGIN).await;
        }
        begun
            .map(|inner| Transaction { inner, place: Arc::clone(&self.place) })
            .map_err(|error| failed(&self.place, BEGIN, error))
    }

    pub(super) async fn fetch_all(&self, sql: &'static str, values: Vec<Value>) -> Result<Vec<Row>, StoreError> {
        let rows = bound(sql, values)?.fetch_all(&self.readers).await;
        rows.map(|rows| rows.into_iter().map(Row::Sqlite).collect()).map_err(|error| failed(&self.place, sql, error))
    }

    pub(super) async fn fetch_optional(
        &self,
        sql: &'static str,
        values: Vec<Value>,
    ) -> Result<Option<Row>, StoreError> {
        let row = bound(sql, values)?.fetch_optional(&self.readers).await;
        row.map(|row| row.map(Row::Sqlite)).map_err(|error| failed(&self.place, sql, error))
    }

    /// Truncates the log once all of it is in the file; readers in it may keep it from that.
    pub(super) async fn checkpoint(&self) -> Result<(), StoreError> {
        const CHECKPOINT: &str = "PRAGMA wal_checkpoint(TRUNCATE)";
        let done = sqlx::query(CHECKPOINT).fetch_all(&self.writer).await;
        done.map(|_| ()).map_err(|error| failed(&self.place, CHECKPOINT, error))
    }

    pub(super) async fn compact(&self) -> Result<(), StoreError> {
        const COMPACT: &str = "VACUUM";
        sqlx::query(COMPACT).execute(&self.writer).await.map_err(|error| failed(&self.place, COMPACT, error))?;
        self.checkpoint().await
    }

    pub(super) async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

/// A writing transaction on a file.
#[derive(Debug)]
pub(crate) struct Transaction {
    inner: sqlx::Transaction<'static, Sqlite>,
    place: Arc<str>,
}

impl Transaction {
    pub(super) async fn execute(&mut self, sql: &'static str, values: Vec<Value>) -> Result<u64, StoreError> {
        let done = bound(sql, values)?.execute(&mut *self.inner).await;
        done.map(|done| done.rows_affected()).map_err(|error| failed(&self.place, sql, error))
    }

    pub(super) async fn execute_script(&mut self, script: &'static str) -> Result<(), StoreError> {
        let done = sqlx::raw_sql(script).execute(&mut *self.inner).await;
        done.map(|_| ()).map_err(|error| failed(&self.place, "migration", error))
    }

    pub(super) async fn fetch_all(&mut self, sql: &'static str, values: Vec<Value>) -> Result<Vec<Row>, StoreError> {
        let rows = bound(sql, values)?.fetch_all(&mut *self.inner).await;
        rows.map(|rows| rows.into_iter().map(Row::Sqlite).collect()).map_err(|error| failed(&self.place, sql, error))
    }

    pub(super) async fn fetch_optional(
        &mut self,
        sql: &'static str,
        values: Vec<Value>,
    ) -> Result<Option<Row>, StoreError> {
        let row = bound(sql, values)?.fetch_optional(&mut *self.inner).await;
        row.map(|row| row.map(Row::Sqlite)).map_err(|error| failed(&self.place, sql, error))
    }

    pub(super) async fn commit(self) -> Result<(), StoreError> {
        let Self { inner, place } = self;
        inner.commit().await.map_err(|error| failed(&place, "COMMIT", error))
    }
}

fn bound(
    sql: &'static str,
    values: Vec<Value>,
) -> Result<sqlx::query::Query<'static, Sqlite, SqliteArguments>, StoreError> {
    values.into_iter().try_fold(sqlx::query(sql), |query, value| {
        value.check()?;
        Ok(match value {
            Value::Null => query.bind(None::<i64>),
            Value::Int(int) => query.bind(int),
            Value::Text(text) => query.bind(text),
            Value::Blob(blob) => query.bind(blob),
        })
    })
}

fn failed(place: &str, statement: &'static str, error: sqlx::Error) -> StoreError {
    if let sqlx::Error::PoolClosed = error {
        return StoreError::ShuttingDown;
    }
    let code = error.as_database_error().and_then(|error| error.code()).and_then(|code| code.parse::<i64>().ok());
    match code {
        Some(code) if code & SQLITE_PRIMARY_CODE == SQLITE_FULL => StoreError::DiskFull,
        Some(code) if code & SQLITE_PRIMARY_CODE == SQLITE_BUSY => StoreError::Busy,
        Some(code) if code & SQLITE_PRIMARY_CODE == SQLITE_NOTADB => {
            StoreError::damaged(place, "is no database any more")
        }
        Some(code) if code & SQLITE_PRIMARY_CODE == SQLITE_CORRUPT => {
            StoreError::damaged(place, "is damaged: parts of it are missing or were changed")
        }
        Some(SQLITE_CONSTRAINT_UNIQUE | SQLITE_CONSTRAINT_PRIMARYKEY) => StoreError::AlreadyThere { statement },
        _ => StoreError::Database { statement, source: Arc::new(error) as Arc<dyn Error + Send + Sync> },
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Database, Scope, values};
    use crate::audit::Unrecorded;
    use crate::error::StoreError;

    #[tokio::test]
    async fn a_full_disk_is_called_so_and_loses_only_what_did_not_fit() {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::open_sqlite(&folder.path().join("a.db"), true, 1, Scope::Control).await.unwrap();
        let mut transaction = database.begin().await.unwrap();
        transaction.execute("CREATE TABLE notes (text TEXT)", values![]).await.unwrap();
        transaction.execute("INSERT INTO notes VALUES ($1)", values!["kept"]).await.unwrap();
        transaction.commit(Unrecorded::Test.permit()).await.unwrap();

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
    async fn a_transaction_that_sqlite_ended_by_itself_is_not_the_last() {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::open_sqlite(&folder.path().join("a.db"), true, 1, Scope::Control).await.unwrap();
        let mut transaction = database.begin().await.unwrap();
        transaction.execute("CREATE TABLE notes (text TEXT)", values![]).await.unwrap();
        transaction.commit(Unrecorded::Test.permit()).await.unwrap();
        for _ in 0..3 {
            // What SQLite does on a full disk.
            let mut ended = database.begin().await.unwrap();
            ended.execute("INSERT INTO notes VALUES ('gone')", values![]).await.unwrap();
            ended.execute("ROLLBACK", values![]).await.unwrap();
            drop(ended);
        }
        let mut transaction = database.begin().await.unwrap();
        transaction.execute("INSERT INTO notes VALUES ('kept')", values![]).await.unwrap();
        transaction.commit(Unrecorded::Test.permit()).await.unwrap();
        let rows = database.fetch_all("SELECT text FROM notes", values![]).await.unwrap();
        assert_eq!(rows.iter().map(|row| row.text("text").unwrap()).collect::<Vec<_>>(), ["kept"]);
    }

    #[tokio::test]
    async fn readers_cannot_write_and_a_dropped_transaction_never_happened() {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::open_sqlite(&folder.path().join("a.db"), true, 1, Scope::Control).await.unwrap();
        let mut transaction = database.begin().await.unwrap();
        transaction.execute("CREATE TABLE notes (text TEXT)", values![]).await.unwrap();
        transaction.commit(Unrecorded::Test.permit()).await.unwrap();
        let mut transaction = database.begin().await.unwrap();
        transaction.execute("INSERT INTO notes VALUES ($1)", values!["dropped"]).await.unwrap();
        drop(transaction);
        assert!(database.fetch_all("INSERT INTO notes VALUES ('read') RETURNING text", values![]).await.is_err());
        assert!(database.fetch_all("SELECT text FROM notes", values![]).await.unwrap().is_empty());
    }
}
