//! Cases made from the OpenAPI document: every operation, by everybody who has no business there, with every name of
//! the victim's that it can be given and every way of misspelling one.

use std::collections::BTreeSet;

use super::document::{Operation, Parameter, Place, operations};
use super::scene::{Meaning, Request, Scene, forget_uses, is_needed, meaning};
use crate::support::{Answer, User};

/// Headers of an answer that say nothing of what was asked.
const PASSING_HEADERS: [&str; 4] = ["content-length", "date", "openai-processing-ms", "x-request-id"];
/// Most findings that a failed run shows.
const SHOWN_MAX: usize = 20;

/// What a run of the suite found.
#[derive(Default)]
pub struct Findings {
    pub cases: usize,
    pub leaks: Vec<String>,
    pub breaches: Vec<String>,
}

impl Findings {
    /// Prints the figures; fails unless all walls stood.
    pub fn report(&self, scene: &Scene, what: &str) {
        eprintln!(
            "attack suite, {what}: {} generated cases, {} canaries planted, {} leaks, {} other breaches",
            self.cases,
            scene.canaries.borrow().made(),
            self.leaks.len(),
            self.breaches.len()
        );
        let shown: Vec<&String> = self.leaks.iter().chain(&self.breaches).take(SHOWN_MAX).collect();
        assert!(shown.is_empty(), "{shown:#?}");
    }

    fn breach(&mut self, what: String) {
        self.breaches.push(what);
    }
}

/// Somebody who attacks.
struct Attacker {
    who: String,
    user: User,
    has_key: bool,
}

fn attackers(scene: &Scene) -> Vec<Attacker> {
    let with_key = |who: &str, user: User| Attacker { who: who.to_owned(), user, has_key: true };
    let without = |who: &str, user: User| Attacker { who: who.to_owned(), user, has_key: false };
    let (attacker, victim) = (&scene.attacker, &scene.victim);
    let mut all = vec![
        with_key("an admin of another tenant", attacker.admin.clone()),
        with_key("an admin who names another organization", attacker.admin.acting_for(&victim.name)),
        with_key("an admin who names another organization's id", scene.third.admin.acting_for(&victim.id)),
        without("nobody", scene.world.anon()),
        without("nobody who names an organization", scene.world.anon().acting_for(&victim.name)),
        without("a key of elsewhere", scene.world.user(Some("sk-1234567890"))),
    ];
    all.extend(
        attacker.others().into_iter().map(|(role, user)| with_key(&format!("a {role} of another tenant"), user)),
    );
    all
}

/// Names that are none, made of one that is: each must be as good as nothing.
fn misspelt(name: &str) -> Vec<String> {
    let half = name.len() / 2;
    let mut forms = vec![
        String::new(),
        ".".to_owned(),
        "..".to_owned(),
        "*".to_owned(),
        "%2e%2e".to_owned(),
        "null".to_owned(),
        "-1".to_owned(),
        "0".to_owned(),
        "99999999999999999999".to_owned(),
        format!("../{name}"),
        format!("x/../{name}"),
        format!("%2e%2e%2f{name}"),
        format!("..%5c{name}"),
        format!("./{name}"),
        format!("//{name}"),
        format!("%2F{name}"),
        format!("C:%5c{name}"),
        format!("{name}/"),
        format!("{name}/.."),
        format!("{name}%2f"),
        format!("{name}%00"),
        format!("{name}%00.json"),
        format!("{name}%20"),
        format!("%20{name}"),
        format!("{name}%0a"),
        format!("{name};"),
        format!("{name},{name}"),
        format!("{name}%27%20OR%20%271%27=%271"),
        format!("{name}%25"),
        format!("%25{name}"),
        name[..half].to_owned(),
        format!("{}%25", &name[..half]),
        format!("{}_{}", &name[..half], &name[(half + 1).min(name.len())..]),
        format!("{name}{name}"),
        "a".repeat(4_096),
    ];
    if name.to_uppercase() != name {
        forms.push(name.to_uppercase());
        forms.push(full_width(name));
    }
    if let Some((prefix, digits)) = name.split_once('_') {
        forms.push(digits.to_owned());
        forms.push(format!("{prefix}-{digits}"));
        forms.push(format!("org_{digits}"));
    }
    forms
}

/// Look-alikes of another script, as a URL carries them.
fn full_width(name: &str) -> String {
    let mut text = String::new();
    for letter in name.chars() {
        let wide = char::from_u32(u32::from(letter) + 0xfee0).filter(|_| letter.is_ascii_alphanumeric());
        let mut bytes = [0; 4];
        match wide {
            Some(wide) => wide.encode_utf8(&mut bytes).bytes().for_each(|byte| text.push_str(&format!("%{byte:02X}"))),
            None => text.push(letter),
        }
    }
    text
}

/// The same for a body, where nothing is percent-encoded.
fn decoded(form: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = form.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let code = (*first == b'%').then(|| after.get(..2)).flatten().and_then(|two| std::str::from_utf8(two).ok());
        match code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What two answers must have in common so that nobody can tell one from the other.
fn visible(answer: &Answer, sent: &str) -> (u16, BTreeSet<(String, String)>, String) {
    let headers = answer.headers.iter().filter(|(name, _)| !PASSING_HEADERS.contains(&name.as_str()));
    let body = match serde_json::from_slice(&answer.body) {
        Ok(mut json) => {
            forget_uses(&mut json);
            json.to_string()
        }
        // What is in an archive has times and numbers of its own; what there is, is the same.
        Err(_) => paths_in(&answer.body).unwrap_or_else(|| answer.text()),
    };
    let body = if sent.len() > 2 { body.replace(sent, "…") } else { body };
    (answer.status, headers.cloned().collect(), body)
}

/// The paths in a tar.gz; nothing where the bytes are none.
fn paths_in(bytes: &[u8]) -> Option<String> {
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(bytes));
    let entries = archive.entries().ok()?.map(|entry| Some(entry.ok()?.path().ok()?.display().to_string()));
    entries.collect::<Option<Vec<_>>>().map(|paths| paths.join("\n"))
}

/// A request of an attack, and what of the victim's it names.
struct Shot<'a> {
    operation: &'a Operation,
    by: &'a Attacker,
    request: Request,
    /// What the answer may repeat.
    named: Vec<String>,
}

impl Shot<'_> {
    fn told(&self) -> String {
        let shown: String = self.request.target.chars().take(300).collect();
        let body = self.request.body.as_ref().map(ToString::to_string).unwrap_or_default();
        let body: String = body.chars().take(300).collect();
        format!(
            "{}: {} by {}: {} {shown} {body}",
            self.operation.id, self.operation.path, self.by.who, self.request.method
        )
    }

    /// Sends it and looks for canaries in all that comes back.
    fn fire(&self, scene: &Scene, findings: &mut Findings) -> Answer {
        findings.cases += 1;
        let answer = self.request.send(&self.by.user);
        let heads: String = answer.headers.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
        let named: Vec<&str> = self.named.iter().map(String::as_str).collect();
        let canaries = scene.canaries.borrow();
        for bytes in [heads.as_bytes(), &answer.body] {
            if let Some(found) = canaries.found_in(bytes, &named) {
                findings.leaks.push(format!("{} gets {found}: {answer:?}", self.told()));
            }
        }
        if answer.status >= 500 {
            findings.breach(format!("{} breaks the server: {answer:?}", self.told()));
        }
        answer
    }
}

/// Every operation of the document, and the victim as before.
pub fn run(scene: &Scene) -> Findings {
    let mut findings = Findings::default();
    let operations = operations();
    let attackers = attackers(scene);
    let (whole, before) = (scene.state(true), scene.state(false));
    for operation in &operations {
        for by in &attackers {
            whole_operation(scene, operation, by, &mut findings);
        }
        the_operator_must_say_for_whom(scene, operation, &mut findings);
        other_methods(scene, operation, &operations, &attackers[0], &mut findings);
        injections(scene, operation, &attackers[0], &mut findings);
        let after = scene.state(false);
        if after != before {
            findings.breach(format!("{} changed the victim: {before:#?} is now {after:#?}", operation.id));
            break;
        }
    }
    if scene.state(true) != whole {
        findings.breach("something changed the victim's adapters".to_owned());
    }
    let metrics = scene.world.anon().get("/metrics");
    // The log is the operator's and names runs; text of the victim's is in neither.
    let canaries = scene.canaries.borrow();
    let found =
        [("/metrics", canaries.found_in(&metrics.body, &[])), ("the log", canaries.marked_in(&scene.world.log()))];
    findings.cases += found.len();
    findings.leaks.extend(found.into_iter().filter_map(|(what, found)| Some(format!("{what} holds {}", found?))));
    drop(canaries);
    findings
}

/// The parameters of an operation that name things.
fn naming(operation: &Operation) -> Vec<(&Parameter, &'static str)> {
    let named = |parameter| match meaning(operation, parameter) {
        Meaning::Names(kind) => Some((parameter, kind)),
        Meaning::Plain(_) => None,
    };
    operation.parameters.iter().filter_map(named).collect()
}

fn whole_operation(scene: &Scene, operation: &Operation, by: &Attacker, findings: &mut Findings) {
    let named = naming(operation);
    if named.is_empty() {
        let request = scene.request(operation, |kind| scene.own(kind));
        let shot = Shot { operation, by, request, named: Vec::new() };
        let answer = shot.fire(scene, findings);
        must_ask_for_a_key(&shot, &answer, findings);
    }
    for (parameter, kind) in &named {
        // What else is named is the attacker's own or the victim's: a nested thing is hidden in both.
        let others: &[bool] = if named.len() > 1 { &[true, false] } else { &[true] };
        for others_own in others {
            one_parameter(scene, operation, by, parameter, kind, *others_own, findings);
        }
    }
}

fn one_parameter(
    scene: &Scene,
    operation: &Operation,
    by: &Attacker,
    parameter: &Parameter,
    kind: &'static str,
    others_own: bool,
    findings: &mut Findings,
) {
    let things = scene.things(kind);
    let shot = |name: &str| {
        let mut named = vec![name.to_owned()];
        let request = scene.request_with(operation, |other, other_kind| {
            if other.name == parameter.name && other.place == parameter.place {
                return Some(name.to_owned());
            }
            let chosen = if others_own { scene.own(other_kind) } else { scene.theirs(other_kind) };
            is_needed(operation, other).then_some(chosen)
        });
        named.extend(naming(operation).iter().map(|(_, kind)| scene.theirs(kind)));
        Shot { operation, by, request, named }
    };
    let nowhere = shot(&things.nobodys);
    let nothing = nowhere.fire(scene, findings);
    must_be_refused(&nowhere, parameter, &nothing, findings);
    must_ask_for_a_key(&nowhere, &nothing, findings);
    for name in things.theirs.iter().chain(&things.gone) {
        let attempt = shot(name);
        let answer = attempt.fire(scene, findings);
        must_be_refused(&attempt, parameter, &answer, findings);
        let (seen, expected) = (visible(&answer, name), visible(&nothing, &things.nobodys));
        if seen != expected {
            findings.breach(format!("{} tells what is from what is not: {seen:?} and {expected:?}", attempt.told()));
        }
    }
    // Without a key nothing is looked up, so that one such attacker is enough.
    let spells = by.has_key || by.who == "nobody";
    for form in things.theirs.iter().filter(|_| spells).flat_map(|name| misspelt(name)) {
        let form = if parameter.place == Place::Body { decoded(&form) } else { form };
        // A number is a good value of some fields; it names nothing here.
        let mut attempt = shot(&form);
        attempt.named.push(decoded(&form));
        let answer = attempt.fire(scene, findings);
        if parameter.place == Place::Path && answer.status < 400 {
            findings.breach(format!("{} is let in: {answer:?}", attempt.told()));
        }
    }
}

/// Nobody gets in by a name in the path or the body. A query only narrows what the caller may see anyway.
fn must_be_refused(shot: &Shot<'_>, parameter: &Parameter, answer: &Answer, findings: &mut Findings) {
    if parameter.place != Place::Query && answer.status < 400 {
        findings.breach(format!("{} is let in: {answer:?}", shot.told()));
    }
    let hides = [400, 401, 403, 404].contains(&answer.status);
    if parameter.place == Place::Path && !hides {
        findings.breach(format!("{} answers {}: {answer:?}", shot.told(), answer.status));
    }
}

fn must_ask_for_a_key(shot: &Shot<'_>, answer: &Answer, findings: &mut Findings) {
    let expected = !shot.by.has_key && !shot.operation.is_open();
    if expected && (answer.status != 401 || answer.header("www-authenticate") != Some("Bearer")) {
        findings.breach(format!("{} is not asked for a key: {answer:?}", shot.told()));
    }
}

/// An operator for nobody, or for another, reads no tenant's code, models, runs or versions.
fn the_operator_must_say_for_whom(scene: &Scene, operation: &Operation, findings: &mut Findings) {
    if operation.is_open() || operation.access == "operator" || operation.path.starts_with("/v1/tenants") {
        return;
    }
    let operator = scene.world.operator();
    let whom = [
        ("the operator for nobody", operator.clone(), true),
        ("the operator for another", operator.acting_for(&scene.third.name), false),
        ("the operator for a tenant that is not there", operator.acting_for("nobody-at-all"), true),
    ];
    for (who, user, refused) in whom {
        let by = Attacker { who: who.to_owned(), user, has_key: true };
        let request = scene.request(operation, |kind| scene.theirs(kind));
        let shot = Shot { operation, by: &by, request, named: theirs_of(scene, operation) };
        let answer = shot.fire(scene, findings);
        let named_is_hidden = naming(operation).iter().any(|(parameter, _)| parameter.place != Place::Query);
        if answer.status < 400 && (refused || named_is_hidden) {
            findings.breach(format!("{} is let in: {answer:?}", shot.told()));
        }
    }
}

/// What the document does not list does not exist, also by another method or by a header that asks for one.
fn other_methods(
    scene: &Scene,
    operation: &Operation,
    operations: &[Operation],
    by: &Attacker,
    findings: &mut Findings,
) {
    let known: Vec<&str> =
        operations.iter().filter(|other| other.path == operation.path).map(|other| other.method.as_str()).collect();
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PROPFIND"] {
        if known.contains(&method) {
            continue;
        }
        let mut request = scene.request(operation, |kind| scene.theirs(kind));
        request.method = method.to_owned();
        let shot = Shot { operation, by, named: theirs_of(scene, operation), request };
        let answer = shot.fire(scene, findings);
        if answer.status < 400 {
            findings.breach(format!("{} has a method that is not in the document: {answer:?}", shot.told()));
        }
    }
}

fn theirs_of(scene: &Scene, operation: &Operation) -> Vec<String> {
    naming(operation).iter().map(|(_, kind)| scene.theirs(kind)).collect()
}

/// Ways to claim to be somebody else than the key says: headers, query parameters and fields nobody asked for.
fn injections(scene: &Scene, operation: &Operation, by: &Attacker, findings: &mut Findings) {
    // Reading is asked for with the attacker's own names; what changes something, with nobody's.
    let reads = operation.method == "GET";
    let request =
        scene.request(operation, |kind| if reads { scene.own(kind) } else { scene.things(kind).nobodys.clone() });
    let named = naming(operation).iter().map(|(_, kind)| scene.things(kind).nobodys.clone()).collect();
    let plain = Shot { operation, by, request, named };
    let expected = plain.fire(scene, findings);
    let (name, id) = (&scene.victim.name, &scene.victim.id);
    let must_be_as_plain = |request: Request, user: User, findings: &mut Findings| {
        let by = Attacker { who: "an admin who claims to be another".to_owned(), user, has_key: true };
        let named = [plain.named.as_slice(), &[name.clone(), id.clone()]].concat();
        let shot = Shot { operation, by: &by, request, named };
        let answer = shot.fire(scene, findings);
        let may_differ = operation.is_open() || [400, 401, 403, 404].contains(&answer.status);
        if !may_differ && operation.method == "GET" && visible(&answer, name) != visible(&expected, name) {
            findings.breach(format!("{} believes a claim: {answer:?} and without {expected:?}", shot.told()));
        }
    };
    for header in
        ["x-tenant", "x-tenant-id", "x-organization", "x-forwarded-user", "x-original-url", "x-http-method-override"]
    {
        let value = if header.ends_with("override") { "DELETE" } else { name.as_str() };
        must_be_as_plain(plain.request.clone(), by.user.with_header(header, value), findings);
    }
    for (field, value) in ["tenant", "tenant_id", "organization", "organization_id", "org", "act_as"]
        .iter()
        .zip([name, id].iter().cycle())
    {
        let mut request = plain.request.clone();
        request.add_query(field, value);
        must_be_as_plain(request, by.user.clone(), findings);
    }
    if !operation.has_body() {
        return;
    }
    for field in ["tenant", "tenant_id", "organization_id", "owner", "role", "key", "created_by", "id", "__proto__"] {
        let mut request = plain.request.clone();
        request.body.as_mut().expect("there is one")[field] = serde_json::json!(id);
        must_be_as_plain(request, by.user.clone(), findings);
    }
}
