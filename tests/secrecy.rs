//! Unique secrets are planted, the server is led through success, refusal, failure and panic with its log at its most
//! talkative, and then they are looked for wherever it speaks: log, standard output, metrics, errors.

use std::fs;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::{Answer, Style, User, World, archive_with, files_under, quick, start_run};

/// What a panic of a test's making quotes comes from the request; see `faults` of the API.
const FAULT_HEADER: &str = "x-atelier-fault";
const ROOT_KEY: &str = "7c0ffee5ec4e77a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f6071829";
const TENANT: &str = "quagga-quarry";
const PROMPT: &str = "def numbat_nougat_invoice(";
const SUFFIX: &str = "return dugong_dumpling";
const SOURCE_NAME: &str = "wolverine-waffles";
const SOURCE_PATH: &str = "burrow_of_aardvarks/axolotl_ale.py";
const SOURCE_TEXT: &str = "OKAPI_OMELETTE = 'served cold'\n";
const LABEL: &str = "gibbon-gravy-7";
const METHOD: &str = "TAPIRTART";

/// Somebody who keeps every refusal.
struct Witness {
    refusals: Vec<Answer>,
}

impl Witness {
    #[track_caller]
    fn refused(&mut self, answer: Answer, status: u16) {
        assert_eq!(answer.status, status, "{answer:?}");
        answer.error();
        self.refusals.push(answer);
    }
}

fn ask(model: &str, more: &Value) -> Value {
    let mut body = json!({"model": model, "prompt": PROMPT, "suffix": SUFFIX, "max_tokens": 24, "user": LABEL});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

/// Everything that goes well; a line of what was completed.
fn succeed(world: &World, tenant: &User, archive: &[u8]) -> String {
    let run = world.learn(tenant, archive, quick());
    assert_eq!(run["status"], "live", "{run:#}");
    // Without the suffix: before it, the base knows to write a word or two, which could stand in a log by chance.
    let text = tenant.complete(&ask("atelier", &json!({"temperature": 0, "suffix": null})));
    let more = json!({"temperature": 0, "stream": true, "logprobs": 2});
    assert_eq!(tenant.post("/v1/completions", &ask("atelier", &more)).status, 200);
    let line = text.lines().map(str::trim).max_by_key(|line| line.len()).unwrap_or_default().to_owned();
    assert!(line.len() > 10, "{text:?}");
    line
}

fn be_refused(witness: &mut Witness, world: &World, tenant: &User) {
    let forged = tenant.with_key(&tenant.key().replace("atl_", "atl_x"));
    witness.refused(forged.get("/v1/models"), 401);
    witness.refused(tenant.post("/v1/completions", &ask(PROMPT, &json!({}))), 404);
    witness.refused(tenant.post("/v1/completions", &ask("atelier", &json!({"n": -1}))), 400);
    let broken = format!("{{\"prompt\": \"{PROMPT}\", ");
    let answer = tenant.send("POST", "/v1/completions", Some(("application/json", broken.into_bytes())));
    witness.refused(answer, 400);
    witness.refused(tenant.upload(&format!("/v1/sources?name={SOURCE_NAME}"), PROMPT.as_bytes()), 400);
    witness.refused(tenant.get(&format!("/v1/{PROMPT}")), 404);
    witness.refused(tenant.send(METHOD, "/v1/models", None), 405);
    witness.refused(tenant.get(&format!("/v1/tenants/{TENANT}/nowhere")), 404);
    witness.refused(world.operator().acting_for("nobody").get("/v1/runs"), 404);
    let path = json!({"path": format!("/{SOURCE_PATH}")});
    witness.refused(world.operator().acting_for(TENANT).post("/v1/sources", &path), 400);
}

fn panic_everywhere(witness: &mut Witness, tenant: &User) {
    for place in ["handler", "task", "blocking"] {
        let body = ask(SOURCE_TEXT, &json!({}));
        witness.refused(tenant.with_header(FAULT_HEADER, place).post("/v1/completions", &body), 500);
    }
}

/// What is stored is spoiled: reading it fails inside, and so does the run that needs it.
fn fail_inside(witness: &mut Witness, world: &World, tenant: &User, archive: &[u8]) -> Value {
    let source = tenant.upload(&format!("/v1/sources?name={SOURCE_NAME}"), archive).ok();
    for file in files_under(&world.data().join("blobs")) {
        fs::write(file, b"spoiled").unwrap();
    }
    witness.refused(tenant.get("/v1/versions/1/adapter"), 500);
    let run = tenant.post("/v1/runs", &json!({"source": source["id"], "options": {}})).ok();
    let id = run["id"].as_str().unwrap();
    world.wait_for_run(tenant, id, |run| run["status"] == "failed")
}

/// The parts of a key that nobody but its holder may know.
fn secret_of(key: &str) -> &str {
    key.trim().rsplit('_').next().unwrap()
}

#[track_caller]
fn check_silent(where_: &str, said: &str, secrets: &[(&str, &str)]) {
    for (what, secret) in secrets {
        let line = said.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "{where_} holds {what}");
    }
}

#[test]
fn nothing_that_is_planted_comes_out() {
    let variables = [("RUST_LOG", "trace"), ("RUST_BACKTRACE", "1"), ("ATELIER_ROOT_KEY", ROOT_KEY)];
    let mut world = World::start_with(&[], &variables);
    let operator_key = fs::read_to_string(world.data().join("operator-key")).unwrap();
    let tenant = world.tenant(TENANT, "tuned");
    let archive = archive_with(Style::Gated, 14, &[(SOURCE_PATH, SOURCE_TEXT.as_bytes())]);
    let mut witness = Witness { refusals: Vec::new() };
    let completed = succeed(&world, &tenant, &archive);
    be_refused(&mut witness, &world, &tenant);
    panic_everywhere(&mut witness, &tenant);
    let failed = fail_inside(&mut witness, &world, &tenant, &archive);
    let cancelled = start_run(&tenant, &archive, "evaluate", json!({}));
    tenant.post(&format!("/v1/runs/{}/cancel", cancelled["id"].as_str().unwrap()), &json!({}));
    let metrics = world.anon().get("/metrics").text();
    let doctor = world.cli_with(&[("ATELIER_ROOT_KEY", ROOT_KEY)], &["doctor"]);
    world.stop();

    let data = world.data().display().to_string();
    let keys = [
        ("the tenant's key", secret_of(tenant.key())),
        ("the operator's key", secret_of(&operator_key)),
        ("the root key", ROOT_KEY),
    ];
    let belongings = [
        ("the tenant's name", TENANT),
        ("the prompt", PROMPT),
        ("the suffix", SUFFIX),
        ("the completion", completed.as_str()),
        ("the source's name", SOURCE_NAME),
        ("a source's path", "aardvark"),
        ("a source's path", "axolotl"),
        ("a source's text", "OKAPI"),
        ("a source's text", "quorum"),
        ("the user's label", LABEL),
        ("a made-up method", METHOD),
    ];
    let all: Vec<(&str, &str)> = keys.iter().chain(&belongings).copied().collect();
    let log = world.log();
    for expected in ["answered", "a thread panicked", "a handler panicked", "a job failed"] {
        assert!(log.contains(expected), "{expected} happened and is logged");
    }
    check_silent("the log", &log, &all);
    check_silent("/metrics", &metrics, &all);
    let printed = fs::read_to_string(world.home().join("stdout.log")).unwrap();
    // Once, to whoever started it.
    check_silent("standard output", &printed.replace(operator_key.trim(), ""), &all);
    check_silent("doctor", &format!("{}{}", doctor.stdout, doctor.stderr), &keys);
    for answer in &witness.refusals {
        let body = answer.text();
        check_silent("an error", &body, &keys);
        check_silent("an error", &body, &[("the data folder", &data)]);
        if answer.status >= 500 {
            check_silent("an inside error", &body, &all);
        }
    }
    let reason = failed["reason"].as_str().unwrap();
    check_silent("a run's reason", reason, &all);
    check_silent("a run's reason", reason, &[("the data folder", &data), ("a blob's name", "blobs")]);
}

#[test]
fn a_databases_password_is_not_repeated() {
    let secret = "porcupine-pumpernickel-5";
    let urls = [
        format!("postgres://app:{secret}@127.0.0.1:1/atelier"),
        format!("postgres://app:{secret}@localhost:notaport/atelier"),
        format!("postgres://app@127.0.0.1:1/atelier?pasword={secret}"),
        format!("postgres://app@127.0.0.1:1/atelier?sslmode={secret}"),
        secret.to_owned(),
    ];
    let home = tempfile::TempDir::new().unwrap();
    std::thread::scope(|scope| {
        for (at, url) in urls.iter().enumerate() {
            let data = home.path().join(at.to_string());
            scope.spawn(move || {
                let output = Command::new(env!("CARGO_BIN_EXE_atelier"))
                    .args(["serve", "--listen", "127.0.0.1:0", "--threads", "1", "--data"])
                    .arg(data)
                    .envs([("RUST_LOG", "trace"), ("ATELIER_DATABASE", url), ("ATELIER_DATABASE_OWNER", url)])
                    .stdin(Stdio::null())
                    .output()
                    .unwrap();
                let said =
                    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
                assert!(!output.status.success() && said.contains("error: "), "{said}");
                check_silent("what it said", &said, &[("the password", secret)]);
            });
        }
    });
    let help = Command::new(env!("CARGO_BIN_EXE_atelier"))
        .args(["serve", "--help"])
        .envs([("ATELIER_DATABASE", &urls[0]), ("ATELIER_DATABASE_OWNER", &urls[0])])
        .output()
        .unwrap();
    check_silent("the help", &String::from_utf8_lossy(&help.stdout), &[("the password", secret)]);
}
