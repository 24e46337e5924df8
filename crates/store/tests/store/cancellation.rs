//! Clients go away at any moment. Whatever they were waiting for, no connection is left to the next one inside a
//! transaction or with a tenant set (case 26 of the attack suite).

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use atelier_access::right::{
    CompleteAs, ManageKeys, ManageTenant, Meter, MoveAlias, ReadAudit, ReadRuns, ReadSources, ReadUsage, ReadVersions,
    StartRun, WriteSources,
};
use atelier_domain::{ModelName, Plan, Role, VersionNumber};
use atelier_store::{AuditQuery, NewReservation, NewSource, Outcome, RunPage, SourceOrigin};
use bytes::Bytes;

use crate::usage::query;
use crate::world::{Backend, START, Tenant, World, new_run};

/// Requests that are dropped.
const DROPS: usize = 10_000;
/// Requests on their way at once: more than there are connections.
const AT_ONCE: usize = 32;
/// Polls after which a request is dropped at the latest; a whole one takes fewer.
const POLLS_MAX: u64 = 10;
/// How long the last transactions may take to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// Polls a future so often, and then no more: dropping it drops the future where it stands.
struct DropAfter<F> {
    future: Pin<Box<F>>,
    polls_left: u64,
}

impl<F: Future> Future for DropAfter<F> {
    /// None when the future was not done in time.
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if self.polls_left == 0 {
            return Poll::Ready(None);
        }
        self.polls_left -= 1;
        let polled = self.future.as_mut().poll(context).map(Some);
        if polled.is_pending() && self.polls_left == 0 {
            // Not at the next wake-up, which may find it done: here and now, with a statement on its way.
            return Poll::Ready(None);
        }
        polled
    }
}

/// A small generator of numbers that look random, the same at each run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// One of the store's calls for a tenant, as a request makes it. What it answers does not matter here.
async fn request(world: &World, tenant: &Tenant, mut dice: Dice) {
    let (store, id) = (&world.store, tenant.id());
    let completes = CompleteAs { tenant: id };
    match dice.below(KINDS) {
        0 => drop(store.authenticate(&tenant.key.reveal()).await),
        1 => drop(store.resolve(&tenant.may(completes), &ModelName::Alias).await),
        2 => drop(store.sources(&tenant.may(ReadSources { tenant: id })).await),
        3 => drop(store.runs(&tenant.may(ReadRuns { tenant: id }), RunPage { limit: 9, after: None }).await),
        4 => drop(store.versions(&tenant.may(ReadVersions { tenant: id })).await),
        5 => drop(
            store.audit(&tenant.may(ReadAudit { tenant: id }), &AuditQuery { limit: 9, ..AuditQuery::default() }).await,
        ),
        6 => drop(store.usage(&tenant.may(ReadUsage { tenant: id }), &query(START)).await),
        7 => drop(store.keys(&tenant.may(ManageKeys { tenant: id }), atelier_store::KeyQuery::default()).await),
        8 => drop(store.record_export(&tenant.may(ReadSources { tenant: id }), VersionNumber::FIRST).await),
        9 => drop(store.roll_back(&tenant.may(MoveAlias { tenant: id }), None).await),
        // Rarely: what is listed should not grow.
        10 if dice.below(32) == 0 => {
            let (name, archive) = ("code".to_owned(), Bytes::from_static(b"archive"));
            let source = NewSource { name, origin: SourceOrigin::Upload, archive };
            drop(store.create_source(&tenant.may(WriteSources { tenant: id }), source).await);
        }
        11 => {
            let sources = store.sources(&tenant.may(ReadSources { tenant: id })).await.unwrap_or_default();
            if let Some(source) = sources.first() {
                drop(store.create_run(&tenant.may(StartRun { tenant: id }), new_run(source.id)).await);
            }
        }
        12 => {
            let grant = world.operator.grant(ManageTenant { tenant: id }).unwrap();
            drop(store.set_plan(&grant, Plan::Tuned).await);
        }
        13 if dice.below(8) == 0 => {
            let grant = tenant.may(ManageKeys { tenant: id });
            if let Ok(made) = store.create_key(&grant, crate::world::new_key(&grant, Role::Member)).await {
                let key = made.summary;
                drop(store.revoke_key(&grant, key.id).await);
            }
        }
        14 => drop(world.store.claim_job(&crate::world::worker()).await),
        _ => {
            let Ok(serving) = store.resolve(&tenant.may(completes), &ModelName::Alias).await else { return };
            let new = NewReservation { request: store.new_request_id(), serving: &serving };
            if let Ok(reservation) = store.reserve(&tenant.may(Meter { tenant: id }), new).await {
                drop(store.settle(reservation, Default::default(), Outcome::Finished).await);
            }
        }
    }
}

const KINDS: u64 = 16;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_26_ten_thousand_dropped_requests_leave_no_connection_unclean() {
    let world = Arc::new(World::open(Backend::postgres()).await);
    let tenants = Arc::new([world.tenant("acme", Plan::Tuned).await, world.tenant("evil", Plan::Tuned).await]);
    for tenant in tenants.iter() {
        world.source(tenant).await;
    }
    let tasks: Vec<_> = (0..AT_ONCE)
        .map(|at| {
            let (world, tenants) = (Arc::clone(&world), Arc::clone(&tenants));
            let mut dice = Dice(at as u64);
            tokio::spawn(async move {
                let mut dropped = 0;
                while dropped < DROPS.div_ceil(AT_ONCE) {
                    let tenant = &tenants[dice.below(2) as usize];
                    let future = Box::pin(request(&world, tenant, Dice(dice.below(u64::MAX >> 33))));
                    let done = DropAfter { future, polls_left: 1 + dice.below(POLLS_MAX) }.await;
                    dropped += usize::from(done.is_none());
                }
                dropped
            })
        })
        .collect();
    let mut dropped = 0;
    for task in tasks {
        dropped += task.await.unwrap();
    }
    assert!(dropped >= DROPS, "{dropped}");

    let database = world.backend.test_database();
    let open = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
        AND usename = 'atelier_app' AND (xact_start IS NOT NULL OR state <> 'idle')";
    let started = Instant::now();
    while database.sql(open) != "0" {
        let left = database.sql("SELECT state, query FROM pg_stat_activity WHERE xact_start IS NOT NULL");
        assert!(started.elapsed() < PATIENCE, "transactions are left open: {left}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (idle, unclean) = world.store.idle_connections().await.unwrap();
    assert!(idle > 0, "the pool is in use");
    assert_eq!(unclean, 0, "of {idle} connections");
    // And it serves on, each its own.
    for tenant in tenants.iter() {
        let sources = world.store.sources(&tenant.may(ReadSources { tenant: tenant.id() })).await.unwrap();
        assert!(!sources.is_empty() && sources.iter().all(|source| source.created_by.contains("key")));
    }
}
