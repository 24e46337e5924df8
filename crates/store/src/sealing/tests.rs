//! What somebody with the files but without the keys can do to a tenant's data: nothing that is not noticed.

use std::path::Path;
use std::sync::Arc;

use atelier_access::right::{CreateTenant, ReadRuns, ReadSources, StartRun, WorkJobs, WriteSources};
use atelier_access::{Caller, Granted, Right};
use atelier_domain::{ManualClock, Plan, RunId, SourceId, Suffix, TenantId, Timestamp};
use bytes::Bytes;
use serde_json::json;

use crate::audit::Unrecorded;
use crate::open::{DatabaseOptions, OpenOptions};
use crate::root_key::RootKeyOptions;
use crate::runs::{NewRun, RunState};
use crate::sources::{NewSource, SourceOrigin};
use crate::sql::values;
use crate::{Store, StoreError};

async fn open(folder: &Path) -> Result<Store, StoreError> {
    Store::open(OpenOptions {
        folder: folder.to_owned(),
        database: DatabaseOptions::Files,
        blobs: crate::blobs::BlobOptions::Folder,
        root_key: RootKeyOptions::InFolder,
        erasure_log: None,
        clock: Arc::new(ManualClock::at(Timestamp::from_seconds(1_800_000_000))),
    })
    .await
}

/// Whoever may do it: the operator, for the right's tenant.
async fn may<R: Right>(store: &Store, right: R) -> Granted<R> {
    let operator = store.replace_operator_key().await.unwrap().reveal();
    let operator = store.authenticate(&operator).await.unwrap();
    match right.tenant() {
        Some(tenant) => operator.acting_for(tenant).unwrap().grant(right).unwrap(),
        None => operator.grant(right).unwrap(),
    }
}

fn worker() -> Granted<WorkJobs> {
    Caller::system("worker").grant(WorkJobs).unwrap()
}

async fn make_tenant(store: &Store, name: &str) -> TenantId {
    store.create_tenant(&may(store, CreateTenant).await, name.parse().unwrap(), Plan::Tuned).await.unwrap().0.id
}

async fn make_source(store: &Store, tenant: TenantId, name: &str) -> SourceId {
    let archive = Bytes::from(format!("archive of {name}"));
    let source = NewSource { name: name.to_owned(), origin: SourceOrigin::Upload, archive };
    store.create_source(&may(store, WriteSources { tenant }).await, source).await.unwrap().id
}

async fn make_run(store: &Store, tenant: TenantId, source: SourceId, epochs: u32) -> RunId {
    let options = json!({"epochs": epochs});
    let run = NewRun { source, suffix: Suffix::default(), options, idempotency_key: None };
    store.create_run(&may(store, StartRun { tenant }).await, run).await.unwrap().id
}

/// Does something to a tenant's file behind the store's back.
async fn tamper(store: &Store, tenant: TenantId, sql: &'static str, values: Vec<crate::sql::Value>) {
    let mut transaction = store.tenant_database(tenant).await.unwrap().begin().await.unwrap();
    assert!(transaction.execute(sql, values).await.unwrap() > 0, "{sql}");
    transaction.commit(Unrecorded::Test.permit()).await.unwrap();
}

/// A text as it stands in a column.
async fn stored(store: &Store, tenant: TenantId, sql: &'static str, values: Vec<crate::sql::Value>) -> String {
    let place = store.tenant_database(tenant).await.unwrap();
    place.fetch_optional(sql, values).await.unwrap().unwrap().text("text").unwrap()
}

#[tokio::test]
async fn a_column_opens_in_its_own_row_and_for_its_own_tenant_only() {
    const NAME: &str = "SELECT name AS text FROM sources WHERE id = $1";
    const SET_NAME: &str = "UPDATE sources SET name = $2 WHERE id = $1";
    const OPTIONS: &str = "SELECT options AS text FROM runs WHERE id = $1";
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await.unwrap();
    let (acme, evil) = (make_tenant(&store, "acme").await, make_tenant(&store, "evil").await);
    let (one, other) = (make_source(&store, acme, "one").await, make_source(&store, acme, "other").await);
    let theirs = make_source(&store, evil, "theirs").await;
    let (run, second) = (make_run(&store, acme, one, 1).await, make_run(&store, acme, one, 2).await);
    let read = may(&store, ReadSources { tenant: acme }).await;
    let name = |source| stored(&store, acme, NAME, values![source]);
    let (ours, others) = (name(one).await, name(other).await);
    let foreign = stored(&store, evil, NAME, values![theirs]).await;
    let options = stored(&store, acme, OPTIONS, values![run]).await;
    // From another row, of another tenant, from another column, and never sealed.
    for planted in [others, foreign, options.clone(), "one".to_owned(), String::new()] {
        tamper(&store, acme, SET_NAME, values![one, planted.as_str()]).await;
        assert!(matches!(store.source(&read, one).await, Err(StoreError::DoesNotOpen { .. })), "{planted}");
        assert!(matches!(store.sources(&read).await, Err(StoreError::DoesNotOpen { .. })), "{planted}");
    }
    tamper(&store, acme, SET_NAME, values![one, ours.as_str()]).await;
    assert_eq!(store.source(&read, one).await.unwrap().name, "one");
    tamper(
        &store,
        acme,
        "UPDATE sources SET digest = (SELECT digest FROM sources WHERE id = $2) WHERE id = $1",
        values![one, other],
    )
    .await;
    assert!(matches!(store.source(&read, one).await, Err(StoreError::DoesNotOpen { .. })), "another archive");

    let read = may(&store, ReadRuns { tenant: acme }).await;
    tamper(&store, acme, "UPDATE runs SET options = $2 WHERE id = $1", values![second, options]).await;
    assert!(matches!(store.run(&read, second).await, Err(StoreError::DoesNotOpen { .. })));
    tamper(&store, acme, "UPDATE run_events SET kind = $2 WHERE run_id = $1", values![run, "other"]).await;
    assert!(matches!(store.run_events(&read, run, 0, 9).await, Err(StoreError::DoesNotOpen { .. })));
}

#[tokio::test]
async fn case_33_a_queued_run_whose_rows_were_changed_is_not_carried_out() {
    for change in [
        "UPDATE runs SET source_id = $2 WHERE id = $1",
        "UPDATE runs SET suffix = 'other' WHERE id = $1 AND $2 <> ''",
        "UPDATE runs SET job_id = 'job_' || substr($2, 5) WHERE id = $1",
        "UPDATE runs SET options = '{\"epochs\": 9}' WHERE id = $1 AND $2 <> ''",
    ] {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path()).await.unwrap();
        let acme = make_tenant(&store, "acme").await;
        let (one, other) = (make_source(&store, acme, "one").await, make_source(&store, acme, "other").await);
        let run = make_run(&store, acme, one, 1).await;
        tamper(&store, acme, change, values![run, other]).await;
        let whole = make_run(&store, acme, one, 1).await;
        // The changed one is taken out of the queue; it does not stand in the way of the next.
        let claimed = store.claim_job(&worker()).await.unwrap().expect("the other run is whole");
        assert_eq!(claimed.run.id, whole, "{change}");
        assert!(store.claim_job(&worker()).await.unwrap().is_none(), "{change}");
        let sql = "SELECT state || ' ' || error_code AS text FROM runs WHERE id = $1";
        let ended = stored(&store, acme, sql, values![run]).await;
        assert_eq!(ended, format!("{} run_changed", RunState::Failed), "{change}");
    }
}

#[tokio::test]
async fn case_45_data_that_comes_back_after_its_key_was_destroyed_stays_unreadable() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await.unwrap();
    let acme = make_tenant(&store, "acme").await;
    let source = make_source(&store, acme, "one").await;
    let row = store.control().fetch_optional("SELECT wrapped FROM data_keys", values![]).await.unwrap().unwrap();
    let wrapped = row.blob("wrapped").unwrap();
    let is_in_files = || {
        let files = ["control.db", "control.db-wal"].map(|name| std::fs::read(folder.path().join(name)).unwrap());
        files.iter().any(|bytes| bytes.windows(wrapped.len()).any(|window| window == wrapped))
    };
    assert!(is_in_files());
    // As after a restore of rows and blobs, but not of keys, from before the tenant was erased.
    store.destroy_data_keys(acme).await.unwrap();
    store.destroy_data_keys(acme).await.unwrap();
    assert!(!is_in_files(), "nor does the file keep what was overwritten");
    drop(store);
    let store = open(folder.path()).await.unwrap();
    let read = may(&store, ReadSources { tenant: acme }).await;
    assert!(matches!(store.source(&read, source).await, Err(StoreError::NotFound { .. })));
    assert!(matches!(store.source_archive(&read, source).await, Err(StoreError::NotFound { .. })));
    let keys = store.control().fetch_all("SELECT wrapped FROM data_keys WHERE wrapped IS NOT NULL", values![]).await;
    assert!(keys.unwrap().is_empty(), "no new key is made for it");
}
