//! Case 8: a key that is revoked while it is in heavy use.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::json;

use super::scene::text;
use crate::support::{User, World, runtime};

/// Time between two requests: 500 of them in a second.
const PACE: Duration = Duration::from_millis(2);
/// How long the key is in use before and after it is revoked.
const BEFORE: Duration = Duration::from_secs(2);
const AFTER: Duration = Duration::from_secs(3);
/// How long a revoked key may go on, as promised.
const REVOCATION_MAX: Duration = Duration::from_secs(1);
/// Streams that are open when it is revoked, and tokens that each would give.
const STREAMS: usize = 8;
const STREAM_TOKENS: usize = 1_500;

/// One request of the load: when it left, and whether it was let in.
type Sample = (Instant, bool);

/// Sends requests at a steady pace, whether or not earlier ones are answered, until told to stop.
fn load(user: &User, url: &str, stop: &Arc<AtomicBool>) -> (Arc<Mutex<Vec<Sample>>>, tokio::task::JoinHandle<()>) {
    let samples = Arc::new(Mutex::new(Vec::new()));
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let (key, url) = (user.key().to_owned(), format!("{url}/v1/models"));
    let (kept, stop) = (Arc::clone(&samples), Arc::clone(stop));
    let open = Arc::new(AtomicUsize::new(0));
    let driver = runtime().spawn(async move {
        let mut ticks = tokio::time::interval(PACE);
        while !stop.load(Ordering::Relaxed) {
            ticks.tick().await;
            let (request, kept, open) = (client.get(&url).bearer_auth(&key), Arc::clone(&kept), Arc::clone(&open));
            open.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(async move {
                let left = Instant::now();
                let status = request.send().await.map_or(0, |answer| answer.status().as_u16());
                assert!([200, 401].contains(&status), "a key opens or it does not: {status}");
                kept.lock().unwrap().push((left, status == 200));
                open.fetch_sub(1, Ordering::Relaxed);
            });
        }
        while open.load(Ordering::Relaxed) > 0 {
            tokio::time::sleep(PACE).await;
        }
    });
    (samples, driver)
}

/// Opens streams and follows each to its end: when that was, and how many tokens came.
fn streams(user: &User) -> Vec<tokio::task::JoinHandle<(Instant, usize, String)>> {
    let body = json!({"model": "atelier", "prompt": "def f(", "max_tokens": STREAM_TOKENS, "temperature": 1.0, "stream": true});
    let opened: Vec<reqwest::Response> = (0..STREAMS)
        .map(|_| {
            let request = user.request("POST", "/v1/completions", Some(("application/json", body.to_string().into())));
            let answer = runtime().block_on(async { request.send().await.unwrap() });
            assert_eq!(answer.status(), 200);
            answer
        })
        .collect();
    let follow = |mut answer: reqwest::Response| async move {
        let (mut tokens, mut last) = (0, String::new());
        while let Ok(Some(chunk)) = answer.chunk().await {
            last = String::from_utf8_lossy(&chunk).into_owned();
            tokens += last.matches("text_completion").count();
        }
        (Instant::now(), tokens, last)
    };
    opened.into_iter().map(|answer| runtime().spawn(follow(answer))).collect()
}

#[test]
fn case_08_a_revoked_key_opens_nothing_a_second_later_and_its_streams_end() {
    let world = World::start();
    let acme = world.tenant("acme", "shared");
    let made = acme.post("/v1/keys", &json!({"name": "to be revoked", "role": "member"})).ok();
    let (key, user) = (text(&made["id"]), world.user(made["value"].as_str()));
    let stop = Arc::new(AtomicBool::new(false));
    let open = streams(&user);
    let (samples, driver) = load(&user, &world.url(), &stop);
    std::thread::sleep(BEFORE);
    let asked = Instant::now();
    acme.delete(&format!("/v1/keys/{key}")).ok();
    let revoked = Instant::now();
    std::thread::sleep(AFTER);
    stop.store(true, Ordering::Relaxed);
    runtime().block_on(driver).unwrap();

    let samples = samples.lock().unwrap();
    let (before, after): (Vec<Sample>, Vec<Sample>) = samples.iter().partition(|(left, _)| *left < asked);
    assert!(before.iter().all(|(_, let_in)| *let_in), "the key opens until it is revoked");
    // A request is let in or not after it left: what left a second after the revocation was refused, on any machine.
    let last = after.iter().filter(|(_, let_in)| *let_in).map(|(left, _)| left.saturating_duration_since(revoked)).max();
    assert!(last.is_none_or(|last| last <= REVOCATION_MAX), "a request was let in {last:?} after the revocation");
    let refused = after.iter().filter(|(_, let_in)| !*let_in).count();
    assert!(refused > 100, "the load went on: {refused} of {}", after.len());

    let mut slowest = Duration::ZERO;
    for stream in open {
        let (ended, tokens, last_frame) = runtime().block_on(stream).unwrap();
        assert!(tokens < STREAM_TOKENS, "the stream was cut: {tokens} tokens, {last_frame}");
        slowest = slowest.max(ended.saturating_duration_since(revoked));
    }
    eprintln!(
        "revocation at {:.0} requests/s: {} accepted before, the last one accepted left {:?} after the revocation was \
         answered, {refused} refused; {STREAMS} open streams ended at most {slowest:?} after it",
        before.len() as f64 / BEFORE.as_secs_f64(),
        before.len(),
        last.unwrap_or_default(),
    );
    assert_eq!(acme.get("/v1/models").status, 200, "the other key lives");
}
