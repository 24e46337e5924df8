//! Named cases of the attack suite that the store alone can show; `docs/attack-suite.md` lists them all.

use atelier_access::right::{CompleteAs, Meter, ReadSources, ReadUsage, StartRun, WriteSources};
use atelier_domain::{ModelName, Plan};
use atelier_store::{NewReservation, NewRun, NewSource, SourceOrigin, StoreError};
use bytes::Bytes;

use crate::world::{START, Tenant, World, assert_error, new_run, on_each_database};

/// How often a request is sent again.
const REPLAYS: usize = 100;

on_each_database! {
    async fn case_29_what_another_has_does_not_stand_in_the_way(world: World) {
        let (acme, evil) = (world.tenant("acme", Plan::Tuned).await, world.tenant("evil", Plan::Tuned).await);
        let theirs = world.source(&acme).await;
        // The same name and the same content: the same digest, and neither knows of the other.
        let archive = Bytes::from("archive of acme");
        let source = NewSource { name: theirs.name.clone(), origin: SourceOrigin::Upload, archive };
        let own = world.store.create_source(&evil.may(WriteSources { tenant: evil.id() }), source).await.unwrap();
        assert_eq!((own.digest, own.bytes), (theirs.digest, theirs.bytes));
        assert_ne!(own.id, theirs.id);
        // What one deletes stays the other's.
        world.store.delete_source(&evil.may(WriteSources { tenant: evil.id() }), own.id).await.unwrap();
        let kept = world.store.source_archive(&acme.may(ReadSources { tenant: acme.id() }), theirs.id).await.unwrap();
        assert_eq!(kept, "archive of acme");
    }

    async fn case_36_a_run_learns_from_its_own_tenants_source_only(world: World) {
        let (acme, evil) = (world.tenant("acme", Plan::Tuned).await, world.tenant("evil", Plan::Tuned).await);
        let theirs = world.source(&acme).await.id;
        let grant = evil.may(StartRun { tenant: evil.id() });
        assert_error!(world.store.create_run(&grant, new_run(theirs)).await, StoreError::NotFound { what: "source" });
        // A job reads by the grant that came with it, which is its own tenant's.
        world.start_run(&evil).await;
        let job = world.claim().await.unwrap();
        let reads = job.grant.narrow(ReadSources { tenant: evil.id() }).unwrap();
        assert_error!(world.store.source_archive(&reads, theirs).await, StoreError::NotFound { .. });
        assert!(job.grant.narrow(ReadSources { tenant: acme.id() }).is_err());
    }

    async fn case_38_a_replay_counts_once_and_for_its_own_tenant(world: World) {
        let (acme, evil) = (world.tenant("acme", Plan::Tuned).await, world.tenant("evil", Plan::Tuned).await);
        let (mine, theirs) = (world.source(&evil).await.id, world.source(&acme).await.id);
        let keyed = |source| NewRun { idempotency_key: Some("one-key".to_owned()), ..new_run(source) };
        let first = world.store.create_run(&acme.may(StartRun { tenant: acme.id() }), keyed(theirs)).await.unwrap();
        let other = world.store.create_run(&evil.may(StartRun { tenant: evil.id() }), keyed(mine)).await.unwrap();
        assert_ne!(first.id, other.id, "another tenant's key of the same text is another key");
        let again: Vec<_> = (0..REPLAYS)
            .map(|_| {
                let (store, grant) = (world.store.clone(), acme.may(StartRun { tenant: acme.id() }));
                let run = keyed(theirs);
                tokio::spawn(async move { store.create_run(&grant, run).await.unwrap().id })
            })
            .collect();
        for run in again {
            assert_eq!(run.await.unwrap(), first.id);
        }
        // One event of the ledger, offered by both: the second is refused, whoever sends it.
        let serving = |tenant: &Tenant| {
            let (store, grant) = (world.store.clone(), tenant.may(CompleteAs { tenant: tenant.id() }));
            async move { store.resolve(&grant, &ModelName::Alias).await.unwrap() }
        };
        let request = world.store.new_request_id();
        let (ours, others) = (serving(&acme).await, serving(&evil).await);
        let grant = acme.may(Meter { tenant: acme.id() });
        let held = world.store.reserve(&grant, NewReservation { request, serving: &ours }).await.unwrap();
        for _ in 0..REPLAYS {
            let again = world.store.reserve(&grant, NewReservation { request, serving: &ours }).await;
            assert_error!(again, StoreError::AlreadyFinished);
        }
        let foreign = evil.may(Meter { tenant: evil.id() });
        assert_error!(
            world.store.reserve(&foreign, NewReservation { request, serving: &ours }).await,
            StoreError::Denied(_)
        );
        drop(held);
        // Ids come from the server, so that no client can offer another tenant's; whatever happens, acme pays once.
        let _ = world.store.reserve(&foreign, NewReservation { request, serving: &others }).await;
        let world = world.reopen().await;
        let replayed = world.store.create_run(&acme.may(StartRun { tenant: acme.id() }), keyed(theirs)).await.unwrap();
        assert_eq!(replayed.id, first.id, "also after a restart");
        let grant = acme.may(ReadUsage { tenant: acme.id() });
        let page = world.store.usage(&grant, &crate::usage::query(START)).await.unwrap();
        let requests: u64 = page.buckets.iter().flat_map(|bucket| &bucket.results).map(|result| result.requests).sum();
        assert_eq!(requests, 1);
    }
}
