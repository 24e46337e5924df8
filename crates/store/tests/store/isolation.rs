//! Walls: every function, asked with another tenant's grant for things that exist, finds nothing.

use atelier_access::Denied;
use atelier_access::right::{
    CancelRun, CompleteAs, ManageKeys, Meter, MoveAlias, ReadAudit, ReadModels, ReadRuns, ReadSources, ReadUsage,
    ReadVersions, StartRun, WriteSources,
};
use atelier_domain::{Digest, ModelName, Plan};
use atelier_store::{AuditQuery, NewReservation, Progress, RunEnd, RunFailure, RunPage, StoreError};
use bytes::Bytes;
use serde_json::json;

use crate::usage::{query, reserve};
use crate::world::{
    START, World, adapter_files, assert_error, job_right, load_right, new_run, new_version, on_each_database,
};

on_each_database! {
    async fn a_stranger_reads_nothing(world: World) {
        let (acme, evil) = (world.tenant("acme", Plan::Tuned).await, world.tenant("evil", Plan::Tuned).await);
        let version = world.learn(&acme, 1).await;
        drop(reserve(&world, &acme).await);
        let (store, tenant) = (&world.store, evil.id());

        assert_error!(store.source(&evil.may(ReadSources { tenant }), version.source).await, StoreError::NotFound { .. });
        assert_error!(store.source_archive(&evil.may(ReadSources { tenant }), version.source).await, StoreError::NotFound { .. });
        assert!(store.sources(&evil.may(ReadSources { tenant })).await.unwrap().is_empty());
        assert_error!(store.run(&evil.may(ReadRuns { tenant }), version.run).await, StoreError::NotFound { .. });
        assert_error!(store.run_events(&evil.may(ReadRuns { tenant }), version.run, 0, 9).await, StoreError::NotFound { .. });
        assert!(store.runs(&evil.may(ReadRuns { tenant }), RunPage { limit: 9, after: None }).await.unwrap().is_empty());
        assert_error!(store.version(&evil.may(ReadVersions { tenant }), version.number).await, StoreError::NotFound { .. });
        assert!(world.versions(&evil).await.is_empty());
        assert_eq!(store.aliases(&evil.may(ReadVersions { tenant })).await.unwrap(), atelier_store::Aliases::default());
        assert_error!(store.adapter(&load_right(tenant), version.digest).await, StoreError::NotFound { .. });
        let name = "ft:atelier-base:acme:code:1".parse().unwrap();
        assert_error!(store.resolve(&evil.may(CompleteAs { tenant }), &name).await, StoreError::NotFound { .. });
        assert_eq!(store.models(&evil.may(ReadModels { tenant })).await.unwrap().len(), 2);
        let trail = store.audit(&evil.may(ReadAudit { tenant }), &AuditQuery { limit: 99, ..AuditQuery::default() }).await.unwrap();
        assert!(trail.records.iter().all(|record| record.tenant == Some(tenant)), "{trail:?}");
        let theirs = &crate::audit::work(&world, &acme).await[0];
        for query in [
            AuditQuery { after: Some(theirs.id), ..AuditQuery::default() },
            AuditQuery { before: Some(theirs.id), ..AuditQuery::default() },
        ] {
            assert_error!(store.audit(&evil.may(ReadAudit { tenant }), &query).await, StoreError::NotFound { what: "event" });
        }
        let keys = store.keys(&evil.may(ManageKeys { tenant }), atelier_store::KeyQuery::default()).await.unwrap();
        assert!(keys.iter().all(|key| Some(key.id) != acme.admin.key()));
        let key = acme.admin.key().unwrap();
        assert_error!(store.key(&evil.may(ManageKeys { tenant }), key).await, StoreError::NotFound { .. });
        let after = atelier_store::KeyQuery { after: Some(key), ..Default::default() };
        assert_error!(store.keys(&evil.may(ManageKeys { tenant }), after).await, StoreError::NotFound { .. });
        let usage = store.usage(&evil.may(ReadUsage { tenant }), &query(START)).await.unwrap();
        assert!(usage.buckets.iter().all(|bucket| bucket.results.is_empty()));
    }

    async fn a_stranger_changes_nothing(world: World) {
        let (acme, evil) = (world.tenant("acme", Plan::Tuned).await, world.tenant("evil", Plan::Tuned).await);
        let version = world.learn(&acme, 1).await;
        let run = world.start_run(&acme).await;
        let (store, tenant) = (&world.store, evil.id());

        assert_error!(store.delete_source(&evil.may(WriteSources { tenant }), version.source).await, StoreError::NotFound { .. });
        assert_error!(store.create_run(&evil.may(StartRun { tenant }), new_run(version.source)).await, StoreError::NotFound { .. });
        assert_error!(store.cancel_run(&evil.may(CancelRun { tenant }), run.id).await, StoreError::NotFound { .. });
        assert_error!(store.roll_back(&evil.may(MoveAlias { tenant }), Some(version.number)).await, StoreError::NotFound { .. });
        let key = acme.admin.key().unwrap();
        assert_error!(store.revoke_key(&evil.may(ManageKeys { tenant }), key).await, StoreError::NotFound { .. });
        let change = atelier_store::KeyChange::default();
        assert_error!(store.update_key(&evil.may(ManageKeys { tenant }), key, change).await, StoreError::NotFound { .. });
        let serving = store.resolve(&acme.may(CompleteAs { tenant: acme.id() }), &ModelName::Alias).await.unwrap();
        let new = NewReservation { request: store.new_request_id(), serving: &serving };
        assert_error!(store.reserve(&evil.may(Meter { tenant }), new).await, StoreError::Denied(Denied::Hidden));
        assert_eq!(world.run(&acme, &run).await, run);
        store.authenticate(&acme.key.reveal()).await.unwrap();
    }

    async fn a_job_is_carried_out_for_its_own_tenant_only(world: World) {
        let (acme, evil) = (world.tenant("acme", Plan::Tuned).await, world.tenant("evil", Plan::Tuned).await);
        let run = world.start_run(&acme).await;
        let job = world.claim().await.unwrap();
        let (store, grant, lease) = (&world.store, job_right(evil.id()), &job.lease);
        let failure = RunFailure { code: "x".to_owned(), message: String::new(), retry: false };
        let progress = Progress { stage: "x".to_owned(), done: 0, total: 0 };

        assert_error!(store.heartbeat(&grant, lease).await, StoreError::LeaseLost);
        assert_error!(store.append_event(&grant, lease, "x", &json!({})).await, StoreError::LeaseLost);
        assert_error!(store.set_progress(&grant, lease, &progress).await, StoreError::LeaseLost);
        assert_error!(store.put_checkpoint(&grant, lease, Bytes::new()).await, StoreError::LeaseLost);
        assert_error!(store.read_checkpoint(&grant, lease).await, StoreError::LeaseLost);
        assert_error!(store.put_adapter(&grant, lease, Digest([1; 32]), &adapter_files(1)).await, StoreError::LeaseLost);
        assert_error!(store.delete_adapter(&grant, lease, Digest([1; 32])).await, StoreError::LeaseLost);
        assert_error!(store.release_job(&grant, lease).await, StoreError::LeaseLost);
        assert_error!(store.finish_run(&grant, lease, RunEnd::Cancelled).await, StoreError::LeaseLost);
        assert_error!(store.fail_run(&grant, lease, failure).await, StoreError::LeaseLost);
        world.store.put_adapter(&job.grant, lease, Digest([1; 32]), &adapter_files(1)).await.unwrap();
        assert_error!(store.publish_version(&grant, lease, new_version(1)).await, StoreError::NotFound { .. } | StoreError::LeaseLost);
        assert_eq!(world.run(&acme, &run).await.state, atelier_store::RunState::Running);
        world.publish(&job, 1).await.unwrap();
        assert!(world.versions(&evil).await.is_empty());
    }
}
