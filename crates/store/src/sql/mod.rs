//! The only folder that names the database drivers: connections, transactions, values and rows.
//!
//! A [`Database`] is a place for rows together with the [`Scope`] in which it is looked at, and is opened with one:
//! no statement runs outside of a transaction that knows whose it is. Statements are constants in the common subset of
//! SQLite and PostgreSQL with `$1` parameters.
//!
//! Both databases give the same promise: writing transactions in one scope take turns. SQLite has one writer for each
//! file; on PostgreSQL [`Database::begin`] takes a lock that ends with the transaction. So what was read in a writing
//! transaction still holds when it writes.

mod postgres;
mod row;
mod sqlite;
mod value;

use std::path::Path;

use atelier_domain::{Separation, TenantId};

use crate::audit::Permit;
use crate::error::StoreError;
pub(crate) use postgres::{DATABASE, Hold, Pause, Server};
pub(crate) use row::Row;
pub(crate) use sqlite::keep_private;
pub(crate) use value::{Value, values};

/// Whose rows a transaction may see. On PostgreSQL row level security holds every statement to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// The installation's own: tables of the control database, all rows.
    Control,
    /// One tenant's.
    Tenant(TenantId),
}

/// A place for rows, and in which scope they are looked at.
#[derive(Debug, Clone)]
pub(crate) struct Database {
    place: Place,
    scope: Scope,
}

#[derive(Debug, Clone)]
enum Place {
    Sqlite(sqlite::Pools),
    Postgres(postgres::Place),
}

impl Database {
    /// Opens a SQLite file; it is made when `create` says so and must be there otherwise.
    pub(crate) async fn open_sqlite(
        file: &Path,
        create: bool,
        readers_max: u32,
        scope: Scope,
    ) -> Result<Self, StoreError> {
        let pools = sqlite::Pools::open(file, create, readers_max).await?;
        Ok(Self { place: Place::Sqlite(pools), scope })
    }

    /// The same place in another scope.
    pub(crate) fn in_scope(&self, scope: Scope) -> Self {
        Self { place: self.place.clone(), scope }
    }

    /// Begins a writing transaction; dropped without `commit`, it never happened. It waits for its turn at once: one
    /// that read first and then wrote would find that another wrote in between.
    pub(crate) async fn begin(&self) -> Result<Transaction, StoreError> {
        match &self.place {
            Place::Sqlite(pools) => pools.begin().await.map(Transaction::Sqlite),
            Place::Postgres(place) => {
                place.begin(self.scope, postgres::Manner::WriteInTurn).await.map(Transaction::Postgres)
            }
        }
    }

    /// Begins a writing transaction that waits for no turn where the database can do without: for statements that are
    /// right whatever others write meanwhile.
    pub(crate) async fn begin_beside_others(&self) -> Result<Transaction, StoreError> {
        match &self.place {
            Place::Sqlite(pools) => pools.begin().await.map(Transaction::Sqlite),
            Place::Postgres(place) => {
                place.begin(self.scope, postgres::Manner::WriteBesideOthers).await.map(Transaction::Postgres)
            }
        }
    }

    /// Begins a transaction that reads the same state throughout. Only PostgreSQL needs one.
    pub(crate) async fn begin_snapshot(&self) -> Result<Transaction, StoreError> {
        match &self.place {
            Place::Sqlite(_) => Err(StoreError::UnsupportedSeparation { separation: Separation::File }),
            Place::Postgres(place) => {
                place.begin(self.scope, postgres::Manner::Snapshot).await.map(Transaction::Postgres)
            }
        }
    }

    /// Waits until nobody is in a transaction here, and lets nobody in until the pause ends. Only what is on a server
    /// can be paused.
    pub(crate) async fn pause(&self) -> Result<Pause, StoreError> {
        match &self.place {
            Place::Sqlite(_) => Err(StoreError::UnsupportedSeparation { separation: Separation::File }),
            Place::Postgres(place) => place.pause().await,
        }
    }

    pub(crate) async fn fetch_all(&self, sql: &'static str, values: Vec<Value>) -> Result<Vec<Row>, StoreError> {
        match &self.place {
            Place::Sqlite(pools) => pools.fetch_all(sql, values).await,
            Place::Postgres(place) => {
                place.begin(self.scope, postgres::Manner::Read).await?.fetch_all(sql, values).await
            }
        }
    }

    pub(crate) async fn fetch_optional(
        &self,
        sql: &'static str,
        values: Vec<Value>,
    ) -> Result<Option<Row>, StoreError> {
        match &self.place {
            Place::Sqlite(pools) => pools.fetch_optional(sql, values).await,
            Place::Postgres(place) => {
                place.begin(self.scope, postgres::Manner::Read).await?.fetch_optional(sql, values).await
            }
        }
    }

    /// Brings what was written into the database's own file and empties its log, so that nothing that was overwritten
    /// stays behind there. A server does so in its own time.
    pub(crate) async fn checkpoint(&self) -> Result<(), StoreError> {
        match &self.place {
            Place::Sqlite(pools) => pools.checkpoint().await,
            Place::Postgres(_) => Ok(()),
        }
    }

    /// Writes the database's file anew, without what was ever deleted from it. A server does so in its own time.
    pub(crate) async fn compact(&self) -> Result<(), StoreError> {
        match &self.place {
            Place::Sqlite(pools) => pools.compact().await,
            Place::Postgres(_) => Ok(()),
        }
    }

    /// Waits for what is in flight and closes every connection that is this place's alone.
    pub(crate) async fn close(&self) {
        match &self.place {
            Place::Sqlite(pools) => pools.close().await,
            Place::Postgres(place) => place.close().await,
        }
    }
}

/// A writing transaction.
#[derive(Debug)]
pub(crate) enum Transaction {
    Sqlite(sqlite::Transaction),
    Postgres(postgres::Transaction),
}

impl Transaction {
    /// Runs a statement; gives how many rows it touched.
    pub(crate) async fn execute(&mut self, sql: &'static str, values: Vec<Value>) -> Result<u64, StoreError> {
        match self {
            Self::Sqlite(transaction) => transaction.execute(sql, values).await,
            Self::Postgres(transaction) => transaction.execute(sql, values).await,
        }
    }

    /// Runs a migration: several statements, no values.
    pub(crate) async fn execute_script(&mut self, script: &'static str) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(transaction) => transaction.execute_script(script).await,
            Self::Postgres(transaction) => transaction.execute_script(script).await,
        }
    }

    pub(crate) async fn fetch_all(&mut self, sql: &'static str, values: Vec<Value>) -> Result<Vec<Row>, StoreError> {
        match self {
            Self::Sqlite(transaction) => transaction.fetch_all(sql, values).await,
            Self::Postgres(transaction) => transaction.fetch_all(sql, values).await,
        }
    }

    pub(crate) async fn fetch_optional(
        &mut self,
        sql: &'static str,
        values: Vec<Value>,
    ) -> Result<Option<Row>, StoreError> {
        match self {
            Self::Sqlite(transaction) => transaction.fetch_optional(sql, values).await,
            Self::Postgres(transaction) => transaction.fetch_optional(sql, values).await,
        }
    }

    /// Lets rows refer to what is not there, until the transaction ends.
    pub(crate) async fn defer_references(&mut self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(transaction) => transaction.execute("PRAGMA defer_foreign_keys = 1", Vec::new()).await,
            Self::Postgres(transaction) => transaction.execute("SET CONSTRAINTS ALL DEFERRED", Vec::new()).await,
        }
        .map(|_| ())
    }

    /// The first row of a statement that always gives one.
    pub(crate) async fn fetch_one(&mut self, sql: &'static str, values: Vec<Value>) -> Result<Row, StoreError> {
        self.fetch_optional(sql, values).await?.ok_or_else(|| StoreError::corrupt(format!("no row from: {sql}")))
    }

    /// Makes it last. The permit comes from an event that is recorded in it, or from a reason why there is none.
    pub(crate) async fn commit(self, _: Permit) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(transaction) => transaction.commit().await,
            Self::Postgres(transaction) => transaction.commit().await,
        }
    }
}
