//! Every endpoint against everybody who has no business there, made from the OpenAPI document: an endpoint without a
//! case here fails the test.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::support::{Answer, Command, Style, User, World, archive_of, quick, start_run};

/// What a stranger gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stranger {
    /// As if there were nothing.
    Hidden,
    /// A refusal that is about what was asked, and the same for everybody.
    Refused(u16),
    /// Success, about the stranger's own things only.
    Own(u16),
    /// What anybody gets.
    Open,
}

/// How a case fills a path's placeholders and a body: from the victim's things, or from things that are nowhere.
type Things = BTreeMap<&'static str, String>;

struct Case {
    operation: &'static str,
    body: fn(&Things) -> Option<Value>,
    stranger: Stranger,
}

const fn case(operation: &'static str, stranger: Stranger, body: fn(&Things) -> Option<Value>) -> Case {
    Case { operation, body, stranger }
}

fn nothing(_: &Things) -> Option<Value> {
    None
}

/// Deletions stand last: until then, what they would delete is there to be hidden.
const CASES: [Case; 26] = [
    case("create_completion", Stranger::Hidden, |things| {
        Some(json!({"model": things["model"], "prompt": "a", "max_tokens": 1}))
    }),
    case("list_models", Stranger::Own(200), nothing),
    case("get_model", Stranger::Hidden, nothing),
    case("create_source", Stranger::Refused(400), |things| Some(json!({"path": things["folder"]}))),
    case("list_sources", Stranger::Own(200), nothing),
    case("get_source", Stranger::Hidden, nothing),
    case("create_run", Stranger::Hidden, |things| Some(json!({"source": things["source"]}))),
    case("list_runs", Stranger::Own(200), nothing),
    case("get_run", Stranger::Hidden, nothing),
    case("list_run_events", Stranger::Hidden, nothing),
    case("cancel_run", Stranger::Hidden, nothing),
    case("list_versions", Stranger::Own(200), nothing),
    case("export_adapter", Stranger::Hidden, nothing),
    case("move_alias", Stranger::Hidden, |_| Some(json!({"version": 1}))),
    case("usage_completions", Stranger::Own(200), nothing),
    case("create_tenant", Stranger::Hidden, |_| Some(json!({"name": "intruder", "plan": "tuned"}))),
    case("list_tenants", Stranger::Hidden, nothing),
    case("get_tenant", Stranger::Hidden, nothing),
    case("update_tenant", Stranger::Hidden, |_| Some(json!({"plan": "shared"}))),
    case("rotate_key", Stranger::Hidden, nothing),
    case("read_openapi", Stranger::Open, nothing),
    case("read_health", Stranger::Open, nothing),
    case("read_readiness", Stranger::Open, nothing),
    case("read_metrics", Stranger::Open, nothing),
    case("delete_source", Stranger::Hidden, nothing),
    case("delete_tenant", Stranger::Hidden, nothing),
];

/// One operation of the document.
struct Operation {
    method: String,
    path: String,
    access: String,
}

fn operations() -> BTreeMap<String, Operation> {
    let printed = Command::run(&["openapi"]);
    assert!(printed.succeeded, "{printed:?}");
    let document: Value = serde_json::from_str(&printed.stdout).unwrap();
    let mut found = BTreeMap::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let text = |name: &str| operation[name].as_str().unwrap().to_owned();
            let told = Operation { method: method.clone(), path: path.clone(), access: text("x-access") };
            assert!(found.insert(text("operationId"), told).is_none(), "{path}: two operations of one name");
        }
    }
    found
}

/// A tenant with one of everything, each findable in an answer that holds it.
struct Victim {
    user: User,
    things: Things,
    /// Words that must be in no answer to anybody else.
    canaries: Vec<String>,
}

fn victim(world: &World) -> Victim {
    let user = world.tenant("quiet-harbor", "tuned");
    let run = world.learn(&user, &archive_of(Style::Gated, 14), quick());
    assert_eq!(run["status"], "live", "{run:#}\n{}", world.log());
    let other = user.upload("/v1/sources?name=canary-of-a-source", &archive_of(Style::Boxed, 4)).ok();
    user.complete(&json!({"model": "atelier", "prompt": "a", "max_tokens": 2}));
    let tenant = world.operator().get("/v1/tenants/quiet-harbor").ok();
    let version = user.get("/v1/versions").ok()["data"][0].clone();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let things = Things::from([
        ("tenant", "quiet-harbor".to_owned()),
        ("source", text(&other["id"])),
        ("run", text(&run["id"])),
        ("model", text(&version["id"])),
        ("version", "1".to_owned()),
        ("alias", "live".to_owned()),
        ("folder", world.data().display().to_string()),
    ]);
    let public_key = user.key().split('_').nth(2).unwrap().to_owned();
    let canaries = vec![
        things["tenant"].clone(),
        text(&tenant["id"]),
        things["source"].clone(),
        text(&run["source"]),
        things["run"].clone(),
        "canary-of-a-source".to_owned(),
        text(&version["digest"]),
        text(&other["digest"]),
        public_key,
    ];
    Victim { user, things, canaries }
}

/// The same kinds of things, which nobody has.
fn things_of_nobody(things: &Things) -> Things {
    let mut nobodys = things.clone();
    for name in ["source", "run", "model"] {
        let thing = nobodys.get_mut(name).unwrap();
        let last = thing.pop().unwrap();
        thing.push(if last == '1' { '2' } else { '1' });
    }
    nobodys.insert("tenant", "nobody-at-all".to_owned());
    nobodys.insert("version", "4711".to_owned());
    nobodys.insert("folder", "/nowhere/at/all".to_owned());
    nobodys
}

struct Asked {
    answer: Answer,
    /// What was sent, which an answer may repeat.
    sent: String,
}

fn ask(user: &User, operation: &Operation, case: &Case, things: &Things) -> Asked {
    let mut path = operation.path.clone();
    for (name, value) in things {
        path = path.replace(&format!("{{{name}}}"), value);
    }
    assert!(!path.contains('{'), "{path}: a placeholder that this test cannot fill");
    if case.operation == "usage_completions" {
        path.push_str(&format!("?start_time={}&group_by=model", hour_ago()));
    }
    let body = (case.body)(things).map(|body| body.to_string());
    let sent = format!("{path} {}", body.clone().unwrap_or_default());
    let answer = user.send(&operation.method, &path, body.map(|body| ("application/json", body.into_bytes())));
    Asked { answer, sent }
}

fn hour_ago() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() - 3_600
}

impl Victim {
    /// Nothing of the victim's stands in the answer but what was sent.
    fn must_not_be_in(&self, asked: &Asked, who: &str) {
        let text = asked.answer.text();
        for canary in &self.canaries {
            let leaked = text.contains(canary.as_str()) && !asked.sent.contains(canary.as_str());
            assert!(!leaked, "{who} gets {canary} by {}: {:?}", asked.sent, asked.answer);
        }
    }

    /// What a witness sees of the victim; equal before and after every attempt.
    fn state(&self, world: &World) -> Vec<Value> {
        let tenant = world.operator().get("/v1/tenants/quiet-harbor").ok();
        let mut seen = vec![tenant];
        for path in ["/v1/sources", "/v1/runs", "/v1/versions", "/v1/models"] {
            seen.push(self.user.get(path).ok());
        }
        seen
    }
}

#[test]
fn walls_stand_at_every_endpoint() {
    let operations = operations();
    let mut named: Vec<&str> = CASES.iter().map(|case| case.operation).collect();
    named.sort_unstable();
    assert_eq!(named, operations.keys().map(String::as_str).collect::<Vec<_>>(), "each endpoint has one case");

    let world = World::start();
    let victim = victim(&world);
    let stranger = world.tenant("stranger", "tuned");
    start_run(&stranger, &archive_of(Style::Boxed, 5), "learn", json!({"epochs": 1}));
    let before = victim.state(&world);
    for case in &CASES {
        let operation = &operations[case.operation];
        the_unknown_are_asked_for_a_key(&world, &victim, operation, case);
        a_stranger_finds_nothing(&victim, &stranger, operation, case);
        a_claimed_organization_is_not_believed(&world, &victim, &stranger, operation, case);
        the_operator_must_say_for_whom(&world, &victim, operation, case);
    }
    assert_eq!(victim.state(&world), before, "nobody changed anything");
}

fn the_unknown_are_asked_for_a_key(world: &World, victim: &Victim, operation: &Operation, case: &Case) {
    let wrong_secret = format!("{}0", &victim.user.key()[..victim.user.key().len() - 1]);
    let cut = &victim.user.key()[..40];
    let mut users = vec![("anon", world.anon()), ("a cut key", world.user(Some(cut)))];
    users.push(("a wrong key", world.user(Some(&wrong_secret))));
    users.push(("a key of elsewhere", world.user(Some("sk-1234567890"))));
    users.push(("anon who claims", world.anon().acting_for("quiet-harbor")));
    for (who, user) in users {
        let asked = ask(&user, operation, case, &victim.things);
        victim.must_not_be_in(&asked, who);
        if operation.access == "anyone" {
            assert_eq!(asked.answer.status, 200, "{who} at {}: {:?}", case.operation, asked.answer);
        } else {
            assert_eq!(asked.answer.status, 401, "{who} at {}: {:?}", case.operation, asked.answer);
            assert_eq!(asked.answer.error()["code"], "invalid_api_key");
            assert_eq!(asked.answer.header("www-authenticate"), Some("Bearer"));
        }
    }
}

fn a_stranger_finds_nothing(victim: &Victim, stranger: &User, operation: &Operation, case: &Case) {
    assert_eq!(case.stranger == Stranger::Open, operation.access == "anyone", "{}", case.operation);
    let asked = ask(stranger, operation, case, &victim.things);
    victim.must_not_be_in(&asked, "a stranger");
    match case.stranger {
        Stranger::Open => assert_eq!(asked.answer.status, 200, "{}: {:?}", case.operation, asked.answer),
        Stranger::Own(status) | Stranger::Refused(status) => {
            assert_eq!(asked.answer.status, status, "{}: {:?}", case.operation, asked.answer)
        }
        Stranger::Hidden => {
            assert_eq!(asked.answer.status, 404, "{}: {:?}", case.operation, asked.answer);
            // What is another's and what is nobody's read the same.
            let nobodys = things_of_nobody(&victim.things);
            let nowhere = ask(stranger, operation, case, &nobodys);
            let anonymous = |asked: &Asked, things: &Things| {
                let message = asked.answer.error().to_string();
                things
                    .values()
                    .filter(|thing| thing.len() > 4)
                    .fold(message, |text, thing| text.replace(thing.as_str(), "…"))
            };
            assert_eq!(nowhere.answer.status, 404, "{}: {:?}", case.operation, nowhere.answer);
            assert_eq!(anonymous(&asked, &victim.things), anonymous(&nowhere, &nobodys), "{}", case.operation);
        }
    }
}

fn a_claimed_organization_is_not_believed(
    world: &World,
    victim: &Victim,
    stranger: &User,
    operation: &Operation,
    case: &Case,
) {
    if operation.access == "anyone" {
        return;
    }
    let id = world.operator().get("/v1/tenants/quiet-harbor").ok()["id"].as_str().unwrap().to_owned();
    for claim in ["quiet-harbor", &id] {
        let asked = ask(&stranger.acting_for(claim), operation, case, &victim.things);
        assert!([401, 404].contains(&asked.answer.status), "{} as {claim}: {:?}", case.operation, asked.answer);
        asked.answer.error();
        victim.must_not_be_in(&asked, "a stranger who claims");
    }
}

/// An operator without a tenant, or with another, reads no tenant's code, models, runs or versions.
fn the_operator_must_say_for_whom(world: &World, victim: &Victim, operation: &Operation, case: &Case) {
    let is_about_a_tenant =
        case.operation.ends_with("_tenant") || ["list_tenants", "rotate_key"].contains(&case.operation);
    if operation.access == "anyone" || is_about_a_tenant {
        return;
    }
    let asked = ask(&world.operator(), operation, case, &victim.things);
    assert!((400..500).contains(&asked.answer.status), "{}: {:?}", case.operation, asked.answer);
    asked.answer.error();
    victim.must_not_be_in(&asked, "the operator for nobody");
    let asked = ask(&world.operator().acting_for("stranger"), operation, case, &victim.things);
    victim.must_not_be_in(&asked, "the operator for another");
    let unknown = ask(&world.operator().acting_for("nobody-at-all"), operation, case, &victim.things);
    assert!([401, 404].contains(&unknown.answer.status), "{}: {:?}", case.operation, unknown.answer);
}

#[test]
fn operators_act_for_tenants_and_tenants_for_themselves() {
    let world = World::start();
    let acme = world.tenant("acme", "shared");
    let id = world.operator().get("/v1/tenants/acme").ok()["id"].as_str().unwrap().to_owned();
    let ask = json!({"model": "atelier", "prompt": "def f(", "max_tokens": 8, "temperature": 0});
    let own = acme.complete(&ask);
    for name in ["acme", &id] {
        assert_eq!(world.operator().acting_for(name).complete(&ask), own);
        assert_eq!(acme.acting_for(name).complete(&ask), own, "a key's own tenant may be named");
    }
    assert_eq!(acme.get("/v1/tenants/acme").ok()["id"], json!(id));
    assert_eq!(acme.patch("/v1/tenants/acme", &json!({"plan": "tuned"})).status, 404, "the plan is the operator's");
    assert_eq!(acme.delete("/v1/tenants/acme").status, 404);
    let rotated = acme.post("/v1/tenants/acme/keys", &json!({})).ok();
    assert_eq!(acme.get("/v1/models").status, 401);
    let renewed = world.user(rotated["value"].as_str());
    assert_eq!(renewed.get("/v1/models").status, 200);
    assert_eq!(world.operator().post("/v1/tenants", &json!({"name": "acme", "plan": "shared"})).status, 409);
}
