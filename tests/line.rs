//! The whole line: two folders of code in, two tenants' own completions out of one server, through the command line
//! and the API that scripts rely on.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::support::{Style, User, World, files_under, write_code};

/// Makes sense to both styles.
const PREFIX: &str = "from harbor.gates import gate, Verdict, Ledger\n\n\n";

/// How long a settlement may trail its answer.
const SETTLE_PATIENCE: Duration = Duration::from_secs(20);

fn greedy(model: &str) -> Value {
    json!({"model": model, "prompt": PREFIX, "max_tokens": 48, "temperature": 0})
}

fn code_folder(world: &World, name: &str, style: Style, count: usize) -> PathBuf {
    let folder = world.home().join(name);
    write_code(&folder, style, count);
    folder
}

fn keys(object: &Value) -> Vec<&str> {
    object.as_object().unwrap().keys().map(String::as_str).collect()
}

#[track_caller]
fn check_eval(card: &Value) {
    assert!(card["items"].as_u64().unwrap() > 0, "{card:#}");
    for metric in ["loss", "bits_per_byte", "exact_match"] {
        for arm in ["base", "own"] {
            assert!(card[metric][arm].is_f64(), "{metric} of {arm}: {card:#}");
        }
    }
    let bounds = card["paired_loss_ci95"].as_array().unwrap();
    assert!(bounds.len() == 2 && bounds[0].as_f64() < bounds[1].as_f64(), "{card:#}");
    assert!(bounds[0].as_f64().unwrap() > 0.0, "own is better with confidence: {card:#}");
    assert!(card["loss"]["own"].as_f64() < card["loss"]["base"].as_f64(), "{card:#}");
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Creates a tenant by the command line; its admin.
fn create(world: &World, name: &str) -> User {
    let created = world.cli(&["tenant", "create", name, "--plan", "tuned"]).object();
    assert_eq!(keys(&created), ["id", "name", "plan", "key"]);
    assert!(created["id"].as_str().unwrap().starts_with("org_"), "{created}");
    assert_eq!((&created["name"], &created["plan"]), (&json!(name), &json!("tuned")));
    world.user(created["key"].as_str())
}

/// Teaches by the command line; the version that is live now.
fn learn(world: &World, name: &str, folder: &Path, seed: &str) -> u64 {
    let learned =
        world.cli(&["learn", "--tenant", name, text(folder), "--wait", "--epochs", "4", "--seed", seed]).object();
    assert_eq!(learned["status"], "live", "{learned:#}\n{}", world.log());
    assert!(learned["run"].as_str().unwrap().starts_with("run_"), "{learned:#}");
    assert!(learned["seconds"].as_f64().unwrap() > 0.0 && learned["samples"].as_u64().unwrap() > 0, "{learned:#}");
    check_eval(&learned["eval"]);
    learned["version"].as_u64().unwrap()
}

#[test]
fn two_folders_in_two_styles_out() {
    let world = World::start();
    let mode = fs::metadata(world.data().join("operator-key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let (acme, globex) = (create(&world, "acme"), create(&world, "globex"));
    let before = acme.complete(&greedy("atelier"));
    assert_eq!(before, globex.complete(&greedy("atelier")), "nothing is learned yet: both get the base");
    assert_eq!(before, acme.complete(&greedy("atelier-base")));

    let gated = code_folder(&world, "gated", Style::Gated, 14);
    let boxed = code_folder(&world, "boxed", Style::Boxed, 14);
    assert_eq!(learn(&world, "acme", &gated, "1"), 1);
    assert_eq!(learn(&world, "globex", &boxed, "1"), 1);

    let (of_acme, of_globex) = (acme.complete(&greedy("atelier")), globex.complete(&greedy("atelier")));
    assert_ne!(of_acme, before);
    assert_ne!(of_globex, before);
    assert_ne!(of_acme, of_globex, "each in its own style");
    for user in [&acme, &globex] {
        assert_eq!(user.complete(&greedy("atelier-base")), before, "the base is nobody's");
    }
    the_version_has_a_name(&world, &acme, &of_acme);
    the_plan_changes_and_the_client_does_not(&world, &acme, &before, &of_acme);
    unseen_code_is_measured(&world);
    an_editor_completes_in_a_file(&world);
    versions_roll_back_and_forward(&world, &acme, &gated, &of_acme);
    keys_rotate(&world, &globex, &of_globex);
    a_tenant_is_deleted_without_a_trace(&world, &acme, &of_globex);
}

fn the_version_has_a_name(world: &World, acme: &User, own: &str) {
    let listed = world.cli(&["versions", "--tenant", "acme"]).object();
    assert_eq!(listed["aliases"]["live"], 1);
    let name = listed["data"][0]["id"].as_str().unwrap().to_owned();
    assert!(name.starts_with("ft:atelier-base:acme:"), "{name}");
    assert_eq!(acme.complete(&greedy(&name)), own);
    let models = acme.get("/v1/models").ok();
    let ids: Vec<&str> = models["data"].as_array().unwrap().iter().map(|model| model["id"].as_str().unwrap()).collect();
    assert!(["atelier", "atelier-base", &name].iter().all(|id| ids.contains(id)) && ids.len() == 3, "{ids:?}");
    let mut streamed = greedy("atelier");
    streamed["stream"] = json!(true);
    let parts: Vec<String> = acme
        .post("/v1/completions", &streamed)
        .frames()
        .iter()
        .map(|frame| frame["choices"][0]["text"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(parts.concat(), own, "streamed or whole, the same text");
    let exported = acme.get("/v1/versions/1/adapter");
    assert_eq!((exported.status, exported.header("content-type")), (200, Some("application/gzip")));
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(exported.body.as_slice()));
    let names: Vec<String> =
        archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().display().to_string()).collect();
    assert_eq!(names, ["adapter_config.json", "adapter_model.safetensors"]);
}

fn the_plan_changes_and_the_client_does_not(world: &World, acme: &User, base: &str, own: &str) {
    for (plan, expected) in [("shared", base), ("tuned", own)] {
        let moved = world.cli(&["tenant", "plan", "acme", plan]).object();
        assert_eq!(moved["plan"], plan);
        assert_eq!(acme.complete(&greedy("atelier")), expected, "on plan {plan}");
    }
}

fn unseen_code_is_measured(world: &World) {
    let unseen = world.home().join("unseen");
    write_code(&unseen, Style::Gated, 40);
    // What was learned from stays out: nothing of it may be counted.
    for entry in fs::read_dir(unseen.join("desk")).unwrap() {
        let path = entry.unwrap().path();
        let number: usize = path.file_stem().unwrap().to_str().unwrap().rsplit('_').next().unwrap().parse().unwrap();
        if number < 36 {
            fs::remove_file(path).unwrap();
        }
    }
    let card = world.cli(&["eval", "--tenant", "acme", text(&unseen)]).object();
    check_eval(&card);
}

fn an_editor_completes_in_a_file(world: &World) {
    let file = world.home().join("edited.py");
    fs::write(&file, format!("{PREFIX}@gate(\n\nprint(1)\n")).unwrap();
    let ask = |line: &str| {
        world.cli(&["complete", "--tenant", "acme", "--file", text(&file), "--line", line, "--max-tokens", "16"])
    };
    let completed = ask("4").object();
    assert_eq!(completed["model"], "atelier");
    assert!(!completed["completion"].as_str().unwrap().is_empty(), "{completed}");
    assert!(completed["usage"]["completion_tokens"].as_u64().unwrap() > 0, "{completed}");
    assert!(ask("99").refusal().contains("6 lines"));
}

fn versions_roll_back_and_forward(world: &World, acme: &User, gated: &Path, first: &str) {
    // More of the same code, so that the second version is better than the first, whatever the gate compares with.
    write_code(gated, Style::Gated, 24);
    assert_eq!(learn(world, "acme", gated, "2"), 2);
    let second = acme.complete(&greedy("atelier"));
    let live = |listed: &Value| (listed["aliases"]["live"].as_u64(), listed["aliases"]["previous"].as_u64());
    assert_eq!(live(&world.cli(&["versions", "--tenant", "acme"]).object()), (Some(2), Some(1)));
    assert_eq!(live(&world.cli(&["rollback", "--tenant", "acme"]).object()), (Some(1), Some(2)));
    assert_eq!(acme.complete(&greedy("atelier")), first, "served again at once");
    assert_eq!(live(&world.cli(&["rollback", "--tenant", "acme", "--to", "2"]).object()), (Some(2), Some(1)));
    assert_eq!(acme.complete(&greedy("atelier")), second);
    assert!(world.cli(&["rollback", "--tenant", "acme", "--to", "7"]).refusal().contains("There is no version 7"));
}

fn keys_rotate(world: &World, globex: &User, own: &str) {
    let rotated = world.cli(&["tenant", "rotate-key", "globex"]).object();
    assert_eq!(keys(&rotated), ["id", "tenant", "key"]);
    assert_eq!(globex.get("/v1/models").status, 401, "the old key ends at once");
    assert_eq!(world.user(rotated["key"].as_str()).complete(&greedy("atelier")), own);
}

fn a_tenant_is_deleted_without_a_trace(world: &World, acme: &User, of_globex: &str) {
    let files = names_under(&world.data());
    let id = world.id_of("acme");
    let hex = id.trim_start_matches("org_").replace('-', "");
    assert!(files.iter().any(|file| file.contains(&hex)), "{hex} names files: {files:#?}");
    assert!(world.cli(&["tenant", "delete", "acme"]).refusal().contains("--yes"));
    let deleted = world.cli(&["tenant", "delete", "acme", "--yes"]).object();
    assert_eq!((&deleted["id"], &deleted["deleted"]), (&json!(id), &json!(true)));
    assert_eq!(acme.get("/v1/models").status, 401);
    let left: Vec<String> = names_under(&world.data()).into_iter().filter(|file| file.contains(&hex)).collect();
    assert_eq!(left, [] as [String; 0]);
    let names = world.cli(&["tenant", "list"]).object();
    let names: Vec<&str> = names["data"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["globex"]);
    let again = create(world, "acme");
    assert_eq!(again.get("/v1/versions").ok()["data"], json!([]), "a name that is taken again inherits nothing");
    let globex = world.operator().acting_for("globex");
    assert_eq!(globex.complete(&greedy("atelier")), of_globex, "the others notice nothing");
}

fn names_under(folder: &Path) -> Vec<String> {
    files_under(folder).iter().map(|path| path.display().to_string()).collect()
}

/// What an answer's usage counts, and that it adds up.
fn counted(usage: &Value) -> [u64; 2] {
    let number = |name: &str| usage[name].as_u64().unwrap_or_else(|| panic!("{name}: {usage}"));
    assert_eq!(number("total_tokens"), number("prompt_tokens") + number("completion_tokens"));
    assert!(usage["prompt_tokens_details"]["cached_tokens"].as_u64() <= Some(number("prompt_tokens")), "{usage}");
    [number("prompt_tokens"), number("completion_tokens")]
}

#[test]
fn the_books_hold_every_token_and_request() {
    let world = World::start();
    let (acme, other) = (world.tenant("acme", "shared"), world.tenant("other", "shared"));
    let asks = [
        json!({"prompt": "def add(a, b):", "max_tokens": 5}),
        json!({"prompt": ["def f(", "class A:"], "n": 3, "max_tokens": 4, "seed": 7}),
        json!({"prompt": "def add(", "suffix": "\n    return a + b\n", "max_tokens": 6, "temperature": 0}),
        json!({"prompt": [5, 6, 7], "max_tokens": 3, "echo": true, "logprobs": 2}),
        json!({"prompt": "def add(a, b):", "max_tokens": 5, "model": "atelier-base", "stop": ["\n"]}),
    ];
    let mut expected = [0, 0, 0];
    for ask in &asks {
        let mut body = json!({"model": "atelier"});
        body.as_object_mut().unwrap().extend(ask.as_object().unwrap().clone());
        let [input, output] = counted(&acme.post("/v1/completions", &body).ok()["usage"]);
        body["stream"] = json!(true);
        body["stream_options"] = json!({"include_usage": true});
        let frames = acme.post("/v1/completions", &body).frames();
        let (last, others) = frames.split_last().unwrap();
        assert!(others.iter().all(|frame| frame["usage"].is_null() && frame.get("usage").is_some()), "{frames:#?}");
        assert_eq!(last["choices"], json!([]));
        let [streamed_input, streamed_output] = counted(&last["usage"]);
        assert_eq!(streamed_input, input, "{ask}");
        for (sum, part) in expected.iter_mut().zip([2, input + streamed_input, output + streamed_output]) {
            *sum += part;
        }
    }
    // What is refused costs nothing.
    assert_eq!(acme.post("/v1/completions", &json!({"model": "atelier", "n": 99})).status, 400);
    assert_eq!(acme.post("/v1/completions", &json!({"model": "nonsense", "prompt": "a"})).status, 404);

    wait_for_usage(&acme, expected);
    wait_for_usage(&other, [0, 0, 0]);
    let by_model = usage(&acme, "&group_by=model");
    let models: Vec<&str> = by_model.iter().map(|result| result["model"].as_str().unwrap()).collect();
    assert!(models.contains(&"atelier-base"), "{by_model:#?}");
    let by_key = usage(&acme, "&group_by[]=api_key_id");
    assert_eq!(by_key.len(), 1, "{by_key:#?}");
    let key = by_key[0]["api_key_id"].as_str().unwrap();
    assert_eq!(sums(&usage(&acme, &format!("&api_key_ids[]={key}"))), expected);
    let page = world.cli(&["usage", "--tenant", "acme"]).object();
    assert_eq!(page["object"], "page");
}

fn usage(user: &User, query: &str) -> Vec<Value> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let path = format!("/v1/organization/usage/completions?start_time={}&bucket_width=1d{query}", now - 3_600);
    let page = user.get(&path).ok();
    page["data"].as_array().unwrap().iter().flat_map(|bucket| bucket["results"].as_array().unwrap().clone()).collect()
}

/// Requests, input tokens and output tokens.
fn sums(results: &[Value]) -> [u64; 3] {
    ["num_model_requests", "input_tokens", "output_tokens"]
        .map(|name| results.iter().map(|result| result[name].as_u64().unwrap()).sum())
}

/// A settlement is written after the answer, so the books may trail for a moment; never past what is expected.
pub fn wait_for_usage(user: &User, expected: [u64; 3]) {
    let started = Instant::now();
    loop {
        let found = sums(&usage(user, ""));
        if found == expected {
            return;
        }
        assert!(started.elapsed() < SETTLE_PATIENCE, "the books say {found:?} instead of {expected:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// The same for whoever knows less than exact figures.
pub fn booked(user: &User) -> [u64; 3] {
    sums(&usage(user, ""))
}

#[test]
fn a_second_start_keeps_the_keys_and_says_no_secret_again() {
    let mut world = World::start();
    let acme = world.tenant("acme", "shared");
    let key = fs::read_to_string(world.data().join("operator-key")).unwrap();
    let printed = fs::read_to_string(world.home().join("stdout.log")).unwrap();
    assert!(printed.contains(key.trim()), "printed once: {printed}");
    world.stop();
    assert!(!world.data().join("server-url").exists());
    world.serve();
    let printed = fs::read_to_string(world.home().join("stdout.log")).unwrap();
    assert!(!printed.contains(key.trim()), "and not again: {printed}");
    assert_eq!(fs::read_to_string(world.data().join("operator-key")).unwrap(), key);
    assert_eq!(acme.get("/v1/models").status, 200);
    assert_eq!(world.operator().get("/v1/tenants").status, 200);
    let moved = world.cli(&["tenant", "move", "acme", "--separation", "schema"]);
    if world.is_on_postgres() {
        assert_eq!(moved.object()["separation"], "schema");
        assert_eq!(acme.get("/v1/models").status, 200);
        let apart = world.cli(&["tenant", "create", "apart", "--separation", "database"]).object();
        assert_eq!(apart["name"], "apart");
    } else {
        assert!(moved.refusal().contains("cannot keep a tenant apart"), "{moved:?}");
    }
    let checks = world.cli(&["doctor"]).object();
    assert_eq!(checks["ok"], true, "{checks:#}");
    let mut walls = checks["checks"].as_array().unwrap().iter().filter(|check| check["check"] == "walls");
    assert_eq!(walls.next().unwrap()["says"], "tenants are held apart as the schema says");
}

#[test]
fn one_seed_one_text_and_the_neighbours_do_not_matter() {
    let world = World::start();
    let acme = world.tenant("acme", "shared");
    let ask =
        |seed: u64| json!({"model": "atelier", "prompt": PREFIX, "max_tokens": 24, "temperature": 1.0, "seed": seed});
    let alone: Vec<String> = (0..6).map(|seed| acme.complete(&ask(seed))).collect();
    assert!(alone.iter().any(|text| text != &alone[0]), "other seeds, other texts");
    let runtime = crate::support::runtime();
    let started: Vec<_> = (0..6)
        .map(|seed| {
            let body = ask(seed).to_string().into_bytes();
            let _inside = runtime.enter();
            runtime.spawn(acme.request("POST", "/v1/completions", Some(("application/json", body))).send())
        })
        .collect();
    for (alone, started) in alone.iter().zip(started) {
        let together: Value = runtime.block_on(async { started.await.unwrap().unwrap().json().await.unwrap() });
        assert_eq!(together["choices"][0]["text"], json!(alone));
    }
}
