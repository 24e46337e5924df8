//! Erasing a tenant: a certificate, and nothing else that could be found.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use atelier_access::right::{ListTenants, ManageKeys, ManageTenant, ReadSources, WriteSources};
use atelier_domain::{Plan, Role};
use atelier_store::{Erasure, NewKey, NewSource, SourceOrigin, Store};

use crate::encryption::{places_with, plant};
use crate::files::files_under;
use crate::postgres::command;
use crate::world::{Backend, Tenant, World, on_each_database, open_store};

/// Keys whose names are markers, beside what [`plant`] plants.
const NAMED_KEYS: usize = 20;
const NAME: &str = "erase-me-31b7";
/// How long what goes on by itself may take.
const PATIENCE: Duration = Duration::from_secs(60);

async fn plant_names(world: &World, tenant: &Tenant) {
    for at in 0..NAMED_KEYS {
        let grant = tenant.may(ManageKeys { tenant: tenant.id() });
        let key = NewKey {
            name: Some(format!("{NAME}-{at}").parse().unwrap()),
            ..crate::world::new_key(&grant, Role::Member)
        };
        world.store.create_key(&grant, key).await.unwrap();
    }
}

async fn erase(world: &World, tenant: &Tenant) -> Erasure {
    let grant = world.operator.grant(ManageTenant { tenant: tenant.id() }).unwrap();
    world.store.delete_tenant(&grant).await.unwrap()
}

/// Waits until something is as it should be, which others bring about.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let started = std::time::Instant::now();
    while !holds().await {
        assert!(started.elapsed() < PATIENCE, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub async fn certificates(world: &World) -> Vec<Erasure> {
    world.store.erasures(&world.operator.grant(ListTenants).unwrap(), None, 10).await.unwrap()
}

on_each_database! {
    async fn case_44_what_is_erased_is_certified_and_found_nowhere(world: World) {
        let (acme, other) = (world.tenant("acme", Plan::Tuned).await, world.tenant("other", Plan::Tuned).await);
        plant(&world, &acme).await;
        plant_names(&world, &acme).await;
        world.source(&other).await;
        let data = world.folder.path().join("data");
        assert_ne!(places_with(&world.backend, &data, NAME), [""; 0], "names of keys can be found before");

        world.advance(5);
        let erasure = erase(&world, &acme).await;
        assert_eq!((erasure.tenant, erasure.completed_at), (acme.id(), Some(world.store.now())));
        assert_eq!(erasure.requested_by, world.operator.to_string());
        assert_eq!(erasure.removed["keys"], NAMED_KEYS as u64 + 1);
        for kind in ["sources", "runs", "run_events", "jobs", "audit", "blobs", "blob_bytes"] {
            assert!(erasure.removed[kind] > 0, "{kind}: {erasure:?}");
        }
        assert_eq!(certificates(&world).await, std::slice::from_ref(&erasure));
        for marker in [NAME, crate::encryption::MARKER] {
            assert_eq!(places_with(&world.backend, &data, marker), [""; 0], "{marker}");
        }

        world.advance(5);
        let second = erase(&world, &other).await;
        assert_eq!(certificates(&world).await, [second.clone(), erasure.clone()], "newest first");
        let page = world.store.erasures(&world.operator.grant(ListTenants).unwrap(), Some(other.id()), 10).await.unwrap();
        assert_eq!(page, std::slice::from_ref(&erasure));
        let world = world.reopen().await;
        assert_eq!(certificates(&world).await, [second, erasure]);
    }

    async fn what_others_could_still_see_is_gone_from_the_files_all_the_same(world: World) {
        if matches!(world.backend, Backend::Sqlite) {
            return;
        }
        const FILES: &str = "CHECKPOINT; SELECT relname FROM pg_class JOIN pg_namespace ON relnamespace = pg_namespace.oid
            WHERE relkind = 'r' AND nspname LIKE 'atelier%'
                AND position('erase-me-31b7'::bytea IN pg_read_binary_file(pg_relation_filepath(pg_class.oid))) > 0";
        // Whoever writes in any database of the server keeps rows that are deleted meanwhile where they are.
        const WRITES: &str = "BEGIN; SELECT pg_current_xact_id(); SELECT pg_sleep(1); COMMIT";
        const IS_WRITING: &str = "SELECT count(*) FROM pg_stat_activity
            WHERE datname = 'postgres' AND backend_xid IS NOT NULL AND query LIKE '%pg_sleep(1)%'";
        let acme = world.tenant("acme", Plan::Tuned).await;
        plant_names(&world, &acme).await;
        let database = world.backend.test_database();
        assert_ne!(database.sql(FILES), "", "names of keys can be found before");
        let mut other = command("psql").args(["-qX", "-U", "postgres", "-c", WRITES]).stdout(Stdio::null()).spawn().unwrap();
        until("somebody writes", async || database.sql(IS_WRITING) != "0").await;
        erase(&world, &acme).await;
        assert_eq!(database.sql(FILES), "");
        assert!(other.wait().unwrap().success());
    }

    async fn who_asks_for_an_erasure_and_goes_leaves_nothing_half_done(world: World) {
        let mut erased = Vec::new();
        for pause_us in [0, 200, 1_000, 5_000, 20_000] {
            let tenant = world.tenant(&format!("acme-{pause_us}"), Plan::Tuned).await;
            for _ in 0..5 {
                world.source(&tenant).await;
            }
            let (store, grant) = (world.store.clone(), world.operator.grant(ManageTenant { tenant: tenant.id() }).unwrap());
            let asking = tokio::spawn(async move { store.delete_tenant(&grant).await });
            tokio::time::sleep(Duration::from_micros(pause_us)).await;
            asking.abort();
            // Whoever went before anything began asked for nothing.
            let _ = asking.await;
            erased.push(tenant);
        }
        until("each erasure that began is complete", async || {
            certificates(&world).await.iter().all(|erasure| erasure.completed_at.is_some())
        })
        .await;
        let begun = certificates(&world).await;
        assert!(!begun.is_empty());
        for tenant in erased.iter().filter(|tenant| begun.iter().any(|erasure| erasure.tenant == tenant.id())) {
            let left = files_under(world.folder.path()).into_iter().filter(|file| {
                let file = file.to_string_lossy();
                file.contains("/blobs/") && file.contains(&tenant.id().hex())
            });
            assert_eq!(left.count(), 0);
        }
    }

    async fn who_gives_code_and_goes_leaves_no_blob_that_no_row_counts(world: World) {
        let acme = world.tenant("acme", Plan::Tuned).await;
        for pause_us in (0..40).map(|at| at * 150) {
            let (store, grant) = (world.store.clone(), acme.may(WriteSources { tenant: acme.id() }));
            let archive = bytes::Bytes::from(format!("archive {pause_us}"));
            let source = NewSource { name: "code".to_owned(), origin: SourceOrigin::Upload, archive };
            let giving = tokio::spawn(async move { store.create_source(&grant, source).await });
            tokio::time::sleep(Duration::from_micros(pause_us)).await;
            giving.abort();
            let _ = giving.await;
        }
        let read = acme.may(ReadSources { tenant: acme.id() });
        let data = world.folder.path().join("data/blobs");
        until("as many blobs as rows", async || {
            world.store.sources(&read).await.unwrap().len() == files_under(&data).len()
        })
        .await;
    }
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() { copy_folder(&entry.path(), &target) } else { drop(fs::copy(entry.path(), target)) }
    }
}

#[tokio::test]
async fn an_erasure_that_waits_is_neither_counted_nor_completed_by_anothers() {
    let world = World::open(Backend::Sqlite).await;
    let (acme, other) = (world.tenant("acme", Plan::Tuned).await, world.tenant("other", Plan::Tuned).await);
    plant(&world, &acme).await;
    let busy = world.tenant("busy", Plan::Tuned).await;
    world.start_run(&busy).await;
    // What lies in the place of its file cannot be read, nor removed like one.
    let file = world.folder.path().join(format!("data/tenants/{}.db", acme.id().hex()));
    let aside = world.folder.path().join("aside");
    fs::rename(&file, &aside).unwrap();
    fs::create_dir(&file).unwrap();
    let grant = world.operator.grant(ManageTenant { tenant: acme.id() }).unwrap();
    world.store.delete_tenant(&grant).await.unwrap_err();
    assert!(erase(&world, &other).await.completed_at.is_some());
    let waiting = certificates(&world).await.into_iter().find(|erasure| erasure.tenant == acme.id()).unwrap();
    assert!(waiting.completed_at.is_none() && waiting.removed.is_empty(), "{waiting:?}");
    assert!(world.claim().await.is_some(), "who is at work goes on");

    fs::remove_dir(&file).unwrap();
    fs::rename(&aside, &file).unwrap();
    let world = world.reopen().await;
    let done = certificates(&world).await.into_iter().find(|erasure| erasure.tenant == acme.id()).unwrap();
    assert!(done.completed_at.is_some() && done.removed["sources"] > 0, "{done:?}");
    assert!(!file.exists());
}

/// The log lies elsewhere, so that the backup does not bring back its old state.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_backup_brings_nobody_back() {
    let world = World::open(Backend::Sqlite).await;
    let (acme, other) = (world.tenant("acme", Plan::Tuned).await, world.tenant("other", Plan::Tuned).await);
    plant(&world, &acme).await;
    plant_names(&world, &acme).await;
    let World { store, clock, operator, operator_key, folder, backend } = world;
    let (data, backup) = (folder.path().join("data"), folder.path().join("backup"));
    store.close().await;
    drop(store);
    copy_folder(&data, &backup);

    let store = open_store(&backend, &folder, &clock).await.unwrap();
    let world = World { store, clock, operator, operator_key, folder, backend };
    erase(&world, &acme).await;
    let World { store, clock, operator, operator_key, folder, backend } = world;
    store.close().await;
    drop(store);
    let log = fs::read(data.join("erasures.jsonl")).unwrap();
    fs::remove_dir_all(&data).unwrap();
    copy_folder(&backup, &data);
    fs::remove_dir_all(&backup).unwrap();
    fs::write(data.join("erasures.jsonl"), log).unwrap();
    assert_ne!(places_with(&backend, &data, NAME), [""; 0], "the backup brings it back");

    let store: Store = open_store(&backend, &folder, &clock).await.unwrap();
    let world = World { store, clock, operator, operator_key, folder, backend };
    for marker in [NAME, crate::encryption::MARKER] {
        assert_eq!(places_with(&world.backend, &data, marker), [""; 0], "{marker}");
    }
    let certificates = certificates(&world).await;
    assert_eq!((certificates.len(), certificates[0].tenant), (1, acme.id()));
    assert!(certificates[0].completed_at.is_some() && certificates[0].removed["sources"] > 0);
    assert!(world.store.authenticate(&acme.key.reveal()).await.is_err());
    assert_eq!(world.store.authenticate(&other.key.reveal()).await.unwrap(), other.admin);
}
