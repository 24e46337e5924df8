//! What code may not contain, and where.

use super::crates::{PURE_CRATES, UNSAFE_CRATE};
use super::rust_tokens::{Token, group, starts_with, tokens};
use super::tree::crate_of;
use super::{Finding, Tree};

/// The one folder of store that names database drivers.
const DRIVER_FOLDER: &str = "crates/store/src/sql/";
/// What a comparison may not touch: its time would tell how far a guess was right.
const SECRETS: [&str; 3] = ["secret", "secret_hash", "reveal"];
/// Crates that see secrets of callers.
const SECRET_CRATES: [&str; 4] = ["access", "store", "platform", "api"];
/// Crates whose sources may name axum.
const HTTP_CRATES: [&str; 2] = ["api", "server"];
/// Crates whose sources may read the environment.
const ENVIRONMENT_CRATES: [&str; 2] = ["server", "xtask"];
/// Macros that stand where code should.
const UNFINISHED_MACROS: [&str; 2] = ["todo", "unimplemented"];
/// Words that mark unfinished work; in two halves, so that this file does not hold them.
const UNFINISHED_WORDS: [&str; 4] =
    [concat!("FIX", "ME"), concat!("TO", "DO"), concat!("X", "XX"), concat!("HA", "CK")];
/// Host names of package registries, without their dots for the same reason. Ordinary clients know where they are;
/// a file that names one breaks behind a mirror.
const REGISTRY_HOSTS: [&[&str]; 8] = [
    &["crates", "io"],
    &["pypi", "org"],
    &["pythonhosted", "org"],
    &["registry", "npmjs", "org"],
    &["npmjs", "com"],
    &["proxy", "golang", "org"],
    &["rubygems", "org"],
    &["repo", "maven", "apache", "org"],
];
/// Files that tools write and that name a registry by necessity.
const LOCK_FILES: [&str; 2] = ["Cargo.lock", "package-lock.json"];

/// Holds every source file, and for words and hosts every text file, against the rules.
pub fn check(tree: &Tree, findings: &mut Vec<Finding>) {
    for (path, text) in tree.texts_ending(".rs") {
        // What does not lex, the compiler reports.
        let Some(tokens) = tokens(text) else { continue };
        let source = Source { path, crate_name: crate_of(path) };
        for (index, token) in tokens.iter().enumerate() {
            let rest = &tokens[index..];
            let found = [
                source.unsafe_code(token),
                source.allow_attribute(rest),
                source.ignored_test(rest),
                source.unfinished_macro(rest),
                source.environment(rest),
                source.async_code(token),
                source.http(token),
                source.driver(rest),
                source.secret_comparison(rest),
            ];
            findings.extend(found.into_iter().flatten());
        }
    }
    for (path, text) in tree.texts() {
        check_words(path, text, findings);
    }
}

struct Source<'a> {
    path: &'a str,
    crate_name: Option<&'a str>,
}

impl Source<'_> {
    fn finding(&self, token: &Token, what: &str, remedy: &str) -> Option<Finding> {
        Some(Finding::new(self.path, token.line, what, remedy))
    }

    fn is_in(&self, crates: &[&str]) -> bool {
        self.crate_name.is_some_and(|name| crates.contains(&name))
    }

    /// A file of tests, or one that runs before the crate is built.
    fn is_beside_the_product(&self) -> bool {
        let in_folder =
            |folder| self.path.starts_with(&format!("{folder}/")) || self.path.contains(&format!("/{folder}/"));
        in_folder("tests")
            || in_folder("benches")
            || self.path.ends_with("/tests.rs")
            || self.path.ends_with("build.rs")
    }

    fn unsafe_code(&self, token: &Token) -> Option<Finding> {
        if token.text != "unsafe" || self.is_in(&[UNSAFE_CRATE]) {
            return None;
        }
        self.finding(token, "`unsafe` outside of crates/kernels", "write it without, or move it there")
    }

    fn allow_attribute(&self, rest: &[Token]) -> Option<Finding> {
        let outer = starts_with(rest, &["#", "[", "allow", "("]);
        if !outer && !starts_with(rest, &["#", "!", "[", "allow", "("]) {
            return None;
        }
        self.finding(&rest[0], "a lint silenced by `allow`", "mend it, or write #[expect(.., reason = \"..\")]")
    }

    fn ignored_test(&self, rest: &[Token]) -> Option<Finding> {
        if !starts_with(rest, &["#", "[", "ignore"]) {
            return None;
        }
        self.finding(&rest[0], "a test that never runs", "make it run, or delete it")
    }

    fn unfinished_macro(&self, rest: &[Token]) -> Option<Finding> {
        let is_macro = UNFINISHED_MACROS.iter().any(|name| starts_with(rest, &[name, "!"]));
        is_macro.then(|| self.finding(&rest[0], "code that is not there", "write it, or leave the feature out"))?
    }

    fn environment(&self, rest: &[Token]) -> Option<Finding> {
        let is_env = starts_with(rest, &["env", ":", ":"]);
        if !is_env || rest[0].in_test || self.is_in(&ENVIRONMENT_CRATES) || self.is_beside_the_product() {
            return None;
        }
        let named =
            group(&rest[3..]).iter().find(|token| ["var", "vars", "var_os", "vars_os"].contains(&&*token.text))?;
        self.finding(named, "reads the environment", "let crates/server read it and hand the value in")
    }

    fn async_code(&self, token: &Token) -> Option<Finding> {
        let is_async = token.text == "async" || token.text == "await";
        if !is_async || !self.is_in(&PURE_CRATES) {
            return None;
        }
        self.finding(token, "async code in a crate that does no I/O", "move it to the caller")
    }

    fn http(&self, token: &Token) -> Option<Finding> {
        if token.text != "axum" || self.is_in(&HTTP_CRATES) || self.crate_name.is_none() {
            return None;
        }
        self.finding(token, "names axum; only api knows HTTP", "return a type of your own and let api translate it")
    }

    fn driver(&self, rest: &[Token]) -> Option<Finding> {
        if self.path.starts_with(DRIVER_FOLDER) || !self.is_in(&["store"]) || self.is_beside_the_product() {
            return None;
        }
        let is_module = starts_with(rest, &["sqlx", ":", ":"])
            && group(&rest[3..]).iter().any(|token| ["sqlite", "postgres"].contains(&&*token.text));
        if !is_module && !is_driver_type(&rest[0].text) {
            return None;
        }
        let what = format!("names a database driver (`{}`)", rest[0].text);
        self.finding(&rest[0], &what, "only crates/store/src/sql does; give it a function that you call")
    }

    fn secret_comparison(&self, rest: &[Token]) -> Option<Finding> {
        let finds = !rest[0].in_test && self.is_in(&SECRET_CRATES) && compares_secret(rest);
        let remedy = "compare in constant time (`ct_eq`): what the time tells, an attacker adds up";
        if finds { self.finding(&rest[0], "compares a secret", remedy) } else { None }
    }
}

/// A secret or a hash of one beside `==` or `!=`: `secret_hash == x`, `secret_hash(p) != x`, `x == record.secret_hash`.
fn compares_secret(rest: &[Token]) -> bool {
    let is_comparison = |tokens: &[Token]| starts_with(tokens, &["=", "="]) || starts_with(tokens, &["!", "="]);
    if SECRETS.contains(&&*rest[0].text) {
        let after = &rest[1..];
        let called = after.first().is_some_and(|token| token.text == "(");
        return is_comparison(if called { &after[group(after).len()..] } else { after });
    }
    let right = rest.iter().skip(2).skip_while(|token| ["&", "*"].contains(&&*token.text));
    let mut path = right.take_while(|token| token.text == "." || is_name(&token.text));
    is_comparison(rest) && path.any(|token| SECRETS.contains(&&*token.text))
}

fn is_name(text: &str) -> bool {
    text.starts_with(|first: char| first.is_alphabetic() || first == '_')
}

/// `SqlitePool`, `PgRow` and their like.
fn is_driver_type(name: &str) -> bool {
    ["Sqlite", "Postgres", "Pg"].iter().any(|driver| {
        let rest = name.strip_prefix(driver);
        rest.is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_uppercase()))
    })
}

fn check_words(path: &str, text: &str, findings: &mut Vec<Finding>) {
    let file_name = path.rsplit('/').next().unwrap_or(path);
    // models/ and golden files are data: their words are not ours.
    if LOCK_FILES.contains(&file_name) || path.starts_with("models/") && !path.ends_with(".md") {
        return;
    }
    let hosts = REGISTRY_HOSTS.map(|parts| parts.join("."));
    let is_code = [".rs", ".py", ".ts", ".sh"].iter().any(|ending| path.ends_with(ending)) || file_name == "Makefile";
    for (index, line) in text.lines().enumerate() {
        for host in hosts.iter().filter(|host| line.contains(host.as_str())) {
            let what = format!("names the package registry {host}");
            findings.push(Finding::new(path, index + 1, what, "name the package; its client knows where to look"));
        }
        let word = UNFINISHED_WORDS.iter().find(|word| is_code && has_word(line, word));
        if let Some(word) = word {
            findings.push(Finding::new(
                path,
                index + 1,
                format!("a {word}"),
                "do it, or open an issue and delete the mark",
            ));
        }
    }
}

fn has_word(line: &str, word: &str) -> bool {
    let is_part = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    line.match_indices(word).any(|(start, _)| {
        let before = start.checked_sub(1).and_then(|index| line.as_bytes().get(index));
        !is_part(before) && !is_part(line.as_bytes().get(start + word.len()))
    })
}

#[cfg(test)]
mod tests {
    use super::super::findings_of;
    use super::*;

    /// Expects the findings' text up to the semicolon, or none.
    fn check_source(path: &str, source: &str, expected: &[&str]) {
        let found = findings_of(check, &[(path, source)]);
        let whats: Vec<&str> =
            found.iter().map(|line| line.split_once("; ").map_or(line.as_str(), |halves| halves.0)).collect();
        assert_eq!(whats, expected, "{path}: {source}");
    }

    #[test]
    fn unsafe_is_for_kernels() {
        let source = "fn f() { unsafe { g() } }";
        check_source("crates/kernels/src/lib.rs", source, &[]);
        check_source(
            "crates/model/src/lib.rs",
            source,
            &["crates/model/src/lib.rs:1: `unsafe` outside of crates/kernels"],
        );
        check_source("crates/model/src/lib.rs", "// unsafe\n#![forbid(unsafe_code)]", &[]);
    }

    #[test]
    fn lints_are_expected_never_allowed() {
        check_source("a.rs", "#[expect(dead_code, reason = \"\")] fn f() {}", &[]);
        let allowed = concat!("\n#", "[allow(dead_code)] fn f() {}");
        check_source("a.rs", allowed, &["a.rs:2: a lint silenced by `allow`"]);
        check_source("a.rs", concat!("#", "![allow(dead_code)]"), &["a.rs:1: a lint silenced by `allow`"]);
    }

    #[test]
    fn unfinished_code_is_found() {
        check_source("a.rs", concat!("fn f() { to", "do!() }"), &["a.rs:1: code that is not there"]);
        check_source("a.rs", concat!("#", "[ignore] fn f() {}"), &["a.rs:1: a test that never runs"]);
        let word = UNFINISHED_WORDS[0];
        check_source("a.py", &format!("x = 1  # {word}: y"), &[&format!("a.py:1: a {word}")]);
        check_source("a.py", &format!("PRE{word} = 1"), &[]);
    }

    #[test]
    fn the_environment_is_read_by_the_server_and_by_tests() {
        let source = "fn f() { std::env::var(\"A\"); }";
        let what = |path: &str| format!("{path}:1: reads the environment");
        check_source("crates/engine/src/lib.rs", source, &[&what("crates/engine/src/lib.rs")]);
        check_source("crates/store/src/a.rs", "use std::env::{self, vars};", &[&what("crates/store/src/a.rs")]);
        check_source("crates/engine/src/lib.rs", "fn f() { std::env::args(); }", &[]);
        check_source("crates/engine/src/lib.rs", &format!("#[cfg(test)] mod tests {{ {source} }}"), &[]);
        for path in ["crates/server/src/main.rs", "crates/engine/tests/a.rs", "crates/kernels/build.rs", "tests/a.rs"] {
            check_source(path, source, &[]);
        }
    }

    #[test]
    fn pure_crates_are_not_async() {
        let source = "async fn f() {}";
        check_source("crates/engine/src/lib.rs", source, &[]);
        let what = "crates/access/src/lib.rs:1: async code in a crate that does no I/O";
        check_source("crates/access/src/lib.rs", source, &[what]);
    }

    #[test]
    fn http_stays_in_api() {
        check_source("crates/api/src/a.rs", "use axum::Router;", &[]);
        let what = "crates/platform/src/a.rs:1: names axum";
        let found = findings_of(check, &[("crates/platform/src/a.rs", "use axum::Router;")]);
        assert!(found[0].starts_with(what), "{found:?}");
    }

    #[test]
    fn drivers_stay_in_one_folder() {
        check_source("crates/store/src/sql/sqlite.rs", "use sqlx::sqlite::SqlitePool;", &[]);
        check_source("crates/store/src/jobs.rs", "use sqlx::Row;", &[]);
        for source in ["use sqlx::{Row, sqlite};", "fn f(pool: SqlitePool) {}", "fn f(row: PgRow) {}"] {
            let found = findings_of(check, &[("crates/store/src/jobs.rs", source)]);
            assert!(found.len() == 1 && found[0].contains("names a database driver"), "{source}: {found:?}");
        }
    }

    #[test]
    fn secrets_are_compared_in_constant_time() {
        let path = "crates/access/src/caller.rs";
        check_source(path, "fn f() { bool::from(key.secret_hash(pepper).ct_eq(&record.secret_hash)) }", &[]);
        check_source(path, "#[test] fn f() { assert!(a.secret_hash == b.secret_hash) }", &[]);
        check_source(path, "fn f() -> bool { a.id == b.id && secret.len() > 3 }", &[]);
        check_source("crates/trainer/src/a.rs", "fn f() -> bool { secret == other }", &[]);
        for compared in
            ["a.secret_hash == b", "a.secret_hash(&pepper) != b", "b == record.secret_hash", "x != &self.key.secret"]
        {
            let source = format!("fn f() -> bool {{ {compared} }}");
            let found = findings_of(check, &[(path, &source)]);
            assert!(!found.is_empty() && found[0].contains("compares a secret"), "{source}: {found:?}");
        }
        let access = include_str!("../../../access/src/caller.rs");
        assert!(access.contains(".ct_eq("), "a key is checked in constant time");
    }

    #[test]
    fn registries_are_not_named() {
        let host = REGISTRY_HOSTS[1].join(".");
        let text = format!("a\nsee https://{host}/simple\n");
        check_source("README.md", &text, &[&format!("README.md:2: names the package registry {host}")]);
        check_source("Cargo.lock", &text, &[]);
    }
}
