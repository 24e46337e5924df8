//! Issuers that keep the address out of the ID token, as OpenID Connect lets them: it is asked for at their userinfo
//! endpoint, and only what that says of the ID token's own subject counts.

use serde_json::{Value, json};

use crate::sign_on::{Browser, refused, tenant, world};
use crate::support::Issuer;

#[test]
fn an_address_that_is_not_in_the_id_token_is_asked_for() {
    let (world, issuer) = (world(), Issuer::start());
    let admin = tenant(&world, "acme", &issuer, &["example.com"]);
    let person = issuer.person("s-1", "jo@example.com");
    issuer.does(json!({"person": person}));
    assert_eq!(Browser::new().sign_in(&world, "acme").status, 303);
    assert_eq!(issuer.count("/userinfo"), 0, "what the ID token says is not asked for again");
    issuer.does(json!({"person": person, "thin": true}));
    let browser = Browser::new();
    assert_eq!(browser.sign_in(&world, "acme").status, 303);
    assert_eq!(issuer.count("/userinfo"), 1);
    let me = browser.get(&format!("{}/v1/session", world.url())).ok();
    assert_eq!(me["email"], json!("jo@example.com"));
    // An address without a word on it counts for nothing: both come from where both are.
    issuer.does(json!({
        "person": issuer.person("s-2", "al@example.com"),
        "claims": {"email": "ceo@example.com", "email_verified": null},
        "userinfo": {"email": "al@example.com", "email_verified": true},
    }));
    let browser = Browser::new();
    assert_eq!(browser.sign_in(&world, "acme").status, 303);
    let me = browser.get(&format!("{}/v1/session", world.url())).ok();
    assert_eq!(me["email"], json!("al@example.com"));
    let people = admin.get("/v1/organization/users").ok();
    assert_eq!(people["data"].as_array().unwrap().len(), 2, "{people}");
    let log = world.log();
    assert!(!log.contains("access-"), "{log}");
}

#[test]
fn nobody_comes_in_by_what_is_said_beside_the_id_token_alone() {
    let (world, issuer) = (world(), Issuer::start());
    let admin = tenant(&world, "acme", &issuer, &["example.com"]);
    let person = issuer.person("s-1", "jo@example.com");
    let lies = |mut behaviour: Value, expected: (u16, &str)| {
        behaviour["person"] = person.clone();
        behaviour["thin"] = json!(true);
        refused(&world, &issuer, behaviour, expected);
    };
    for (userinfo, said) in [
        (json!({"sub": "s-2"}), "somebody else than its ID token"),
        (json!({"sub": "S-1"}), "somebody else than its ID token"),
        (json!({"sub": ""}), "somebody else than its ID token"),
        (json!({"email": null}), "names no email address"),
        (json!({"email": ""}), "names no email address"),
        (json!({"email_verified": false}), "is verified"),
        (json!({"email_verified": null}), "is verified"),
        (json!({"email": "jo@elsewhere.example"}), "nobody here has invited you"),
    ] {
        lies(json!({"userinfo": userinfo}), (403, said));
    }
    let asked = issuer.count("/userinfo");
    lies(json!({"claims": {"nonce": "another"}}), (403, "another sign-in"));
    lies(json!({"algorithm": "EdDSA", "signed_by_another": true}), (403, "signature is wrong"));
    assert_eq!(issuer.count("/userinfo"), asked, "nothing is asked for by a token that is not believed");
    for behaviour in [
        json!({"userinfo": {"sub": null}}),
        json!({"userinfo": {"email": ["jo@example.com"]}}),
        json!({"huge": "/userinfo"}),
        json!({"redirects": "/userinfo"}),
    ] {
        lies(behaviour, (409, "cannot be used now"));
    }
    // A no in the ID token is an answer.
    issuer.does(json!({"person": person, "claims": {"email_verified": false}, "userinfo": {"email_verified": true}}));
    assert_eq!(Browser::new().sign_in(&world, "acme").status, 403);
    assert_eq!(admin.get("/v1/organization/users").ok()["data"], json!([]));
}
