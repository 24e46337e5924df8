//! Three tenants on one server: the attacker, the victim with a canary in every field that takes text, and a third.
//! A new kind of id takes a line of [`KINDS`]; a new field or parameter takes one of [`MEANINGS`].

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use super::canary::Canaries;
use super::document::{Operation, Parameter, Place, operations};
use crate::support::{Answer, Archive, Style, User, World, archive_with};

/// What a parameter or field means to an attacker.
#[derive(Clone, Copy, Debug)]
pub enum Meaning {
    /// Names a thing of this kind.
    Names(&'static str),
    /// Names nothing that anybody owns; this JSON is a good value, for where one is required.
    Plain(&'static str),
}
use Meaning::{Names, Plain};

/// Every parameter and field of the document, by name, or by operation and name where one name has two meanings.
const MEANINGS: &[(&str, Meaning)] = &[
    ("actor_ids", Names("key")),
    ("alias", Plain("\"live\"")),
    ("api_key_ids", Names("key")),
    ("bucket", Plain("\"no-such-bucket\"")),
    ("bucket_width", Plain("\"1d\"")),
    ("challenge", Plain("\"E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM\"")),
    ("client_id", Plain("\"atelier\"")),
    ("client_secret", Plain("\"hush\"")),
    ("code", Plain("\"atl_c_0000000000000000_nonsense\"")),
    ("create_project_user.role", Plain("\"member\"")),
    ("create_service_account_only", Plain("false")),
    ("create_tenant.name", Names("tenant")),
    ("domains", Plain("[\"example.com\"]")),
    ("email", Plain("\"somebody@example.com\"")),
    ("emails", Plain("\"somebody@example.com\"")),
    ("effective_at[gt]", Plain("1700000000")),
    ("effective_at[gte]", Plain("1700000000")),
    ("effective_at[lt]", Plain("4000000000")),
    ("effective_at[lte]", Plain("4000000000")),
    ("end_time", Plain("4000000000")),
    ("error", Plain("\"access_denied\"")),
    ("event_types", Plain("\"api_key.created\"")),
    ("expires_in_seconds", Plain("3600")),
    ("folder", Names("folder")),
    ("group_by", Plain("\"model\"")),
    ("get_admin_key.key_id", Names("admin_key")),
    ("delete_admin_key.key_id", Names("admin_key")),
    ("get_project_key.key_id", Names("project_key")),
    ("delete_project_key.key_id", Names("project_key")),
    ("include_archived", Plain("true")),
    ("invite_id", Names("invite")),
    ("iss", Plain("\"https://id.example.com\"")),
    ("issuer", Plain("\"https://id.example.com\"")),
    ("key", Names("key")),
    ("kind", Plain("\"evaluate\"")),
    ("limit", Plain("1")),
    ("list_admin_keys.after", Names("admin_key")),
    ("list_audit_logs.after", Names("event")),
    ("list_audit_logs.before", Names("event")),
    ("list_erasures.after", Plain("\"org_0190d1f2a3b47c5d8e9f001122334455\"")),
    ("list_invites.after", Names("invite")),
    ("list_keys.after", Names("key")),
    ("list_operator_audit_logs.after", Names("event")),
    ("list_operator_audit_logs.before", Names("event")),
    ("list_project_keys.after", Names("project_key")),
    ("list_project_users.after", Names("user")),
    ("list_projects.after", Names("project")),
    ("list_run_events.after", Plain("0")),
    ("list_service_accounts.after", Names("service_account")),
    ("list_users.after", Names("user")),
    ("model", Names("model")),
    ("modify_project_user.role", Plain("\"owner\"")),
    ("modify_service_account.role", Plain("\"owner\"")),
    ("models", Names("model")),
    ("name", Plain("\"a-name\"")),
    ("options", Plain("{}")),
    ("organization", Names("tenant")),
    ("order", Plain("\"asc\"")),
    ("owner_project_access", Plain("\"any\"")),
    ("path", Names("folder")),
    ("plan", Plain("\"shared\"")),
    ("project_id", Names("project")),
    ("project_ids", Names("project")),
    // Projects inside of a list: `case_02_an_invite_names_ones_own_projects_only`.
    ("projects", Plain("[]")),
    ("resource_ids", Names("source")),
    ("role", Plain("\"reader\"")),
    ("run", Names("run")),
    ("scopes", Plain("[\"read\"]")),
    ("separation", Plain("\"pooled\"")),
    ("service_account_id", Names("service_account")),
    ("source", Names("source")),
    ("start_time", Plain("1700000000")),
    ("status", Plain("\"active\"")),
    ("tenant", Names("tenant")),
    ("user_id", Names("user")),
    ("user_ids", Names("user")),
    ("usage_completions.page", Plain("\"page_1700000000\"")),
    ("port", Plain("50000")),
    ("return_to", Plain("\"/sign-in\"")),
    ("state", Plain("\"s\"")),
    ("verifier", Plain("\"v\"")),
    ("version", Names("version")),
    // A completion's.
    ("best_of", Plain("1")),
    ("echo", Plain("true")),
    ("frequency_penalty", Plain("0")),
    ("logit_bias", Plain("{}")),
    ("logprobs", Plain("1")),
    ("max_tokens", Plain("1")),
    ("n", Plain("1")),
    ("presence_penalty", Plain("0")),
    ("prompt", Plain("\"a\"")),
    ("seed", Plain("1")),
    ("stop", Plain("\"b\"")),
    ("stream", Plain("false")),
    ("stream_options", Plain("{}")),
    ("suffix", Plain("\"c\"")),
    ("temperature", Plain("0")),
    ("top_k", Plain("1")),
    ("top_p", Plain("1")),
    ("user", Plain("\"d\"")),
];

/// What this parameter means; an operation whose parameters nobody explained here fails the suite.
pub fn meaning(operation: &Operation, parameter: &Parameter) -> Meaning {
    let own = format!("{}.{}", operation.id, parameter.name);
    let of = |name: &str| MEANINGS.iter().find(|(known, _)| *known == name).map(|(_, meaning)| *meaning);
    of(&own).or_else(|| of(&parameter.name)).unwrap_or_else(|| {
        panic!(
            "{} {}: nobody said what '{}' ({:?}) means to an attacker. Give it a line of MEANINGS in \
             tests/attacks/scene.rs, and a line of KINDS if it names a new kind of thing.",
            operation.method, operation.path, parameter.name, parameter.place
        )
    })
}

/// A kind of thing that a tenant has.
struct Kind {
    name: &'static str,
    /// One of this tenant's, by every name that it goes by.
    made: fn(&Party) -> Vec<String>,
    /// One that this tenant had and that is deleted.
    gone: fn(&Party) -> Option<String>,
}

const fn kind(name: &'static str, made: fn(&Party) -> Vec<String>, gone: fn(&Party) -> Option<String>) -> Kind {
    Kind { name, made, gone }
}

const KINDS: &[Kind] = &[
    kind("tenant", |party| vec![party.name.clone(), party.id.clone()], |party| Some(party.deleted_tenant())),
    kind("source", |party| vec![party.source()], |party| Some(party.deleted("/v1/sources", &party.source()))),
    kind("run", |party| party.learned("run").into_iter().chain([party.cancelled_run()]).collect(), |_| None),
    kind("version", |party| party.learned("number").into_iter().collect(), |_| None),
    kind("model", |party| party.learned("id").into_iter().collect(), |_| None),
    kind(
        "key",
        |party| vec![party.fresh_key(), party.key_id()],
        |party| Some(party.deleted("/v1/keys", &party.fresh_key())),
    ),
    kind("event", |party| vec![party.event()], |_| None),
    // First the one in which all that lies in a project is: things that are named together belong together.
    kind("project", |party| vec![party.usual_project(), party.project()], |_| None),
    kind("user", |party| vec![party.person()], |party| Some(party.deleted("/v1/organization/users", &party.person()))),
    kind(
        "invite",
        |party| vec![party.invite("id")],
        |party| Some(party.deleted("/v1/organization/invites", &party.invite("id"))),
    ),
    kind(
        "service_account",
        |party| vec![party.machine("/id")],
        |party| Some(party.deleted(&party.in_project("service_accounts"), &party.machine("/id"))),
    ),
    kind(
        "project_key",
        |party| vec![party.machine("/api_key/id")],
        |party| Some(party.deleted(&party.in_project("api_keys"), &party.machine("/api_key/id"))),
    ),
    kind(
        "admin_key",
        |party| vec![party.admin_key()],
        |party| Some(party.deleted("/v1/organization/admin_api_keys", &party.admin_key())),
    ),
    kind("folder", |party| vec![party.folder.clone()], |_| None),
];

/// Counts who was invited, so that no address comes twice.
static INVITED: AtomicUsize = AtomicUsize::new(0);

/// A tenant and how it makes things.
pub struct Party {
    pub name: String,
    pub id: String,
    pub admin: User,
    operator: User,
    /// Text for whatever takes some: canaries, for the victim.
    canaries: Option<Rc<RefCell<Canaries>>>,
    /// Its version, for whoever has learned.
    version: Option<Value>,
    /// A folder of the server's own that holds what is the tenant's.
    folder: String,
}

impl Party {
    pub fn new(world: &World, name: &str, canaries: Option<&Rc<RefCell<Canaries>>>) -> Self {
        let admin = world.tenant(name, "tuned");
        let operator = world.operator();
        let id = text(&operator.get(&format!("/v1/tenants/{name}")).ok()["id"]);
        let folder = world.data().display().to_string();
        Self { name: name.to_owned(), id, admin, operator, canaries: canaries.cloned(), version: None, folder }
    }

    /// The tenant's people and machines that are not its admin, by role.
    pub fn others(&self) -> Vec<(&'static str, User)> {
        let with_role = |role| {
            let made = self.admin.post("/v1/keys", &json!({"role": role})).ok();
            (role, self.admin.with_key(&text(&made["value"])))
        };
        ["member", "service", "reader"].map(with_role).to_vec()
    }

    /// One of its things, made now; for a folder, one that may be learned from.
    pub fn thing(&self, kind: &str) -> String {
        let kind = KINDS.iter().find(|known| known.name == kind).expect("a kind of KINDS");
        let names = (kind.made)(self);
        names.into_iter().next().unwrap_or_else(|| panic!("{} has no {}", self.name, kind.name))
    }

    /// A word to put where text goes.
    pub fn word(&self) -> String {
        self.canaries.as_ref().map_or_else(|| "word".to_owned(), |canaries| canaries.borrow().fresh())
    }

    fn source(&self) -> String {
        let word = self.word();
        let archive = Archive::new().file(&format!("{word}.py"), format!("WORD = '{}'\n", self.word()).as_bytes());
        text(&self.admin.upload(&format!("/v1/sources?name={word}"), &archive.gzip()).ok()["id"])
    }

    fn cancelled_run(&self) -> String {
        let body = json!({"source": self.source(), "options": {"epochs": 1}});
        let run = text(&self.admin.post("/v1/runs", &body).ok()["id"]);
        // It may have ended already, since there is nothing to learn from.
        self.admin.post(&format!("/v1/runs/{run}/cancel"), &json!({}));
        run
    }

    fn fresh_key(&self) -> String {
        text(&self.admin.post("/v1/keys", &json!({"name": self.word(), "scopes": ["read"]})).ok()["id"])
    }

    fn key_id(&self) -> String {
        text(&self.admin.get("/v1/keys").ok()["data"][0]["id"])
    }

    /// The project that a tenant has from its beginning.
    fn usual_project(&self) -> String {
        self.id.replace("org_", "proj_")
    }

    fn in_project(&self, what: &str) -> String {
        format!("/v1/organization/projects/{}/{what}", self.usual_project())
    }

    fn project(&self) -> String {
        text(&self.admin.post("/v1/organization/projects", &json!({"name": self.word()})).ok()["id"])
    }

    /// Invites somebody whom nobody invited before.
    pub fn invite(&self, field: &str) -> String {
        let number = INVITED.fetch_add(1, Ordering::Relaxed);
        let email = format!("{}.{number}@{}.example", self.word(), self.word());
        text(&self.admin.post("/v1/organization/invites", &json!({"email": email, "role": "reader"})).ok()[field])
    }

    /// A person in the project that a tenant has from its beginning.
    fn person(&self) -> String {
        let invited = self.admin.with_key(&self.invite("secret"));
        text(&invited.post("/v1/organization/invites/accept", &json!({"name": self.word()})).ok()["user"]["id"])
    }

    /// Something of a new machine in that project.
    fn machine(&self, pointer: &str) -> String {
        let made = self.admin.post(&self.in_project("service_accounts"), &json!({"name": self.word()})).ok();
        text(made.pointer(pointer).expect("a field of a new service account"))
    }

    fn admin_key(&self) -> String {
        text(&self.admin.post("/v1/organization/admin_api_keys", &json!({"name": self.word()})).ok()["id"])
    }

    fn event(&self) -> String {
        text(&self.admin.get("/v1/organization/audit_logs?limit=1").ok()["data"][0]["id"])
    }

    fn learned(&self, field: &str) -> Option<String> {
        let value = &self.version.as_ref()?[field];
        Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
    }

    fn deleted(&self, path: &str, id: &str) -> String {
        self.admin.delete(&format!("{path}/{id}")).ok();
        id.to_owned()
    }

    fn deleted_tenant(&self) -> String {
        let name = format!("{}-gone", &self.name[..self.name.len().min(30)]);
        self.operator.post("/v1/tenants", &json!({"name": name, "plan": "shared"})).ok();
        self.operator.delete(&format!("/v1/tenants/{name}")).ok();
        name
    }

    /// Learns from code with canaries, and completes with canaries in every field that takes text.
    fn live(&mut self, world: &World) {
        let (file, content) = (format!("desk/{}.py", self.word()), format!("KEEPER = '{}'\n", self.word()));
        let archive = archive_with(Style::Gated, 5, &[(file.as_str(), content.as_bytes())]);
        // Few and large steps: it need not learn well, only be live.
        let options = json!({
            "epochs": 1, "window_tokens": 64, "steps_max": 6, "learning_rate": 0.005, "suffix": self.word(),
        });
        let run = world.learn(&self.admin, &archive, options);
        assert_eq!(run["status"], "live", "{run:#}\n{}", world.log());
        self.version = Some(self.admin.get("/v1/versions").ok()["data"][0].clone());
        self.admin.complete(&json!({
            "model": "atelier", "prompt": format!("# {}\ndef f(", self.word()), "suffix": self.word(), "stop": self.word(),
            "user": self.word(), "max_tokens": 4,
        }));
    }
}

/// What an attack names: something of one kind.
#[derive(Debug, Default)]
pub struct Things {
    /// The attacker's, if it has one.
    pub own: Option<String>,
    /// The victim's.
    pub theirs: Vec<String>,
    /// The victim's, until it was deleted.
    pub gone: Option<String>,
    /// Nobody's, and of the same form as the victim's.
    pub nobodys: String,
}

pub struct Scene {
    pub world: World,
    pub attacker: Party,
    pub victim: Party,
    pub third: Party,
    pub canaries: Rc<RefCell<Canaries>>,
    things: BTreeMap<&'static str, Things>,
}

impl Scene {
    pub fn set(world: World) -> Self {
        let canaries = Rc::new(RefCell::new(Canaries::new()));
        // The name of a tenant takes 40 letters: a canary fits.
        let name = format!("v{}", canaries.borrow().fresh());
        let mut victim = Party::new(&world, &name, Some(&canaries));
        victim.live(&world);
        let attacker = Party::new(&world, "attacker", None);
        let third = Party::new(&world, "third", None);
        attacker.admin.complete(&json!({"model": "atelier", "prompt": "a", "max_tokens": 1}));
        let things = KINDS.iter().map(|kind| (kind.name, things(kind, &attacker, &victim))).collect();
        let scene = Self { world, attacker, victim, third, canaries, things };
        scene.remember_names();
        scene.the_seeds_are_alive();
        scene
    }

    /// What the victim has is a canary too, as far as nobody else can have the same.
    fn remember_names(&self) {
        let mut canaries = self.canaries.borrow_mut();
        let names = self.things.iter().filter(|(kind, _)| !["version", "folder"].contains(kind));
        for name in names.flat_map(|(_, things)| things.theirs.iter().chain(&things.gone)) {
            canaries.add_given(name);
        }
        let version = self.victim.version.as_ref().expect("the victim has learned");
        canaries.add_given(version["digest"].as_str().unwrap());
        for part in self.victim.admin.key().split('_').filter(|part| part.len() > 8) {
            canaries.add_given(part);
        }
    }

    /// Every thing that is said to be the victim's is there for the victim: else the suite would prove nothing.
    fn the_seeds_are_alive(&self) {
        for (kind, things) in &self.things {
            assert!(!things.theirs.is_empty(), "the victim has no {kind}");
        }
        for operation in operations().iter().filter(|operation| operation.method == "GET" && !operation.is_open()) {
            let user = if operation.access == "operator" { &self.victim.operator } else { &self.victim.admin };
            let request = self.request(operation, |kind| self.theirs(kind));
            let answer = request.send(user);
            assert_eq!(answer.status, 200, "{} by the victim: {answer:?}", request.target);
        }
    }

    pub fn things(&self, kind: &str) -> &Things {
        self.things.get(kind).unwrap_or_else(|| panic!("'{kind}' has no line of KINDS in tests/attacks/scene.rs"))
    }

    pub fn theirs(&self, kind: &str) -> String {
        self.things(kind).theirs[0].clone()
    }

    /// The attacker's, or nobody's where it has none.
    pub fn own(&self, kind: &str) -> String {
        let things = self.things(kind);
        things.own.clone().unwrap_or_else(|| things.nobodys.clone())
    }

    /// A good request for this operation, in which `choose` says which thing of a kind is named.
    pub fn request(&self, operation: &Operation, choose: impl Fn(&str) -> String) -> Request {
        self.request_with(operation, |_, kind| Some(choose(kind)))
    }

    /// The same, parameter by parameter; optional ones are left out where `choose` says nothing.
    pub fn request_with(&self, operation: &Operation, choose: impl Fn(&Parameter, &str) -> Option<String>) -> Request {
        let mut request = Request {
            method: operation.method.clone(),
            target: operation.path.clone(),
            body: operation.has_body().then(|| json!({})),
        };
        for parameter in &operation.parameters {
            let value = match meaning(operation, parameter) {
                Names(kind) if is_needed(operation, parameter) => {
                    Some(choose(parameter, kind).unwrap_or_else(|| self.own(kind)))
                }
                Names(kind) => choose(parameter, kind),
                // `start_time` is required, which the document's list of query parameters does not say.
                Plain(value) if parameter.required || parameter.name == "start_time" => Some(value.to_owned()),
                Plain(_) => None,
            };
            if let Some(value) = value {
                request.put(parameter, &value);
            }
        }
        request
    }

    /// What a witness sees of the victim: every answer that its admin can get, apart from what reading itself changes;
    /// whole, or without what takes long to read.
    pub fn state(&self, whole: bool) -> Vec<(String, u16, Value)> {
        let of_interest = |operation: &&Operation| {
            let id = operation.id.as_str();
            let passes = WRITTEN_BY_READING.contains(&id) || (!whole && LONG.contains(&id));
            operation.method == "GET" && !operation.is_open() && !passes
        };
        let seen = operations();
        let seen = seen.iter().filter(of_interest).map(|operation| {
            let request = self.request(operation, |kind| self.theirs(kind));
            let answer = request.send(&self.victim.admin);
            let mut body = serde_json::from_slice(&answer.body).unwrap_or_else(|_| json!(answer.body));
            forget_uses(&mut body);
            (operation.id.clone(), answer.status, body)
        });
        seen.collect()
    }
}

/// Whether a request without this parameter is none. Of the two ways to say who is to be added, one is.
pub fn is_needed(operation: &Operation, parameter: &Parameter) -> bool {
    let says_who = operation.id == "create_project_user" && parameter.name == "user_id";
    parameter.place == Place::Path || parameter.required || says_who
}

/// Operations whose answer grows by being read: an adapter that is given out is on record, and so is a refusal.
const WRITTEN_BY_READING: [&str; 4] =
    ["usage_completions", "list_audit_logs", "verify_audit_logs", "export_organization"];

/// Operations that pack megabytes.
const LONG: [&str; 1] = ["export_adapter"];

/// Takes out when a key was last used: reading uses it.
pub fn forget_uses(body: &mut Value) {
    match body {
        Value::Object(fields) => {
            fields.retain(|name, _| !name.starts_with("last_used"));
            fields.values_mut().for_each(forget_uses);
        }
        Value::Array(items) => items.iter_mut().for_each(forget_uses),
        _ => {}
    }
}

/// A request as it goes out.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub target: String,
    pub body: Option<Value>,
}

impl Request {
    /// Fills in one parameter; a body takes JSON where the text is some, and text otherwise.
    pub fn put(&mut self, parameter: &Parameter, value: &str) {
        let json: Value = serde_json::from_str(value).unwrap_or_else(|_| json!(value));
        let plain = json.as_str().map_or_else(|| value.to_owned(), str::to_owned);
        match parameter.place {
            Place::Path => self.target = self.target.replace(&format!("{{{}}}", parameter.name), &plain),
            Place::Query => self.add_query(&parameter.name, &plain),
            Place::Body => self.body.as_mut().expect("an operation with fields has a body")[&parameter.name] = json,
        }
    }

    pub fn add_query(&mut self, name: &str, value: &str) {
        self.target.push(if self.target.contains('?') { '&' } else { '?' });
        self.target.push_str(&format!("{name}={value}"));
    }

    /// The same; a source goes as an archive, since a folder of the server's own is the operator's to name.
    pub fn send_as(&self, user: &User, operation: &Operation) -> Answer {
        if operation.id != "create_source" {
            return self.send(user);
        }
        let archive = Archive::new().file("a.py", b"x = 1\n").gzip();
        user.raw("POST", "/v1/sources?name=code", Some(("application/gzip", &archive)))
    }

    pub fn send(&self, user: &User) -> Answer {
        let body = self.body.as_ref().map(|body| body.to_string().into_bytes());
        user.raw(&self.method, &self.target, body.as_ref().map(|body| ("application/json", body.as_slice())))
    }
}

fn things(kind: &Kind, attacker: &Party, victim: &Party) -> Things {
    let theirs = (kind.made)(victim);
    let nobodys = theirs.first().map(|name| of_nobody(name)).unwrap_or_default();
    Things { own: (kind.made)(attacker).into_iter().next(), gone: (kind.gone)(victim), nobodys, theirs }
}

/// A name of the same form that nobody has.
fn of_nobody(name: &str) -> String {
    if let Ok(number) = name.parse::<u32>() {
        return (number + 4_710).to_string();
    }
    if name.starts_with('/') {
        return "/nowhere/at/all".to_owned();
    }
    let digits = name.rfind(|byte: char| !byte.is_ascii_hexdigit()).map_or(0, |at| at + 1);
    if name.len() - digits < 8 {
        // A model's name ends in its version's number.
        return format!("{}{}", &name[..digits], "4711");
    }
    let (head, tail) = name.split_at(name.len() - 8);
    let turned = |digit: char| char::from_digit(digit.to_digit(16).unwrap_or(0) ^ 0xf, 16).unwrap_or('0');
    format!("{head}{}", tail.chars().map(turned).collect::<String>())
}

pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}
