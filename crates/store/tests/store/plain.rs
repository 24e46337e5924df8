//! Data of a version before encryption: sealed at the first start, and all of it readable afterwards.
//!
//! `plain/` holds what that version left of two tenants with sources, versions, a refused, a failed and a running run:
//! a data folder each, the one for PostgreSQL with a dump of the database.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use atelier_access::right::{CompleteAs, ListTenants, ReadRuns, ReadSources, ReadVersions, StartRun};
use atelier_access::{Caller, Granted, Right};
use atelier_domain::{Digest, ManualClock, ModelName, TenantId};
use atelier_store::{NewRun, RunPage, RunState, Store, StoreError};
use serde_json::json;
use tempfile::TempDir;

use crate::encryption::places_with;
use crate::postgres::command;
use crate::world::{Backend, START, assert_error, load_right, new_run, open_store, worker};

/// What stands in texts of the tenants; the actions that the trail names are another matter.
const TENANTS: [(&str, &str); 2] = [("acme", "plainacme"), ("other", "plainother")];
/// Everything that the two had, apart from the trail, where a source's name stood then and stays.
const PARTS: [&str; 11] = [
    "archive",
    "options",
    "idempotency",
    "event",
    "checkpoint",
    "config",
    "manifest",
    "eval",
    "result",
    "refusal",
    "failure",
];

fn unpack(archive: &[u8]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    tar::Archive::new(flate2::read::GzDecoder::new(archive)).unpack(&data).unwrap();
    folder
}

/// Puts the dump into an empty database.
fn restore(backend: &Backend, dump: &Path) {
    let database = &backend.test_database().name;
    let arguments = ["-qX", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", database, "-f"];
    let output = command("psql").args(arguments).arg(dump).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    fs::remove_file(dump).unwrap();
}

fn may<R: Right>(operator: &Caller, tenant: TenantId, right: R) -> Granted<R> {
    operator.acting_for(tenant).unwrap().grant(right).unwrap()
}

async fn check_tenant(store: &Store, operator: &Caller, tenant: TenantId, mark: &str) {
    let sources = store.sources(&may(operator, tenant, ReadSources { tenant })).await.unwrap();
    assert_eq!(sources.iter().map(|source| source.name.as_str()).collect::<Vec<_>>(), [format!("{mark}-name")]);
    let archive = store.source_archive(&may(operator, tenant, ReadSources { tenant }), sources[0].id).await.unwrap();
    assert_eq!(archive, format!("{mark}-archive"));

    let read = || may(operator, tenant, ReadRuns { tenant });
    let mut runs = store.runs(&read(), RunPage { limit: 100, after: None }).await.unwrap();
    runs.reverse();
    let states = [RunState::Live, RunState::Live, RunState::Refused, RunState::Failed, RunState::Running];
    assert_eq!(runs.iter().map(|run| run.state).collect::<Vec<_>>(), states);
    for (at, run) in runs.iter().enumerate() {
        assert_eq!(run.options, json!({"epochs": at + 1, "note": format!("{mark}-options")}));
        let events = store.run_events(&read(), run.id, 0, 100).await.unwrap();
        assert!(events.len() >= 2 && events.iter().all(|event| event.body.is_object()), "{events:?}");
    }
    let messages: Vec<_> = runs.iter().filter_map(|run| run.error.as_ref()).map(|error| &error.message).collect();
    assert_eq!(messages, [&format!("{mark}-refusal"), &format!("{mark}-failure")]);
    assert_eq!(runs[0].result, Some(json!({"note": format!("{mark}-result")})));

    let versions = store.versions(&may(operator, tenant, ReadVersions { tenant })).await.unwrap();
    assert_eq!(versions.iter().map(|version| version.number.get()).collect::<Vec<_>>(), [2, 1]);
    assert_eq!(versions[0].parent, Some(versions[1].number));
    for version in &versions {
        assert_eq!(version.manifest, json!({"note": format!("{mark}-manifest")}));
        assert_eq!(version.eval, json!({"note": format!("{mark}-eval")}));
        let adapter = store.adapter(&load_right(tenant), version.digest).await.unwrap();
        assert_eq!(adapter.config, format!("{mark}-config"));
    }
    let serving = store.resolve(&may(operator, tenant, CompleteAs { tenant }), &ModelName::Alias).await.unwrap();
    assert_eq!(serving.adapter(), Some(Digest([2; 32])));

    // The same idempotency key still starts the same run, and no other.
    let start = || may(operator, tenant, StartRun { tenant });
    let key = Some(format!("{mark}-idempotency"));
    let again = NewRun { options: runs[0].options.clone(), idempotency_key: key, ..new_run(sources[0].id) };
    assert_eq!(store.create_run(&start(), again.clone()).await.unwrap().id, runs[0].id);
    let changed = NewRun { options: json!({}), ..again };
    assert_error!(store.create_run(&start(), changed).await, StoreError::IdempotencyMismatch);
}

async fn what_was_plain_is_sealed(backend: Backend, archive: &[u8]) {
    let folder = unpack(archive);
    let data = folder.path().join("data");
    if !matches!(backend, Backend::Sqlite) {
        restore(&backend, &data.join("dump.sql"));
    }
    for (_, mark) in TENANTS {
        for part in PARTS {
            let text = format!("{mark}-{part}");
            assert!(!places_with(&backend, &data, &text).is_empty(), "{text} is plain before");
        }
    }
    let clock = Arc::new(ManualClock::at(START));
    clock.advance(std::time::Duration::from_secs(3_600));
    // Twice: at the second start all is as the first left it.
    for start in ["first", "second"] {
        let store = open_store(&backend, &folder, &clock).await.unwrap();
        let operator = store.replace_operator_key().await.unwrap().reveal();
        let operator = store.authenticate(&operator).await.unwrap();
        for (name, mark) in TENANTS {
            let list = operator.grant(ListTenants).unwrap();
            let tenant = store.tenant_by_name(&list, &name.parse().unwrap()).await.unwrap().id;
            check_tenant(&store, &operator, tenant, mark).await;
            for part in PARTS {
                let text = format!("{mark}-{part}");
                assert_eq!(places_with(&backend, &data, &text), [""; 0], "{text}, {start} start");
            }
        }
        store.close().await;
        drop(store);
    }
    // What was running goes on from its checkpoint.
    let store = open_store(&backend, &folder, &clock).await.unwrap();
    let job = store.claim_job(&worker()).await.unwrap().expect("a run was under way");
    let state = store.read_checkpoint(&job.grant, &job.lease).await.unwrap().unwrap();
    assert!(TENANTS.iter().any(|(_, mark)| state == format!("{mark}-checkpoint")), "{state:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plain_folder_is_sealed_at_its_first_start_on_sqlite() {
    what_was_plain_is_sealed(Backend::Sqlite, include_bytes!("plain/sqlite.tar.gz")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plain_database_is_sealed_at_its_first_start_on_postgres() {
    what_was_plain_is_sealed(Backend::postgres(), include_bytes!("plain/postgres.tar.gz")).await;
}
