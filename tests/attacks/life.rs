//! What goes wrong and what ends: errors that say nothing, tenants that stay deleted. Cases 43, 44 and 46.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Answer, Archive, Style, User, World, archive_of, files_under, start_run};

/// Words of our inside that no answer may hold.
const INSIDE: [&str; 14] = [
    "sqlx",
    "sqlite",
    "postgres",
    "SELECT",
    "INSERT",
    "panicked",
    "unwrap",
    "src/",
    ".rs",
    "/tmp",
    "/home",
    "blobs",
    "org_",
    "stack backtrace",
];

#[track_caller]
fn check_says_nothing(world: &World, answer: &Answer) {
    let text = format!("{answer:?}").replace(&world.url(), "");
    let folder = world.data().display().to_string();
    for word in INSIDE.into_iter().chain([folder.as_str(), "victim"]) {
        assert!(!text.contains(word), "an error says {word:?}: {text}");
    }
    assert!(answer.header("x-request-id").is_some_and(|id| id.starts_with("req_")), "{text}");
}

/// Method, target and body of a bad request.
type Bad = (&'static str, &'static str, Option<(&'static str, &'static [u8])>);

/// Takes a tenant's rows away from under the server.
fn destroy_rows(world: &World, tenant: &str) {
    if world.in_place_of(&world.id_of(tenant), |schema| format!("ALTER SCHEMA {schema} RENAME TO gone")) {
        return;
    }
    let is_rows = |name: &str| [".db", ".db-wal", ".db-shm"].iter().any(|ending| name.ends_with(ending));
    for file in files_under(&world.data()) {
        let name = file.to_string_lossy();
        if is_rows(&name) && !name.contains("control") {
            fs::write(&file, [0x55; 65_536]).unwrap();
        }
    }
}

#[test]
fn case_43_an_error_says_nothing_of_the_inside() {
    let world = World::start_with(&["--workers", "0"], &[]);
    let victim = world.tenant("victim", "tuned");
    victim.upload("/v1/sources?name=code", &Archive::new().file("a.py", b"x = 1\n").gzip()).ok();
    let bad: [Bad; 9] = [
        ("POST", "/v1/completions", Some(("application/json", b"{\"model\": "))),
        ("POST", "/v1/completions", Some(("application/json", b"\xff\xfe"))),
        (
            "POST",
            "/v1/completions",
            Some(("application/json", b"{\"model\": \"atelier\", \"prompt\": \"a\", \"n\": 1e400}")),
        ),
        ("POST", "/v1/runs", Some(("application/json", b"{\"source\": \"'; DROP TABLE sources; --\"}"))),
        ("POST", "/v1/sources", Some(("application/gzip", b"\x1f\x8b\x08\0\0\0\0\0\0\x03broken"))),
        ("GET", "/v1/runs/'%20OR%201=1", None),
        ("GET", "/v1/organization/usage/completions?start_time=-9223372036854775808", None),
        ("GET", "/v1/organization/usage/completions?start_time=1&page=page_9223372036854775807", None),
        ("PUT", "/v1/aliases/live", Some(("application/json", b"{\"version\": 4294967295}"))),
    ];
    for (method, path, body) in bad {
        let answer = victim.raw(method, path, body);
        assert!((400..500).contains(&answer.status) || answer.status == 200, "{method} {path}: {answer:?}");
        check_says_nothing(&world, &answer);
    }
    // A database that is no longer one: the server answers, and says no more than that it cannot.
    destroy_rows(&world, "victim");
    let answers = ["/v1/sources", "/v1/runs", "/v1/versions"].map(|path| victim.get(path));
    for answer in &answers {
        check_says_nothing(&world, answer);
    }
    let failed = answers.iter().find(|answer| answer.status != 200).expect("a destroyed database answers nothing");
    // A file that is no database is known for damaged; a table that was dropped is not.
    let said = (failed.status, failed.error()["code"].clone());
    assert!([(503, json!("overloaded")), (500, json!("internal_error"))].contains(&said), "{failed:?}");
    assert_eq!(world.anon().get("/healthz").status, 200);
}

/// How long to wait for something that comes in a second on an idle machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Everything that a tenant can list.
fn belongings(user: &User) -> Vec<String> {
    let listed = ["/v1/sources", "/v1/runs", "/v1/versions"].map(|path| user.get(path).ok()["data"].to_string());
    listed.into_iter().filter(|list| list != "[]").collect()
}

#[test]
fn case_44_a_deleted_tenant_stays_dead_and_its_name_inherits_nothing() {
    let world = World::start();
    let old = world.tenant("phoenix", "tuned");
    let model = |user: &User| user.get("/v1/models").ok()["data"].as_array().unwrap().len();
    // It dies while a run trains and a stream is open: both would write once more.
    let run = start_run(&old, &archive_of(Style::Gated, 14), "learn", json!({"epochs": 50, "window_tokens": 64}));
    let id = run["id"].as_str().unwrap();
    world.wait_for_run(&old, id, |run| run["status"] == "running" && run["progress"]["stage"] == "train");
    let body = json!({"model": "atelier", "prompt": "def f(", "max_tokens": 1_500, "stream": true}).to_string();
    let request = old.request("POST", "/v1/completions", Some(("application/json", body.into())));
    let mut stream = crate::support::runtime().block_on(async { request.send().await.unwrap() });
    world.operator().delete("/v1/tenants/phoenix").ok();
    let new = world.tenant("phoenix", "tuned");
    let started = Instant::now();
    while world.anon().get("/metrics").text().contains("atelier_engine_sequences_running 1") {
        assert!(started.elapsed() < PATIENCE, "the stream of a dead tenant does not end");
        crate::support::runtime().block_on(async { drop(stream.chunk().await) });
    }
    // The successor learns something, which the one worker can only do when the predecessor's job is over.
    let own = start_run(&new, &Archive::new().file("a.py", b"x = 1\n").gzip(), "learn", json!({"epochs": 1}));
    let has_ended = |run: &serde_json::Value| !matches!(run["status"].as_str(), Some("queued" | "running"));
    world.wait_for_run(&new, own["id"].as_str().unwrap(), has_ended);
    assert_eq!(old.get("/v1/models").status, 401, "the old key opens nothing");
    assert_eq!(new.get(&format!("/v1/runs/{id}")).status, 404);
    assert_eq!(new.get("/v1/runs").ok()["data"].as_array().unwrap().len(), 1, "only its own run");
    assert_eq!(new.get("/v1/versions").ok()["data"], json!([]));
    assert_eq!(model(&new), 2, "the base and what it is served");
    let third = world.tenant("third", "tuned");
    assert!(belongings(&third).is_empty());
    // Not even after a start that would pick up what was left over.
    let mut world = world;
    world.stop();
    world.serve();
    assert_eq!(old.get("/v1/models").status, 401);
    assert_eq!(new.get(&format!("/v1/runs/{id}")).status, 404);
    assert_eq!(new.get("/v1/versions").ok()["data"], json!([]));
}
