//! Single sign-on from end to end: a browser, the server and an issuer in a process of its own, which lies when told to.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Stdio};

use reqwest::redirect::Policy;
use serde_json::{Value, json};

use crate::support::{
    Answer, CLIENT_ID, CLIENT_SECRET, Command, Issuer, User, World, atelier, client_trusting, http, runtime,
};

/// A browser: keeps cookies by host and port, follows nothing by itself.
pub struct Browser {
    http: reqwest::Client,
    cookies: RefCell<BTreeMap<(String, String), String>>,
}

impl Browser {
    pub fn new() -> Self {
        let http = client_trusting(&[]).redirect(Policy::none()).build().unwrap();
        Self { http, cookies: RefCell::default() }
    }

    fn send(&self, method: &str, url: &str, headers: &[(&str, &str)], body: Option<&Value>) -> Answer {
        let host = host_of(url);
        let cookies = self.cookies.borrow();
        let kept =
            cookies.iter().filter(|((of, _), _)| *of == host).map(|((_, name), value)| format!("{name}={value}"));
        let kept = kept.collect::<Vec<_>>().join("; ");
        drop(cookies);
        let mut request = self.http.request(method.parse().unwrap(), url);
        if !kept.is_empty() {
            request = request.header("cookie", kept);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let answer = runtime().block_on(async {
            let response = request.send().await.unwrap();
            let status = response.status().as_u16();
            let text = |value: &reqwest::header::HeaderValue| value.to_str().unwrap().to_owned();
            let headers = response.headers().iter().map(|(name, value)| (name.to_string(), text(value))).collect();
            Answer { status, headers, body: response.bytes().await.unwrap().to_vec() }
        });
        for (_, cookie) in answer.headers.iter().filter(|(name, _)| name == "set-cookie") {
            let (pair, attributes) = cookie.split_once("; ").unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            let place = (host.clone(), name.to_owned());
            if attributes.contains("Max-Age=0;") {
                self.cookies.borrow_mut().remove(&place);
            } else {
                self.cookies.borrow_mut().insert(place, value.to_owned());
            }
        }
        answer
    }

    pub fn get(&self, url: &str) -> Answer {
        self.send("GET", url, &[], None)
    }

    /// Begins at this address, and goes to the issuer and back as far as the last step: where that would lead.
    fn to_the_door(&self, begin: &str) -> String {
        let to_issuer = self.get(begin);
        assert_eq!(to_issuer.status, 303, "{to_issuer:?}");
        let back = self.get(to_issuer.header("location").unwrap());
        assert_eq!(back.status, 302, "{back:?}");
        back.header("location").unwrap().to_owned()
    }

    pub fn sign_in(&self, world: &World, organization: &str) -> Answer {
        self.get(&self.to_the_door(&format!("{}/sign-in?organization={organization}", world.url())))
    }

    pub fn has_session(&self) -> bool {
        self.cookies.borrow().keys().any(|(_, name)| name == "atelier-session")
    }
}

fn host_of(url: &str) -> String {
    url.split('/').nth(2).unwrap().to_owned()
}

/// A server that may call an issuer on this machine.
pub fn world() -> World {
    World::start_with(&["--workers", "0", "--private-issuers"], &[])
}

fn settings(issuer: &Issuer, domains: &[&str]) -> Value {
    json!({"issuer": issuer.url, "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET, "domains": domains})
}

/// A tenant whose people sign in at this issuer; its admin.
pub fn tenant(world: &World, name: &str, issuer: &Issuer, domains: &[&str]) -> User {
    let admin = world.tenant(name, "tuned");
    let set = admin.put("/v1/organization/sign_on", &settings(issuer, domains)).ok();
    assert_eq!(set["has_client_secret"], json!(true), "{set}");
    admin
}

fn events(admin: &User) -> Vec<String> {
    let trail = admin.get("/v1/organization/audit_logs?limit=100").ok();
    trail["data"].as_array().unwrap().iter().map(|event| event["type"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_person_signs_in_works_and_signs_out() {
    let (world, issuer) = (world(), Issuer::start());
    let admin = tenant(&world, "acme", &issuer, &[]);
    let url = world.url();
    admin.post("/v1/organization/invites", &json!({"email": "jo@example.com", "role": "reader"})).ok();
    issuer.does(json!({"person": issuer.person("s-1", "Jo@Example.com")}));
    let browser = Browser::new();
    let asked = browser.get(&format!("{url}/sign-in"));
    assert_eq!((asked.status, asked.text().contains("name=\"organization\"")), (200, true), "{asked:?}");
    let policy = asked.header("content-security-policy").unwrap();
    assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{policy}");

    let done = browser.get(&browser.to_the_door(&format!("{url}/sign-in?organization=%20ACME&return_to=/v1/session")));
    assert_eq!((done.status, done.header("location")), (303, Some("/v1/session")), "{done:?}");
    let cookies: Vec<_> =
        done.headers.iter().filter(|(name, _)| name == "set-cookie").map(|(_, value)| value).collect();
    let session = cookies.iter().find(|cookie| cookie.starts_with("atelier-session=")).unwrap();
    assert!(session.contains("; HttpOnly; SameSite=Lax") && session.contains("Path=/"), "{session}");
    assert!(cookies.iter().any(|cookie| cookie.starts_with("atelier-sign-in-") && cookie.contains("Max-Age=0")));

    let me = browser.get(&format!("{url}/v1/session")).ok();
    assert_eq!(
        (&me["organization"], &me["email"], &me["role"]),
        (&json!("acme"), &json!("jo@example.com"), &json!("member"))
    );
    browser.get(&format!("{url}/v1/models")).ok();
    assert_eq!(browser.get(&format!("{url}/v1/keys")).status, 403, "a member manages no keys");
    let home = browser.get(&format!("{url}/sign-in"));
    // With `no-referrer` browsers send the page's own form with `Origin: null`, and nobody could sign out.
    assert_eq!(home.header("referrer-policy"), Some("same-origin"));
    assert!(home.text().contains("jo@example.com"), "{home:?}");

    // What changes or costs something is done by this server's own pages only.
    let ask = json!({"model": "atelier", "prompt": "def f(", "max_tokens": 2});
    let complete =
        |headers: &[(&str, &str)]| browser.send("POST", &format!("{url}/v1/completions"), headers, Some(&ask));
    for headers in
        [&[][..], &[("origin", "https://evil.example")], &[("sec-fetch-site", "cross-site")], &[("origin", "null")]]
    {
        let refused = complete(headers);
        assert_eq!((refused.status, &refused.error()["code"]), (403, &json!("cross_site_request")), "{headers:?}");
    }
    complete(&[("origin", &url)]).ok();
    // A session is no key.
    let text = browser.cookies.borrow().values().next().unwrap().clone();
    assert_eq!(world.user(Some(&text)).get("/v1/models").status, 401);
    assert_eq!(world.anon().with_header("cookie", &format!("atelier-session={text}")).get("/v1/models").status, 200);
    let twice = format!("atelier-session={text}; atelier-session={text}");
    assert_eq!(world.anon().with_header("cookie", &twice).get("/v1/models").status, 401);

    let sign_out = |headers: &[(&str, &str)]| browser.send("POST", &format!("{url}/sign-out"), headers, None);
    assert_eq!(sign_out(&[("origin", "https://evil.example")]).status, 403);
    assert_eq!(sign_out(&[("origin", &url)]).status, 303);
    assert!(!browser.has_session());
    assert_eq!(world.anon().with_header("cookie", &format!("atelier-session={text}")).get("/v1/models").status, 401);

    let recorded = events(&admin);
    for event in ["sign_on.updated", "invite.accepted", "login.succeeded", "logout.succeeded"] {
        assert!(recorded.iter().any(|known| known == event), "{event}: {recorded:?}");
    }
    assert_eq!(admin.get("/v1/organization/audit_logs/verification").ok()["whole"], json!(true));
    let log = world.log();
    assert!(!log.contains(CLIENT_SECRET) && !log.contains(&text) && !log.contains("code-"), "{log}");
    assert!(!admin.get("/v1/organization/sign_on").text().contains("a secret of the test"));
}

/// Signs in with an issuer that does this; the answer, which must leave no session behind.
pub fn refused(world: &World, issuer: &Issuer, behaviour: Value, expected: (u16, &str)) {
    issuer.does(behaviour.clone());
    let browser = Browser::new();
    let begun = browser.get(&format!("{}/sign-in?organization=acme", world.url()));
    let answer = match begun.header("location") {
        Some(to_issuer) => browser.get(browser.get(to_issuer).header("location").unwrap()),
        None => begun,
    };
    assert_eq!(answer.status, expected.0, "{behaviour}: {answer:?}");
    assert!(answer.text().contains(expected.1), "{behaviour}: {answer:?}");
    assert!(answer.text().contains("Begin again") && !answer.text().contains("<b>"), "{answer:?}");
    assert!(!browser.has_session(), "{behaviour}");
    assert_eq!(browser.get(&format!("{}/v1/models", world.url())).status, 401, "{behaviour}");
}

#[test]
fn no_lie_of_an_issuers_lets_anybody_in() {
    let (world, issuer) = (world(), Issuer::start());
    let admin = tenant(&world, "acme", &issuer, &["example.com"]);
    let person = issuer.person("s-1", "jo@example.com");
    let lies = |mut behaviour: Value, expected: (u16, &str)| {
        behaviour["person"] = person.clone();
        refused(&world, &issuer, behaviour, expected);
    };
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    for (claims, said) in [
        (json!({"aud": "another"}), "meant for somebody else"),
        (json!({"aud": [CLIENT_ID, "another"]}), "meant for somebody else"),
        (json!({"azp": "another"}), "meant for somebody else"),
        (json!({"iss": "https://evil.example"}), "another issuer"),
        (json!({"exp": now - 120}), "has expired"),
        (json!({"iat": now - 3_600}), "another time"),
        (json!({"nonce": "another"}), "another sign-in"),
        (json!({"nonce": null}), "another sign-in"),
        (json!({"sub": ""}), "does not name a subject"),
        (json!({"email": null}), "names no email address"),
        (json!({"email_verified": false}), "is verified"),
        (json!({"email_verified": null}), "is verified"),
    ] {
        lies(json!({"claims": claims}), (403, said));
    }
    for (behaviour, said) in [
        (json!({"algorithm": "none"}), "another algorithm"),
        (json!({"algorithm": "HS256", "kid": "RS256-0"}), "another algorithm"),
        (json!({"algorithm": "RS384"}), "another algorithm"),
        (json!({"algorithm": "EdDSA", "signed_by_another": true}), "signature is wrong"),
        (json!({"algorithm": "ES256", "kid": "RS256-0"}), "a key that the issuer has not"),
        (json!({"kid": "unknown"}), "a key that the issuer has not"),
        (json!({"iss_parameter": "https://evil.example"}), "another issuer than the one that was asked"),
        (json!({"iss_parameter": false}), "another issuer than the one that was asked"),
    ] {
        lies(behaviour, (403, said));
    }
    lies(json!({"error": "access_denied<b>"}), (403, "The issuer says <code>access_deniedb</code>"));
    issuer.does(json!({"person": issuer.person("s-2", "jo@elsewhere.example")}));
    let stranger = Browser::new().sign_in(&world, "acme");
    assert_eq!(stranger.status, 403);
    assert!(stranger.text().contains("nobody here has invited you"), "{stranger:?}");
    issuer.does(json!({"person": issuer.person("s-2", "jö@example.com")}));
    assert_eq!(Browser::new().sign_in(&world, "acme").status, 403);
    let recorded = events(&admin);
    let failed = recorded.iter().filter(|event| *event == "login.failed").count();
    assert_eq!(failed, 10, "a flood of refusals is a few lines: {recorded:?}");
    assert_eq!(admin.get("/v1/organization/users").ok()["data"], json!([]), "and nobody came in");
}

#[test]
fn an_issuer_that_hangs_sends_too_much_or_is_another_is_not_used() {
    let (world, issuer) = (world(), Issuer::start());
    let admin = tenant(&world, "acme", &issuer, &["example.com"]);
    let well_known = "/.well-known/openid-configuration";
    let check = |behaviour: Value, said: &str| {
        issuer.does(behaviour.clone());
        let checked = admin.get("/v1/organization/sign_on/check").ok();
        assert_eq!(checked["ok"], json!(said.is_empty()), "{behaviour}: {checked}");
        assert!(checked["problem"].as_str().unwrap_or_default().contains(said), "{behaviour}: {checked}");
    };
    check(json!({}), "");
    check(json!({"huge": well_known}), "larger than 65536 bytes");
    check(json!({"huge": "/jwks"}), "larger than 262144 bytes");
    check(json!({"slow": well_known}), "cannot be fetched");
    check(json!({"redirects": well_known}), "HTTP 302");
    check(json!({"document": {"issuer": "https://id.example.com"}}), "otherwise: https://id.example.com. Set");
    check(json!({"document": {"issuer": "<b>"}}), "otherwise: by what is no address. Set");
    check(json!({"document": {"userinfo_endpoint": "http://192.168.1.1/me"}}), "does not begin with https://");
    check(json!({"document": {"token_endpoint": null}}), "not as OpenID Connect has it");
    check(json!({"document": {"token_endpoint": "http://192.168.1.1/token"}}), "does not begin with https://");
    check(json!({"document": {"jwks_uri": "file:///etc/passwd"}}), "address is not used");
    check(json!({"document": {"authorization_endpoint": "javascript:alert(1)"}}), "address is not used");
    // Nobody is signed in by it, and nobody's browser hangs for longer than a moment.
    refused(&world, &issuer, json!({"huge": "/token"}), (409, "cannot be used now"));
    refused(&world, &issuer, json!({"redirects": "/token"}), (409, "cannot be used now"));
    refused(&world, &issuer, json!({"slow": "/token"}), (409, "cannot be used now"));
}

/// One that asks of as many issuers as it likes, none of which answers.
#[test]
fn issuers_of_one_tenant_that_hang_keep_nobody_else_out() {
    let (world, hangs, issuer) = (world(), Issuer::start(), Issuer::start());
    let (attacker, victim) =
        (tenant(&world, "attacker", &hangs, &[]), tenant(&world, "victim", &issuer, &["example.com"]));
    hangs.does(json!({"slow": "/.well-known/openid-configuration"}));
    issuer.does(json!({"person": issuer.person("s-1", "jo@example.com")}));
    std::thread::scope(|scope| {
        let (url, key) = (format!("{}/v1/organization/sign_on/check", world.url()), attacker.key().to_owned());
        let ask = async |url: String, key: String| {
            let answer = http().get(url).bearer_auth(key).send().await.unwrap();
            let checked: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
            checked["problem"].clone()
        };
        let asking: Vec<_> = (0..64)
            .map(|_| (url.clone(), key.clone()))
            .map(|(url, key)| scope.spawn(move || runtime().block_on(ask(url, key))))
            .collect();
        let mut tries = 0;
        while !asking.iter().all(|one| one.is_finished()) {
            let checked = victim.get("/v1/organization/sign_on/check").ok();
            assert_eq!(checked["ok"], json!(true), "{checked}");
            assert_eq!(Browser::new().sign_in(&world, "victim").status, 303);
            tries += 1;
        }
        let said: Vec<Value> = asking.into_iter().map(|one| one.join().unwrap()).collect();
        assert!(said.iter().any(|said| said == "Too many sign-ins at once."), "{said:?}");
        assert!(tries > 0);
    });
}

#[test]
fn keys_change_and_every_good_signature_counts() {
    let (world, issuer) = (world(), Issuer::start());
    tenant(&world, "acme", &issuer, &["example.com"]);
    let person = issuer.person("s-1", "jo@example.com");
    for algorithm in ["RS256", "ES256", "EdDSA"] {
        issuer.does(json!({"person": person, "algorithm": algorithm}));
        let done = Browser::new().sign_in(&world, "acme");
        assert_eq!(done.status, 303, "{algorithm}: {done:?}");
    }
    assert_eq!(issuer.count("/jwks"), 1, "keys are remembered");
    assert_eq!(issuer.count("/.well-known/openid-configuration"), 1, "and so is the document");
    // A key that is not known is looked for, but not again and again: one look, whatever comes until then.
    issuer.does(json!({"person": person, "rotation": 1}));
    let mut tries = 0;
    while Browser::new().sign_in(&world, "acme").status != 303 {
        tries += 1;
        assert!(tries < 300, "the new key is not found");
        std::thread::sleep(std::time::Duration::from_millis(500));
    }
    assert_eq!(issuer.count("/jwks"), 2, "after {tries} tries");
    // An issuer that wants the secret in the form gets it there.
    issuer.does(json!({
        "person": person, "rotation": 1, "document": {"token_endpoint_auth_methods_supported": ["client_secret_post"]},
    }));
    world.cli(&["tenant", "sign-on", "check", "acme"]).object();
    assert_eq!(Browser::new().sign_in(&world, "acme").status, 303);
}

#[test]
fn what_was_begun_elsewhere_ends_nowhere() {
    let (world, issuer) = (world(), Issuer::start());
    tenant(&world, "acme", &issuer, &["example.com"]);
    issuer.does(json!({"person": issuer.person("s-1", "jo@example.com")}));
    let begin = format!("{}/sign-in?organization=acme", world.url());
    // Somebody else's browser brings the answer: what an attacker would have it do (login CSRF).
    let (attacker, victim) = (Browser::new(), Browser::new());
    let door = attacker.to_the_door(&begin);
    assert_eq!(victim.get(&door).status, 403);
    victim.to_the_door(&begin);
    assert_eq!(victim.get(&door).status, 403, "nor one that began another sign-in");
    assert!(!victim.has_session());
    // A code is good once, also with what the browser kept.
    let kept = attacker.cookies.borrow().clone();
    assert_eq!(attacker.get(&door).status, 303);
    let again = attacker.get(&door);
    assert_eq!((again.status, again.text().contains("You are signed in to")), (403, true), "{again:?}");
    *attacker.cookies.borrow_mut() = kept;
    let replayed = attacker.get(&door);
    assert_eq!(replayed.status, 403);
    assert!(replayed.text().contains("invalid_grant"), "{replayed:?}");
    // Kept things that are changed, another name's or nothing.
    let browser = Browser::new();
    let door = browser.to_the_door(&begin);
    let kept = browser.cookies.borrow().clone();
    let other = Browser::new();
    other.to_the_door(&begin);
    let others = other.cookies.borrow().values().next().unwrap().clone();
    let value = kept.values().next().unwrap();
    let changed = format!("{}{}", &value[..value.len() - 1], if value.ends_with('A') { "B" } else { "A" });
    for wrong in [others, changed, String::new(), "x".to_owned(), value.replacen("org_", "org_f", 1)] {
        *browser.cookies.borrow_mut() = kept.keys().map(|place| (place.clone(), wrong.clone())).collect();
        assert_eq!(browser.get(&door).status, 403, "{wrong}");
    }
    assert_eq!(browser.get(&format!("{}/sign-in/callback", world.url())).status, 403);
    // Nor does another site's page begin what would end in an organization of its maker's: somebody is asked first.
    let victim = Browser::new();
    for site in ["cross-site", "same-site"] {
        let page = victim.send("GET", &format!("{begin}&return_to=/x"), &[("sec-fetch-site", site)], None);
        assert_eq!((page.status, page.header("location")), (200, None), "{site}");
        assert!(page.text().contains("name=\"organization\" value=\"acme\""), "{page:?}");
        assert!(page.text().contains("name=\"return_to\" value=\"/x\""), "{page:?}");
        assert!(victim.cookies.borrow().is_empty());
    }
    for site in ["none", "same-origin"] {
        assert_eq!(victim.send("GET", &begin, &[("sec-fetch-site", site)], None).status, 303, "{site}");
    }
    let injected = format!("{}/sign-in?organization=%22%3E%3Cscript%3E&challenge=%22%3E%3Cscript%3E", world.url());
    let page = victim.send("GET", &injected, &[("sec-fetch-site", "cross-site")], None);
    assert!(!page.text().contains("<script>"), "{page:?}");
    // Nobody learns which organizations there are, or is sent elsewhere.
    let nobody = browser.get(&format!("{}/sign-in?organization=nobody", world.url()));
    world.tenant("quiet", "shared");
    let quiet = browser.get(&format!("{}/sign-in?organization=quiet", world.url()));
    assert_eq!((nobody.status, nobody.text()), (404, quiet.text()));
    let away = browser.to_the_door(&format!("{begin}&return_to=//evil.example"));
    assert_eq!(browser.get(&away).header("location"), Some("/sign-in"));
}

#[test]
fn case_05_the_issuer_of_one_tenant_lets_nobody_into_another() {
    let (world, ours, theirs) = (world(), Issuer::start(), Issuer::start());
    let (acme, evil) =
        (tenant(&world, "acme", &ours, &["example.com"]), tenant(&world, "evil", &theirs, &["example.com"]));
    // The same subject and the same address, at an issuer of the attacker's own.
    for issuer in [&ours, &theirs] {
        issuer.does(json!({"person": issuer.person("s-1", "jo@example.com")}));
    }
    let (victim, attacker) = (Browser::new(), Browser::new());
    assert_eq!(victim.sign_in(&world, "acme").status, 303);
    assert_eq!(attacker.sign_in(&world, "evil").status, 303);
    let session = |browser: &Browser| browser.get(&format!("{}/v1/session", world.url())).ok();
    assert_eq!(
        (&session(&victim)["organization"], &session(&attacker)["organization"]),
        (&json!("acme"), &json!("evil"))
    );
    assert_ne!(session(&victim)["user_id"], session(&attacker)["user_id"]);
    // Naming the other organization does not help.
    let claimed = attacker.send("GET", &format!("{}/v1/models", world.url()), &[("openai-organization", "acme")], None);
    assert_eq!(claimed.status, 404);
    // The attacker's issuer answers for the victim's: mix-up, with and without its name.
    let url = world.url();
    for name in [json!(null), json!(ours.url), json!(false)] {
        theirs.does(json!({"person": theirs.person("s-1", "jo@example.com"), "iss_parameter": name}));
        let browser = Browser::new();
        let door = browser.to_the_door(&format!("{url}/sign-in?organization=acme"));
        let state = door.split("state=").nth(1).unwrap().split('&').next().unwrap().to_owned();
        let query = format!(
            "client_id={CLIENT_ID}&response_type=code&code_challenge_method=S256&scope=openid\
            &nonce={0}&code_challenge={0}&state={state}&redirect_uri={url}/sign-in/callback",
            "n".repeat(43)
        );
        let forged = browser.get(&format!("{}/authorize?{query}", theirs.url));
        let answer = browser.get(forged.header("location").unwrap());
        assert_eq!(answer.status, 403, "{name}: {answer:?}");
        assert!(!browser.has_session());
    }
    // An attacker who manages his own tenant makes its issuer call itself like the victim's: its document must say so
    // at that address, which is not his.
    theirs.does(json!({"document": {"issuer": ours.url}}));
    assert_eq!(evil.get("/v1/organization/sign_on/check").ok()["ok"], json!(false));
    // And one who points his tenant at the victim's issuer knows no secret of its client.
    let mut borrowed = settings(&ours, &["example.com"]);
    borrowed["client_secret"] = json!("guessed");
    evil.put("/v1/organization/sign_on", &borrowed).ok();
    assert_eq!(attacker.get(&format!("{url}/v1/session")).status, 401, "another issuer ends what the one before gave");
    let answer = Browser::new().sign_in(&world, "evil");
    assert_eq!(answer.status, 403);
    assert!(answer.text().contains("invalid_client"), "{answer:?}");
    assert_eq!(acme.get("/v1/organization/users").ok()["data"].as_array().unwrap().len(), 1);
}

#[test]
fn issuers_lie_where_the_operator_allows() {
    let world = World::start_with(&["--workers", "0"], &[]);
    let issuer = Issuer::start();
    let admin = world.tenant("acme", "shared");
    let set = |issuer: &str| {
        let body = json!({"issuer": issuer, "client_id": CLIENT_ID});
        admin.put("/v1/organization/sign_on", &body)
    };
    for private in [
        issuer.url.as_str(),
        "https://127.0.0.1/",
        "https://10.0.0.1",
        "https://[::1]/",
        "https://169.254.169.254/",
        "https://localhost:8443/",
        "http://id.example.com",
        "file:///etc/passwd",
        "",
        "https://jo:pw@id.example.com",
    ] {
        let answer = set(private);
        assert_eq!((answer.status, &answer.error()["param"]), (400, &json!("issuer")), "{private}: {answer:?}");
    }
    // A name may stand for anything: it is looked at when it is called, and `localhost.` is one of this machine's.
    set("https://localhost.").ok();
    let checked = admin.get("/v1/organization/sign_on/check").ok();
    assert_eq!(checked["ok"], json!(false), "{checked}");
    assert_eq!(issuer.count("/.well-known/openid-configuration"), 0);
    // Who may, lets people in: a key that only manages may not say who does.
    let manager = admin.post("/v1/keys", &json!({"role": "admin", "scopes": ["manage"]})).ok();
    let manager = admin.with_key(manager["value"].as_str().unwrap());
    manager.get("/v1/organization/sign_on").ok();
    let refused =
        manager.put("/v1/organization/sign_on", &json!({"issuer": "https://id.example.com", "client_id": "x"}));
    assert_eq!(refused.status, 403, "{refused:?}");
    for wrong in [
        json!({"issuer": "https://id.example.com", "client_id": ""}),
        json!({"issuer": "https://id.example.com", "client_id": "x", "client_secret": ""}),
        json!({"issuer": "https://id.example.com", "client_id": "x", "domains": ["*"]}),
        json!({"issuer": "https://id.example.com", "client_id": "x", "role": "admin"}),
        json!({"issuer": "https://id.example.com", "client_id": "x", "tenant": "other"}),
        json!({"issuer": "https://id.example.com"}),
    ] {
        assert_eq!(admin.put("/v1/organization/sign_on", &wrong).status, 400, "{wrong}");
    }
}

/// `atelier login` that waits for its browser. Killed when dropped.
struct Login {
    child: Child,
    address: String,
    phrase: String,
}

impl Drop for Login {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn log_in(world: &World) -> Login {
    let mut child = atelier()
        .args(["--json", "login", "acme", "--no-browser", "--server", &world.url()])
        .env("XDG_CONFIG_HOME", world.home().join("config"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let first = lines.next().unwrap().unwrap();
    let phrase = first.rsplit(' ').next().unwrap().trim_end_matches(':').to_owned();
    let address = lines.next().unwrap().unwrap().trim().to_owned();
    Login { child, address, phrase }
}

#[test]
fn a_command_line_signs_in_by_a_browser() {
    let (world, issuer) = (world(), Issuer::start());
    let admin = tenant(&world, "acme", &issuer, &["example.com"]);
    issuer.does(json!({"person": issuer.person("s-1", "jo@example.com")}));
    let mut login = log_in(&world);
    let browser = Browser::new();
    let page = browser.get(&browser.to_the_door(&login.address));
    assert_eq!(page.status, 200, "{page:?}");
    let text = page.text();
    assert!(text.contains(&login.phrase) && text.contains("jo@example.com"), "{text}");
    assert!(!browser.has_session(), "the program signs in, not the browser");
    let link = text.split("<a href=\"").nth(1).unwrap().split('"').next().unwrap().replace("&amp;", "&");
    assert!(link.starts_with("http://127.0.0.1:"), "{link}");
    // Who calls the program's port without its state is not heard.
    let forged = format!("{}&state=forged", link.split("&state=").next().unwrap());
    assert_eq!(browser.get(&forged).status, 404);
    // Whoever saw the code has not what it was begun with, and cannot use it up from a distance by half of it.
    let code = link.split("code=").nth(1).unwrap().split('&').next().unwrap().to_owned();
    let guess = |code: &str| world.anon().post("/v1/sign_in/keys", &json!({"code": code, "verifier": "guess"}));
    // Another end than its own, whatever that is: with all of it the guess would use it up.
    let end = if code.ends_with('x') { 'y' } else { 'x' };
    assert_eq!(guess(&format!("{}{end}", &code[..code.len() - 1])).status, 403);
    assert_eq!(browser.get(&link).status, 200);
    assert!(login.child.wait().unwrap().success());
    let told: Value = serde_json::from_reader(login.child.stdout.take().unwrap()).unwrap();
    assert_eq!((&told["organization"], &told["email"]), (&json!("acme"), &json!("jo@example.com")));
    assert_eq!(guess(&code).status, 403, "it is spent");

    let file = told["credentials"].as_str().unwrap();
    assert_eq!(std::fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
    let kept: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let key = kept["servers"][world.url()]["key"].as_str().unwrap().to_owned();
    assert!(!told.to_string().contains(&key), "the key is not printed");
    let user = world.user(Some(&key));
    assert_eq!(user.get("/v1/session").ok()["email"], json!("jo@example.com"));
    assert_eq!(user.get("/v1/keys").status, 403);
    let listed = admin.get("/v1/keys").ok();
    let own = listed["data"].as_array().unwrap().iter().find(|key| key["purpose"] == json!("login")).unwrap().clone();
    let shown = Command::run_with(&[], &["--data", world.data().to_str().unwrap(), "key", "list", "--tenant", "acme"]);
    assert!(shown.stdout.contains("  (login)  "), "{shown:?}");
    assert!(own["expires_at"].is_i64() && own["user_id"].is_string(), "{own}");

    // Commands find it, where nothing else says who they are for; and it ends.
    let config = world.home().join("config");
    let run = |arguments: &[&str]| {
        let mut command = atelier();
        command.env("XDG_CONFIG_HOME", &config).env("ATELIER_DATA", world.home().join("nowhere")).arg("--json");
        command.args(arguments).stdin(Stdio::null()).output().unwrap()
    };
    let versions = run(&["versions"]);
    assert!(versions.status.success(), "{versions:?}");
    let out = run(&["logout"]);
    assert!(out.status.success(), "{out:?}");
    assert_eq!(user.get("/v1/session").status, 401);
    assert!(!run(&["versions"]).status.success());
    assert!(!run(&["logout"]).status.success());
    // A link of somebody else's to a port that is none of a program's.
    let bad = format!("{}/sign-in?organization=acme&port=80&state=s&challenge=c", world.url());
    assert_eq!(browser.get(&bad).status, 400);
}
