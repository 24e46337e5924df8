//! Encryption at rest: what lies in files and databases, and the root key that opens it.

use std::fs;
use std::path::Path;

use atelier_access::right::{ManageTenant, ReadRuns, ReadSources, StartRun, WriteSources};
use atelier_domain::{Digest, Plan};
use atelier_store::{
    AdapterBlob, KeyRotation, NewRun, NewSource, NewVersion, RootKey, RootKeyOptions, RunFailure, RunPage,
    SourceOrigin, Store, StoreError, rotate_keys,
};
use bytes::Bytes;
use serde_json::json;

use crate::files::files_under;
use crate::postgres::command;
use crate::world::{
    Backend, Tenant, World, assert_error, database_options, load_right, new_run, new_version, on_each_database,
    open_options, open_store,
};

/// Two root keys that nobody uses.
const ONE_KEY: &str = "0101010101010101010101010101010101010101010101010101010101010101";
const OTHER_KEY: &str = "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=";
/// What no file may hold.
pub const MARKER: &str = "marker-5f0c9a";

/// Puts the marker into everything that a tenant gives, and that is made from it.
pub async fn plant(world: &World, tenant: &Tenant) {
    let id = tenant.id();
    let archive = Bytes::from(format!("fn {MARKER}() {{}}"));
    let source = NewSource { name: format!("{MARKER}-name"), origin: SourceOrigin::Upload, archive };
    let source = world.store.create_source(&tenant.may(WriteSources { tenant: id }), source).await.unwrap().id;
    let note = |of: &str| json!({"note": format!("{MARKER}-{of}")});
    let run = NewRun { options: note("options"), idempotency_key: Some(format!("{MARKER}-key")), ..new_run(source) };
    world.store.create_run(&tenant.may(StartRun { tenant: id }), run.clone()).await.unwrap();
    let job = world.claim().await.unwrap();
    world.store.append_event(&job.grant, &job.lease, "step", &note("event")).await.unwrap();
    let files = AdapterBlob { config: Bytes::from(format!("{MARKER}-config")), weights: MARKER.into() };
    world.store.put_adapter(&job.grant, &job.lease, Digest([1; 32]), &files).await.unwrap();
    let version =
        NewVersion { manifest: note("manifest"), eval: note("eval"), result: note("result"), ..new_version(1) };
    world.store.publish_version(&job.grant, &job.lease, version).await.unwrap();
    let run = NewRun { idempotency_key: None, ..run };
    world.store.create_run(&tenant.may(StartRun { tenant: id }), run).await.unwrap();
    let job = world.claim().await.unwrap();
    world.store.put_checkpoint(&job.grant, &job.lease, Bytes::from(format!("{MARKER}-state"))).await.unwrap();
    let failure = RunFailure { code: "broken".to_owned(), message: format!("{MARKER}-message"), retry: false };
    world.store.fail_run(&job.grant, &job.lease, failure).await.unwrap();
}

/// All that a tenant can read of its own, as text.
pub async fn everything(store: &Store, tenant: &Tenant) -> String {
    let id = tenant.id();
    let runs = store.runs(&tenant.may(ReadRuns { tenant: id }), RunPage { limit: 100, after: None }).await.unwrap();
    let mut text = format!("{runs:?}");
    for run in &runs {
        text += &format!("{:?}", store.run_events(&tenant.may(ReadRuns { tenant: id }), run.id, 0, 100).await.unwrap());
    }
    let read = tenant.may(ReadSources { tenant: id });
    for source in store.sources(&read).await.unwrap() {
        text += &format!("{source:?} {:?}", store.source_archive(&read, source.id).await.unwrap());
    }
    let versions = store.versions(&tenant.may(atelier_access::right::ReadVersions { tenant: id })).await.unwrap();
    for version in versions {
        text += &format!("{version:?} {:?}", store.adapter(&load_right(id), version.digest).await.unwrap());
    }
    text
}

/// Places that hold a text: files of the folder, and what the database would give to a backup.
pub fn places_with(backend: &Backend, data: &Path, text: &str) -> Vec<String> {
    let holds = |bytes: &[u8]| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    let on_s3 = data.parent().map(|world| world.join(crate::world::S3_FOLDER)).filter(|folder| folder.exists());
    let mut found: Vec<String> = std::iter::once(data.to_owned())
        .chain(on_s3)
        .flat_map(|folder| files_under(&folder))
        .filter(|file| holds(&fs::read(file).unwrap()) || holds(file.as_os_str().as_encoded_bytes()))
        .map(|file| file.display().to_string())
        .collect();
    if !matches!(backend, Backend::Sqlite) {
        let database = &backend.test_database().name;
        let own = "SELECT datname FROM pg_database JOIN atelier.tenants ON datname = 'atelier_' || substr(id, 5)";
        for name in backend.test_database().sql(own).lines().chain([database.as_str()]) {
            let dump = command("pg_dump").args(["-U", "postgres", name]).output().unwrap();
            assert!(dump.status.success(), "{dump:?}");
            if holds(&dump.stdout) {
                found.push(format!("the dump of {name}"));
            }
        }
    }
    found
}

on_each_database! {
    async fn nothing_that_a_tenant_gave_or_made_is_in_any_file(world: World) {
        let acme = world.tenant("acme", Plan::Tuned).await;
        plant(&world, &acme).await;
        let data = world.folder.path().join("data");
        assert_eq!(places_with(&world.backend, &data, MARKER), [""; 0], "while it runs");
        assert!(everything(&world.store, &acme).await.matches(MARKER).count() >= 12, "and yet all of it is there");
        world.store.close().await;
        assert_eq!(places_with(&world.backend, &data, MARKER), [""; 0], "and after");
        // The search finds what there is: a tenant's suffix is part of its models' names, and plain.
        assert!(!places_with(&world.backend, &data, "publish_version").is_empty());
    }

    async fn a_text_with_nul_is_refused_as_ever(world: World) {
        let acme = world.tenant("acme", Plan::Tuned).await;
        let source = world.source(&acme).await.id;
        let write = acme.may(WriteSources { tenant: acme.id() });
        let named = NewSource { name: "a\0b".to_owned(), origin: SourceOrigin::Upload, archive: Bytes::new() };
        assert_error!(world.store.create_source(&write, named).await, StoreError::NulInText);
        let keyed = NewRun { idempotency_key: Some("a\0b".to_owned()), ..new_run(source) };
        let start = acme.may(StartRun { tenant: acme.id() });
        assert_error!(world.store.create_run(&start, keyed).await, StoreError::NulInText);
    }

    async fn a_store_without_its_root_key_does_not_open(world: World) {
        let acme = world.tenant("acme", Plan::Tuned).await;
        plant(&world, &acme).await;
        let before = everything(&world.store, &acme).await;
        let World { store, clock, folder, backend, .. } = world;
        store.close().await;
        drop(store);
        let file = folder.path().join("data/root-key");
        let kept = fs::read(&file).unwrap();
        let refused = |what: &'static str| {
            let (backend, folder, clock) = (&backend, &folder, &clock);
            async move {
                let error = open_store(backend, folder, clock).await.expect_err(what);
                assert!(error.to_string().contains("root-key"), "{what}: {error}");
                error
            }
        };
        fs::remove_file(&file).unwrap();
        assert!(matches!(refused("it is not there").await, StoreError::RootKeyMissing { .. }));
        assert!(!file.exists(), "no new one is made over data");
        fs::write(&file, OTHER_KEY).unwrap();
        assert!(matches!(refused("it is another").await, StoreError::RootKeyWrong { .. }));
        fs::write(&file, "no key").unwrap();
        assert!(matches!(refused("it is none").await, StoreError::RootKeyMalformed { .. }));
        fs::write(&file, kept).unwrap();
        let store = open_store(&backend, &folder, &clock).await.unwrap();
        assert_eq!(everything(&store, &acme).await, before);
    }

    async fn keys_change_and_everything_stays_readable(world: World) {
        let (acme, other) = (world.tenant("acme", Plan::Tuned).await, world.tenant("other", Plan::Shared).await);
        plant(&world, &acme).await;
        world.source(&other).await;
        let before = (everything(&world.store, &acme).await, everything(&world.store, &other).await);
        let World { store, clock, folder, backend, .. } = world;
        let data = folder.path().join("data");
        let options = |root_key| {
            let options = open_options(database_options(&backend), data.clone(), &clock);
            atelier_store::OpenOptions { root_key, ..options }
        };
        let in_use = rotate_keys(options(RootKeyOptions::InFolder), &KeyRotation::default()).await;
        assert_error!(in_use, StoreError::FolderLocked { .. });
        store.close().await;
        drop(store);
        let file = data.join("root-key");
        let first = fs::read_to_string(&file).unwrap();
        let blob = files_under(&crate::world::blob_folder(&folder)).into_iter().find(|file| !file.ends_with("atelier-home")).unwrap();
        let sealed_before = fs::read(&blob).unwrap();

        // A new root key in the old one's place: the data is not touched.
        rotate_keys(options(RootKeyOptions::InFolder), &KeyRotation::default()).await.unwrap();
        assert_ne!(fs::read_to_string(&file).unwrap(), first);
        assert_eq!(fs::read(&blob).unwrap(), sealed_before);
        let store = Store::open(options(RootKeyOptions::InFolder)).await.unwrap();
        assert_eq!((everything(&store, &acme).await, everything(&store, &other).await), before);
        store.close().await;
        drop(store);
        let old: RootKey = first.parse().unwrap();
        assert_error!(Store::open(options(RootKeyOptions::Given(old))).await, StoreError::RootKeyWrong { .. });

        // One that the operator keeps, and new data keys with it: all data is sealed anew.
        let next = folder.path().join("next");
        let all = KeyRotation { next: Some(next.clone()), data_keys: true };
        assert_error!(rotate_keys(options(RootKeyOptions::InFolder), &all).await, StoreError::RootKeyMissing { .. });
        fs::write(&next, ONE_KEY).unwrap();
        rotate_keys(options(RootKeyOptions::InFolder), &all).await.unwrap();
        assert_ne!(fs::read(&blob).unwrap(), sealed_before);
        assert_error!(Store::open(options(RootKeyOptions::InFolder)).await, StoreError::RootKeyWrong { .. });
        let given = RootKeyOptions::Given(ONE_KEY.parse().unwrap());
        let nowhere = rotate_keys(options(given.clone()), &KeyRotation::default()).await;
        assert_error!(nowhere, StoreError::NoPlaceForRootKey);
        let store = Store::open(options(given)).await.unwrap();
        assert_eq!((everything(&store, &acme).await, everything(&store, &other).await), before);
        let again = NewRun { idempotency_key: Some(format!("{MARKER}-key")), ..new_run(first_source(&store, &acme).await) };
        let start = acme.may(StartRun { tenant: acme.id() });
        assert_error!(store.create_run(&start, again).await, StoreError::IdempotencyMismatch);
        assert_eq!(places_with(&backend, &data, MARKER), [""; 0]);
    }

    async fn a_deleted_tenants_keys_are_destroyed(world: World) {
        let (acme, other) = (world.tenant("acme", Plan::Tuned).await, world.tenant("other", Plan::Tuned).await);
        plant(&world, &acme).await;
        let grant = world.operator.grant(ManageTenant { tenant: acme.id() }).unwrap();
        world.store.delete_tenant(&grant).await.unwrap();
        if !matches!(world.backend, Backend::Sqlite) {
            let sql = "SELECT tenant_id FROM atelier.data_keys WHERE wrapped IS NOT NULL";
            assert_eq!(world.backend.test_database().sql(sql), other.id().to_string());
        }
        let world = world.reopen().await;
        world.source(&other).await;
    }
}

async fn first_source(store: &Store, tenant: &Tenant) -> atelier_domain::SourceId {
    store.sources(&tenant.may(ReadSources { tenant: tenant.id() })).await.unwrap()[0].id
}

#[tokio::test]
async fn a_named_root_key_must_be_there_from_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let clock = std::sync::Arc::new(atelier_domain::ManualClock::at(crate::world::START));
    let file = folder.path().join("elsewhere");
    let options = || {
        let options = open_options(atelier_store::DatabaseOptions::Files, folder.path().join("data"), &clock);
        atelier_store::OpenOptions { root_key: RootKeyOptions::File(file.clone()), ..options }
    };
    assert_error!(Store::open(options()).await, StoreError::RootKeyMissing { .. });
    fs::write(&file, format!("{ONE_KEY}\n")).unwrap();
    let store = Store::open(options()).await.unwrap();
    store.close().await;
    drop(store);
    assert!(!folder.path().join("data/root-key").exists());
    Store::open(options()).await.unwrap();
}
