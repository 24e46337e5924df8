//! Which crate may depend on which, and which outside library belongs to which crate.

use super::{Finding, Tree};

/// Every edge between our crates that may be, with its reason. An edge that is not here needs a decision, not a line.
const ALLOWED_EDGES: &[(&str, &str, &str)] = &[
    ("access", "domain", "callers and resources are named by domain's ids"),
    ("seal", "domain", "what is sealed is bound to a tenant's id"),
    ("model", "kernels", "the transformer is made of kernels"),
    ("engine", "model", "a step is one forward pass"),
    ("engine", "domain", "limits, token counts and clock"),
    ("trainer", "model", "a step is one loss with its gradients"),
    ("trainer", "domain", "limits and the names of languages and runs"),
    ("trainer", "kernels", "the optimiser is a kernel, and options name the tier"),
    ("store", "access", "every function takes a Granted<_>"),
    ("store", "seal", "what a tenant gave or made lies sealed"),
    ("store", "domain", "rows are made of domain's types"),
    ("platform", "store", "use cases read and write rows and blobs"),
    ("platform", "access", "use cases turn a Caller into a grant"),
    ("platform", "engine", "completing"),
    ("platform", "trainer", "learning"),
    ("platform", "model", "adapters and the base, by digest"),
    ("signon", "domain", "limits and clock"),
    ("platform", "signon", "people sign in at their tenant's issuer"),
    ("platform", "domain", "the words of every use case"),
    ("api", "platform", "a handler calls one use case"),
    ("api", "access", "a key becomes a Caller"),
    ("api", "domain", "wire types are parsed into domain's"),
    ("server", "api", "serves the router"),
    ("server", "platform", "starts the platform and its workers"),
    ("server", "domain", "configuration is made of domain's limits"),
    ("server", "access", "wiring: the operator's own work is a Caller"),
    ("server", "store", "wiring: opens the data folder"),
    ("server", "engine", "wiring: starts the engine's loop"),
    ("server", "trainer", "wiring: options of the command line become the recipe"),
    ("server", "model", "wiring: loads the base named by --base"),
    ("server", "kernels", "wiring: chooses the SIMD tier and the number of threads"),
    ("bench", "engine", "measures serving without the gateway"),
    ("bench", "platform", "parts a tenant's files as learning does"),
    ("bench", "trainer", "measures what learning gains and how fast it is"),
    ("bench", "model", "makes models and adapters to measure with"),
    ("bench", "kernels", "chooses the SIMD tier, and its steps of training end in the optimiser"),
];

/// Crates that stand at the bottom of the graph or outside it.
const CRATES_WITHOUT_EDGES: [&str; 3] = ["kernels", "domain", "xtask"];

/// Names that say nothing about what belongs inside, so that everything ends there.
const EMPTY_NAMES: [&str; 5] = ["common", "core", "utils", "util", "helpers"];

/// Crates that do no I/O and are not async: what they compute depends on their arguments alone.
pub const PURE_CRATES: [&str; 4] = ["domain", "access", "kernels", "model"];

/// The only crate that may contain `unsafe`, and so cannot take the workspace's lints, which forbid it.
pub const UNSAFE_CRATE: &str = "kernels";

/// Libraries of which a pure crate has no use.
const ASYNC_LIBRARIES: [&str; 6] = ["tokio", "tokio-util", "tokio-stream", "futures-util", "futures", "async-trait"];

/// Libraries that belong to some crates alone, with the invariant of ARCHITECTURE.md that this holds.
const LIBRARY_OWNERS: [(&str, &[&str], &str); 10] = [
    ("axum", &["api", "server"], "only api knows HTTP"),
    ("tower-http", &["api", "server"], "only api knows HTTP"),
    ("hyper", &["server"], "only server holds a socket"),
    ("hyper-util", &["server"], "only server holds a socket"),
    ("tokio-rustls", &["server"], "only server holds a socket"),
    (
        "reqwest",
        &["server", "signon", "store"],
        "the command line calls a server, signon an issuer, and store talks to buckets",
    ),
    ("jsonwebtoken", &["signon"], "only signon reads tokens"),
    ("sqlx", &["store"], "only store talks to a database"),
    ("object_store", &["store"], "only store talks to blobs"),
    ("clap", &["server", "bench", "xtask"], "only binaries have a command line"),
];

/// The kinds of dependency that go into what is shipped; `dev-dependencies` are free downwards.
const SHIPPED_KINDS: [&str; 2] = ["dependencies", "build-dependencies"];

/// Holds every manifest under crates/ against the tables above.
pub fn check(tree: &Tree, findings: &mut Vec<Finding>) {
    for name in tree.crate_names() {
        let path = format!("crates/{name}/Cargo.toml");
        let text = tree.text(&path).unwrap_or_default();
        match text.parse::<toml::Table>() {
            Ok(table) => {
                let manifest = Manifest { name, path: &path, text, table: &table };
                check_name(&manifest, findings);
                check_lints(&manifest, findings);
                check_edges(&manifest, findings);
                check_libraries(&manifest, findings);
            }
            Err(error) => findings.push(Finding::new(&path, 1, format!("not TOML: {}", error.message()), "mend it")),
        }
    }
}

struct Manifest<'a> {
    name: &'a str,
    path: &'a str,
    text: &'a str,
    table: &'a toml::Table,
}

impl Manifest<'_> {
    /// A finding at the first line that begins with `about`.
    fn finding(&self, about: &str, what: String, remedy: &str) -> Finding {
        let index = self.text.lines().position(|line| line.trim_start().starts_with(about));
        Finding::new(self.path, index.unwrap_or(0) + 1, what, remedy)
    }

    /// Names of the dependencies of one kind, also those that one platform alone has.
    fn dependencies(&self, kind: &str) -> impl Iterator<Item = &str> {
        let targets = self.table.get("target").and_then(toml::Value::as_table).into_iter();
        let per_target = targets.flat_map(toml::Table::values).filter_map(toml::Value::as_table);
        let tables = std::iter::once(self.table).chain(per_target);
        let of_kind = tables.filter_map(move |table| table.get(kind)?.as_table());
        of_kind.flat_map(toml::Table::keys).map(String::as_str)
    }

    /// The same for our own crates, by folder name.
    fn own_dependencies(&self, kind: &str) -> impl Iterator<Item = &str> {
        self.dependencies(kind).filter_map(|name| name.strip_prefix("atelier-"))
    }
}

fn check_name(manifest: &Manifest<'_>, findings: &mut Vec<Finding>) {
    let name = manifest.name;
    if EMPTY_NAMES.contains(&name) {
        let what = format!("a crate named `{name}` has no boundary");
        findings.push(manifest.finding(
            "name",
            what,
            "name it after what it knows, or give its parts to who uses them",
        ));
    }
    let package = manifest.table.get("package").and_then(|package| package.get("name")?.as_str()).unwrap_or_default();
    if package != name && package.strip_prefix("atelier-") != Some(name) {
        let what = format!("package `{package}` lies in crates/{name}");
        findings.push(manifest.finding("name", what, "name the package atelier-<folder>"));
    }
    let has_edges = ALLOWED_EDGES.iter().any(|(from, _, _)| *from == name);
    if !has_edges && !CRATES_WITHOUT_EDGES.contains(&name) {
        let what = format!("crate `{name}` has no place in the graph");
        findings.push(manifest.finding("name", what, "decide its edges in crates/xtask/src/tidy/crates.rs"));
    }
}

fn check_lints(manifest: &Manifest<'_>, findings: &mut Vec<Finding>) {
    let inherits = manifest.table.get("lints").and_then(|lints| lints.get("workspace")?.as_bool()) == Some(true);
    if !inherits && manifest.name != UNSAFE_CRATE {
        let what = "does not take the lints of the workspace".to_owned();
        findings.push(manifest.finding("[lints", what, "write `workspace = true` under `[lints]`"));
    }
}

fn check_edges(manifest: &Manifest<'_>, findings: &mut Vec<Finding>) {
    for (kind, to) in SHIPPED_KINDS.iter().flat_map(|kind| manifest.own_dependencies(kind).map(move |to| (kind, to))) {
        if !is_allowed(manifest.name, to) {
            let what = format!("{} → {to} in {kind} is no edge of the crate graph", manifest.name);
            let remedy = "move the code, or decide the edge in crates/xtask/src/tidy/crates.rs and ARCHITECTURE.md";
            findings.push(manifest.finding(&format!("atelier-{to}"), what, remedy));
        }
    }
    for to in manifest.own_dependencies("dev-dependencies").filter(|to| reaches(to, manifest.name)) {
        let what = format!("{} → {to} in dev-dependencies points upwards", manifest.name);
        findings.push(manifest.finding(&format!("atelier-{to}"), what, "move the test to the upper crate"));
    }
}

fn is_allowed(from: &str, to: &str) -> bool {
    ALLOWED_EDGES.iter().any(|edge| (edge.0, edge.1) == (from, to))
}

/// Whether `to` stands below `from`, or is it.
fn reaches(from: &str, to: &str) -> bool {
    from == to || ALLOWED_EDGES.iter().any(|edge| edge.0 == from && reaches(edge.1, to))
}

fn check_libraries(manifest: &Manifest<'_>, findings: &mut Vec<Finding>) {
    let shipped: Vec<&str> = SHIPPED_KINDS.iter().flat_map(|kind| manifest.dependencies(kind)).collect();
    for library in shipped {
        if PURE_CRATES.contains(&manifest.name) && ASYNC_LIBRARIES.contains(&library) {
            let what = format!("{} depends on `{library}` and must not be async", manifest.name);
            findings.push(manifest.finding(library, what, "let the caller wait, and hand in what it got"));
        }
        for (_, owners, why) in LIBRARY_OWNERS.iter().filter(|(name, ..)| *name == library) {
            if !owners.contains(&manifest.name) {
                let what = format!("`{library}` belongs to {}: {why}", owners.join(" and "));
                findings.push(manifest.finding(library, what, "use it through that crate"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::findings_of;
    use super::*;

    fn check_crate(name: &str, rest: &str) -> Vec<String> {
        let path = format!("crates/{name}/Cargo.toml");
        let text = format!("[package]\nname = \"atelier-{name}\"\n[lints]\nworkspace = true\n{rest}");
        findings_of(check, &[(&path, &text)])
    }

    #[test]
    fn allowed_edges_pass() {
        assert!(check_crate("platform", "[dependencies]\natelier-store = { workspace = true }\n").is_empty());
        assert!(check_crate("trainer", "[dev-dependencies]\natelier-kernels.workspace = true\n").is_empty());
    }

    #[test]
    fn an_edge_outside_the_graph_is_found() {
        let found = check_crate("model", "[dependencies]\natelier-domain = { workspace = true }\n");
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("crates/model/Cargo.toml:6: model → domain in dependencies"), "{found:?}");
        let hidden = "[target.'cfg(unix)'.build-dependencies]\natelier-api = { workspace = true }\n";
        assert_eq!(check_crate("store", hidden).len(), 1);
    }

    #[test]
    fn dev_dependencies_point_downwards() {
        let found = check_crate("domain", "[dev-dependencies]\natelier-store = { workspace = true }\n");
        assert!(found[0].contains("points upwards"), "{found:?}");
    }

    #[test]
    fn pure_crates_have_no_runtime() {
        let found = check_crate("access", "[dependencies]\ntokio = \"1\"\n");
        assert!(found[0].contains("must not be async"), "{found:?}");
    }

    #[test]
    fn libraries_stay_with_their_owners() {
        let found = check_crate("engine", "[dependencies]\naxum = \"0.8\"\n");
        assert!(found[0].contains("`axum` belongs to api and server"), "{found:?}");
        assert!(check_crate("api", "[dependencies]\naxum = \"0.8\"\n").is_empty());
    }

    #[test]
    fn crates_have_a_name_a_place_and_the_lints() {
        let found = findings_of(check, &[("crates/utils/Cargo.toml", "[package]\nname = \"helpers\"\n")]);
        assert_eq!(found.len(), 4, "{found:#?}");
    }

    #[test]
    fn the_graph_has_no_circle() {
        for &(from, to, _) in ALLOWED_EDGES {
            assert!(!reaches(to, from), "{from} → {to} closes a circle");
        }
    }
}
