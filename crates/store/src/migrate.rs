//! The schema, as numbered files that are applied once each, in order, and never changed afterwards. Numbers may have
//! gaps, and a file may come after one of a higher number: what was applied is a set, not a highest number.

use std::collections::BTreeSet;
use std::path::Path;

use atelier_domain::{Digest, Timestamp};

use crate::error::StoreError;
use crate::sql::{Database, values};

/// One step of a schema.
#[derive(Debug)]
pub(crate) struct Migration {
    version: i64,
    name: &'static str,
    script: &'static str,
}

/// The schema of the control database.
pub(crate) const CONTROL: &[Migration] =
    &[Migration { version: 1, name: "first", script: include_str!("../migrations/sqlite/control/0001_first.sql") }];

/// The schema of a tenant's database.
pub(crate) const TENANT: &[Migration] =
    &[Migration { version: 1, name: "first", script: include_str!("../migrations/sqlite/tenant/0001_first.sql") }];

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
    file: &Path,
    steps: &[Migration],
    now: Timestamp,
) -> Result<(), StoreError> {
    let mut transaction = database.begin().await?;
    transaction.execute(CREATE_HISTORY, values![]).await?;
    let mut applied = BTreeSet::new();
    for row in transaction.fetch_all(READ_HISTORY, values![]).await? {
        let found = row.int("version")?;
        let Some(step) = steps.iter().find(|step| step.version == found) else {
            let known = steps.iter().map(|step| step.version).max().unwrap_or(0);
            return Err(StoreError::NewerSchema { file: file.to_owned(), found, known });
        };
        if row.parsed::<Digest>("script")? != Digest::of(step.script.as_bytes()) {
            return Err(StoreError::corrupt(format!("schema step {found} of {} is not ours", file.display())));
        }
        applied.insert(found);
    }
    for step in steps.iter().filter(|step| !applied.contains(&step.version)) {
        transaction.execute_script(step.script).await?;
        let script = Digest::of(step.script.as_bytes());
        transaction.execute(ADD_HISTORY, values![step.version, step.name, script, now]).await?;
    }
    transaction.commit().await
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
        let database = Database::open_sqlite(&file, true, 1).await.unwrap();
        migrate(&database, &file, before, NOW).await.unwrap();
        let result = migrate(&database, &file, after, NOW).await;
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
        let database = Database::open_sqlite(&file, true, 1).await.unwrap();
        assert!(migrate(&database, &file, &[ONE, BROKEN], NOW).await.is_err());
        migrate(&database, &file, &[ONE, TWO], NOW).await.unwrap();
    }
}
