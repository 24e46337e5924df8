//! The audit trail as people meet it: by the API in OpenAI's shape, by the command line, and after somebody changed it.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, SqliteConnection};

use crate::support::{Archive, Command, User, World, runtime};

const LOGS: &str = "/v1/organization/audit_logs";
/// How long a note may take to be written on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(60);

fn code() -> Vec<u8> {
    Archive::new().file("a.py", b"SECRET_OF_ACME = 1\n").gzip()
}

fn events(user: &User, query: &str) -> Vec<Value> {
    user.get(&format!("{LOGS}{query}")).ok()["data"].as_array().unwrap().clone()
}

fn types(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["type"].as_str().unwrap()).collect()
}

/// Waits for what is written after the answer.
fn wait_for(user: &User, kind: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let started = Instant::now();
    loop {
        if let Some(event) = events(user, &format!("?event_types[]={kind}")).into_iter().find(&wanted) {
            return event;
        }
        assert!(started.elapsed() < PATIENCE, "no event {kind}: {:#?}", events(user, ""));
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_tenant_reads_what_was_done_and_by_whom() {
    let world = World::start_with(&["--workers", "0"], &[]);
    let acme = world.tenant("acme", "tuned");
    let org = world.id_of("acme");
    let source = acme.upload("/v1/sources?name=the-crown-jewels", &code()).ok()["id"].as_str().unwrap().to_owned();
    let made = acme.post("/v1/keys", &json!({"name": "laptop of jo", "role": "member", "scopes": ["complete"]})).ok();
    let member = acme.with_key(made["value"].as_str().unwrap());
    acme.patch(&format!("/v1/keys/{}", made["id"].as_str().unwrap()), &json!({"scopes": ["complete", "read"]})).ok();
    let acting = world.operator().acting_for("acme");
    acting.delete(&format!("/v1/sources/{source}")).ok();

    let page = acme.get(LOGS).ok();
    let all = page["data"].as_array().unwrap();
    let of_work = ["source.deleted", "source.created"];
    let of_administration = ["api_key.updated", "api_key.created", "organization.created"];
    let told = types(all);
    assert!(of_work.iter().chain(&of_administration).all(|kind| told.contains(kind)), "{told:?}");
    assert_eq!((&page["object"], &page["first_id"]), (&json!("list"), &all[0]["id"]));
    assert_eq!((&page["last_id"], &page["has_more"]), (&all[all.len() - 1]["id"], &json!(false)));
    let event =
        |kind: &str| all.iter().find(|event| event["type"] == kind).unwrap_or_else(|| panic!("{kind}: {page:#}"));

    let created = event("api_key.created");
    assert_eq!(created["object"], "audit_log");
    assert!(created["id"].as_str().unwrap().starts_with("audit_log-"), "{created:#}");
    assert_eq!(created["api_key.created"]["id"], made["id"]);
    assert_eq!(created["api_key.created"]["data"]["scopes"], json!(["complete"]));
    assert_eq!((&created["actor"]["type"], &created["actor"]["role"]), (&json!("api_key"), &json!("admin")));
    assert!(created["actor"]["api_key"]["id"].as_str().unwrap().starts_with("key_"), "{created:#}");
    assert_eq!(event("api_key.updated")["api_key.updated"]["changes_requested"]["scopes"], json!(["complete", "read"]));
    assert_eq!(event("source.created")["source.created"]["id"], source.as_str());
    assert_eq!(event("organization.created")["organization_id"], org.as_str());
    let deleted = event("source.deleted");
    assert_eq!((&deleted["actor"]["role"], &deleted["actor"]["acting_for"]), (&json!("operator"), &json!(org)));

    // No code, no key, and no name that the tenant chose.
    let text = page.to_string();
    for hidden in ["acme", "SECRET_OF_ACME", "crown-jewels", "laptop", acme.key(), member.key(), &acme.key()[23..50]] {
        assert!(!text.contains(hidden), "{hidden}: {page:#}");
    }

    // Filters and pages.
    assert_eq!(types(&events(&acme, "?event_types[]=source.created&event_types[]=source.deleted")), of_work);
    let actor = created["actor"]["api_key"]["id"].as_str().unwrap();
    assert_eq!(types(&events(&acme, &format!("?actor_ids[]={actor}&event_types[]=source.deleted"))), [] as [&str; 0]);
    assert_eq!(types(&events(&acme, &format!("?resource_ids[]={source}"))), of_work);
    let at = created["effective_at"].as_i64().unwrap();
    assert_eq!(events(&acme, &format!("?effective_at[gt]={}", at + 3_600)), [] as [Value; 0]);
    assert!(!events(&acme, &format!("?effective_at%5Bgte%5D={}&effective_at%5Blte%5D={at}", at - 3_600)).is_empty());
    let first = acme.get(&format!("{LOGS}?limit=1")).ok();
    assert_eq!((first["data"].as_array().unwrap().len(), &first["has_more"]), (1, &json!(true)));
    let second = events(&acme, &format!("?limit=1&after={}", first["last_id"].as_str().unwrap()));
    assert_eq!(second[0]["id"], all[1]["id"]);
    assert_eq!(events(&acme, &format!("?limit=1&before={}", second[0]["id"].as_str().unwrap()))[0]["id"], all[0]["id"]);
    for (query, param) in [
        ("?limit=0", "limit"),
        ("?limit=101", "limit"),
        ("?after=one", "after"),
        ("?event_types[]=nothing.happened", "event_types"),
        ("?actor_ids[]=acme", "actor_ids"),
        ("?actor_emails[]=a@example.com", "actor_emails"),
    ] {
        let refused = acme.get(&format!("{LOGS}{query}"));
        assert_eq!((refused.status, refused.error()["param"].clone()), (400, json!(param)), "{query}");
    }
    let unknown = "audit_log-0190d1f2a3b47c5d8e9f001122334455";
    assert_eq!(acme.get(&format!("{LOGS}?after={unknown}")).status, 404);
    assert_eq!(acme.get(&format!("{LOGS}?effective_at[gte]=soon")).status, 400);
}

#[test]
fn what_is_refused_and_what_an_operator_looks_at_is_on_record() {
    let world = World::start_with(&["--workers", "0"], &[]);
    let acme = world.tenant("acme", "tuned");
    let evil = world.tenant("evil", "tuned");
    let member = acme.with_key(acme.post("/v1/keys", &json!({})).ok()["value"].as_str().unwrap());
    for _ in 0..20 {
        assert_eq!(member.get("/v1/keys").status, 403);
    }
    let refused = wait_for(&acme, "access.refused", |event| event["access.refused"]["id"] == "manage_keys");
    assert_eq!(refused["actor"]["role"], "member", "{refused:#}");
    assert_eq!(events(&acme, "?event_types[]=access.refused").len(), 1, "once a minute");

    // A stranger who names another organization is on record at home, and nowhere else.
    assert_eq!(evil.acting_for("acme").get("/v1/sources").status, 404);
    wait_for(&evil, "access.refused", |event| event["access.refused"]["id"] == "read_tenant");
    assert!(!events(&evil, "").iter().any(|event| event.to_string().contains(&world.id_of("acme"))));
    assert_eq!(evil.get("/v1/tenants").status, 403);
    wait_for(&evil, "access.refused", |event| event["access.refused"]["id"] == "list_tenants");

    let acting = world.operator().acting_for("acme");
    acting.get("/v1/sources").ok();
    acting.get("/v1/sources").ok();
    let seen = wait_for(&acme, "access.operator", |event| event["access.operator"]["id"] == "read_sources");
    assert_eq!(
        (&seen["actor"]["role"], &seen["actor"]["acting_for"]),
        (&json!("operator"), &json!(world.id_of("acme")))
    );
    assert_eq!(member.get(LOGS).status, 403, "a member does not read the trail");
    let found = acme.get(&format!("{LOGS}/verification")).ok();
    assert_eq!((&found["whole"], found["chains"].as_array().unwrap().len()), (&json!(true), 2), "{found:#}");
}

/// Changes what was written, past the server.
fn tamper(world: &World, org: &str, statement: &str) {
    let hex = org.trim_start_matches("org_");
    let past_triggers =
        |schema: &str| format!("SET session_replication_role = replica; SET search_path = {schema}; {statement}");
    if world.in_place_of(org, past_triggers) {
        return;
    }
    let file = world.data().join(format!("tenants/{hex}.db"));
    let statements = format!("DROP TRIGGER audit_never_changes; DROP TRIGGER audit_never_vanishes; {statement}");
    runtime().block_on(async {
        let mut connection = SqliteConnection::connect(&format!("sqlite://{}", file.display())).await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(statements)).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    });
}

#[test]
fn commands_list_and_verify_and_say_where_a_trail_is_broken() {
    let world = World::start_with(&["--workers", "0"], &[]);
    let (acme, other) = (world.tenant("acme", "tuned"), world.tenant("other", "shared"));
    for _ in 0..3 {
        acme.upload("/v1/sources?name=code", &code()).ok();
    }
    let listed =
        world.cli(&["audit", "list", "--tenant", "acme", "--since", "1h", "--type", "source.created"]).object();
    assert_eq!(types(listed["data"].as_array().unwrap()), ["source.created"; 3]);
    let limited = world.cli(&["audit", "list", "--tenant", "acme", "--limit", "2"]).object();
    assert_eq!((limited["data"].as_array().unwrap().len(), &limited["has_more"]), (2, &json!(true)));
    let later = world.cli(&["audit", "list", "--tenant", "acme", "--since", "2100-01-01"]).object();
    assert_eq!(later["data"], json!([]));
    let all = world.cli(&["audit", "list", "--limit", "500"]).object();
    let told = types(all["data"].as_array().unwrap());
    assert!(told.contains(&"operator_key.created") && told.contains(&"organization.created"), "{told:?}");
    assert!(!told.contains(&"source.created"), "what was done to code is the tenant's: {told:?}");
    // A tenant's own key needs to say nothing.
    let own = [("ATELIER_URL", world.url()), ("ATELIER_KEY", acme.key().to_owned())];
    let own: Vec<(&str, &str)> = own.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let by_tenant = Command::run_with(&own, &["audit", "list", "--type", "source.created", "--json"]).object();
    assert_eq!(by_tenant["data"].as_array().unwrap().len(), 3);
    assert!(world.cli(&["audit", "list", "--since", "yesterday"]).stderr.contains("7d"));
    assert!(
        world.cli(&["audit", "list", "--tenant", "acme", "--type", "x&limit=1"]).refusal().contains("source.created")
    );

    let whole = world.cli(&["audit", "verify"]).object();
    assert_eq!((&whole["whole"], whole["chains"].as_array().unwrap().len()), (&json!(true), 5), "{whole:#}");
    assert_eq!(Command::run_with(&own, &["audit", "verify", "--json"]).object()["chains"].as_array().unwrap().len(), 2);
    let line = |checks: &Value| {
        let checks = checks["checks"].as_array().unwrap().clone();
        checks.into_iter().find(|check| check["check"] == "audit trail").expect("doctor looks at the trail")
    };
    let healthy = line(&world.cli(&["doctor"]).any_object());
    assert_eq!(healthy["ok"], true, "{healthy}");

    let org = world.id_of("acme");
    tamper(&world, &org, "UPDATE audit SET subject = 'src_another' WHERE sequence = 2");
    let verified = world.cli(&["audit", "verify", "--tenant", "acme"]);
    assert!(verified.refusal().contains("not what was written"));
    let broken = &verified.any_object()["chains"][1];
    assert_eq!((&broken["chain"], &broken["whole"], &broken["events"]), (&json!("work"), &json!(false), &json!(1)));
    assert_eq!(broken["broken"]["sequence"], 2);
    let event = broken["broken"]["event_id"].as_str().unwrap();
    assert!(listed["data"].as_array().unwrap().iter().any(|known| known["id"] == event), "{broken:#}");
    assert!(!world.cli(&["audit", "verify"]).succeeded);
    let sick = line(&world.cli(&["doctor"]).any_object());
    assert!(sick["ok"] == false && sick["says"].as_str().unwrap().contains("BROKEN at event 2"), "{sick}");
    // The others' trails are what they were.
    assert_eq!(other.get(&format!("{LOGS}/verification")).ok()["whole"], true);
}
