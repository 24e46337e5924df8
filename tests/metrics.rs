//! `/metrics` and the log say nothing about anybody: no tenant, no key, no version, no word of code.

use serde_json::json;

use crate::support::{Style, World, archive_of, quick};

/// Words that only the tenant's requests hold.
const PROMPT_CANARY: &str = "def quokka_marmalade_ledger(";
const SUFFIX_CANARY: &str = "return pangolin_custard";

#[test]
fn metrics_and_log_name_nobody() {
    // The most that an operator may ask of our own crates.
    let world = World::start_with(&[], &[("RUST_LOG", "info,atelier=trace,sqlx=debug,axum=trace,tower_http=trace")]);
    let acme = world.tenant("wombat-works", "tuned");
    let run = world.learn(&acme, &archive_of(Style::Gated, 14), quick());
    assert_eq!(run["status"], "live", "{run:#}\n{}", world.log());
    let version = acme.get("/v1/versions").ok()["data"][0].clone();
    let model = version["id"].as_str().unwrap();
    let ask = json!({
        "model": model, "prompt": PROMPT_CANARY, "suffix": SUFFIX_CANARY, "max_tokens": 24, "temperature": 0, "user": "echidna-7",
    });
    let completion = acme.complete(&ask);
    assert!(completion.len() > 10, "{completion:?}");
    // Refusals too, of every kind.
    assert_eq!(acme.post("/v1/completions", &json!({"model": PROMPT_CANARY, "prompt": "a"})).status, 404);
    assert_eq!(acme.post("/v1/completions", &json!({"model": 5, "prompt": PROMPT_CANARY})).status, 400);
    assert_eq!(acme.upload("/v1/sources?name=wombat", PROMPT_CANARY.as_bytes()).status, 400);
    assert_eq!(world.user(Some(&acme.key().replace('_', "-"))).get("/v1/models").status, 401);
    assert_eq!(acme.get("/v1/tenants/wombat-works/nowhere").status, 404);

    let metrics = world.anon().get("/metrics");
    assert_eq!(metrics.status, 200);
    let metrics = metrics.text();
    assert!(metrics.trim_end().ends_with("# EOF"), "the format's end mark: {metrics}");
    for family in
        ["atelier_http_requests_total", "atelier_http_request_duration_seconds", "atelier_engine_completion_tokens"]
    {
        assert!(metrics.contains(family), "{family}: {metrics}");
    }
    assert!(metrics.contains("route=\"/v1/completions\""), "{metrics}");

    let tenant = world.operator().get("/v1/tenants/wombat-works").ok();
    let key_parts: Vec<&str> = acme.key().split('_').filter(|part| part.len() > 10).collect();
    assert_eq!(key_parts.len(), 2);
    let secrets = [
        ("the tenant's name", "wombat"),
        ("the tenant's id", tenant["id"].as_str().unwrap()),
        ("the key's public part", key_parts[0]),
        ("the key's secret", key_parts[1]),
        ("the version's name", model),
        ("the version's digest", version["digest"].as_str().unwrap()),
        ("the prompt", PROMPT_CANARY),
        ("the suffix", SUFFIX_CANARY),
        ("the completion", &completion),
        ("the user label", "echidna"),
        ("the source's code", "quorum"),
        ("the source's paths", "desk/"),
    ];
    for (what, secret) in secrets {
        assert!(!metrics.contains(secret), "/metrics holds {what}: {metrics}");
    }
    let log = world.log();
    assert!(log.contains("answered") && log.contains("/v1/completions"), "requests are logged: {log}");
    for (what, secret) in secrets {
        let line = log.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "the log holds {what}");
    }
    let operator = std::fs::read_to_string(world.data().join("operator-key")).unwrap();
    let secret = operator.trim().rsplit('_').next().unwrap();
    assert!(!log.contains(secret), "the log holds the operator's key");
}
