//! Inside of one tenant: who would like to be more than he is, and see more than his project. Cases 2, 5 and 8.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::scene::text;
use crate::support::{User, World, runtime};

const PROJECTS: &str = "/v1/organization/projects";
const INVITES: &str = "/v1/organization/invites";

/// What is promised: the time between losing a right and the last thing that it was good for.
const PROMISE: Duration = Duration::from_secs(1);
/// Streams that are open under the key.
const STREAMS: usize = 4;
/// How long they have been going on.
const BEFORE: Duration = Duration::from_millis(500);

fn start() -> World {
    World::start_with(&["--workers", "0"], &[])
}

fn project(admin: &User, name: &str) -> String {
    text(&admin.post(PROJECTS, &json!({"name": name})).ok()["id"])
}

/// Invites somebody, who comes: who, and with its own key.
fn person(admin: &User, name: &str, role: &str, projects: Value) -> (String, User) {
    let body = json!({"email": format!("{name}@example.com"), "role": role, "projects": projects});
    let secret = text(&admin.post(INVITES, &body).ok()["secret"]);
    let joined = admin.with_key(&secret).post(&format!("{INVITES}/accept"), &json!({"name": name})).ok();
    (text(&joined["user"]["id"]), admin.with_key(&text(&joined["key"]["value"])))
}

fn key(admin: &User, body: Value) -> User {
    admin.with_key(&text(&admin.post("/v1/keys", &body).ok()["value"]))
}

#[test]
fn case_02_an_invite_names_ones_own_projects_only() {
    let world = start();
    let (evil, acme) = (world.tenant("evil", "shared"), world.tenant("acme", "shared"));
    let theirs = project(&acme, "secret");
    let nobodys = theirs.replace(&theirs[theirs.len() - 4..], "ffff");
    let own = project(&evil, "own");
    let mut refused = Vec::new();
    for named in [&theirs, &nobodys] {
        let projects = json!([{"id": own, "role": "member"}, {"id": named, "role": "owner"}]);
        let answer = evil.post(INVITES, &json!({"email": "jo@example.com", "role": "reader", "projects": projects}));
        assert_eq!(answer.status, 404, "{answer:?}");
        refused.push(answer.error());
    }
    assert_eq!(refused[0], refused[1], "what is another's is as what is nobody's");
    assert_eq!(evil.get(INVITES).ok()["data"], json!([]));
    // One tenant's secret makes nobody of another, whatever else the request claims.
    let body = json!({"email": "jo@example.com", "role": "owner"});
    let secret = text(&evil.post(INVITES, &body).ok()["secret"]);
    let accept = format!("{INVITES}/accept");
    assert_eq!(evil.with_key(&secret).acting_for("acme").post(&accept, &json!({"name": "jo"})).status, 404);
    let joined = evil.with_key(&secret).post(&accept, &json!({"name": "jo"})).ok();
    assert_eq!(evil.get("/v1/organization/users").ok()["data"][0]["id"], joined["user"]["id"]);
    assert_eq!(acme.get("/v1/organization/users").ok()["data"], json!([]));
    assert_eq!(evil.with_key(&secret).post(&accept, &json!({"name": "again"})).status, 401, "once");
}

#[test]
fn case_05_nobody_raises_himself() {
    let world = start();
    let acme = world.tenant("acme", "shared");
    let (jo, member) = person(&acme, "jo", "reader", json!([{"id": project(&acme, "web"), "role": "owner"}]));
    let own = member.get("/v1/models");
    assert_eq!(own.status, 200);
    let (reader, service) = (key(&acme, json!({"role": "reader"})), key(&acme, json!({"role": "service"})));
    let user = format!("/v1/organization/users/{jo}");
    let raising = [
        ("POST", user.as_str(), json!({"role": "owner"})),
        ("POST", INVITES, json!({"email": "me@example.com", "role": "owner"})),
        ("POST", "/v1/organization/admin_api_keys", json!({"name": "mine"})),
        ("POST", "/v1/keys", json!({"role": "admin"})),
        ("POST", PROJECTS, json!({"name": "mine"})),
        ("POST", "/v1/tenants", json!({"name": "mine", "plan": "shared"})),
    ];
    for (who, attacker) in [("a member", &member), ("a reader", &reader), ("a service", &service)] {
        for (method, path, body) in &raising {
            let answer = attacker.send(method, path, Some(("application/json", body.to_string().into_bytes())));
            assert!([403, 404].contains(&answer.status), "{who} at {path}: {answer:?}");
        }
    }
    // An admin makes no operator, in whatever field it says so.
    for body in [json!({"role": "operator"}), json!({"scopes": ["operate"]}), json!({"role": "admin", "tenant": null})]
    {
        assert_eq!(acme.post("/v1/keys", &body).status, 400, "{body}");
    }
    for role in ["operator", "admin", "member", ""] {
        assert_eq!(acme.post(&user, &json!({"role": role})).status, 400, "{role}");
        assert_eq!(acme.post(INVITES, &json!({"email": "me@example.com", "role": role})).status, 400, "{role}");
    }
    // Who manages keys without more hands out what he has, and appoints nobody.
    let manager = key(&acme, json!({"role": "admin", "scopes": ["manage", "read"]}));
    for (path, body, status) in [
        (user.as_str(), json!({"role": "owner"}), 403),
        (INVITES, json!({"email": "me@example.com", "role": "owner"}), 403),
        ("/v1/organization/admin_api_keys", json!({"name": "mine"}), 400),
        ("/v1/keys", json!({"role": "member"}), 400),
        ("/v1/keys", json!({"role": "admin", "scopes": ["delegate"]}), 400),
        ("/v1/keys", json!({"role": "reader", "scopes": ["read"]}), 201),
    ] {
        let answer = manager.post(path, &body);
        assert_eq!(answer.status, status, "{path} {body}: {answer:?}");
    }
    // An admin API key manages everything and completes nothing, and hears why.
    let made = acme.post("/v1/organization/admin_api_keys", &json!({"name": "terraform"})).ok();
    let administrator = acme.with_key(&text(&made["value"]));
    let completion = json!({"model": "atelier", "prompt": "a", "max_tokens": 1});
    let refused = administrator.post("/v1/completions", &completion);
    assert_eq!((refused.status, refused.error()["code"].clone()), (403, json!("insufficient_scope")), "{refused:?}");
    assert!(refused.text().contains("complete"), "{refused:?}");
    let machine = format!("{PROJECTS}/{}/service_accounts", project(&administrator, "made by the key"));
    let value = text(&administrator.post(&machine, &json!({"name": "ci"})).ok()["api_key"]["value"]);
    assert_eq!(acme.with_key(&value).post("/v1/completions", &completion).status, 200);
    assert_eq!(administrator.post(&user, &json!({"role": "owner"})).ok()["role"], "owner");
}

#[test]
fn case_05_the_key_of_a_project_finds_nothing_of_another() {
    let world = start();
    let acme = world.tenant("acme", "shared");
    let (web, app) = (project(&acme, "web"), project(&acme, "app"));
    let (jo, _) = person(&acme, "jo", "reader", json!([{"id": app, "role": "member"}]));
    let account = acme.post(&format!("{PROJECTS}/{app}/service_accounts"), &json!({"name": "ci"})).ok();
    let reader = key(&acme, json!({"role": "reader", "project_id": web}));
    let one = acme.with_key(&text(&account["api_key"]["value"]));
    one.post("/v1/completions", &json!({"model": "atelier", "prompt": "a", "max_tokens": 1})).ok();

    let listed = reader.get(&format!("{PROJECTS}?include_archived=true")).ok();
    let ids: Vec<&str> =
        listed["data"].as_array().unwrap().iter().map(|project| project["id"].as_str().unwrap()).collect();
    assert_eq!(ids, [web.as_str()]);
    let (account, nobodys) = (text(&account["id"]), app.replace(&app[app.len() - 4..], "ffff"));
    let there = ["", "/users", &format!("/users/{jo}"), "/service_accounts", &format!("/service_accounts/{account}")]
        .map(str::to_owned);
    for path in &there {
        acme.get(&format!("{PROJECTS}/{app}{path}")).ok();
        let hidden = reader.get(&format!("{PROJECTS}/{app}{path}"));
        let nothing = reader.get(&format!("{PROJECTS}/{nobodys}{path}"));
        assert_eq!((hidden.status, hidden.error()), (404, nothing.error()), "{path}");
    }
    for path in ["/v1/organization/users", INVITES, "/v1/organization/audit_logs/verification", "/v1/keys"] {
        acme.get(path).ok();
        assert!([403, 404].contains(&reader.get(path).status), "{path}");
    }
    let usage = "/v1/organization/usage/completions?start_time=1700000000&limit=31&bucket_width=1d";
    let requests = |user: &User, query: &str| -> u64 {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let page = user
            .get(&usage.replace("1700000000", &(now - 86_400).to_string()).replace("limit", &format!("{query}limit")))
            .ok();
        let buckets = page["data"].as_array().unwrap().clone();
        let results = buckets.iter().flat_map(|bucket| bucket["results"].as_array().unwrap().clone());
        results.map(|result| result["num_model_requests"].as_u64().unwrap()).sum()
    };
    assert_eq!((requests(&acme, ""), requests(&acme, &format!("project_ids={app}&"))), (1, 1));
    assert_eq!((requests(&reader, ""), requests(&reader, &format!("project_ids={app}&"))), (0, 0));
    // The refusals of just now may be on record: they are by that project's own key.
    let trail = reader.get("/v1/organization/audit_logs").ok();
    assert!(trail["data"].as_array().unwrap().iter().all(|event| event["project"]["id"] == web.as_str()), "{trail:#}");
    assert_eq!(reader.get(&format!("/v1/organization/audit_logs?project_ids={app}")).ok()["data"], json!([]));
}

#[test]
fn case_08_what_an_archived_project_and_a_removed_person_had_ends_within_a_second() {
    let world = start();
    let acme = world.tenant("acme", "shared");
    let web = project(&acme, "web");
    let machine = acme.post(&format!("{PROJECTS}/{web}/service_accounts"), &json!({"name": "ci"})).ok();
    let machine = acme.with_key(&text(&machine["api_key"]["value"]));
    let (jo, member) = person(&acme, "jo", "reader", json!([{"id": project(&acme, "app"), "role": "member"}]));
    let _inside = runtime().enter();
    for (holder, (method, path)) in [
        (&machine, ("POST", format!("{PROJECTS}/{web}/archive"))),
        (&member, ("DELETE", format!("/v1/organization/users/{jo}"))),
    ] {
        let streams: Vec<_> = (0..STREAMS).map(|_| runtime().spawn(super::keys::stream(holder))).collect();
        std::thread::sleep(BEFORE);
        acme.send(method, &path, None).ok();
        let ended = Instant::now();
        assert_eq!(holder.get("/v1/models").status, 401);
        let ends: Vec<(bool, Instant)> =
            streams.into_iter().map(|stream| runtime().block_on(stream).unwrap()).collect();
        let slowest = ends.iter().map(|(_, at)| at.saturating_duration_since(ended)).max().unwrap();
        eprintln!("{method} {path}: the last of {STREAMS} streams ended {} ms later", slowest.as_millis());
        assert!(ends.iter().any(|(is_cut, _)| *is_cut), "no stream was open");
        assert!(slowest <= PROMISE, "{slowest:?}");
    }
}
