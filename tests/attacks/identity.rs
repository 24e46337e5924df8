//! Who somebody claims to be: cases 4 to 9.

use serde_json::{Value, json};

use super::document::operations;
use super::scene::text;
use crate::support::{Answer, Archive, User, World};

fn code() -> Vec<u8> {
    Archive::new().file("a.py", b"def f(x):\n    return x + 1\n").gzip()
}

fn ids(user: &User, path: &str) -> Vec<String> {
    user.get(path).ok()["data"].as_array().unwrap().iter().map(|thing| text(&thing["id"])).collect()
}

#[test]
fn case_04_what_is_made_belongs_to_the_keys_tenant_whatever_else_is_claimed() {
    let world = World::start_with(&["--workers", "0"], &[]);
    let (evil, acme) = (world.tenant("evil", "tuned"), world.tenant("acme", "tuned"));
    let acme_id = world.id_of("acme");
    let theirs = text(&acme.upload("/v1/sources?name=theirs", &code()).ok()["id"]);
    let mut made = Vec::new();
    for header in ["x-tenant", "x-tenant-id", "x-organization-id", "x-forwarded-user", "x-atelier-tenant"] {
        let query = format!("/v1/sources?name=mine&tenant={acme_id}&tenant_id={acme_id}&organization=acme");
        made.push(text(&evil.with_header(header, &acme_id).upload(&query, &code()).ok()["id"]));
    }
    let mut listed = ids(&evil, "/v1/sources");
    listed.sort_unstable();
    made.sort_unstable();
    assert_eq!(listed, made, "the key's tenant has all of them");
    assert_eq!(ids(&acme, "/v1/sources"), [theirs.as_str()], "and the claimed one has none");
    // Fields that nobody asked for, and one field twice: the foreign name never counts.
    let own = &made[0];
    let bodies = [
        format!(r#"{{"source": "{own}", "tenant_id": "{acme_id}"}}"#),
        format!(r#"{{"source": "{own}", "source": "{theirs}"}}"#),
        format!(r#"{{"source": "{theirs}", "source": "{own}"}}"#),
        format!(r#"{{"source": ["{own}", "{theirs}"]}}"#),
        format!(r#"{{"source": "{own}", "options": {{"tenant": "acme"}}}}"#),
    ];
    for body in bodies {
        let answer = evil.send("POST", "/v1/runs", Some(("application/json", body.clone().into_bytes())));
        assert_eq!(answer.status, 400, "{body}: {answer:?}");
    }
    assert_eq!(ids(&acme, "/v1/runs"), [] as [&str; 0]);
    assert_eq!(ids(&evil, "/v1/runs"), [] as [&str; 0]);
}

#[test]
fn case_05_no_key_of_a_tenant_operates_and_the_operator_says_for_whom() {
    let world = World::start_with(&["--workers", "0"], &[]);
    let acme = world.tenant("acme", "tuned");
    acme.upload("/v1/sources?name=secret-plans", &code()).ok();
    let plain = |path: &str| path.replace("{tenant}", "acme");
    for operation in operations().iter().filter(|operation| !operation.is_open()) {
        let path = plain(&operation.path);
        if path.contains('{') {
            continue;
        }
        if operation.access == "operator" {
            let body = operation.required_body(&json!({"name": "intruder", "plan": "tuned"})).to_string().into_bytes();
            let answer = acme.send(&operation.method, &path, Some(("application/json", body)));
            assert!([403, 404].contains(&answer.status), "{} by a tenant: {answer:?}", operation.id);
        } else if operation.method == "GET" && !path.contains("/tenants/") {
            let nobody = world.operator().get(&format!("{path}?start_time=1700000000"));
            assert!((400..500).contains(&nobody.status), "{} by the operator for nobody: {nobody:?}", operation.id);
            assert!(!nobody.text().contains("secret-plans"), "{nobody:?}");
        }
    }
    // For somebody, the same key may.
    let acting = world.operator().acting_for("acme");
    assert_eq!(acting.get("/v1/sources").ok()["data"][0]["name"], "secret-plans");
    assert_eq!(world.operator().acting_for("nobody-at-all").get("/v1/sources").status, 404);
}

/// The answer as far as a caller can learn from it.
fn learned(answer: &Answer) -> (u16, Value) {
    (answer.status, answer.error())
}

#[test]
fn case_06_a_key_that_is_nearly_right_is_as_wrong_as_any() {
    let world = World::start_with(&["--workers", "0"], &[]);
    let (evil, acme) = (world.tenant("evil", "tuned"), world.tenant("acme", "tuned"));
    let operator = world.operator();
    let parts = |user: &User| user.key().split('_').map(str::to_owned).collect::<Vec<_>>();
    let (own, theirs, operators) = (parts(&evil), parts(&acme), parts(&operator));
    let joined = |brand: &str, kind: &str, id: &str, secret: &str| format!("{brand}_{kind}_{id}_{secret}");
    let key = acme.key();
    let mut wrong = vec![
        // The name of one key with the secret of another.
        joined("atl", "t", &theirs[2], &own[3]),
        joined("atl", "o", &operators[2], &own[3]),
        joined("atl", "o", &own[2], &own[3]),
        joined("atl", "t", &operators[2], &operators[3]),
        joined("test", "t", &theirs[2], &theirs[3]),
        joined("sk", "t", &theirs[2], &theirs[3]),
        joined("atl", "t", &theirs[2].to_lowercase(), &theirs[3]),
        joined("atl", "t", &theirs[2], &theirs[3].to_uppercase()),
        joined("atl", "T", &theirs[2], &theirs[3]),
        theirs[2].clone(),
        theirs[3].clone(),
        format!("{key}0"),
        format!("{key}_"),
        key.replace('_', "-"),
        key.to_uppercase(),
        format!("{key},{}", evil.key()),
        "null".to_owned(),
        "undefined".to_owned(),
    ];
    wrong.extend((0..key.len()).map(|length| key[..length].to_owned()).filter(|key| !key.is_empty()));
    wrong.extend((key.len() - 50..key.len()).map(|at| {
        let other = if &key[at..=at] == "0" { "1" } else { "0" };
        format!("{}{other}{}", &key[..at], &key[at + 1..])
    }));
    let expected = learned(&world.user(Some("atl_t_0000000000000000_nonsense")).get("/v1/models"));
    assert_eq!(expected.0, 401);
    for key in &wrong {
        assert_eq!(learned(&world.user(Some(key)).get("/v1/models")), expected, "{key}");
    }
    // Other ways to send one are no ways to get in.
    for (name, value) in [
        ("authorization", format!("Basic {key}")),
        ("authorization", key.to_owned()),
        ("x-api-key", key.to_owned()),
        ("cookie", format!("key={key}")),
    ] {
        assert_eq!(world.anon().with_header(name, &value).get("/v1/models").status, 401, "{name}");
    }
    assert_eq!(world.anon().get(&format!("/v1/models?api_key={key}")).status, 401);
    // Two keys in one request are one too many to choose between: whatever it takes, it is not a mixture.
    let both = acme.with_header("authorization", &format!("Bearer {}", evil.key())).get("/v1/tenants/acme");
    assert!([200, 400, 401, 404].contains(&both.status), "{both:?}");
    assert_eq!(acme.get("/v1/models").status, 200, "the right one still opens");
}

#[test]
fn case_29_a_name_of_anothers_can_be_taken_as_if_it_were_free() {
    let world = World::start_with(&["--workers", "0"], &[]);
    let (acme, evil, control) =
        (world.tenant("acme", "tuned"), world.tenant("evil", "tuned"), world.tenant("control", "tuned"));
    acme.upload("/v1/sources?name=payroll", &code()).ok();
    let taken = evil.upload("/v1/sources?name=payroll", &code());
    let free = control.upload("/v1/sources?name=payroll", &code());
    let shown = |answer: &Answer| {
        let mut object = answer.ok();
        for field in ["id", "created_at"] {
            object[field] = json!(null);
        }
        object
    };
    assert_eq!(shown(&taken), shown(&free));
    // Whether a tenant's name is taken is the operator's to know.
    for name in ["acme", "nobody-has-this"] {
        let answer = evil.post("/v1/tenants", &json!({"name": name, "plan": "shared"}));
        assert_eq!((answer.status, &answer.error()["code"]), (403, &json!("insufficient_role")), "{answer:?}");
        assert_eq!(answer.error(), evil.post("/v1/tenants", &json!({"name": "x", "plan": "shared"})).error());
    }
}

#[test]
fn operators_act_for_tenants_and_tenants_for_themselves() {
    let world = World::start();
    let acme = world.tenant("acme", "shared");
    let id = world.id_of("acme");
    let ask = json!({"model": "atelier", "prompt": "def f(", "max_tokens": 8, "temperature": 0});
    let own = acme.complete(&ask);
    for name in ["acme", &id] {
        assert_eq!(world.operator().acting_for(name).complete(&ask), own);
        assert_eq!(acme.acting_for(name).complete(&ask), own, "a key's own tenant may be named");
    }
    assert_eq!(acme.get("/v1/tenants/acme").ok()["id"], json!(id));
    assert_eq!(acme.patch("/v1/tenants/acme", &json!({"plan": "tuned"})).status, 403, "the plan is the operator's");
    assert_eq!(acme.delete("/v1/tenants/acme").status, 403);
    let rotated = acme.post("/v1/tenants/acme/keys", &json!({})).ok();
    assert_eq!(acme.get("/v1/models").status, 401);
    let renewed = world.user(rotated["value"].as_str());
    assert_eq!(renewed.get("/v1/models").status, 200);
    assert_eq!(world.operator().post("/v1/tenants", &json!({"name": "acme", "plan": "shared"})).status, 409);
}
