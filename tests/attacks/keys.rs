//! A key that is revoked, in use and on open streams: case 8.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use super::scene::text;
use crate::support::{User, World, runtime};

/// What is promised: the time between a revocation and the last thing that the key could do.
const PROMISE: Duration = Duration::from_secs(1);
/// Requests a second that use the key meanwhile.
const RATE: u32 = 500;
/// Streams that are open under the key.
const STREAMS: usize = 4;
/// How long the requests go on before the key is revoked, and again how long afterwards.
const AROUND: Duration = Duration::from_millis(1_500);

#[test]
fn case_08_a_revoked_key_does_nothing_after_a_second_also_on_open_streams() {
    let world = World::start();
    let acme = world.tenant("acme", "shared");
    let made = acme.post("/v1/keys", &json!({"name": "lost laptop"})).ok();
    let holder = acme.with_key(&text(&made["value"]));
    let _inside = runtime().enter();
    let streams: Vec<_> = (0..STREAMS).map(|_| runtime().spawn(stream(&holder))).collect();
    let stop = Arc::new(AtomicBool::new(false));
    let users = runtime().spawn(use_at_rate(holder.request("GET", "/v1/tenants/acme", None), Arc::clone(&stop)));
    std::thread::sleep(AROUND);
    acme.delete(&format!("/v1/keys/{}", text(&made["id"]))).ok();
    let revoked = Instant::now();
    std::thread::sleep(AROUND);
    stop.store(true, Ordering::Release);
    let (asked, last_accepted) = runtime().block_on(users).unwrap();
    let last = last_accepted.expect("the key was good once").saturating_duration_since(revoked);
    let mut cut = 0;
    let ended: Vec<Duration> = streams
        .into_iter()
        .map(|stream| {
            let (is_cut, ended) = runtime().block_on(stream).unwrap();
            cut += usize::from(is_cut);
            ended.saturating_duration_since(revoked)
        })
        .collect();
    assert!(cut > 0, "no stream was open when the key was revoked");
    let slowest = ended.iter().max().unwrap();
    eprintln!(
        "revocation at {} requests/s: the last accepted request was sent {} ms after it, the last of {STREAMS} streams \
         ended {} ms after it",
        asked * 1_000 / (2 * AROUND).as_millis(),
        last.as_millis(),
        slowest.as_millis()
    );
    assert!(last <= PROMISE && *slowest <= PROMISE, "{last:?} {ended:?}");
}

/// Long streams, one after another, until the key is good for none: whether the last was cut, and when that was known.
pub(super) fn stream(user: &User) -> impl Future<Output = (bool, Instant)> + Send + 'static {
    let body = json!({"model": "atelier", "prompt": "def f(", "max_tokens": 1_500, "n": 4, "temperature": 1.0, "stream": true});
    let request = user.request("POST", "/v1/completions", Some(("application/json", body.to_string().into())));
    async move {
        loop {
            let answer = request.try_clone().unwrap().send().await.unwrap();
            let was_open = answer.status() == 200;
            let text = answer.text().await.unwrap();
            if text.contains("\"code\":\"invalid_api_key\"") {
                return (was_open, Instant::now());
            }
            // The model may end all its choices early.
            assert!(was_open && text.contains("[DONE]"), "neither whole nor cut for its key: {text}");
        }
    }
}

/// Asks at the rate until told to stop: how often, and when the last accepted one was sent.
async fn use_at_rate(request: reqwest::RequestBuilder, stop: Arc<AtomicBool>) -> (u128, Option<Instant>) {
    let mut tick = tokio::time::interval(Duration::from_secs(1) / RATE);
    let mut sent = Vec::new();
    while !stop.load(Ordering::Acquire) {
        tick.tick().await;
        let request = request.try_clone().unwrap();
        sent.push(tokio::spawn(async move {
            let at = Instant::now();
            let status = request.send().await.unwrap().status();
            assert!(status == 200 || status == 401, "{status}");
            (status == 200).then_some(at)
        }));
    }
    let asked = sent.len() as u128;
    let mut last = None;
    for task in sent {
        last = last.max(task.await.unwrap());
    }
    (asked, last)
}
