//! Rows that are gone or spoiled: what is lost is named, is never begun anew, and holds nobody else up.

use std::fs;
use std::path::{Path, PathBuf};

use atelier_access::right::ReadRuns;
use atelier_domain::{Plan, TenantId};
use atelier_store::{RunPage, Store, StoreError, inspect};

use crate::world::{Backend, Tenant, World, database_options, open_store, worker};

/// What happens to a file, and its name.
type Damage = (&'static str, fn(&Path));

const DAMAGES: [Damage; 5] = [
    ("removed", |file| fs::remove_file(file).unwrap()),
    ("emptied", |file| fs::write(file, b"").unwrap()),
    ("scribbled over", |file| fs::write(file, vec![7; 8_192]).unwrap()),
    ("cut", |file| fs::File::options().write(true).open(file).unwrap().set_len(5_000).unwrap()),
    ("made anew", |file| {
        fs::remove_file(file).unwrap();
        let made = std::process::Command::new("python3")
            .args(["-c", "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('VACUUM')"])
            .arg(file)
            .status();
        // A header and a page, and nothing of ours; without Python, nothing at all.
        if !made.is_ok_and(|status| status.success()) {
            fs::write(file, b"").unwrap();
        }
    }),
];

/// Does it to a database file in its log's absence.
fn damage(file: &Path, how: fn(&Path)) {
    for rest in ["-wal", "-shm"] {
        let mut path = file.to_owned().into_os_string();
        path.push(rest);
        let _ = fs::remove_file(path);
    }
    how(file);
}

fn file_of(data: &Path, tenant: TenantId) -> PathBuf {
    data.join("tenants").join(format!("{}.db", tenant.hex()))
}

fn names(error: &StoreError, part: &str) -> bool {
    let text = error.to_string();
    text.contains(part) && text.contains("backup")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_control_database_that_is_gone_is_not_begun_anew() {
    for (what, how) in DAMAGES {
        let world = World::open(Backend::Sqlite).await;
        let tenant = world.tenant("acme", Plan::Tuned).await;
        world.store.close().await;
        let World { folder, clock, backend, store, .. } = world;
        drop(store);
        let (data, control) = (folder.path().join("data"), folder.path().join("data/control.db"));
        let kept = fs::read(&control).unwrap();
        damage(&control, how);
        match open_store(&backend, &folder, &clock).await {
            Err(error) => assert!(names(&error, "control.db"), "{what}: {error}"),
            Ok(_) => panic!("{what}: it opened"),
        }
        let looked = inspect(&data, &database_options(&backend)).await;
        assert!(!looked.is_ok_and(|findings| findings.is_none_or(|findings| findings.is_empty())), "{what}: doctor");
        // Put back, all is as it was.
        damage(&control, |file| {
            let _ = fs::remove_file(file);
        });
        fs::write(&control, &kept).unwrap();
        let store = open_store(&backend, &folder, &clock).await.unwrap();
        assert_eq!(store.authenticate(&tenant.key.reveal()).await.unwrap(), tenant.admin);
        store.close().await;
    }
}

async fn list(store: &Store, tenant: &Tenant) -> Result<usize, StoreError> {
    let grant = tenant.may(ReadRuns { tenant: tenant.id() });
    store.runs(&grant, RunPage { limit: 10, after: None }).await.map(|runs| runs.len())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenants_file_that_is_gone_is_that_tenants_trouble_alone() {
    for (what, how) in DAMAGES {
        let world = World::open(Backend::Sqlite).await;
        let (hit, spared) = (world.tenant("hit", Plan::Tuned).await, world.tenant("spared", Plan::Tuned).await);
        // The job of the one who is hit comes first in the queue.
        world.start_run(&hit).await;
        world.start_run(&spared).await;
        world.store.close().await;
        let World { folder, clock, backend, store, .. } = world;
        drop(store);
        let (data, file) = (folder.path().join("data"), file_of(&folder.path().join("data"), hit.id()));
        let kept = fs::read(&file).unwrap();
        damage(&file, how);
        let store = open_store(&backend, &folder, &clock).await.unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(list(&store, &spared).await.unwrap(), 1, "{what}");
        match list(&store, &hit).await {
            Err(error) => assert!(names(&error, &hit.id().hex()), "{what}: {error}"),
            Ok(runs) => panic!("{what}: {runs} runs"),
        }
        let grant = worker();
        let claimed = store.claim_job(&grant).await.unwrap().unwrap_or_else(|| panic!("{what}: no job"));
        assert_eq!(claimed.lease.tenant(), spared.id(), "{what}");
        let findings = inspect(&data, &database_options(&backend)).await.unwrap().unwrap();
        let named = findings.iter().filter(|finding| finding.to_string().contains(&hit.id().hex())).count();
        assert!(named > 0 && named == findings.len(), "{what}: {findings:?}");
        store.close().await;
        drop(store);
        // Put back, the tenant is served as before, and its job is found again.
        damage(&file, |file| {
            let _ = fs::remove_file(file);
        });
        fs::write(&file, &kept).unwrap();
        let store = open_store(&backend, &folder, &clock).await.unwrap();
        assert_eq!(list(&store, &hit).await.unwrap(), 1, "{what}");
        let mut claimed = Vec::new();
        while let Some(job) = store.claim_job(&grant).await.unwrap() {
            claimed.push(job.lease.tenant());
        }
        assert!(claimed.len() == 2 && claimed.contains(&hit.id()), "{what}: {claimed:?}");
        store.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenants_own_place_on_a_server_that_is_gone_is_not_made_anew() {
    let database = || std::sync::Arc::new(crate::postgres::TestDatabase::create());
    for backend in [Backend::PostgresSchema(database()), Backend::PostgresDatabase(database())] {
        let world = World::open(backend).await;
        let (hit, spared) = (world.tenant("hit", Plan::Tuned).await, world.tenant("spared", Plan::Tuned).await);
        world.store.close().await;
        let World { folder, clock, backend, store, .. } = world;
        drop(store);
        match &backend {
            Backend::PostgresSchema(database) => {
                let _ = database.sql(&format!("DROP SCHEMA tenant_{} CASCADE", hit.id().hex()));
            }
            _ => {
                let _ = backend.test_database().sql(&format!("DROP DATABASE atelier_{}", hit.id().hex()));
            }
        }
        let store = open_store(&backend, &folder, &clock).await.unwrap();
        assert_eq!(list(&store, &spared).await.unwrap(), 0);
        for _ in 0..2 {
            match list(&store, &hit).await {
                Err(error) => assert!(names(&error, &hit.id().hex()), "{error}"),
                Ok(runs) => panic!("{runs} runs"),
            }
        }
        let findings = inspect(&folder.path().join("data"), &database_options(&backend)).await.unwrap().unwrap();
        assert!(findings.iter().any(|finding| finding.to_string().contains(&hit.id().hex())), "{findings:?}");
        store.close().await;
    }
}
