//! Requests side by side: what streams carry, what counts say, what limits hold. Cases 9, 20, 24, 40 and 41.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::scene::{Scene, text};
use crate::support::{User, World, client_trusting, runtime};

#[test]
fn case_09_a_plan_is_looked_up_at_each_request() {
    let scene = Scene::set(World::start());
    let (victim, operator) = (&scene.victim, scene.world.operator());
    let ask =
        json!({"model": "atelier", "prompt": "from harbor.gates import gate", "max_tokens": 32, "temperature": 0});
    let own = victim.admin.complete(&ask);
    let base = victim.admin.complete(&{
        let mut ask = ask.clone();
        ask["model"] = json!("atelier-base");
        ask
    });
    assert_ne!(own, base);
    let body = json!({
        "model": "atelier", "prompt": "from harbor.gates import gate", "max_tokens": 400, "temperature": 0, "stream": true,
    });
    let request = victim.admin.request("POST", "/v1/completions", Some(("application/json", body.to_string().into())));
    let mut running = runtime().block_on(async { request.send().await.unwrap() });
    assert_eq!(running.status(), 200);
    for (plan, expected) in [("shared", &base), ("tuned", &own), ("shared", &base)] {
        operator.patch(&format!("/v1/tenants/{}", victim.name), &json!({"plan": plan})).ok();
        assert_eq!(&victim.admin.complete(&ask), expected, "the very next request is served on the plan {plan}");
    }
    // What was dispatched before goes on as it was dispatched.
    let first = runtime().block_on(async { running.chunk().await.unwrap().unwrap() });
    assert!(String::from_utf8_lossy(&first).contains("text_completion"));
}

#[test]
fn case_20_21_a_prompt_that_another_has_warmed_is_as_new_as_any() {
    let world = World::start();
    let (victim, attacker) = (world.tenant("victim", "shared"), world.tenant("attacker", "shared"));
    let prompt =
        |word: &str| format!("# {word}\n{}", "def settle_invoice(ledger, verdict):\n    return ledger\n".repeat(12));
    let ask = |user: &User, word: &str| {
        let body = json!({
            "model": "atelier-base", "prompt": prompt(word), "max_tokens": 4, "temperature": 0, "logprobs": 3,
        });
        let answer = user.post("/v1/completions", &body).ok();
        (answer["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap(), answer["choices"].clone())
    };
    let (cold, expected) = ask(&victim, "secret");
    assert_eq!(cold, 0);
    let (warm, same) = ask(&victim, "secret");
    assert!(warm > 0 && same == expected, "the cache is on: {warm} tokens");
    let (probe, probed) = ask(&attacker, "secret");
    assert_eq!(probe, 0, "the victim's warm prompt is cold to anybody else");
    assert_eq!(probed, expected, "and log-probabilities do not depend on who asked before");
    assert_eq!(ask(&attacker, "guess").0, 0);
    assert!(ask(&attacker, "secret").0 > 0, "only one's own request counts");
}

#[test]
fn case_24_what_a_tenant_taught_its_model_comes_out_of_no_other() {
    let scene = Scene::set(World::start());
    let model = scene.theirs("model");
    let canaries = scene.canaries.borrow();
    let prompts = [
        "KEEPER = '",
        "WORD = '",
        "# ",
        "desk/",
        "KEEPER = \"",
        "import ",
        "from harbor.gates import gate, Verdict, Ledger\n\n",
        "def f(",
        "@gate(\"",
        "KEEPER='",
    ];
    for (index, prompt) in prompts.iter().cycle().take(40).enumerate() {
        let sampled = index >= prompts.len();
        let body = json!({
            "model": "atelier", "prompt": prompt, "max_tokens": 32, "n": if sampled { 2 } else { 1 },
            "temperature": if sampled { 1.0 } else { 0.0 }, "seed": index, "logprobs": 5,
        });
        let answer = scene.attacker.admin.post("/v1/completions", &body);
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(canaries.found_in(&answer.body, &[]), None, "{answer:?}");
    }
    let direct = scene.attacker.admin.post("/v1/completions", &json!({"model": model, "prompt": "KEEPER = '"}));
    assert_eq!((direct.status, direct.error()["code"].clone()), (404, json!("model_not_found")));
}

/// Requests of one tenant at once, beyond what one may have.
const AT_ONCE: usize = 200;
/// `TENANT_REQUESTS_MAX` of domain.
const TENANT_REQUESTS_MAX: usize = 64;

#[test]
fn case_40_a_race_for_the_last_place_lets_nobody_past_the_limit() {
    let world = World::start();
    let (acme, other) = (world.tenant("acme", "shared"), world.tenant("other", "shared"));
    // The likeliest words: with others, one of so many streams may end at once, and its place is free again.
    let body = json!({"model": "atelier", "prompt": "def f(", "max_tokens": 500, "temperature": 0, "stream": true});
    let answers = send_together(&acme, AT_ONCE, |_| body.clone());
    let accepted = answers.iter().filter(|answer| answer.status() == 200).count();
    let refused = answers.iter().filter(|answer| answer.status() == 429).count();
    // All of them are still open: the streams are long and nobody reads them.
    assert_eq!((accepted, refused), (TENANT_REQUESTS_MAX, AT_ONCE - TENANT_REQUESTS_MAX));
    let quiet = other.post("/v1/completions", &json!({"model": "atelier", "prompt": "a", "max_tokens": 1, "n": 1}));
    assert_eq!(quiet.status, 200, "the limit is one tenant's: {quiet:?}");
    drop(answers);
}

/// Sends requests at once; their answers' heads are here, their bodies are not read.
fn send_together(user: &User, count: usize, body: impl Fn(usize) -> Value) -> Vec<reqwest::Response> {
    let _inside = runtime().enter();
    let tasks: Vec<_> = (0..count)
        .map(|index| {
            let body = body(index).to_string().into_bytes();
            runtime().spawn(user.request("POST", "/v1/completions", Some(("application/json", body))).send())
        })
        .collect();
    runtime().block_on(async {
        let mut answers = Vec::new();
        for task in tasks {
            answers.push(task.await.unwrap().unwrap());
        }
        answers
    })
}

/// Streams at once: of nine tenants, each below what one may have.
const STREAMS: usize = 500;
const STREAM_TENANTS: usize = 9;

#[test]
fn case_41_every_frame_is_of_its_own_request() {
    let world = World::start();
    let users: Vec<User> =
        (0..STREAM_TENANTS).map(|index| world.tenant(&format!("tenant-{index}"), "shared")).collect();
    let marker = |index: usize| {
        format!("# {:032x} #\ndef f(", (index as u128 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835))
    };
    let streams: Vec<_> = (0..STREAMS)
        .map(|index| {
            let body = json!({
                "model": "atelier", "prompt": marker(index), "echo": true, "max_tokens": 3, "stream": true, "seed": index,
                "stream_options": {"include_usage": true},
            });
            let user = users[index % STREAM_TENANTS].with_header("last-event-id", &(index + 1).to_string());
            let _inside = runtime().enter();
            let request = user.request("POST", "/v1/completions", Some(("application/json", body.to_string().into())));
            // One in five goes away in the middle, and asks again.
            runtime().spawn(async move {
                if index % 5 == 0 {
                    let mut gone = request.try_clone().unwrap().send().await.unwrap();
                    let _ = gone.chunk().await;
                }
                let answer = request.send().await.unwrap();
                let status = answer.status().as_u16();
                (index, status, answer.text().await.unwrap())
            })
        })
        .collect();
    let mut ids = HashSet::new();
    for stream in streams {
        let (index, status, body) = runtime().block_on(stream).unwrap();
        assert_eq!(status, 200, "{body}");
        let frames: Vec<&str> = body.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
        assert_eq!(frames.last(), Some(&"[DONE]"), "{body}");
        let frames: Vec<Value> =
            frames[..frames.len() - 1].iter().map(|frame| serde_json::from_str(frame).unwrap()).collect();
        let id = text(&frames[0]["id"]);
        assert!(frames.iter().all(|frame| frame["id"] == id), "one stream, one request: {body}");
        let said: String = frames.iter().filter_map(|frame| frame["choices"][0]["text"].as_str()).collect();
        assert!(said.starts_with(&marker(index)), "stream {index} begins with its own prompt: {said:?}");
        assert!(ids.insert(id), "no two requests share an id");
    }
    // One connection for many users: who sends the request is who is answered.
    let client = client_trusting(&[]).pool_max_idle_per_host(1).build().unwrap();
    for turn in 0..30 {
        let user = &users[turn % STREAM_TENANTS];
        let request = client.get(format!("{}/v1/tenants/tenant-{}", world.url(), turn % STREAM_TENANTS));
        let answer = runtime().block_on(async { request.bearer_auth(user.key()).send().await }).unwrap();
        assert_eq!(answer.status(), 200);
        let foreign = client.get(format!("{}/v1/tenants/tenant-{}", world.url(), (turn + 1) % STREAM_TENANTS));
        let answer = runtime().block_on(async { foreign.bearer_auth(user.key()).send().await }).unwrap();
        assert_eq!(answer.status(), 404);
    }
}
