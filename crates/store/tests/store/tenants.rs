//! Tenants: made, moved between plans, deleted.

use atelier_access::Denied;
use atelier_access::right::{ListTenants, ManageKeys, ManageTenant, ReadRuns, ReadTenant, ReadUsage};
use atelier_domain::limits::TENANT_DATABASES_OPEN_MAX;
use atelier_domain::{Plan, Timestamp};
use atelier_store::{RunPage, StoreError};

use crate::files::files_under;
use crate::world::{Backend, World, assert_error, on_each_database, worker};

on_each_database! {
    async fn a_name_is_taken_once_among_the_living(world: World) {
        let acme = world.tenant("acme", Plan::Tuned).await;
        let create = world.operator.grant(atelier_access::right::CreateTenant).unwrap();
        let again = world.store.create_tenant(&create, "acme".parse().unwrap(), Plan::Shared).await;
        assert_error!(again, StoreError::NameTaken);
        assert_eq!(places(&world), 1, "the loser leaves no file");

        world.tenant("globex", Plan::Shared).await;
        let list = world.operator.grant(ListTenants).unwrap();
        let names: Vec<_> = world.store.tenants(&list).await.unwrap().iter().map(|tenant| tenant.name.to_string()).collect();
        assert_eq!(names, ["acme", "globex"]);
        assert_eq!(world.store.tenant_by_name(&list, &"acme".parse().unwrap()).await.unwrap(), acme.record);
        assert_error!(world.store.tenant_by_name(&list, &"nobody".parse().unwrap()).await, StoreError::NotFound { .. });
        assert_eq!(world.store.tenant(&acme.may(ReadTenant { tenant: acme.id() })).await.unwrap(), acme.record);
    }

    async fn two_at_once_do_not_share_a_name(world: World) {
        let create = world.operator.grant(atelier_access::right::CreateTenant).unwrap();
        let one = world.store.create_tenant(&create, "acme".parse().unwrap(), Plan::Shared);
        let other = world.store.create_tenant(&create, "acme".parse().unwrap(), Plan::Shared);
        let (one, other) = tokio::join!(one, other);
        assert_eq!(u8::from(one.is_ok()) + u8::from(other.is_ok()), 1);
        assert_eq!(places(&world), 1);
    }

    async fn a_plan_changes_and_nothing_else(world: World) {
        let acme = world.tenant("acme", Plan::Shared).await;
        let grant = world.operator.grant(ManageTenant { tenant: acme.id() }).unwrap();
        let moved = world.store.set_plan(&grant, Plan::Tuned).await.unwrap();
        assert_eq!(moved, atelier_store::TenantRecord { plan: Plan::Tuned, ..acme.record.clone() });
        assert_eq!(world.store.authenticate(&acme.key.reveal()).await.unwrap(), acme.admin);
    }

    async fn a_suspended_tenant_does_nothing_and_loses_nothing(world: World) {
        let (acme, globex) = (world.tenant("acme", Plan::Tuned).await, world.tenant("globex", Plan::Tuned).await);
        let (first, second) = (world.start_run(&acme).await, world.start_run(&acme).await);
        let held = world.claim().await.unwrap();
        let grant = world.operator.grant(ManageTenant { tenant: acme.id() }).unwrap();
        let suspended = world.store.set_suspended(&grant, true).await.unwrap();
        assert_eq!(suspended.suspended_at, Some(world.store.now()));
        assert_eq!(world.store.set_suspended(&grant, true).await.unwrap(), suspended, "twice is once");
        assert_error!(world.store.authenticate(&acme.key.reveal()).await, StoreError::Denied(Denied::Suspended));
        assert_error!(world.store.renew(&acme.admin).await, StoreError::Denied(Denied::Suspended));
        assert_eq!(world.store.authenticate(&globex.key.reveal()).await.unwrap(), globex.admin);

        // The worker hears of it and gives the job back; nobody takes it, or the other one, up.
        assert!(world.store.heartbeat(&held.grant, &held.lease).await.unwrap().is_suspended);
        world.store.release_job(&held.grant, &held.lease).await.unwrap();
        assert!(world.claim().await.is_none());
        let world = world.reopen().await;
        assert!(world.claim().await.is_none());
        assert_error!(world.store.authenticate(&acme.key.reveal()).await, StoreError::Denied(Denied::Suspended));

        let resumed = world.store.set_suspended(&grant, false).await.unwrap();
        assert_eq!(resumed, acme.record);
        assert_eq!(world.store.authenticate(&acme.key.reveal()).await.unwrap(), acme.admin);
        let mut runs = [world.claim().await.unwrap().run.id, world.claim().await.unwrap().run.id];
        runs.sort();
        let mut expected = [first.id, second.id];
        expected.sort();
        assert_eq!(runs, expected, "both go on at once");
    }

    async fn more_tenants_than_open_files_are_served(world: World) {
        let mut tenants = Vec::new();
        for at in 0..TENANT_DATABASES_OPEN_MAX + 3 {
            tenants.push(world.tenant(&format!("tenant-{at}"), Plan::Tuned).await);
        }
        for round in 1..=2 {
            for tenant in tenants.iter().step_by(round) {
                let grant = tenant.may(ReadRuns { tenant: tenant.id() });
                assert!(world.store.runs(&grant, RunPage { limit: 9, after: None }).await.unwrap().is_empty());
            }
        }
        let open = files(&world, "-wal");
        assert!(open <= TENANT_DATABASES_OPEN_MAX, "{open} are open");
    }

    async fn a_deleted_tenant_leaves_nothing_but_its_usage(world: World) {
        let acme = world.tenant("acme", Plan::Tuned).await;
        world.learn(&acme, 1).await;
        world.start_run(&acme).await;
        drop(crate::usage::reserve(&world, &acme).await);
        let grant = world.operator.grant(ManageTenant { tenant: acme.id() }).unwrap();
        world.store.delete_tenant(&grant).await.unwrap();

        assert_eq!(places(&world), 0);
        assert_eq!(blob_files(&world), 0);
        assert_error!(world.store.authenticate(&acme.key.reveal()).await, StoreError::Denied(Denied::NotAuthenticated));
        let runs = world.store.runs(&acme.may(ReadRuns { tenant: acme.id() }), RunPage { limit: 9, after: None }).await;
        assert_error!(runs, StoreError::NotFound { .. });
        assert_error!(world.store.rotate_key(&acme.may(ManageKeys { tenant: acme.id() })).await, StoreError::NotFound { .. });
        assert_error!(world.store.delete_tenant(&grant).await, StoreError::NotFound { .. });
        assert!(world.store.claim_job(&worker()).await.unwrap().is_none());
        let books = world.operator.grant(ReadUsage { tenant: acme.id() }).unwrap();
        let page = world.store.usage(&books, &crate::usage::query(Timestamp::from_seconds(0))).await.unwrap();
        assert_eq!(page.buckets.len(), 31, "the question is answered");

        let successor = world.tenant("acme", Plan::Shared).await;
        assert_ne!(successor.id(), acme.id());
        world.reopen().await;
    }
}

/// How many tenants have a place for rows.
fn places(world: &World) -> usize {
    match &world.backend {
        Backend::Sqlite => files(world, ".db"),
        backend => {
            let places = "SELECT (SELECT count(*) FROM atelier_tenants.tenant_identity)
                + (SELECT count(*) FROM pg_namespace WHERE starts_with(CAST(nspname AS TEXT), 'tenant_'))
                + (SELECT count(*) FROM pg_database JOIN atelier.tenants
                    ON datname = 'atelier_' || split_part(id, '_', 2))";
            backend.test_database().sql(places).parse().unwrap()
        }
    }
}

fn files(world: &World, ending: &str) -> usize {
    let files = files_under(&world.folder.path().join("data/tenants"));
    files.iter().filter(|file| file.to_string_lossy().ends_with(ending)).count()
}

fn blob_files(world: &World) -> usize {
    files_under(&world.folder.path().join("data/blobs")).len()
}
