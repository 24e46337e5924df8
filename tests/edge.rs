//! The edge of HTTP: what cannot be read, who says no more, who is gone, and who only follows. Each is answered in our
//! envelope, and counted.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Answer, Style, User, World, archive_of, runtime, start_run, wait_until};

/// A server that does not answer within this never does.
const PATIENCE: Duration = Duration::from_secs(60);
/// `TENANT_FOLLOWERS_MAX` of domain.
const FOLLOWERS_MAX: usize = 32;

fn connect(world: &World) -> TcpStream {
    let socket = TcpStream::connect(world.url().trim_start_matches("http://")).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// Sends bytes as they are; what came back.
fn exchange(world: &World, request: &[u8]) -> Option<Answer> {
    let mut socket = connect(world);
    // A server that has read enough may close before all is sent.
    let _ = socket.write_all(request);
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer);
    Answer::read(&answer)
}

/// Requests that were counted under these labels.
fn counted(world: &World, route: &str, method: &str, status: u16) -> u64 {
    let label = format!("atelier_http_requests_total{{route=\"{route}\",method=\"{method}\",status=\"{status}\"}} ");
    let metrics = world.anon().get("/metrics").text();
    metrics.lines().find_map(|line| line.strip_prefix(&label)).map_or(0, |count| count.parse().unwrap())
}

#[test]
fn what_cannot_be_read_is_refused_like_everything_else() {
    let world = World::start();
    let length = |length: &str| format!("POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
    let long = "a".repeat(40 << 10);
    let cases: [(&str, String, u16, &str); 7] = [
        ("as many bytes as there are numbers", length("18446744073709551615"), 413, "request_too_large"),
        ("more bytes than there are numbers", length("99999999999999999999999"), 413, "request_too_large"),
        ("a length that is no number", length("12x"), 400, "invalid_request"),
        ("a negative length", length("-1"), 400, "invalid_request"),
        ("no protocol", "hello\r\n\r\n".to_owned(), 400, "invalid_request"),
        ("a header without a colon", "GET / HTTP/1.1\r\nwhat\r\n\r\n".to_owned(), 400, "invalid_request"),
        ("a long head", format!("GET / HTTP/1.1\r\nx-a: {long}\r\n\r\n"), 431, "head_too_large"),
    ];
    let mut refused = std::collections::BTreeMap::<u16, u64>::new();
    for (what, request, status, code) in cases {
        let answer = exchange(&world, request.as_bytes()).unwrap_or_else(|| panic!("{what}: no answer"));
        assert_eq!((answer.status, answer.error()["code"].clone()), (status, json!(code)), "{what}: {answer:?}");
        *refused.entry(status).or_default() += 1;
    }
    for (status, count) in refused {
        assert_eq!(counted(&world, "none", "other", status), count, "{status}");
    }
    // One whose length is a number, however large, is refused by who reads it: whoever has no key by that.
    assert_eq!(exchange(&world, length("9223372036854775807").as_bytes()).unwrap().status, 401);
}

#[test]
fn paths_that_are_no_text_and_bodies_that_are_lists() {
    let world = World::start();
    let (acme, operator) = (world.tenant("acme", "tuned"), world.operator());
    let model = acme.get("/v1/models/%ff");
    assert_eq!((model.status, model.error()["code"].clone()), (404, json!("not_found")));
    for (user, method, path) in [
        (&acme, "GET", "/v1/runs/%ff"),
        (&acme, "PUT", "/v1/aliases/%ff"),
        (&operator, "GET", "/v1/tenants/%ff"),
        (&operator, "DELETE", "/v1/tenants/%c3%28"),
    ] {
        let body = (method == "PUT").then(|| ("application/json", b"{\"version\": 1}".to_vec()));
        let answer = user.send(method, path, body);
        assert_eq!(answer.status, 404, "{method} {path}: {answer:?}");
        answer.error();
    }
    for (user, path, body) in [
        (&acme, "/v1/completions", json!(["atelier", "a"])),
        (&acme, "/v1/completions", json!({"model": "atelier", "stream": true, "stream_options": [true, true]})),
        (&acme, "/v1/runs", json!({"source": "src_1", "options": [4, 8.0]})),
        (&acme, "/v1/runs", json!(["src_1"])),
        (&acme, "/v1/keys", json!([])),
        (&operator, "/v1/tenants", json!(["globex", "shared"])),
    ] {
        let answer = user.post(path, &body);
        assert_eq!((answer.status, answer.error()["code"].clone()), (400, json!("invalid_json")), "{body}: {answer:?}");
    }
    assert_eq!(operator.get("/v1/tenants/globex").status, 404, "no list made a tenant");
}

#[test]
fn a_client_that_says_no_more_still_gets_its_answer() {
    let world = World::start();
    let acme = world.tenant("acme", "shared");
    let body = json!({"model": "atelier", "prompt": "a", "max_tokens": 4}).to_string();
    let requests = [
        format!("GET /v1/models HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\n\r\n", acme.key()),
        format!(
            "POST /v1/completions HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\ncontent-length: {}\r\n\r\n{body}",
            acme.key(),
            body.len()
        ),
    ];
    for request in requests {
        let mut socket = connect(&world);
        socket.write_all(request.as_bytes()).unwrap();
        socket.shutdown(Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).unwrap();
        let answer = Answer::read(&answer).unwrap_or_else(|| panic!("{request}: no answer"));
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

#[test]
fn a_client_that_is_gone_is_counted_and_its_tokens_end() {
    let world = World::start();
    let acme = world.tenant("acme", "shared");
    let body = json!({"model": "atelier", "prompt": "a", "max_tokens": 2_000, "temperature": 0}).to_string();
    let head = format!(
        "POST /v1/completions HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\ncontent-length: {}\r\n\r\n",
        acme.key(),
        body.len()
    );
    // Its body never comes, so that it is gone before its answer begins however fast the model is.
    let mut socket = connect(&world);
    socket.write_all(head.as_bytes()).unwrap();
    socket.write_all(&body.as_bytes()[..10]).unwrap();
    drop(socket);
    wait_until("a client that is gone is counted", || {
        counted(&world, "/v1/completions", "POST", 499) + counted(&world, "/v1/completions", "POST", 400) == 1
    });
}

/// Opens a stream of a run's events.
fn follow(user: &User, run: &str) -> reqwest::Response {
    let request = user.request("GET", &format!("/v1/runs/{run}/events?stream=true"), None);
    runtime().block_on(async { request.send().await.unwrap() })
}

/// The data of the events until the stream ends.
fn rest(stream: reqwest::Response) -> Vec<String> {
    let text = runtime().block_on(async { stream.text().await.unwrap() });
    text.lines().filter_map(|line| line.strip_prefix("data:")).map(|data| data.trim().to_owned()).collect()
}

#[test]
fn who_follows_a_run_is_told_why_that_ends() {
    // Nobody works on runs here, so that they do not end.
    let world = World::start_with(&["--workers", "0"], &[]);
    let (acme, globex) = (world.tenant("acme", "tuned"), world.tenant("globex", "tuned"));
    let run = |user: &User| {
        let run = start_run(user, &archive_of(Style::Gated, 2), "learn", json!({}));
        run["id"].as_str().unwrap().to_owned()
    };
    let (ours, theirs) = (run(&acme), run(&globex));
    let mut streams: Vec<reqwest::Response> = (0..FOLLOWERS_MAX).map(|_| follow(&acme, &ours)).collect();
    assert!(streams.iter().all(|stream| stream.status() == 200));
    let refused = acme.get(&format!("/v1/runs/{ours}/events?stream=true"));
    assert_eq!((refused.status, refused.error()["code"].clone()), (429, json!("rate_limit_exceeded")));
    assert!(refused.header("retry-after").is_some(), "{refused:?}");
    let other = follow(&globex, &theirs);
    assert_eq!(other.status(), 200, "one tenant's followers are no other's trouble");
    // One fewer, and there is a place again.
    drop(streams.pop());
    wait_until("a place is given back", || follow(&acme, &ours).status() == 200);

    let last = streams.pop().unwrap();
    drop(streams);
    world.operator().delete("/v1/tenants/acme").ok();
    let data = rest(last);
    let [.., error, done] = data.as_slice() else { panic!("{data:?}") };
    let error: Value = serde_json::from_str(error).unwrap();
    assert_eq!((error["error"]["code"].clone(), done.as_str()), (json!("invalid_api_key"), "[DONE]"), "{data:?}");

    // Of a run that ends, the last event says how.
    assert_eq!(globex.post(&format!("/v1/runs/{theirs}/cancel"), &json!({})).ok()["status"], "cancelled");
    let data = rest(other);
    assert_eq!(data.last().map(String::as_str), Some("[DONE]"));
    assert!(data[data.len() - 2].contains("cancelled"), "{data:?}");
}

#[test]
fn a_run_that_is_to_end_says_so() {
    let mut world = World::start();
    let acme = world.tenant("acme", "tuned");
    let begin = || {
        let options = json!({"epochs": 50, "window_tokens": 64});
        let run = start_run(&acme, &archive_of(Style::Gated, 14), "learn", options);
        let id = run["id"].as_str().unwrap().to_owned();
        world.wait_for_run(&acme, &id, |run| run["status"] == "running" && run["progress"]["stage"] == "train");
        id
    };
    let id = begin();
    let cancelled = acme.post(&format!("/v1/runs/{id}/cancel"), &json!({})).ok();
    assert!(["cancelling", "cancelled"].contains(&cancelled["status"].as_str().unwrap()), "{cancelled:#}");
    world.wait_for_run(&acme, &id, |run| run["status"] == "cancelled");
    // One whose worker is dead ends at once.
    let id = begin();
    world.kill();
    world.set_arguments(&["--workers", "0"]);
    world.serve();
    assert_eq!(acme.get(&format!("/v1/runs/{id}")).ok()["status"], "running");
    let cancelled = acme.post(&format!("/v1/runs/{id}/cancel"), &json!({})).ok();
    assert_eq!(cancelled["status"], "cancelled", "{cancelled:#}");
}
