//! Jobs: leases, fencing, crashes, and a random walk held against a model.

use std::collections::HashMap;

use atelier_access::right::ReadRuns;
use atelier_domain::limits::{JOB_CRASHES_MAX, JOB_FAILURES_MAX, JOB_LEASE, RUN_ERROR_BYTES_MAX};
use atelier_domain::{Digest, Plan, Timestamp};
use atelier_store::{ClaimedJob, RunFailure, RunState, StoreError};
use bytes::Bytes;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::world::{
    Backend, START, Tenant, World, adapter_files, assert_error, load_right, new_version, on_each_database,
};

fn fault(retry: bool) -> RunFailure {
    RunFailure { code: "broken".to_owned(), message: "ü".repeat(RUN_ERROR_BYTES_MAX), retry }
}

on_each_database! {
    async fn a_late_worker_does_nothing(world: World) {
        let acme = world.tenant("acme", Plan::Tuned).await;
        let run = world.start_run(&acme).await;
        let late = world.claim().await.unwrap();
        assert!(world.claim().await.is_none(), "a held job is not handed out");
        world.advance(29);
        world.store.heartbeat(&late.grant, &late.lease).await.unwrap();
        world.advance(29);
        assert!(world.claim().await.is_none(), "a heartbeat renews the lease");
        world.advance(1);
        let successor = world.claim().await.unwrap();
        assert_eq!((successor.lease.attempt(), successor.run.id), (2, run.id));

        let (store, grant, lease) = (&world.store, &late.grant, &late.lease);
        assert_error!(store.heartbeat(grant, lease).await, StoreError::LeaseLost);
        assert_error!(store.append_event(grant, lease, "step", &serde_json::json!({})).await, StoreError::LeaseLost);
        assert_error!(store.put_checkpoint(grant, lease, Bytes::from_static(b"x")).await, StoreError::LeaseLost);
        assert_error!(store.read_checkpoint(grant, lease).await, StoreError::LeaseLost);
        assert_error!(store.put_adapter(grant, lease, Digest([1; 32]), &adapter_files(1)).await, StoreError::LeaseLost);
        assert_error!(store.release_job(grant, lease).await, StoreError::LeaseLost);
        assert_error!(store.fail_run(grant, lease, fault(true)).await, StoreError::LeaseLost);
        world.publish(&successor, 2).await.unwrap();
        assert_error!(store.publish_version(grant, lease, new_version(2)).await, StoreError::LeaseLost);
        assert_eq!(world.versions(&acme).await.len(), 1);
    }

    async fn an_expired_lease_publishes_nothing_although_nobody_took_over(world: World) {
        let acme = world.tenant("acme", Plan::Tuned).await;
        world.start_run(&acme).await;
        let job = world.claim().await.unwrap();
        world.store.put_adapter(&job.grant, &job.lease, Digest([1; 32]), &adapter_files(1)).await.unwrap();
        world.advance(30);
        assert_error!(world.store.publish_version(&job.grant, &job.lease, new_version(1)).await, StoreError::LeaseLost);
        assert!(world.versions(&acme).await.is_empty());
    }

    async fn publishing_twice_is_publishing_once(world: World) {
        let acme = world.tenant("acme", Plan::Tuned).await;
        world.start_run(&acme).await;
        let job = world.claim().await.unwrap();
        let first = world.publish(&job, 1).await.unwrap();
        let again = world.store.publish_version(&job.grant, &job.lease, new_version(1)).await.unwrap();
        assert_eq!(first, again);
        assert_eq!(world.versions(&acme).await, [first]);
    }

    async fn a_version_without_its_adapter_is_not_published(world: World) {
        let acme = world.tenant("acme", Plan::Tuned).await;
        let run = world.start_run(&acme).await;
        let job = world.claim().await.unwrap();
        let published = world.store.publish_version(&job.grant, &job.lease, new_version(1)).await;
        assert_error!(published, StoreError::NotFound { what: "adapter" });
        assert_eq!(world.run(&acme, &run).await.state, RunState::Running);
    }

    async fn an_adapter_that_no_version_names_can_be_removed(world: World) {
        let acme = world.tenant("acme", Plan::Tuned).await;
        let kept = world.learn(&acme, 1).await.digest;
        world.start_run(&acme).await;
        let job = world.claim().await.unwrap();
        let dropped = Digest([2; 32]);
        world.store.put_adapter(&job.grant, &job.lease, dropped, &adapter_files(2)).await.unwrap();
        world.store.delete_adapter(&job.grant, &job.lease, dropped).await.unwrap();
        world.store.delete_adapter(&job.grant, &job.lease, kept).await.unwrap();
        assert_error!(world.store.adapter(&load_right(acme.id()), dropped).await, StoreError::NotFound { .. });
        world.store.adapter(&load_right(acme.id()), kept).await.unwrap();
    }

    async fn a_checkpoint_outlives_its_worker_and_goes_with_its_run(world: World) {
        let acme = world.tenant("acme", Plan::Tuned).await;
        world.start_run(&acme).await;
        let job = world.claim().await.unwrap();
        assert!(world.store.read_checkpoint(&job.grant, &job.lease).await.unwrap().is_none());
        for state in ["step 1", "step 2"] {
            world.store.put_checkpoint(&job.grant, &job.lease, Bytes::from(state)).await.unwrap();
        }
        let world = world.reopen().await;
        let job = world.claim().await.expect("the dead server's job is due at once");
        assert_eq!(job.checkpoint, Some(Digest::of(b"step 2")));
        assert_eq!(world.store.read_checkpoint(&job.grant, &job.lease).await.unwrap(), Some(Bytes::from_static(b"step 2")));
        let checkpoints = world.folder.path().join("data/blobs").join(acme.id().hex()).join("checkpoints");
        assert_eq!(std::fs::read_dir(checkpoints.join(job.lease.job().hex())).unwrap().count(), 1, "one state is kept");
        world.publish(&job, 1).await.unwrap();
        assert!(!checkpoints.exists());
    }

    async fn a_released_job_is_due_at_once_and_no_crash(world: World) {
        let acme = world.tenant("acme", Plan::Tuned).await;
        world.start_run(&acme).await;
        for attempt in 1..=JOB_CRASHES_MAX + 2 {
            let job = world.claim().await.expect("due at once");
            assert_eq!(job.lease.attempt(), attempt);
            world.store.release_job(&job.grant, &job.lease).await.unwrap();
        }
    }

    async fn faults_are_retried_after_a_while_and_then_given_up(world: World) {
        let acme = world.tenant("acme", Plan::Tuned).await;
        let run = world.start_run(&acme).await;
        for failure in 1..=JOB_FAILURES_MAX {
            let job = world.claim().await.expect("due");
            let again = world.store.fail_run(&job.grant, &job.lease, fault(true)).await.unwrap();
            assert_eq!(again, failure < JOB_FAILURES_MAX);
            assert!(world.claim().await.is_none(), "it waits first");
            world.advance(20);
        }
        let run = world.run(&acme, &run).await;
        assert_eq!(run.state, RunState::Failed);
        assert!(run.error.unwrap().message.len() <= RUN_ERROR_BYTES_MAX);
        assert!(world.claim().await.is_none());

        let run = world.start_run(&acme).await;
        let job = world.claim().await.unwrap();
        assert!(!world.store.fail_run(&job.grant, &job.lease, fault(false)).await.unwrap());
        assert_eq!(world.run(&acme, &run).await.state, RunState::Failed);
    }

    async fn a_job_that_kills_its_workers_is_quarantined(world: World) {
        let acme = world.tenant("acme", Plan::Tuned).await;
        let run = world.start_run(&acme).await;
        // A checkpoint between crashes shows that the job is not the culprit.
        for _ in 0..JOB_CRASHES_MAX {
            let job = world.claim().await.expect("due");
            world.store.put_checkpoint(&job.grant, &job.lease, Bytes::from_static(b"further")).await.unwrap();
            world.advance(31);
        }
        for _ in 0..JOB_CRASHES_MAX - 1 {
            world.claim().await.expect("due");
            world.advance(31);
        }
        assert!(world.claim().await.is_none());
        let run = world.run(&acme, &run).await;
        assert_eq!((run.state, run.error.unwrap().code.as_str()), (RunState::Failed, "worker_crashed"));
    }

    async fn the_hints_are_made_anew_at_the_start(world: World) {
        let acme = world.tenant("acme", Plan::Tuned).await;
        world.start_run(&acme).await;
        world.start_run(&acme).await;
        let held = world.claim().await.unwrap();
        let world = world.reopen().await;
        let jobs = [world.claim().await.unwrap(), world.claim().await.unwrap()];
        assert!(world.claim().await.is_none());
        assert!(jobs.iter().any(|job| job.lease.job() == held.lease.job() && job.lease.attempt() == 2));
        assert_error!(world.store.heartbeat(&held.grant, &held.lease).await, StoreError::LeaseLost);
    }

    async fn many_workers_never_share_a_job(world: World) {
        let (acme, globex) = (world.tenant("acme", Plan::Tuned).await, world.tenant("globex", Plan::Tuned).await);
        for _ in 0..4 {
            world.start_run(&acme).await;
            world.start_run(&globex).await;
        }
        let mut workers = tokio::task::JoinSet::new();
        for _ in 0..4 {
            let store = world.store.clone();
            workers.spawn(async move {
                let mut jobs = Vec::new();
                while let Some(job) = store.claim_job(&crate::world::worker()).await.unwrap() {
                    jobs.push(job.lease.job());
                }
                jobs
            });
        }
        let mut jobs = workers.join_all().await.concat();
        jobs.sort();
        jobs.dedup();
        assert_eq!(jobs.len(), 8);
    }
}

/// What a worker, or time, may do next. A number picks one of the leases ever handed out, the dead ones included.
#[derive(Debug, Clone)]
enum Act {
    Claim,
    Wait(u64),
    Heartbeat(usize),
    Checkpoint(usize),
    Publish(usize),
    Release(usize),
    Fail(usize),
    Restart,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => Just(Act::Claim),
        2 => (1u64..40).prop_map(Act::Wait),
        2 => (0usize..8).prop_map(Act::Heartbeat),
        1 => (0usize..8).prop_map(Act::Checkpoint),
        2 => (0usize..8).prop_map(Act::Publish),
        1 => (0usize..8).prop_map(Act::Release),
        1 => (0usize..8).prop_map(Act::Fail),
        1 => Just(Act::Restart),
    ]
}

/// The queue as it should be: who holds each job until when, and what was published.
#[derive(Debug, Default)]
struct Model {
    holders: HashMap<usize, Timestamp>,
    published: HashMap<usize, u32>,
}

struct Walk {
    world: World,
    tenant: Tenant,
    claims: Vec<ClaimedJob>,
    model: Model,
}

impl Walk {
    fn holds(&self, claim: usize) -> bool {
        self.model.holders.get(&claim).is_some_and(|until| self.world.store.now() < *until)
    }

    async fn step(mut self, act: Act) -> Self {
        match act {
            Act::Claim => {
                if let Some(job) = self.world.claim().await {
                    let lease = job.lease.job();
                    for (at, earlier) in self.claims.iter().enumerate() {
                        assert!(earlier.lease.job() != lease || !self.holds(at), "a held job was handed out");
                    }
                    let until = self.world.store.now().plus(JOB_LEASE);
                    self.model.holders.insert(self.claims.len(), until);
                    self.claims.push(job);
                }
            }
            Act::Wait(seconds) => self.world.advance(seconds),
            Act::Restart => {
                self.world = self.world.reopen().await;
                self.model.holders.clear();
            }
            Act::Heartbeat(at) | Act::Checkpoint(at) | Act::Publish(at) | Act::Release(at) | Act::Fail(at) => {
                if let Some(at) = at.checked_rem(self.claims.len()) {
                    self.act_as(at, act).await;
                }
            }
        }
        self
    }

    /// The holder succeeds, everybody else is told that the lease is lost.
    async fn act_as(&mut self, at: usize, act: Act) {
        let (holds, job, store) = (self.holds(at), &self.claims[at], &self.world.store);
        let ends = matches!(act, Act::Publish(_) | Act::Release(_) | Act::Fail(_));
        let publishes = matches!(act, Act::Publish(_));
        let done = match act {
            Act::Heartbeat(_) => store.heartbeat(&job.grant, &job.lease).await.map(|_| ()),
            Act::Checkpoint(_) => {
                store.put_checkpoint(&job.grant, &job.lease, Bytes::from_static(b"state")).await.map(|_| ())
            }
            Act::Release(_) => store.release_job(&job.grant, &job.lease).await,
            Act::Fail(_) => store.fail_run(&job.grant, &job.lease, fault(true)).await.map(|_| ()),
            Act::Publish(_) => self.world.publish(job, 1).await.map(|_| ()),
            Act::Claim | Act::Wait(_) | Act::Restart => unreachable!("not a worker's act"),
        };
        match done {
            Ok(()) => assert!(holds, "a worker without a lease did something"),
            Err(StoreError::LeaseLost) => assert!(!holds, "the holder was turned away"),
            Err(error) => panic!("{error}"),
        }
        if holds && publishes {
            *self.model.published.entry(at).or_default() += 1;
        }
        if holds && ends {
            self.model.holders.remove(&at);
        } else if holds {
            let renewed = self.world.store.now().plus(JOB_LEASE);
            if matches!(act, Act::Heartbeat(_)) {
                self.model.holders.insert(at, renewed);
            }
        }
    }

    async fn check_end(self) {
        let versions = self.world.versions(&self.tenant).await;
        assert_eq!(versions.len(), self.model.published.len());
        let mut runs: Vec<_> = versions.iter().map(|version| version.run).collect();
        runs.sort();
        runs.dedup();
        assert_eq!(runs.len(), versions.len(), "a run publishes once");
        for version in versions {
            let grant = self.tenant.may(ReadRuns { tenant: self.tenant.id() });
            assert_eq!(self.world.store.run(&grant, version.run).await.unwrap().state, RunState::Live);
        }
    }
}

#[test]
fn whatever_happens_only_the_holder_acts() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut runner = TestRunner::new(Config { cases: 24, failure_persistence: None, ..Config::default() });
    runner
        .run(&proptest::collection::vec(act(), 1..24), |acts| {
            runtime.block_on(async {
                let world = World::open(Backend::Sqlite).await;
                assert_eq!(world.store.now(), START);
                let tenant = world.tenant("acme", Plan::Tuned).await;
                world.start_run(&tenant).await;
                world.start_run(&tenant).await;
                let mut walk = Walk { world, tenant, claims: Vec::new(), model: Model::default() };
                for act in acts {
                    walk = walk.step(act).await;
                }
                walk.check_end().await;
            });
            Ok(())
        })
        .unwrap();
}
