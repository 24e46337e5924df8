//! Blobs on an S3-compatible store: the same as in a folder, and what only buckets have.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use atelier_access::right::{CreateTenant, ManageTenant, ReadAudit, ReadSources, WriteSources};
use atelier_domain::limits::BLOB_PART_BYTES;
use atelier_domain::{BucketName, Digest, ManualClock, Plan};
use atelier_store::{
    AdapterBlob, AuditQuery, BlobOptions, DatabaseOptions, KeyRotation, NewSource, NewTenant, OpenOptions, S3Options,
    SourceOrigin, Store, StoreError, rotate_keys,
};
use bytes::Bytes;
use tempfile::TempDir;

use crate::encryption::{MARKER, everything, plant};
use crate::erasing::{certificates, until};
use crate::files::files_under;
use crate::s3_server::{ACCESS_KEY, S3Server, SECRET_KEY, SHARED_BUCKET};
use crate::world::{
    Backend, S3_FOLDER, SHARED_PREFIX, START, Tenant, World, assert_error, blob_folder, database_options, load_right,
    open_options, open_store, s3_options, with_blobs_on_s3,
};

with_blobs_on_s3! {
    learning::a_source_is_kept_as_it_came,
    learning::a_damaged_archive_is_noticed,
    encryption::nothing_that_a_tenant_gave_or_made_is_in_any_file,
    encryption::keys_change_and_everything_stays_readable,
    erasing::case_44_what_is_erased_is_certified_and_found_nowhere,
}

/// A world whose S3 server can be stopped.
async fn world_with_server(backend: Backend) -> (World, S3Server) {
    let folder = tempfile::tempdir().unwrap();
    let server = S3Server::start(&folder.path().join(S3_FOLDER));
    let clock = Arc::new(ManualClock::at(START));
    let store = open_store(&backend, &folder, &clock).await.unwrap();
    let operator_key = store.bootstrap_operator_key().await.unwrap().unwrap().reveal();
    let operator = store.authenticate(&operator_key).await.unwrap();
    (World { store, clock, operator, operator_key, folder, backend }, server)
}

/// What an error says, with all its causes.
fn chain_of(error: &StoreError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

async fn give(world: &World, tenant: &Tenant, archive: Bytes) -> Result<atelier_store::SourceRecord, StoreError> {
    let source = NewSource { name: "code".to_owned(), origin: SourceOrigin::Upload, archive };
    world.store.create_source(&tenant.may(WriteSources { tenant: tenant.id() }), source).await
}

async fn move_to(world: &World, tenant: &Tenant, bucket: Option<&str>) -> Result<(), StoreError> {
    let grant = world.operator.grant(ManageTenant { tenant: tenant.id() }).unwrap();
    let bucket: Option<BucketName> = bucket.map(|name| name.parse().unwrap());
    let moved = world.store.move_blobs(&grant, bucket.clone()).await?;
    assert_eq!(moved.bucket, bucket);
    Ok(())
}

/// Names of a tenant's blobs in a folder of the server's.
fn blobs_in(folder: &Path, tenant: &Tenant) -> usize {
    let folder = folder.join(tenant.id().hex());
    if folder.exists() { files_under(&folder).len() } else { 0 }
}

async fn opened_with(change: impl FnOnce(&mut S3Options)) -> Result<Store, String> {
    let folder = tempfile::tempdir().unwrap();
    let server = S3Server::start(&folder.path().join(S3_FOLDER));
    let mut s3 = s3_options(&server.endpoint());
    change(&mut s3);
    let options = open_options(DatabaseOptions::Files, folder.path().join("data"), &Arc::new(ManualClock::at(START)));
    let opened = Store::open(OpenOptions { blobs: BlobOptions::S3(s3), ..options }).await;
    opened.map_err(|error| {
        let said = chain_of(&error);
        assert!(!format!("{said} {error:?}").contains(SECRET_KEY), "{error:?}");
        assert!(!format!("{said} {error:?}").contains(ACCESS_KEY), "{error:?}");
        said
    })
}

#[tokio::test]
async fn a_start_says_why_a_bucket_is_of_no_use() {
    opened_with(|_| {}).await.unwrap();
    let said = opened_with(|s3| s3.settings[1].1 = format!("{SECRET_KEY}!")).await.unwrap_err();
    assert!(said.contains("403") && said.contains("SignatureDoesNotMatch"), "{said}");
    let said = opened_with(|s3| s3.settings[0].1 = "AKIDSOMEBODYELSE".to_owned()).await.unwrap_err();
    assert!(said.contains("403") && !said.contains("AKIDSOMEBODYELSE"), "{said}");
    let said = opened_with(|s3| s3.address = "s3://no-such-bucket".parse().unwrap()).await.unwrap_err();
    assert!(said.contains("NoSuchBucket"), "{said}");
    let said = opened_with(|s3| s3.endpoint = Some("http://127.0.0.1:1".to_owned())).await.unwrap_err();
    assert!(said.contains("cannot be reached"), "{said}");
    let said = opened_with(|s3| s3.allow_http = false).await.unwrap_err();
    assert!(said.contains("--blobs-allow-http"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_away_is_said_to_be_and_loses_nothing() {
    let (world, mut server) = world_with_server(Backend::Sqlite).await;
    let acme = world.tenant("acme", Plan::Tuned).await;
    let kept = world.source(&acme).await;
    let read = acme.may(ReadSources { tenant: acme.id() });
    server.stop();
    assert_error!(world.store.check().await, StoreError::BlobsUnreachable { .. });
    assert_error!(give(&world, &acme, Bytes::from_static(b"more")).await, StoreError::BlobsUnreachable { .. });
    assert_error!(world.store.source_archive(&read, kept.id).await, StoreError::BlobsUnreachable { .. });
    assert_eq!(world.store.sources(&read).await.unwrap(), std::slice::from_ref(&kept), "no row without its blob");
    server.resume();
    give(&world, &acme, Bytes::from_static(b"more")).await.unwrap();
    assert_eq!(world.store.source_archive(&read, kept.id).await.unwrap(), Bytes::from_static(b"archive of acme"));
    // What was found is remembered for some seconds; a new store asks anew.
    let world = world.reopen().await;
    world.store.check().await.unwrap();
}

/// What a store that is away cannot remove is there and can be removed later: a source by whoever asks again, a tenant
/// without anybody asking.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_store_that_is_away_cannot_remove_is_removed_when_it_is_back() {
    let (world, mut server) = world_with_server(Backend::Sqlite).await;
    let (acme, other) = (world.tenant("acme", Plan::Tuned).await, world.tenant("other", Plan::Tuned).await);
    let (kept, source) = (world.source(&other).await, world.source(&acme).await);
    let write = acme.may(WriteSources { tenant: acme.id() });
    let grant = world.operator.grant(ManageTenant { tenant: other.id() }).unwrap();
    let shared = server.bucket(SHARED_BUCKET).join(SHARED_PREFIX);
    server.stop();
    assert_error!(world.store.delete_source(&write, source.id).await, StoreError::BlobsUnreachable { .. });
    assert_error!(world.store.delete_tenant(&grant).await, StoreError::BlobsUnreachable { .. });
    assert!(world.store.authenticate(&other.key.reveal()).await.is_err(), "it is decided");
    assert_eq!((blobs_in(&shared, &acme), blobs_in(&shared, &other)), (1, 1));
    server.resume();
    world.store.delete_source(&write, source.id).await.unwrap();
    assert_eq!(blobs_in(&shared, &acme), 0);
    until("the erasure goes on by itself", async || certificates(&world).await[0].completed_at.is_some()).await;
    assert_eq!(blobs_in(&shared, &other), 0, "{kept:?}");
}

/// A bucket of one tenant's own that was removed, or that does what it should not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_of_ones_own_that_is_gone_keeps_nobody_else_waiting() {
    let (world, server) = world_with_server(Backend::postgres()).await;
    let (acme, other) = (world.tenant("acme", Plan::Tuned).await, world.tenant("other", Plan::Tuned).await);
    for name in ["acme-code", "left-code"] {
        server.make_bucket(name);
    }
    move_to(&world, &acme, Some("acme-code")).await.unwrap();
    plant(&world, &acme).await;
    plant(&world, &other).await;
    let before = (everything(&world.store, &acme).await, everything(&world.store, &other).await);
    let (own, aside) = (server.bucket("acme-code"), server.bucket("").join("aside"));
    fs::rename(&own, &aside).unwrap();
    // A file in the place of a bucket: neither there nor gone.
    fs::remove_dir(server.bucket("left-code")).unwrap();
    fs::write(server.bucket("left-code"), "no bucket").unwrap();
    world
        .backend
        .test_database()
        .sql(&format!("UPDATE atelier.tenants SET bucket_leftover = 'left-code' WHERE id = '{}'", other.id()));

    // Keys change for everybody else; who waits keeps its old ones.
    let World { store, clock, operator, operator_key, folder, backend } = world;
    let database = backend.test_database();
    store.close().await;
    drop(store);
    let options = open_options(database_options(&backend), folder.path().join("data"), &clock);
    let options = OpenOptions { blobs: BlobOptions::S3(s3_options(&server.endpoint())), ..options };
    let put_off = rotate_keys(options, &KeyRotation { next: None, data_keys: true }).await.unwrap();
    assert_eq!(put_off, [acme.id()]);
    let old_keys = "SELECT count(*) FROM atelier.data_keys WHERE wrapped IS NOT NULL AND generation = 1";
    assert_eq!(database.sql(old_keys), "1");
    let store = open_store(&backend, &folder, &clock).await.unwrap();
    assert_eq!(everything(&store, &other).await, before.1);
    drop(store);
    fs::rename(&aside, &own).unwrap();
    let store = open_store(&backend, &folder, &clock).await.unwrap();
    assert_eq!((everything(&store, &acme).await, everything(&store, &other).await), before);
    assert_eq!(database.sql(old_keys), "0", "sealed anew, the old keys destroyed");

    // What was left in a bucket that is gone is gone with it.
    fs::remove_file(server.bucket("left-code")).unwrap();
    drop(store);
    let store = open_store(&backend, &folder, &clock).await.unwrap();
    assert_eq!(database.sql("SELECT count(bucket_leftover) FROM atelier.tenants"), "0");
    let world = World { store, clock, operator, operator_key, folder, backend };
    assert_eq!(everything(&world.store, &acme).await, before.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_blob_goes_in_parts_and_leaves_none_behind() {
    let (world, server) = world_with_server(Backend::Sqlite).await;
    let acme = world.tenant("acme", Plan::Tuned).await;
    world.start_run(&acme).await;
    let job = world.claim().await.unwrap();
    for bytes in [BLOB_PART_BYTES - 1_000, 2 * BLOB_PART_BYTES + 12_345] {
        let weights: Bytes = (0..bytes).map(|at| (at % 251) as u8).collect();
        let (digest, files) = (Digest::of(&weights), AdapterBlob { config: Bytes::from_static(b"{}"), weights });
        world.store.put_adapter(&job.grant, &job.lease, digest, &files).await.unwrap();
        assert!(world.store.adapter(&load_right(acme.id()), digest).await.unwrap() == files, "{bytes} bytes");
    }
    let names = fs::read_dir(server.bucket("")).unwrap().map(|entry| entry.unwrap().file_name());
    let parts: Vec<_> = names.filter(|name| name.to_string_lossy().contains("upload")).collect();
    assert!(parts.is_empty(), "{parts:?}");
}

/// Prefixes that begin like a tenant's, or end like it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prefix_that_looks_alike_is_nobodys_business() {
    let (world, server) = world_with_server(Backend::Sqlite).await;
    let (acme, other) = (world.tenant("acme", Plan::Tuned).await, world.tenant("other", Plan::Tuned).await);
    let (source, others) = (world.source(&acme).await, world.source(&other).await);
    let shared = server.bucket(SHARED_BUCKET).join(SHARED_PREFIX);
    let hex = acme.id().hex();
    let alike = [
        format!("{hex}0"),
        hex[..hex.len() - 1].to_owned(),
        hex.to_uppercase(),
        format!("x/{hex}"),
        format!("{hex}-old"),
    ];
    for prefix in &alike {
        fs::create_dir_all(shared.join(prefix)).unwrap();
        fs::write(shared.join(prefix).join("kept"), "kept").unwrap();
    }
    // A blob of one tenant's is nothing under another's prefix, even where somebody copies it there.
    let place = |tenant: &Tenant, source: &atelier_store::SourceRecord| {
        shared.join(tenant.id().hex()).join("sources").join(source.id.hex()).join(source.digest.to_string())
    };
    fs::copy(place(&acme, &source), place(&other, &others)).unwrap();
    let read = other.may(ReadSources { tenant: other.id() });
    assert_error!(world.store.source_archive(&read, others.id).await, StoreError::DoesNotOpen { .. });
    assert_error!(world.store.source_archive(&read, source.id).await, StoreError::NotFound { .. });

    let grant = world.operator.grant(ManageTenant { tenant: acme.id() }).unwrap();
    let erased = world.store.delete_tenant(&grant).await.unwrap();
    assert_eq!(erased.removed["blobs"], 1, "only its own were counted");
    assert_eq!(blobs_in(&shared, &acme), 0);
    for prefix in &alike {
        assert!(shared.join(prefix).join("kept").exists(), "{prefix}");
    }
    assert_eq!(blobs_in(&shared, &other), 1);
}

async fn moves_and_comes_back(backend: Backend) {
    let (world, server) = world_with_server(backend).await;
    let (acme, other) = (world.tenant("acme", Plan::Tuned).await, world.tenant("other", Plan::Tuned).await);
    server.make_bucket("acme-code");
    plant(&world, &acme).await;
    world.source(&other).await;
    let before = everything(&world.store, &acme).await;
    let shared = server.bucket(SHARED_BUCKET).join(SHARED_PREFIX);
    let count = blobs_in(&shared, &acme);
    assert!(count >= 2);

    move_to(&world, &acme, Some("acme-code")).await.unwrap();
    assert_eq!((blobs_in(&shared, &acme), blobs_in(&server.bucket("acme-code"), &acme)), (0, count));
    assert_eq!(everything(&world.store, &acme).await, before);
    assert_error!(move_to(&world, &other, Some("acme-code")).await, StoreError::BucketTaken);
    assert_error!(move_to(&world, &other, Some(SHARED_BUCKET)).await, StoreError::BucketTaken);
    assert_error!(move_to(&world, &other, Some("not-there")).await, StoreError::BucketUnusable { .. });
    world.source(&acme).await;
    assert_eq!(blobs_in(&server.bucket("acme-code"), &acme), count + 1);
    let world = world.reopen().await;
    let before = everything(&world.store, &acme).await;
    move_to(&world, &acme, None).await.unwrap();
    assert_eq!((blobs_in(&shared, &acme), blobs_in(&server.bucket("acme-code"), &acme)), (count + 1, 0));
    assert_eq!(everything(&world.store, &acme).await, before);
    assert_eq!(blobs_in(&shared, &other), 1);
    let query = AuditQuery { limit: 100, ..AuditQuery::default() };
    let trail = world.store.audit(&acme.may(ReadAudit { tenant: acme.id() }), &query).await.unwrap();
    assert_eq!(trail.records.iter().filter(|record| record.action == "move_blobs").count(), 2);

    // One that begins in a bucket of its own, and is erased there.
    let create = world.operator.grant(CreateTenant).unwrap();
    let bucket: BucketName = "acme-code".parse().unwrap();
    let new = NewTenant { name: "third".parse().unwrap(), plan: Plan::Tuned, separation: None, bucket: Some(bucket) };
    let (record, key) = world.store.make_tenant(&create, new).await.unwrap();
    let third = Tenant { admin: world.store.authenticate(&key.key.reveal()).await.unwrap(), key: key.key, record };
    world.source(&third).await;
    assert_eq!(blobs_in(&server.bucket("acme-code"), &third), 1);
    let grant = world.operator.grant(ManageTenant { tenant: third.id() }).unwrap();
    assert_eq!(world.store.delete_tenant(&grant).await.unwrap().removed["blobs"], 1);
    assert_eq!(blobs_in(&server.bucket("acme-code"), &third), 0);
    let log = fs::read_to_string(world.folder.path().join("data/erasures.jsonl")).unwrap();
    assert!(log.contains("acme-code"), "a backup without the tenant's row still finds its bucket: {log}");
    move_to(&world, &other, Some("acme-code")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_has_a_bucket_of_its_own_and_gives_it_back() {
    moves_and_comes_back(Backend::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_has_a_bucket_of_its_own_and_gives_it_back_on_postgresql() {
    moves_and_comes_back(Backend::postgres()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_gives_while_blobs_move_loses_nothing() {
    let (world, server) = world_with_server(Backend::Sqlite).await;
    let acme = Arc::new(world.tenant("acme", Plan::Tuned).await);
    server.make_bucket("acme-code");
    let world = Arc::new(world);
    let writer = {
        let (world, acme) = (Arc::clone(&world), Arc::clone(&acme));
        tokio::spawn(async move {
            let mut given = Vec::new();
            for at in 0..60 {
                let source = give(&world, &acme, Bytes::from(format!("archive {at}"))).await.unwrap();
                given.push((source.id, format!("archive {at}")));
            }
            given
        })
    };
    for to in [Some("acme-code"), None, Some("acme-code")] {
        move_to(&world, &acme, to).await.unwrap();
    }
    let read = acme.may(ReadSources { tenant: acme.id() });
    for (source, archive) in writer.await.unwrap() {
        assert_eq!(world.store.source_archive(&read, source).await.unwrap(), Bytes::from(archive));
    }
    let shared = server.bucket(SHARED_BUCKET).join(SHARED_PREFIX);
    assert_eq!((blobs_in(&shared, &acme), blobs_in(&server.bucket("acme-code"), &acme)), (0, 60));
}

/// As whoever does who was not answered in time, and asks again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn moves_of_blobs_that_are_asked_for_at_once_lose_nothing() {
    let (world, server) = world_with_server(Backend::Sqlite).await;
    let acme = world.tenant("acme", Plan::Tuned).await;
    server.make_bucket("acme-code");
    plant(&world, &acme).await;
    let before = everything(&world.store, &acme).await;
    for asked in [["acme-code"; 3], [""; 3], ["acme-code", "", "acme-code"]] {
        let moves = asked.map(|to| {
            let (store, grant) =
                (world.store.clone(), world.operator.grant(ManageTenant { tenant: acme.id() }).unwrap());
            tokio::spawn(async move { store.move_blobs(&grant, to.parse::<BucketName>().ok()).await })
        });
        for moved in moves {
            moved.await.unwrap().unwrap();
        }
        assert_eq!(everything(&world.store, &acme).await, before, "{asked:?}");
    }
    // Which of the last three came last is anybody's guess.
    let places = [server.bucket("acme-code"), server.bucket(SHARED_BUCKET).join(SHARED_PREFIX)];
    let mut found = places.map(|place| blobs_in(&place, &acme));
    found.sort_unstable();
    assert!(found[0] == 0 && found[1] >= 2, "{found:?}");
}

/// As a kill leaves it: blobs in both buckets, and one of the two named as left over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_of_blobs_that_was_cut_short_is_cleared_away() {
    for left in ["acme-code", ""] {
        let (world, server) = world_with_server(Backend::postgres()).await;
        let acme = world.tenant("acme", Plan::Tuned).await;
        server.make_bucket("acme-code");
        plant(&world, &acme).await;
        if left.is_empty() {
            move_to(&world, &acme, Some("acme-code")).await.unwrap();
        }
        let before = everything(&world.store, &acme).await;
        let shared = server.bucket(SHARED_BUCKET).join(SHARED_PREFIX);
        let litter = if left.is_empty() { &shared } else { &server.bucket("acme-code") };
        fs::create_dir_all(litter.join(acme.id().hex()).join("sources")).unwrap();
        fs::write(litter.join(acme.id().hex()).join("sources/half"), "half").unwrap();
        world.backend.test_database().sql(&format!("UPDATE atelier.tenants SET bucket_leftover = '{left}'"));
        let world = world.reopen().await;
        assert_eq!(everything(&world.store, &acme).await, before, "{left:?} left over");
        assert_eq!(blobs_in(litter, &acme), 0, "{left:?} left over");
        let set = world.backend.test_database().sql("SELECT count(bucket_leftover) FROM atelier.tenants");
        assert_eq!(set, "0");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_start_with_a_bucket_brings_the_folders_blobs_there_and_nothing_goes_back() {
    let world = World::open(Backend::Sqlite).await;
    let acme = world.tenant("acme", Plan::Tuned).await;
    assert_error!(move_to(&world, &acme, Some("acme-code")).await, StoreError::BucketsUnsupported);
    plant(&world, &acme).await;
    let before = everything(&world.store, &acme).await;
    let World { store, clock, folder, backend, .. } = world;
    store.close().await;
    drop(store);
    let data = folder.path().join("data");
    let count = files_under(&data.join("blobs")).len();

    let server = S3Server::start(&folder.path().join(S3_FOLDER));
    let store = open_store(&backend, &folder, &clock).await.unwrap();
    assert_eq!(everything(&store, &acme).await, before);
    assert_eq!(files_under(&data.join("blobs")).len(), 0);
    assert_eq!(blobs_in(&blob_folder(&folder), &acme), count);
    store.close().await;
    drop(store);

    let options = || open_options(database_options(&backend), data.clone(), &clock);
    let in_folder = OpenOptions { blobs: BlobOptions::Folder, ..options() };
    assert_error!(Store::open(in_folder).await, StoreError::BlobsElsewhere { .. });
    let elsewhere =
        S3Options { address: format!("s3://{SHARED_BUCKET}").parse().unwrap(), ..s3_options(&server.endpoint()) };
    let elsewhere = OpenOptions { blobs: BlobOptions::S3(elsewhere), ..options() };
    assert_error!(Store::open(elsewhere).await, StoreError::BlobsElsewhere { .. });
    let strangers = TempDir::new().unwrap();
    let stranger = OpenOptions { folder: strangers.path().join("data"), ..options() };
    assert_error!(Store::open(stranger).await, StoreError::BlobsOfOthers { .. });

    let store = open_store(&backend, &folder, &clock).await.unwrap();
    assert_eq!(everything(&store, &acme).await, before);
    assert!(before.contains(MARKER));
}
