//! What comes out of a statement.

use std::str::FromStr;

use atelier_domain::{Timestamp, VersionNumber};
use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;
use sqlx::{Postgres, Row as _, Sqlite};

use crate::error::StoreError;

/// A row of an answer.
#[derive(Debug)]
pub(crate) enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

impl Row {
    fn get<'r, T>(&'r self, column: &'static str) -> Result<T, StoreError>
    where
        T: sqlx::Decode<'r, Sqlite> + sqlx::Type<Sqlite> + sqlx::Decode<'r, Postgres> + sqlx::Type<Postgres>,
    {
        let value = match self {
            Self::Sqlite(row) => row.try_get(column),
            Self::Postgres(row) => row.try_get(column),
        };
        value.map_err(|error| StoreError::corrupt(format!("column {column}: {error}")))
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

    pub(crate) fn blob(&self, column: &'static str) -> Result<Vec<u8>, StoreError> {
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
}
