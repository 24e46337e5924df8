//! Usage: what was accepted is in the books, whatever happens to the request, and the sums are right.

use std::process::Command;
use std::sync::Arc;

use atelier_access::right::{CompleteAs, CorrectUsage, Meter, ReadUsage};
use atelier_domain::{ManualClock, MicroUnits, ModelName, Plan, RequestId, Timestamp, TokenCounts};
use atelier_store::{
    BucketWidth, Correction, DatabaseOptions, DatabaseUrls, NewReservation, Outcome, Reservation, Store, StoreError,
    UsageQuery, UsageResult,
};
use proptest::test_runner::{Config, TestRunner};

use crate::world::{Backend, START, Tenant, World, assert_error, database_options, on_each_database, open_options};

pub fn query(start: Timestamp) -> UsageQuery {
    UsageQuery {
        start,
        end: None,
        width: BucketWidth::Day,
        group_by_model: false,
        group_by_key: false,
        group_by_project: false,
        group_by_user: false,
        models: vec![],
        keys: vec![],
        projects: vec![],
        users: vec![],
        buckets_max: usize::MAX,
    }
}

fn tokens(input: u64, input_cached: u64, output: u64) -> TokenCounts {
    TokenCounts { input, input_cached, output }
}

pub async fn reserve(world: &World, tenant: &Tenant) -> Reservation {
    reserve_model(world, tenant, ModelName::Alias).await
}

async fn reserve_model(world: &World, tenant: &Tenant, model: ModelName) -> Reservation {
    let serving = world.store.resolve(&tenant.may(CompleteAs { tenant: tenant.id() }), &model).await.unwrap();
    let new = NewReservation { request: world.store.new_request_id(), serving: &serving };
    world.store.reserve(&tenant.may(Meter { tenant: tenant.id() }), new).await.unwrap()
}

/// The tenant's whole usage as one sum.
async fn total(world: &World, tenant: &Tenant) -> (TokenCounts, u64, MicroUnits) {
    let grant = tenant.may(ReadUsage { tenant: tenant.id() });
    let page = world.store.usage(&grant, &query(START)).await.unwrap();
    let results: Vec<&UsageResult> = page.buckets.iter().flat_map(|bucket| &bucket.results).collect();
    (
        results.iter().map(|result| result.tokens).sum(),
        results.iter().map(|result| result.requests).sum(),
        results.iter().map(|result| result.cost).sum(),
    )
}

on_each_database! {
    async fn a_request_is_counted_when_accepted_and_its_tokens_when_settled(world: World) {
        let acme = world.tenant("acme", Plan::Shared).await;
        let reservation = reserve(&world, &acme).await;
        assert_eq!(total(&world, &acme).await, (tokens(0, 0, 0), 1, MicroUnits::ZERO));
        world.store.checkpoint(&reservation, tokens(100, 0, 64)).await.unwrap();
        assert_eq!(total(&world, &acme).await.0, tokens(0, 0, 0));
        let used = tokens(100, 20, 80);
        world.store.settle(reservation, used, Outcome::Finished).await.unwrap();
        assert_eq!(total(&world, &acme).await, (used, 1, Plan::Shared.token_price().cost(used)));
    }

    async fn a_request_id_is_accepted_once(world: World) {
        let acme = world.tenant("acme", Plan::Shared).await;
        let serving = world.store.resolve(&acme.may(CompleteAs { tenant: acme.id() }), &ModelName::Alias).await.unwrap();
        let new = NewReservation { request: world.store.new_request_id(), serving: &serving };
        let grant = acme.may(Meter { tenant: acme.id() });
        let first = world.store.reserve(&grant, new).await.unwrap();
        assert_error!(world.store.reserve(&grant, new).await, StoreError::AlreadyFinished);
        world.store.settle(first, tokens(1, 0, 1), Outcome::Finished).await.unwrap();
        assert_eq!(total(&world, &acme).await.1, 1);
    }

    async fn the_price_is_that_of_the_time_of_acceptance(world: World) {
        let acme = world.tenant("acme", Plan::Shared).await;
        let reservation = reserve(&world, &acme).await;
        let operator = world.operator.grant(atelier_access::right::ManageTenant { tenant: acme.id() }).unwrap();
        world.store.set_plan(&operator, Plan::Dedicated).await.unwrap();
        let used = tokens(1_000, 0, 1_000);
        world.store.settle(reservation, used, Outcome::Finished).await.unwrap();
        assert_eq!(total(&world, &acme).await.2, Plan::Shared.token_price().cost(used));
    }

    async fn a_dropped_reservation_settles_itself_at_its_checkpoint(world: World) {
        let acme = world.tenant("acme", Plan::Shared).await;
        let reservation = reserve(&world, &acme).await;
        world.store.checkpoint(&reservation, tokens(10, 0, 5)).await.unwrap();
        drop(reservation);
        drop(reserve(&world, &acme).await);
        assert_eq!(total(&world, &acme).await.0, tokens(10, 0, 5), "the writer keeps order");
    }

    async fn a_reservation_whose_asker_went_away_is_settled(world: World) {
        let acme = world.tenant("acme", Plan::Shared).await;
        for _ in 0..20 {
            let asked = reserve(&world, &acme);
            tokio::select! { biased; _ = asked => {}, () = tokio::task::yield_now() => {} }
        }
        drop(reserve(&world, &acme).await);
        world.store.close().await;
        let world = world.reopen().await;
        let (used, requests, _) = total(&world, &acme).await;
        assert_eq!(used, tokens(0, 0, 0));
        assert!((1..=21).contains(&requests));
    }

    async fn many_share_a_commit_and_none_is_lost(world: World) {
        let acme = world.tenant("acme", Plan::Shared).await;
        let world = Arc::new(world);
        let acme = Arc::new(acme);
        let mut clients = tokio::task::JoinSet::new();
        for client in 0..200u64 {
            let (world, acme) = (Arc::clone(&world), Arc::clone(&acme));
            clients.spawn(async move {
                let reservation = reserve(&world, &acme).await;
                world.store.settle(reservation, tokens(client, 0, 1), Outcome::Finished).await.unwrap();
            });
        }
        clients.join_all().await;
        let (used, requests, _) = total(&world, &acme).await;
        assert_eq!((used, requests), (tokens((0..200).sum(), 0, 200), 200));
    }

    async fn buckets_have_the_width_asked_for_and_are_paged(world: World) {
        let acme = world.tenant("acme", Plan::Shared).await;
        for minute in [0u64, 1, 1, 3, 61] {
            let elapsed = world.store.now().since(START).as_secs();
            world.advance(minute * 60 - elapsed);
            let reservation = reserve(&world, &acme).await;
            world.store.settle(reservation, tokens(10, 0, minute), Outcome::Finished).await.unwrap();
        }
        let grant = acme.may(ReadUsage { tenant: acme.id() });
        let ask = |width, buckets_max| UsageQuery { width, buckets_max, ..query(START) };
        let requests = |page: &atelier_store::UsagePage| -> Vec<u64> {
            page.buckets.iter().map(|bucket| bucket.results.iter().map(|result| result.requests).sum()).collect()
        };
        let page = world.store.usage(&grant, &ask(BucketWidth::Minute, 5)).await.unwrap();
        assert_eq!(requests(&page), [1, 2, 0, 1, 0]);
        assert_eq!(page.buckets[0].start, START);
        assert_eq!(page.next, Some(Timestamp::from_seconds(START.seconds() + 300)));
        let rest = world.store.usage(&grant, &UsageQuery { start: page.next.unwrap(), ..ask(BucketWidth::Minute, 60) }).await;
        let rest = rest.unwrap();
        assert_eq!((rest.buckets.len(), rest.next, requests(&rest).iter().sum::<u64>()), (57, None, 1));
        let page = world.store.usage(&grant, &ask(BucketWidth::Hour, 9)).await.unwrap();
        assert_eq!((requests(&page), page.next), (vec![4, 1], None));
        let end = Some(Timestamp::from_seconds(START.seconds() + 60));
        let page = world.store.usage(&grant, &UsageQuery { end, ..ask(BucketWidth::Day, 9) }).await.unwrap();
        assert_eq!(requests(&page), [1], "the end is exclusive");
    }

    async fn sums_are_grouped_and_filtered(world: World) {
        let acme = world.tenant("acme", Plan::Tuned).await;
        let member = Tenant { admin: world.member(&acme).await, key: acme.key.clone(), record: acme.record.clone() };
        for (who, model, output) in [(&acme, ModelName::Alias, 1), (&acme, ModelName::Base, 2), (&member, ModelName::Base, 4)] {
            let reservation = reserve_model(&world, who, model).await;
            world.store.settle(reservation, tokens(0, 0, output), Outcome::Finished).await.unwrap();
        }
        let grant = acme.may(ReadUsage { tenant: acme.id() });
        let all = query(START);
        let (admin_key, member_key) = (acme.admin.key(), member.admin.key());
        let base = vec!["atelier-base".to_owned()];
        let cases = [
            (all.clone(), vec![(None, None, 7)]),
            (UsageQuery { group_by_model: true, ..all.clone() }, vec![(Some("atelier"), None, 1), (Some("atelier-base"), None, 6)]),
            (UsageQuery { group_by_key: true, ..all.clone() }, vec![(None, admin_key, 3), (None, member_key, 4)]),
            (UsageQuery { models: base.clone(), group_by_key: true, ..all.clone() }, vec![(None, admin_key, 2), (None, member_key, 4)]),
            (UsageQuery { keys: vec![member_key.unwrap()], ..all.clone() }, vec![(None, None, 4)]),
            (UsageQuery { models: vec!["other".to_owned()], ..all.clone() }, vec![]),
        ];
        for (question, expected) in cases {
            let page = world.store.usage(&grant, &question).await.unwrap();
            let mut results: Vec<_> = page.buckets[0].results.iter().map(|r| (r.model.as_deref(), r.key, r.tokens.output)).collect();
            results.sort_by_key(|result| result.2);
            assert_eq!(results, expected, "{question:?}");
        }
    }

    async fn a_correction_is_a_row_of_its_own(world: World) {
        let acme = world.tenant("acme", Plan::Shared).await;
        let reservation = reserve(&world, &acme).await;
        let request = reservation.request();
        world.store.settle(reservation, tokens(10, 0, 10), Outcome::Finished).await.unwrap();
        let cost = total(&world, &acme).await.2;
        let grant = world.operator.grant(CorrectUsage).unwrap();
        let (cost_back, reason) = (-cost, "the answer was garbled".to_owned());
        let correction = Correction { request, input: -10, input_cached: 0, output: -10, cost: cost_back, reason };
        world.store.correct_usage(&grant, correction.clone()).await.unwrap();
        assert_eq!(total(&world, &acme).await, (tokens(0, 0, 0), 1, MicroUnits::ZERO));
        let nul = Correction { reason: "\0".to_owned(), ..correction.clone() };
        assert_error!(world.store.correct_usage(&grant, nul).await, StoreError::NulInText);
        let nothing = Correction { request: RequestId::generate(START, [9; 10]), ..correction };
        assert_error!(world.store.correct_usage(&grant, nothing).await, StoreError::NotFound { what: "request" });
    }
}

/// Where the process to be killed works; set by the test that starts it.
const KILL_FOLDER: &str = "ATELIER_STORE_TEST_KILL_FOLDER";
/// The database's address for the application and, a line further, for its owner; empty for files.
const KILL_DATABASE: &str = "ATELIER_STORE_TEST_KILL_DATABASE";

/// Not a test of its own: the body of the process that the next tests kill.
#[tokio::test]
async fn process_that_dies() {
    let Ok(folder) = std::env::var(KILL_FOLDER) else { return };
    let database = match std::env::var(KILL_DATABASE).unwrap().split_once('\n') {
        None => DatabaseOptions::Files,
        Some((application, owner)) => DatabaseOptions::Postgres(DatabaseUrls {
            application: application.to_owned(),
            owner: Some(owner.to_owned()),
        }),
    };
    let clock = Arc::new(ManualClock::at(START));
    let store = Store::open(open_options(database, folder.into(), &clock)).await.unwrap();
    let operator = store.bootstrap_operator_key().await.unwrap().unwrap().reveal();
    let operator = store.authenticate(&operator).await.unwrap();
    let create = operator.grant(atelier_access::right::CreateTenant).unwrap();
    let (acme, _) = store.create_tenant(&create, "acme".parse().unwrap(), Plan::Shared).await.unwrap();
    let acting = operator.acting_for(acme.id).unwrap();
    let serving =
        store.resolve(&acting.grant(CompleteAs { tenant: acme.id }).unwrap(), &ModelName::Alias).await.unwrap();
    let meter = acting.grant(Meter { tenant: acme.id }).unwrap();
    let mut reservations = Vec::new();
    for _ in 0..10 {
        let new = NewReservation { request: store.new_request_id(), serving: &serving };
        reservations.push(store.reserve(&meter, new).await.unwrap());
    }
    store.checkpoint(&reservations[0], tokens(7, 0, 64)).await.unwrap();
    store.checkpoint(&reservations[0], tokens(7, 0, 128)).await.unwrap();
    store.settle(reservations.pop().unwrap(), tokens(1, 0, 1), Outcome::Finished).await.unwrap();
    std::process::abort();
}

#[tokio::test]
async fn every_accepted_request_has_its_row_after_a_kill_on_sqlite() {
    every_accepted_request_has_its_row_after_a_kill(Backend::Sqlite).await;
}

#[tokio::test]
async fn every_accepted_request_has_its_row_after_a_kill_on_postgres() {
    every_accepted_request_has_its_row_after_a_kill(Backend::postgres()).await;
}

async fn every_accepted_request_has_its_row_after_a_kill(backend: Backend) {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let addresses = match &backend {
        Backend::Sqlite => String::new(),
        backend => {
            let database = backend.test_database();
            format!("{}\n{}", database.application_url(), database.owner_url())
        }
    };
    let died = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "usage::process_that_dies", "--nocapture"])
        .env(KILL_FOLDER, &data)
        .env(KILL_DATABASE, addresses)
        .output()
        .unwrap();
    assert!(!died.status.success() && data.join("pepper").exists(), "{died:?}");

    let clock = Arc::new(ManualClock::at(START));
    let database = database_options(&backend);
    let store = Store::open(open_options(database, data, &clock)).await.unwrap();
    let operator = store.replace_operator_key().await.unwrap().reveal();
    let operator = store.authenticate(&operator).await.unwrap();
    let list = operator.grant(atelier_access::right::ListTenants).unwrap();
    let acme = store.tenant_by_name(&list, &"acme".parse().unwrap()).await.unwrap();
    let page = store.usage(&operator.grant(ReadUsage { tenant: acme.id }).unwrap(), &query(START)).await.unwrap();
    let [result] = &page.buckets[0].results[..] else { panic!("{page:?}") };
    assert_eq!((result.requests, result.tokens), (10, tokens(8, 0, 129)));
}

#[test]
fn the_sums_are_those_of_the_rows() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut runner = TestRunner::new(Config { cases: 8, failure_persistence: None, ..Config::default() });
    let request = (0u64..5_000, 0u64..1_000, 0u64..1_000, 0u64..7_200);
    runner
        .run(&proptest::collection::vec(request, 0..30), |requests| {
            runtime.block_on(async {
                let world = World::open(Backend::Sqlite).await;
                let acme = world.tenant("acme", Plan::Tuned).await;
                let (mut used, mut cost) = (TokenCounts::default(), MicroUnits::ZERO);
                for (input, cached, output, wait) in &requests {
                    world.advance(*wait);
                    let reservation = reserve(&world, &acme).await;
                    let counts = tokens(*input, *cached.min(input), *output);
                    world.store.settle(reservation, counts, Outcome::Disconnected).await.unwrap();
                    used = used + counts;
                    cost = cost + Plan::Tuned.token_price().cost(counts);
                }
                assert_eq!(total(&world, &acme).await, (used, requests.len() as u64, cost));
            });
            Ok(())
        })
        .unwrap();
}
