//! The schema, as numbered files that are applied once each, in order, and never changed afterwards. Numbers may have
//! gaps, and a file may come after one of a higher number: what was applied is a set, not a highest number.
//!
//! Every step is written for both databases, under the same number. On PostgreSQL the owner applies them, and each
//! builds the walls of its tables with the functions of `migrations/postgres/walls.sql`.

use std::collections::BTreeSet;

use atelier_domain::{Digest, Timestamp};

use crate::audit::Unrecorded;
use crate::error::StoreError;
use crate::sql::{Database, Scope, Server, Transaction, values};

/// One step of a schema.
#[derive(Debug)]
pub(crate) struct Migration {
    version: i64,
    name: &'static str,
    pub(crate) script: &'static str,
}

/// A schema, for both databases.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Schema {
    pub(crate) sqlite: &'static [Migration],
    pub(crate) postgres: &'static [Migration],
}

macro_rules! schema {
    ($folder:literal: $($version:literal $name:literal,)*) => {
        Schema {
            sqlite: schema!(@steps "../migrations/sqlite/", $folder, $($version $name,)*),
            postgres: schema!(@steps "../migrations/postgres/", $folder, $($version $name,)*),
        }
    };
    (@steps $database:literal, $folder:literal, $($version:literal $name:literal,)*) => {
        &[$(Migration {
            version: $version,
            name: $name,
            script: include_str!(concat!($database, $folder, "/", $name, ".sql")),
        },)*]
    };
}

/// The step of the control database that made the tables of data keys.
const DATA_KEYS_STEP: i64 = 10;

/// The step of a tenant's database from which on it says whose it is.
const IDENTITY_STEP: i64 = 2;

/// The schema of the control database.
pub(crate) const CONTROL: Schema = schema!("control":
    1 "0001_first",
    2 "0002_separation",
    10 "0010_data_keys",
    16 "0016_suspension",
    17 "0017_erasures",
    20 "0020_organization",
    22 "0022_audit_chain",
    23 "0023_organization_in_use",
    24 "0024_buckets",
    25 "0025_no_statistics",
    30 "0030_sign_on",
);

/// The schema of a tenant's database.
pub(crate) const TENANT: Schema = schema!("tenant":
    1 "0001_first",
    2 "0002_identity",
    3 "0003_moving",
    22 "0022_audit_chain",
    24 "0024_no_statistics",
);

/// What steps on PostgreSQL may call.
const WALLS: &str = include_str!("../migrations/postgres/walls.sql");
const CREATE_HISTORY: &str = "CREATE TABLE IF NOT EXISTS schema_history (
    version BIGINT NOT NULL PRIMARY KEY, name TEXT NOT NULL, script TEXT NOT NULL, applied_at BIGINT NOT NULL)";
const READ_HISTORY: &str = "SELECT version, script FROM schema_history ORDER BY version";
const ADD_HISTORY: &str = "INSERT INTO schema_history (version, name, script, applied_at) VALUES ($1, $2, $3, $4)";

/// Brings a database to the schema of this program, in one transaction.
///
/// # Errors
/// [`StoreError::NewerSchema`] when it is past that already, and then nothing was touched; [`StoreError::Corrupt`] when
/// a step was applied that reads otherwise here.
pub(crate) async fn migrate(
    database: &Database,
    place: &str,
    steps: &[Migration],
    now: Timestamp,
) -> Result<(), StoreError> {
    let mut transaction = database.begin().await?;
    transaction.execute(CREATE_HISTORY, values![]).await?;
    apply(&mut transaction, place, steps, now).await?;
    transaction.commit(Unrecorded::Schema.permit()).await
}

/// Brings a schema of a PostgreSQL database to that of this program, as the owner; without the owner it must be there
/// already.
///
/// # Errors
/// As [`migrate`]; [`StoreError::OlderSchema`] when there is something to do and nobody to do it.
pub(crate) async fn migrate_schema(
    server: &Server,
    schema: &str,
    steps: &[Migration],
    now: Timestamp,
) -> Result<(), StoreError> {
    let place = format!("schema {schema} of the database");
    if is_up_to_date(server, schema, &place, steps).await? {
        return Ok(());
    }
    let owner = server.schema_as_owner(schema).ok_or(StoreError::OlderSchema { place: place.clone() })?;
    let migrated = migrate_as_owner(&owner, server.application_role(), schema, &place, steps, now).await;
    owner.close().await;
    migrated
}

/// Whether a control database, of this version or an older one, has the tables of data keys.
pub(crate) async fn has_data_keys(control: &Database) -> Result<bool, StoreError> {
    const SQL: &str = "SELECT version FROM schema_history WHERE version = $1";
    Ok(control.fetch_optional(SQL, values![DATA_KEYS_STEP]).await?.is_some())
}

/// Whether a SQLite file was ever brought to a schema of ours.
pub(crate) async fn has_history(database: &Database) -> Result<bool, StoreError> {
    const SQL: &str = "SELECT name FROM sqlite_master WHERE type = 'table' AND name = 'schema_history'";
    Ok(database.fetch_optional(SQL, values![]).await?.is_some())
}

/// Whether a tenant's SQLite file is of a schema that says whose it is.
pub(crate) async fn names_its_tenant(database: &Database) -> Result<bool, StoreError> {
    const SQL: &str = "SELECT version FROM schema_history WHERE version = $1";
    Ok(has_history(database).await? && database.fetch_optional(SQL, values![IDENTITY_STEP]).await?.is_some())
}

/// Whether a schema of a PostgreSQL database was ever brought to one of ours.
pub(crate) async fn is_made(server: &Server, schema: &str) -> Result<bool, StoreError> {
    has_history_inside(&mut server.schema(schema, Scope::Control).begin().await?).await
}

async fn has_history_inside(transaction: &mut Transaction) -> Result<bool, StoreError> {
    const SQL: &str = "SELECT CAST(to_regclass('schema_history') IS NOT NULL AS INT)::BIGINT AS there";
    transaction.fetch_one(SQL, values![]).await?.flag("there")
}

/// Removes a schema with all that is in it, as the owner.
pub(crate) async fn drop_schema(server: &Server, schema: &str) -> Result<(), StoreError> {
    let owner = server.schema_as_owner(schema).ok_or(StoreError::OwnerNeeded)?;
    let dropped = async {
        let mut transaction = owner.begin().await?;
        transaction
            .execute("SELECT set_config('atelier.app_role', $1, true)", values![server.application_role()])
            .await?;
        transaction.execute_script(WALLS).await?;
        transaction.execute("SELECT pg_temp.drop_schema($1)", values![schema]).await?;
        transaction.commit(Unrecorded::Schema.permit()).await
    };
    let dropped = dropped.await;
    owner.close().await;
    dropped
}

async fn migrate_as_owner(
    owner: &Database,
    application_role: &str,
    schema: &str,
    place: &str,
    steps: &[Migration],
    now: Timestamp,
) -> Result<(), StoreError> {
    let mut transaction = owner.begin().await?;
    transaction.execute("SELECT set_config('atelier.app_role', $1, true)", values![application_role]).await?;
    transaction.execute_script(WALLS).await?;
    transaction.execute("SELECT pg_temp.make_schema($1)", values![schema]).await?;
    transaction.execute(CREATE_HISTORY, values![]).await?;
    transaction.execute("SELECT pg_temp.show_history()", values![]).await?;
    apply(&mut transaction, place, steps, now).await?;
    transaction.commit(Unrecorded::Schema.permit()).await
}

/// Whether every step was applied, as far as the application may see.
async fn is_up_to_date(server: &Server, schema: &str, place: &str, steps: &[Migration]) -> Result<bool, StoreError> {
    let mut transaction = server.schema(schema, Scope::Control).begin().await?;
    if !has_history_inside(&mut transaction).await? {
        return Ok(false);
    }
    let applied = read_applied(&mut transaction, place, steps).await?;
    Ok(steps.iter().all(|step| applied.contains(&step.version)))
}

async fn apply(
    transaction: &mut Transaction,
    place: &str,
    steps: &[Migration],
    now: Timestamp,
) -> Result<(), StoreError> {
    let applied = read_applied(transaction, place, steps).await?;
    for step in steps.iter().filter(|step| !applied.contains(&step.version)) {
        transaction.execute_script(step.script).await?;
        let script = Digest::of(step.script.as_bytes());
        transaction.execute(ADD_HISTORY, values![step.version, step.name, script, now]).await?;
    }
    Ok(())
}

/// The numbers of the steps that were applied, each of which must be one of ours.
async fn read_applied(
    transaction: &mut Transaction,
    place: &str,
    steps: &[Migration],
) -> Result<BTreeSet<i64>, StoreError> {
    let mut applied = BTreeSet::new();
    for row in transaction.fetch_all(READ_HISTORY, values![]).await? {
        let found = row.int("version")?;
        let Some(step) = steps.iter().find(|step| step.version == found) else {
            let known = steps.iter().map(|step| step.version).max().unwrap_or(0);
            return Err(StoreError::NewerSchema { place: place.to_owned(), found, known });
        };
        if row.parsed::<Digest>("script")? != Digest::of(step.script.as_bytes()) {
            return Err(StoreError::corrupt(format!("schema step {found} of {place} is not ours")));
        }
        applied.insert(found);
    }
    Ok(applied)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_seconds(1);
    const ONE: Migration = Migration { version: 1, name: "one", script: "CREATE TABLE one (id INTEGER)" };
    const TWO: Migration =
        Migration { version: 2, name: "two", script: "CREATE TABLE two (id INTEGER); DROP TABLE one" };
    const TEN: Migration = Migration { version: 10, name: "ten", script: "CREATE TABLE ten (id INTEGER)" };
    const OTHER_ONE: Migration = Migration { version: 1, name: "one", script: "CREATE TABLE eins (id INTEGER)" };
    const BROKEN: Migration =
        Migration { version: 2, name: "broken", script: "CREATE TABLE two (id INTEGER); NONSENSE" };

    async fn check(before: &[Migration], after: &[Migration], expected: fn(&Result<(), StoreError>) -> bool) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.db");
        let database = Database::open_sqlite(&file, true, 1, Scope::Control).await.unwrap();
        migrate(&database, "a.db", before, NOW).await.unwrap();
        let result = migrate(&database, "a.db", after, NOW).await;
        assert!(expected(&result), "{before:?} then {after:?}: {result:?}");
    }

    #[tokio::test]
    async fn a_schema_goes_forward_only() {
        check(&[], &[ONE, TWO], Result::is_ok).await;
        check(&[ONE], &[ONE, TWO], Result::is_ok).await;
        check(&[ONE, TWO], &[ONE, TWO], Result::is_ok).await;
        check(&[ONE, TWO], &[ONE], |result| matches!(result, Err(StoreError::NewerSchema { found: 2, known: 1, .. })))
            .await;
        check(&[ONE, TEN], &[ONE, TWO], |result| {
            matches!(result, Err(StoreError::NewerSchema { found: 10, known: 2, .. }))
        })
        .await;
        check(&[ONE], &[OTHER_ONE], |result| matches!(result, Err(StoreError::Corrupt { .. }))).await;
    }

    #[tokio::test]
    async fn a_step_may_come_after_one_of_a_higher_number() {
        check(&[ONE, TEN], &[ONE, TWO, TEN], Result::is_ok).await;
        check(&[ONE, TEN], &[ONE, BROKEN, TEN], Result::is_err).await;
    }

    #[tokio::test]
    async fn a_step_that_fails_leaves_no_trace() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.db");
        let database = Database::open_sqlite(&file, true, 1, Scope::Control).await.unwrap();
        assert!(migrate(&database, "a.db", &[ONE, BROKEN], NOW).await.is_err());
        migrate(&database, "a.db", &[ONE, TWO], NOW).await.unwrap();
    }
}
