//! Sources, runs and versions: the learning line without its workers' troubles.

use atelier_access::right::{CancelRun, MoveAlias, ReadRuns, ReadSources, ReadVersions, StartRun, WriteSources};
use atelier_domain::limits::{RUNS_OPEN_PER_TENANT_MAX, SOURCE_NAME_BYTES_MAX};
use atelier_domain::{Digest, Plan, SourceId, VersionNumber};
use atelier_store::{Aliases, NewRun, NewSource, Progress, RunEnd, RunPage, RunState, SourceOrigin, StoreError};
use bytes::Bytes;
use serde_json::json;

use crate::world::{Tenant, World, assert_error, new_run, on_each_database};

fn number(number: i64) -> Option<VersionNumber> {
    Some(VersionNumber::try_from(number).unwrap())
}

async fn aliases(world: &World, tenant: &Tenant) -> Aliases {
    world.store.aliases(&tenant.may(ReadVersions { tenant: tenant.id() })).await.unwrap()
}

async fn event_kinds(world: &World, tenant: &Tenant, run: &atelier_store::RunRecord) -> Vec<String> {
    let grant = tenant.may(ReadRuns { tenant: tenant.id() });
    let events = world.store.run_events(&grant, run.id, 0, 100).await.unwrap();
    let label = |event: &atelier_store::RunEvent| match event.body["state"].as_str() {
        Some(state) => format!("{}:{state}", event.kind),
        None => event.kind.clone(),
    };
    assert!(events.iter().map(|event| event.sequence).eq(1..=events.len() as u64));
    events.iter().map(label).collect()
}

on_each_database! {
    async fn a_source_is_kept_as_it_came(world: World) {
        let acme = world.tenant("acme", Plan::Tuned).await;
        let read = acme.may(ReadSources { tenant: acme.id() });
        let source = world.source(&acme).await;
        assert_eq!(world.store.source(&read, source.id).await.unwrap(), source);
        assert_eq!(world.store.sources(&read).await.unwrap(), std::slice::from_ref(&source));
        let archive = world.store.source_archive(&read, source.id).await.unwrap();
        assert_eq!(archive, Bytes::from_static(b"archive of acme"));
        assert_eq!((source.digest, source.bytes), (Digest::of(&archive), archive.len() as u64));

        let write = acme.may(WriteSources { tenant: acme.id() });
        world.store.delete_source(&write, source.id).await.unwrap();
        assert_error!(world.store.source_archive(&read, source.id).await, StoreError::NotFound { what: "source" });
        assert_error!(world.store.delete_source(&write, source.id).await, StoreError::NotFound { what: "source" });
    }

    async fn a_damaged_archive_is_noticed(world: World) {
        let acme = world.tenant("acme", Plan::Tuned).await;
        let source = world.source(&acme).await;
        let blobs = crate::world::blob_folder(&world.folder).join(acme.id().hex());
        let file = blobs.join("sources").join(source.id.hex()).join(source.digest.to_string());
        std::fs::write(file, b"archive of evil").unwrap();
        let read = acme.may(ReadSources { tenant: acme.id() });
        assert_error!(world.store.source_archive(&read, source.id).await, StoreError::DoesNotOpen { .. });
    }

    async fn a_source_that_breaks_a_bound_is_refused(world: World) {
        let acme = world.tenant("acme", Plan::Tuned).await;
        let name = "x".repeat(SOURCE_NAME_BYTES_MAX + 1);
        let source = NewSource { name, origin: SourceOrigin::Folder, archive: Bytes::new() };
        let refused = world.store.create_source(&acme.may(WriteSources { tenant: acme.id() }), source).await;
        assert_error!(refused, StoreError::TooLarge { .. });
    }

    async fn a_run_goes_from_queued_to_live(world: World) {
        let acme = world.tenant("acme", Plan::Tuned).await;
        let run = world.start_run(&acme).await;
        assert_eq!((run.state, &run.options), (RunState::Queued, &json!({"epochs": 3})));
        let write = acme.may(WriteSources { tenant: acme.id() });
        assert_error!(world.store.delete_source(&write, run.source).await, StoreError::SourceInUse);

        world.advance(5);
        let job = world.claim().await.unwrap();
        assert_eq!((job.run.id, job.lease.attempt(), job.run.state), (run.id, 1, RunState::Running));
        world.store.append_event(&job.grant, &job.lease, "step", &json!({"loss": 2.5})).await.unwrap();
        let progress = Progress { stage: "train".to_owned(), done: 3, total: 9 };
        world.store.set_progress(&job.grant, &job.lease, &progress).await.unwrap();
        assert_eq!(world.run(&acme, &run).await.progress, Some(progress));

        let version = world.publish(&job, 7).await.unwrap();
        assert_eq!((version.number, version.digest, version.run), (VersionNumber::FIRST, Digest([7; 32]), run.id));
        let run = world.run(&acme, &run).await;
        assert_eq!((run.state, run.version, run.result.clone()), (RunState::Live, number(1), Some(json!({"seconds": 1}))));
        assert_eq!(run.started_at, run.finished_at);
        assert_eq!(event_kinds(&world, &acme, &run).await, ["state:queued", "state:running", "step", "state:live"]);
        assert!(world.claim().await.is_none(), "nothing is left in the queue");
        world.store.delete_source(&write, run.source).await.unwrap();
        let read = acme.may(ReadVersions { tenant: acme.id() });
        assert_eq!(world.store.version(&read, version.number).await.unwrap(), version);
    }

    async fn events_are_read_from_where_one_was(world: World) {
        let acme = world.tenant("acme", Plan::Tuned).await;
        let run = world.start_run(&acme).await;
        let job = world.claim().await.unwrap();
        for step in 0..4 {
            world.store.append_event(&job.grant, &job.lease, "step", &json!({"step": step})).await.unwrap();
        }
        let grant = acme.may(ReadRuns { tenant: acme.id() });
        let page = world.store.run_events(&grant, run.id, 3, 2).await.unwrap();
        assert_eq!(page.iter().map(|event| event.body["step"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 2]);
        assert!(world.store.run_events(&grant, run.id, 6, 9).await.unwrap().is_empty());
    }

    async fn a_refused_run_keeps_its_reasons_and_makes_no_version(world: World) {
        let acme = world.tenant("acme", Plan::Tuned).await;
        let run = world.start_run(&acme).await;
        let job = world.claim().await.unwrap();
        let (code, message) = ("no_gain".to_owned(), "own is no better than base".to_owned());
        let end = RunEnd::Refused { code: code.clone(), message, result: json!({"loss": [2.0, 2.1]}) };
        world.store.finish_run(&job.grant, &job.lease, end).await.unwrap();
        let run = world.run(&acme, &run).await;
        assert_eq!((run.state, run.result, run.error.unwrap().code), (RunState::Refused, Some(json!({"loss": [2.0, 2.1]})), code));
        assert!(world.versions(&acme).await.is_empty());
        assert_error!(world.publish(&job, 1).await, StoreError::LeaseLost);
        let publish = world.store.publish_version(&job.grant, &job.lease, crate::world::new_version(1)).await;
        assert_error!(publish, StoreError::AlreadyFinished);
    }

    async fn a_run_that_only_measures_succeeds_without_a_version(world: World) {
        let acme = world.tenant("acme", Plan::Tuned).await;
        let run = world.start_run(&acme).await;
        let job = world.claim().await.unwrap();
        let end = RunEnd::Succeeded { result: json!({"items": 4}) };
        world.store.finish_run(&job.grant, &job.lease, end).await.unwrap();
        let run = world.run(&acme, &run).await;
        assert_eq!((run.state, run.result, run.version), (RunState::Succeeded, Some(json!({"items": 4})), None));
        assert!(world.claim().await.is_none());
    }

    async fn the_same_key_starts_the_same_run(world: World) {
        let acme = world.tenant("acme", Plan::Tuned).await;
        let source = world.source(&acme).await.id;
        let grant = acme.may(StartRun { tenant: acme.id() });
        let keyed = NewRun { idempotency_key: Some("k1".to_owned()), ..new_run(source) };
        let first = world.store.create_run(&grant, keyed.clone()).await.unwrap();
        let again = world.store.create_run(&grant, keyed.clone()).await.unwrap();
        assert_eq!(first, again);
        let other = NewRun { options: json!({"epochs": 4}), ..keyed };
        assert_error!(world.store.create_run(&grant, other).await, StoreError::IdempotencyMismatch);
        assert!(world.claim().await.is_some());
        assert!(world.claim().await.is_none());
    }

    async fn a_run_needs_a_source_and_room(world: World) {
        let acme = world.tenant("acme", Plan::Tuned).await;
        let grant = acme.may(StartRun { tenant: acme.id() });
        let nowhere = SourceId::generate(world.store.now(), [1; 10]);
        assert_error!(world.store.create_run(&grant, new_run(nowhere)).await, StoreError::NotFound { what: "source" });
        let source = world.source(&acme).await.id;
        for _ in 0..RUNS_OPEN_PER_TENANT_MAX {
            world.store.create_run(&grant, new_run(source)).await.unwrap();
        }
        assert_error!(world.store.create_run(&grant, new_run(source)).await, StoreError::TooMany { .. });
    }

    async fn runs_are_paged_newest_first(world: World) {
        let acme = world.tenant("acme", Plan::Tuned).await;
        let source = world.source(&acme).await.id;
        let mut ids = Vec::new();
        for _ in 0..5 {
            world.advance(1);
            ids.push(world.store.create_run(&acme.may(StartRun { tenant: acme.id() }), new_run(source)).await.unwrap().id);
        }
        ids.reverse();
        let grant = acme.may(ReadRuns { tenant: acme.id() });
        let mut seen = Vec::new();
        loop {
            let page = world.store.runs(&grant, RunPage { limit: 2, after: seen.last().copied() }).await.unwrap();
            if page.is_empty() {
                break;
            }
            seen.extend(page.iter().map(|run| run.id));
        }
        assert_eq!(seen, ids);
    }

    async fn a_waiting_run_is_cancelled_at_once_and_a_running_one_by_its_worker(world: World) {
        let acme = world.tenant("acme", Plan::Tuned).await;
        let grant = acme.may(CancelRun { tenant: acme.id() });
        let waiting = world.start_run(&acme).await;
        assert_eq!(world.store.cancel_run(&grant, waiting.id).await.unwrap().state, RunState::Cancelled);
        assert!(world.claim().await.is_none());
        assert_error!(world.store.cancel_run(&grant, waiting.id).await, StoreError::AlreadyFinished);

        let running = world.start_run(&acme).await;
        let job = world.claim().await.unwrap();
        assert!(!world.store.heartbeat(&job.grant, &job.lease).await.unwrap().cancel_requested);
        assert_eq!(world.store.cancel_run(&grant, running.id).await.unwrap().state, RunState::Running);
        assert!(world.store.heartbeat(&job.grant, &job.lease).await.unwrap().cancel_requested);
        world.store.finish_run(&job.grant, &job.lease, RunEnd::Cancelled).await.unwrap();
        assert_eq!(world.run(&acme, &running).await.state, RunState::Cancelled);
    }

    async fn a_cancelled_run_whose_worker_died_ends_at_the_next_claim(world: World) {
        let acme = world.tenant("acme", Plan::Tuned).await;
        let run = world.start_run(&acme).await;
        world.claim().await.unwrap();
        world.store.cancel_run(&acme.may(CancelRun { tenant: acme.id() }), run.id).await.unwrap();
        world.advance(31);
        assert!(world.claim().await.is_none());
        assert_eq!(world.run(&acme, &run).await.state, RunState::Cancelled);
    }

    async fn a_run_whose_worker_is_dead_is_cancelled_at_once(world: World) {
        let acme = world.tenant("acme", Plan::Tuned).await;
        let run = world.start_run(&acme).await;
        let job = world.claim().await.unwrap();
        world.advance(31);
        let grant = acme.may(CancelRun { tenant: acme.id() });
        assert_eq!(world.store.cancel_run(&grant, run.id).await.unwrap().state, RunState::Cancelled);
        assert!(world.claim().await.is_none());
        let late = world.store.finish_run(&job.grant, &job.lease, RunEnd::Cancelled).await;
        assert_error!(late, StoreError::LeaseLost);
        assert_eq!(world.run(&acme, &run).await.state, RunState::Cancelled);
    }

    async fn live_moves_back_and_forth(world: World) {
        let acme = world.tenant("acme", Plan::Tuned).await;
        let grant = acme.may(MoveAlias { tenant: acme.id() });
        assert_error!(world.store.roll_back(&grant, None).await, StoreError::NoPreviousVersion);
        world.learn(&acme, 1).await;
        assert_error!(world.store.roll_back(&grant, None).await, StoreError::NoPreviousVersion);
        world.learn(&acme, 2).await;
        world.learn(&acme, 3).await;
        let pointing = |live, previous| Aliases { live: number(live), previous: number(previous), candidate: None };
        assert_eq!(aliases(&world, &acme).await, pointing(3, 2));
        assert_eq!(world.store.roll_back(&grant, None).await.unwrap(), pointing(2, 3));
        assert_eq!(world.store.roll_back(&grant, number(1)).await.unwrap(), pointing(1, 2));
        assert_eq!(world.store.roll_back(&grant, number(1)).await.unwrap(), pointing(1, 2));
        assert_error!(world.store.roll_back(&grant, number(4)).await, StoreError::NotFound { what: "version" });
        assert_eq!(aliases(&world, &acme).await, pointing(1, 2));
        assert_eq!(world.learn(&acme, 4).await.number.get(), 4);
        assert_eq!(aliases(&world, &acme).await, pointing(4, 1));
    }

    async fn the_trail_tells_the_story(world: World) {
        let acme = world.tenant("acme", Plan::Tuned).await;
        world.learn(&acme, 1).await;
        world.learn(&acme, 2).await;
        let acting = world.operator.acting_for(acme.id()).unwrap();
        world.store.roll_back(&acting.grant(MoveAlias { tenant: acme.id() }).unwrap(), None).await.unwrap();
        let trail = crate::audit::work(&world, &acme).await;
        let line: Vec<_> = trail.iter().map(|record| record.action.as_str()).collect();
        let learned = ["create_source", "start_run", "publish_version"];
        assert_eq!(line, [&learned[..], &learned[..], &["move_alias"]].concat());
        assert_eq!(trail[6].actor.text, acting.to_string());
        assert_eq!(trail[5].actor.text, "system (worker)");
        assert_eq!(trail[6].detail, json!({"live": {"from": 2, "to": 1}}));
    }
}
