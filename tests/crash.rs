//! `kill -9` at the worst moment, and what the next start makes of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::line::{booked, wait_for_usage};
use crate::support::{Style, User, World, archive_of, http, runtime, start_run};

/// Requests that stream when the server dies: more than it has slots, so that some wait.
const STREAMS: [usize; 3] = [30, 25, 15];
/// Tokens that each would generate.
const STREAM_TOKENS: u64 = 400;
/// Generated tokens of one request that a crash may leave unbilled (`USAGE_CHECKPOINT_TOKENS` of domain).
const UNBILLED_TOKENS_MAX: u64 = 64;
/// Steps between two checkpoints of a run (`CHECKPOINT_STEPS` of platform).
const CHECKPOINT_STEPS: u64 = 20;
/// How long to wait for something that comes in a second on an idle machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// All events of a run, page by page.
fn events(user: &User, run: &str) -> Vec<Value> {
    let mut all: Vec<Value> = Vec::new();
    loop {
        let after = all.last().map_or(0, |event| event["sequence"].as_u64().unwrap());
        let page = user.get(&format!("/v1/runs/{run}/events?after={after}")).ok();
        all.extend(page["data"].as_array().unwrap().iter().cloned());
        if page["has_more"] == false {
            return all;
        }
    }
}

/// The steps that a run has reported, in order.
fn steps(events: &[Value]) -> Vec<u64> {
    events.iter().filter(|event| event["type"] == "step").map(|event| event["data"]["step"].as_u64().unwrap()).collect()
}

#[test]
fn learning_goes_on_where_it_was_killed() {
    let mut world = World::start();
    let acme = world.tenant("acme", "tuned");
    // Small steps, so that a checkpoint comes soon.
    let options = json!({"epochs": 20, "window_tokens": 32, "steps_max": 60, "seed": 3});
    let archive = archive_of(Style::Gated, 14);
    let run = start_run(&acme, &archive, "learn", options.clone());
    let id = run["id"].as_str().unwrap().to_owned();
    let started = Instant::now();
    while steps(&events(&acme, &id)).last().is_none_or(|step| *step <= CHECKPOINT_STEPS) {
        assert!(started.elapsed() < PATIENCE, "no step comes: {:#}", acme.get(&format!("/v1/runs/{id}")).ok());
        std::thread::sleep(Duration::from_millis(20));
    }
    world.kill();
    world.serve();
    // Its key, its source and its run are all still there, and the run goes on by itself.
    let has_ended = |run: &Value| !matches!(run["status"].as_str(), Some("queued" | "running"));
    let ended = world.wait_for_run(&acme, &id, has_ended);
    assert!(matches!(ended["status"].as_str(), Some("live" | "refused")), "{ended:#}\n{}", world.log());
    let all = events(&acme, &id);
    let numbers: Vec<u64> = all.iter().map(|event| event["sequence"].as_u64().unwrap()).collect();
    assert!(numbers.is_sorted_by(|one, next| one < next), "{numbers:?}");
    let said: Vec<&str> = all.iter().filter_map(|event| event["message"].as_str()).collect();
    let went_on_at =
        said.iter().find_map(|message| message.strip_prefix("Training goes on at step ")?.split(' ').next());
    let went_on_at: u64 = went_on_at.unwrap_or_else(|| panic!("{said:#?}")).parse().unwrap();
    assert!(went_on_at >= CHECKPOINT_STEPS && went_on_at.is_multiple_of(CHECKPOINT_STEPS), "{said:#?}");
    assert!(steps(&all).iter().filter(|step| **step == 1).count() <= 1, "it did not begin anew: {all:#?}");
    // One and the same adapter as without the kill: same source, seed and base, so same figures to the last digit.
    let calm = world.tenant("calm", "tuned");
    let undisturbed = world.learn(&calm, &archive, options);
    assert_eq!(undisturbed["status"], ended["status"]);
    assert_eq!(undisturbed["result"]["eval"], ended["result"]["eval"]);
    let digest = |user: &User| user.get("/v1/versions").ok()["data"][0]["digest"].clone();
    assert_eq!(digest(&acme), digest(&calm));
}

/// Requests of one user that stream.
struct Streams {
    tasks: Vec<tokio::task::JoinHandle<()>>,
    /// Tokens that arrived, of all of them.
    received: Arc<AtomicU64>,
}

/// Opens streams and waits until each is accepted: until its answer's head is here.
fn open_streams(user: &User, count: usize) -> Streams {
    let received = Arc::new(AtomicU64::new(0));
    let (accepted, mut heads) = tokio::sync::mpsc::channel::<()>(count);
    let tasks: Vec<_> = (0..count)
        .map(|index| {
            let received = Arc::clone(&received);
            let body = json!({
                "model": "atelier", "prompt": format!("def number_{index}("), "max_tokens": STREAM_TOKENS,
                "temperature": 1.0, "seed": index, "stream": true,
            });
            let _inside = runtime().enter();
            let request = user.request("POST", "/v1/completions", Some(("application/json", body.to_string().into())));
            let accepted = accepted.clone();
            runtime().spawn(async move {
                let mut response = request.send().await.unwrap();
                assert_eq!(response.status(), 200);
                accepted.send(()).await.unwrap();
                drop(accepted);
                // Until the server dies, which shows as an error.
                while let Ok(Some(chunk)) = response.chunk().await {
                    let tokens = String::from_utf8_lossy(&chunk).matches("\"text_completion\"").count();
                    received.fetch_add(tokens as u64, Ordering::Relaxed);
                }
            })
        })
        .collect();
    runtime().block_on(async {
        for _ in 0..count {
            tokio::time::timeout(PATIENCE, heads.recv()).await.unwrap().unwrap();
        }
    });
    Streams { tasks, received }
}

impl Streams {
    fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Waits until all have ended, which they do when the server dies; the tokens that arrived.
    fn end(self) -> u64 {
        runtime().block_on(async {
            for task in self.tasks {
                task.await.unwrap();
            }
        });
        self.received.load(Ordering::Relaxed)
    }
}

#[test]
fn every_accepted_request_is_in_the_books_after_a_kill() {
    let mut world = World::start();
    let users: Vec<User> = (0..STREAMS.len()).map(|index| world.tenant(&format!("tenant-{index}"), "shared")).collect();
    // Some that end before the kill, by themselves and by a client that goes away.
    for user in &users {
        user.complete(&json!({"model": "atelier", "prompt": "a", "max_tokens": 4}));
        let body = json!({"model": "atelier", "prompt": "b", "max_tokens": 400, "stream": true}).to_string();
        let gone = user.request("POST", "/v1/completions", Some(("application/json", body.into())));
        drop(runtime().block_on(async { gone.send().await.unwrap() }));
    }
    let streams: Vec<_> = users.iter().zip(STREAMS).map(|(user, count)| open_streams(user, count)).collect();
    // In the midst of it: on the whole, each has sent twice what a crash may leave unbilled.
    let started = Instant::now();
    while streams
        .iter()
        .zip(STREAMS)
        .any(|(streams, count)| streams.received() < count as u64 * UNBILLED_TOKENS_MAX * 2)
    {
        assert!(started.elapsed() < PATIENCE, "the streams do not flow");
        std::thread::sleep(Duration::from_millis(10));
    }
    world.kill();
    let received: Vec<u64> = streams.into_iter().map(Streams::end).collect();
    world.serve();
    for ((user, count), received) in users.iter().zip(STREAMS).zip(received) {
        let [requests, input, output] = booked(user);
        assert_eq!(requests, count as u64 + 2, "one row for each accepted request");
        assert!(input > 2, "{input} input tokens of {requests} requests");
        let least = received.saturating_sub(count as u64 * UNBILLED_TOKENS_MAX);
        let most = 4 + (count as u64 + 1) * STREAM_TOKENS;
        assert!((least..=most).contains(&output), "{output} output tokens booked, {received} received");
        // Settled once and for all: another start changes nothing.
        wait_for_usage(user, [requests, input, output]);
    }
    let before: Vec<[u64; 3]> = users.iter().map(booked).collect();
    world.kill();
    world.serve();
    assert_eq!(users.iter().map(booked).collect::<Vec<_>>(), before);
    for user in &users {
        user.complete(&json!({"model": "atelier", "prompt": "a", "max_tokens": 4}));
    }
    for (user, [requests, ..]) in users.iter().zip(before) {
        let started = Instant::now();
        while booked(user)[0] != requests + 1 {
            assert!(started.elapsed() < PATIENCE);
        }
    }
}

#[test]
fn a_client_that_leaves_pays_for_what_was_made_and_frees_its_place() {
    let world = World::start();
    let acme = world.tenant("acme", "shared");
    let body =
        json!({"model": "atelier", "prompt": "def f(", "max_tokens": 1500, "stream": true, "seed": 1}).to_string();
    let url = format!("{}/v1/completions", world.url());
    runtime().block_on(async {
        for _ in 0..4 {
            let request = http().post(&url).bearer_auth(acme.key()).body(body.clone());
            let mut response = request.send().await.unwrap();
            response.chunk().await.unwrap();
        }
    });
    let started = Instant::now();
    while gauge(&world, "atelier_engine_sequences_running") != 0 {
        assert!(started.elapsed() < PATIENCE, "{}", world.anon().get("/metrics").text());
        std::thread::sleep(Duration::from_millis(20));
    }
    let started = Instant::now();
    let output = loop {
        let [requests, _, output] = booked(&acme);
        if requests == 4 && output >= 4 {
            break output;
        }
        assert!(started.elapsed() < PATIENCE, "{requests} requests, {output} tokens");
    };
    assert!(output < 4 * 1500, "none of them ran to its end: {output}");
}

/// A gauge of `/metrics` without labels.
fn gauge(world: &World, name: &str) -> u64 {
    let text = world.anon().get("/metrics").text();
    let line =
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).unwrap_or_else(|| panic!("{text}"));
    line.trim().parse().unwrap()
}
