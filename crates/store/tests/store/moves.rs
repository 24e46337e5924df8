//! Tenants that move between the ways of being kept apart on PostgreSQL.

use std::sync::Arc;

use atelier_access::right::{CreateTenant, ManageTenant, ReadAudit, ReadRuns, ReadVersions, StartRun};
use atelier_domain::{Plan, Separation};
use atelier_store::{AuditQuery, ChainKind, RunPage, Store, StoreError};

use crate::world::{Backend, Tenant, World, assert_error, new_run, on_each_database, open_store};

/// All that a tenant can read of its own, and what was done, as text.
async fn everything(store: &Store, tenant: &Tenant) -> String {
    let id = tenant.id();
    let own = crate::encryption::everything(store, tenant).await;
    let aliases = store.aliases(&tenant.may(ReadVersions { tenant: id })).await.unwrap();
    let mut audit = store
        .audit(&tenant.may(ReadAudit { tenant: id }), &AuditQuery { limit: 100, ..AuditQuery::default() })
        .await
        .unwrap();
    // Moving is done to the tenant, and is on record as that.
    audit.records.retain(|record| record.chain == ChainKind::Work);
    assert_eq!(crate::audit::broken(store, tenant).await, None, "wherever a tenant is, its trail is what was written");
    format!("{own} {aliases:?} {audit:?}")
}

async fn move_to(world: &World, tenant: &Tenant, to: Separation) -> Result<(), StoreError> {
    let grant = world.operator.grant(ManageTenant { tenant: tenant.id() }).unwrap();
    let moved = world.store.move_tenant(&grant, to).await?;
    assert_eq!(moved.separation, to);
    Ok(())
}

/// Rows of the tenant in the tables that tenants share.
fn pooled_rows(world: &World, tenant: &Tenant) -> usize {
    let tables = ["sources", "runs", "run_events", "jobs", "versions", "aliases", "audit", "tenant_identity"];
    let counts = tables.map(|table| {
        let count = format!("SELECT count(*) FROM atelier_tenants.{table} WHERE tenant_id = '{}'", tenant.id());
        world.backend.test_database().sql(&count).parse::<usize>().unwrap()
    });
    counts.iter().sum()
}

fn has_schema(world: &World, tenant: &Tenant) -> bool {
    let sql = format!("SELECT count(*) FROM pg_namespace WHERE nspname = 'tenant_{}'", tenant.id().hex());
    world.backend.test_database().sql(&sql) == "1"
}

fn has_database(world: &World, tenant: &Tenant) -> bool {
    let sql = format!("SELECT count(*) FROM pg_database WHERE datname = 'atelier_{}'", tenant.id().hex());
    world.backend.test_database().sql(&sql) == "1"
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_moves_everywhere_and_loses_nothing() {
    let world = World::open(Backend::postgres()).await;
    let (acme, other) = (world.tenant("acme", Plan::Tuned).await, world.tenant("other", Plan::Tuned).await);
    world.learn(&acme, 1).await;
    world.learn(&acme, 2).await;
    world.learn(&other, 3).await;
    world.start_run(&acme).await;
    let (before, others) = (everything(&world.store, &acme).await, everything(&world.store, &other).await);
    let mut world = world;
    for to in [
        Separation::Schema,
        Separation::Database,
        Separation::Pooled,
        Separation::Database,
        Separation::Schema,
        Separation::Pooled,
    ] {
        move_to(&world, &acme, to).await.unwrap();
        assert_eq!(everything(&world.store, &acme).await, before, "{to}");
        assert_eq!(everything(&world.store, &other).await, others, "{to}");
        assert_eq!(pooled_rows(&world, &acme) > 0, to == Separation::Pooled, "{to}");
        assert_eq!(has_schema(&world, &acme), to == Separation::Schema, "{to}");
        assert_eq!(has_database(&world, &acme), to == Separation::Database, "{to}");
        world = world.reopen().await;
        assert_eq!(everything(&world.store, &acme).await, before, "{to}, opened anew");
    }
    // What waits is still carried out.
    let job = world.claim().await.unwrap();
    world.publish(&job, 4).await.unwrap();
    let list = world.operator.grant(atelier_access::right::ReadOperatorAudit).unwrap();
    let query = AuditQuery { limit: 100, ..AuditQuery::default() };
    let trail = world.store.operator_audit(&list, &query).await.unwrap();
    assert_eq!(trail.records.iter().filter(|record| record.action == "move_tenant").count(), 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_writes_while_a_tenant_moves_waits_and_loses_nothing() {
    let world = Arc::new(World::open(Backend::postgres()).await);
    let acme = Arc::new(world.tenant("acme", Plan::Tuned).await);
    let source = world.source(&acme).await.id;
    let writer = {
        let (world, acme) = (Arc::clone(&world), Arc::clone(&acme));
        tokio::spawn(async move {
            let mut started = Vec::new();
            for _ in 0..12 {
                let grant = acme.may(StartRun { tenant: acme.id() });
                started.push(world.store.create_run(&grant, new_run(source)).await.unwrap().id);
            }
            started
        })
    };
    for to in [Separation::Schema, Separation::Pooled, Separation::Database] {
        move_to(&world, &acme, to).await.unwrap();
    }
    let mut started = writer.await.unwrap();
    // Newest first; of one millisecond, in no order of their making.
    started.sort_by(|one, other| other.cmp(one));
    let page = RunPage { limit: 100, after: None };
    let runs = world.store.runs(&acme.may(ReadRuns { tenant: acme.id() }), page).await.unwrap();
    assert_eq!(runs.iter().map(|run| run.id).collect::<Vec<_>>(), started);
}

/// As whoever does who was not answered in time, and asks again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn moves_that_are_asked_for_at_once_lose_nothing() {
    use Separation::{Database, Pooled, Schema};
    let world = World::open(Backend::postgres()).await;
    let acme = world.tenant("acme", Plan::Tuned).await;
    world.learn(&acme, 1).await;
    let before = everything(&world.store, &acme).await;
    for asked in
        [[Schema, Schema, Schema], [Pooled, Pooled, Database], [Schema, Database, Pooled], [Pooled, Schema, Pooled]]
    {
        let moves = asked.map(|to| {
            let (store, grant) =
                (world.store.clone(), world.operator.grant(ManageTenant { tenant: acme.id() }).unwrap());
            tokio::spawn(async move { store.move_tenant(&grant, to).await })
        });
        for (moved, to) in moves.into_iter().zip(asked) {
            assert_eq!(moved.await.unwrap().unwrap().separation, to, "each in its turn, and none of them in vain");
        }
        assert_eq!(everything(&world.store, &acme).await, before, "{asked:?}");
    }
    assert_eq!(everything(&world.reopen().await.store, &acme).await, before);
}

/// Nor does a leftover that names where the tenant is, however it came to stand there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_a_tenant_is_is_never_left_over() {
    let world = World::open(Backend::postgres()).await;
    let acme = world.tenant("acme", Plan::Tuned).await;
    move_to(&world, &acme, Separation::Schema).await.unwrap();
    world.learn(&acme, 1).await;
    let before = everything(&world.store, &acme).await;
    world.backend.test_database().sql("UPDATE atelier.tenants SET leftover = separation");
    let world = world.reopen().await;
    assert_eq!(everything(&world.store, &acme).await, before);
    move_to(&world, &acme, Separation::Pooled).await.unwrap();
    assert_eq!(everything(&world.store, &acme).await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_that_was_cut_short_is_cleared_away() {
    for (separation, leftover) in [("pooled", "schema"), ("pooled", "database"), ("schema", "pooled")] {
        let world = World::open(Backend::postgres()).await;
        let acme = world.tenant("acme", Plan::Tuned).await;
        world.learn(&acme, 1).await;
        let before = everything(&world.store, &acme).await;
        let database = world.backend.test_database();
        // As a kill leaves it: the tenant is in one place, and rows of it are in the other.
        let to = leftover.parse().unwrap();
        move_to(&world, &acme, if separation == "pooled" { to } else { Separation::Schema }).await.unwrap();
        if separation == "pooled" {
            move_to(&world, &acme, Separation::Pooled).await.unwrap();
            match to {
                Separation::Schema => database.sql(&format!("CREATE SCHEMA tenant_{}", acme.id().hex())),
                _ => database.sql(&format!("CREATE DATABASE atelier_{} OWNER atelier_owner", acme.id().hex())),
            };
            if to == Separation::Schema {
                database.sql(&format!("ALTER SCHEMA tenant_{} OWNER TO atelier_owner", acme.id().hex()));
            }
        } else {
            let identity = format!("INSERT INTO atelier_tenants.tenant_identity VALUES ('{}', 1)", acme.id());
            let audit =
                format!("INSERT INTO atelier_tenants.audit VALUES ('{}', 1, 1, 'a', 'b', 'c', 'd', 'e')", acme.id());
            database.sql(&identity);
            database.sql(&audit);
        }
        database.sql(&format!("UPDATE atelier.tenants SET leftover = '{leftover}'"));
        let world = world.reopen().await;
        assert_eq!(everything(&world.store, &acme).await, before, "{separation}, {leftover} left over");
        assert_eq!(pooled_rows(&world, &acme) > 0, separation == "pooled");
        assert_eq!(has_schema(&world, &acme), separation == "schema");
        assert!(!has_database(&world, &acme));
        assert_eq!(world.backend.test_database().sql("SELECT count(leftover) FROM atelier.tenants"), "0");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_needs_the_owner_and_to_be_alone() {
    let world = World::open(Backend::postgres()).await;
    let acme = world.tenant("acme", Plan::Tuned).await;
    // A second server on the same database, with a folder of its own.
    let (second, _folder) = world.another_process().await;
    assert_error!(move_to(&world, &acme, Separation::Schema).await, StoreError::OthersAtWork);
    second.close().await;
    move_to(&world, &acme, Separation::Schema).await.unwrap();
    assert_error!(move_to(&world, &acme, Separation::File).await, StoreError::UnsupportedSeparation { .. });

    let World { store, clock, folder, backend, operator, operator_key } = world;
    store.close().await;
    drop(store);
    let Backend::Postgres(database) = &backend else { unreachable!("it is PostgreSQL") };
    let without_owner = Backend::PostgresWithoutOwner(Arc::clone(database));
    let store = open_store(&without_owner, &folder, &clock).await.unwrap();
    let world = World { store, clock, folder, backend, operator, operator_key };
    assert_error!(move_to(&world, &acme, Separation::Database).await, StoreError::OwnerNeeded);
    let create = world.operator.grant(CreateTenant).unwrap();
    let apart = world.store.create_tenant_apart(&create, "x".parse().unwrap(), Plan::Shared, Separation::Schema).await;
    assert_error!(apart, StoreError::OlderSchema { .. } | StoreError::OwnerNeeded);
    assert!(!everything(&world.store, &acme).await.is_empty(), "it is where it was");
    world.tenant("pooled", Plan::Shared).await;
}

on_each_database! {
    async fn case_44_a_tenant_that_is_deleted_leaves_nothing_wherever_it_was(world: World) {
        let separations: &[Separation] = match &world.backend {
            Backend::Sqlite => &[Separation::File],
            _ => &[Separation::Pooled, Separation::Schema, Separation::Database],
        };
        let create = world.operator.grant(CreateTenant).unwrap();
        for separation in separations {
            let (record, key) =
                world.store.create_tenant_apart(&create, "acme".parse().unwrap(), Plan::Tuned, *separation).await.unwrap();
            let admin = world.store.authenticate(&key.key.reveal()).await.unwrap();
            let acme = Tenant { admin, key: key.key, record };
            world.learn(&acme, 1).await;
            let grant = world.operator.grant(ManageTenant { tenant: acme.id() }).unwrap();
            world.store.delete_tenant(&grant).await.unwrap();
            if !matches!(world.backend, Backend::Sqlite) {
                assert_eq!(pooled_rows(&world, &acme), 0);
                assert!(!has_schema(&world, &acme) && !has_database(&world, &acme), "{separation}");
            }
        }
    }
}
