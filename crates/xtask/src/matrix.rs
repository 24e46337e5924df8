//! `docs/access-matrix.md`: every endpoint and every role, made from the OpenAPI document.

use std::fmt::Write as _;

use anyhow::{Context, bail};
use serde_json::Value;

/// The page.
pub const PATH: &str = "docs/access-matrix.md";
/// The columns: nobody, and every role that the document may name. Others come first to a tenant's, then operators.
const COLUMNS: [&str; 9] =
    ["nobody", "stranger", "invited", "reader", "service", "member", "admin", "operator", "operator acting"];
/// What the document says of an endpoint that asks for no key.
const ANYONE: &str = "anyone";

const HEAD: &str = "\
# Who may call what

Made by `cargo xtask access-matrix` from `docs/openapi.json`, whose `x-roles` the server draws from its policy
(`crates/access/src/policy.rs`). `crates/api/src/matrix.rs` says which right each endpoint asks for; an endpoint without
one fails the tests, and the attack suite sends every request with every role's key and compares.

**nobody** shows no key; **stranger** is any key of another tenant; **invited** shows the secret of an invite; **reader**, **service**, **member** and **admin** are
roles of the tenant's own keys; **operator** runs the installation; **operator acting** named the tenant in the
`OpenAI-Organization` header, which is on record. A key with scopes may less than its role, and a key of a
project sees of projects, their people and machines, of usage and of the audit trail that project's alone. A `-` is a 401 for nobody,
a 404 for a stranger, as if there were nothing, a 400 for an operator that has not said for whom, and for a key of the
tenant's own a 403 that says which role or scope it lacks: that looks nothing up, and who may do what is no secret.

";

/// The page for this document.
///
/// # Errors
/// The document is not one, or names a role without a column.
pub fn page(document: &str) -> anyhow::Result<String> {
    let document: Value = serde_json::from_str(document).context("the OpenAPI document is no JSON")?;
    let paths = document["paths"].as_object().context("the OpenAPI document has no paths")?;
    let mut page = HEAD.to_owned();
    writeln!(page, "| endpoint | {} |", COLUMNS.join(" | "))?;
    writeln!(page, "|---|{}", ":-:|".repeat(COLUMNS.len()))?;
    for (path, methods) in paths {
        for (method, operation) in methods.as_object().with_context(|| format!("{path} has no methods"))? {
            let roles = operation["x-roles"].as_array().with_context(|| format!("{method} {path} names no roles"))?;
            let roles: Vec<&str> = roles.iter().filter_map(Value::as_str).collect();
            if let Some(unknown) = roles.iter().find(|role| **role != ANYONE && !COLUMNS.contains(role)) {
                bail!("{method} {path} lets in '{unknown}', which has no column");
            }
            let mark = |column: &&str| if roles.contains(&ANYONE) || roles.contains(column) { "yes" } else { "-" };
            let marks: Vec<&str> = COLUMNS.iter().map(mark).collect();
            writeln!(page, "| `{} {path}` | {} |", method.to_uppercase(), marks.join(" | "))?;
        }
    }
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_become_marks() {
        let document =
            r#"{"paths": {"/a": {"get": {"x-roles": ["member", "admin"]}}, "/b": {"post": {"x-roles": ["anyone"]}}}}"#;
        let page = page(document).unwrap();
        assert!(page.contains("| `GET /a` | - | - | - | - | - | yes | yes | - | - |"), "{page}");
        assert!(page.contains("| `POST /b` | yes | yes | yes | yes | yes | yes | yes | yes | yes |"), "{page}");
    }

    #[test]
    fn what_the_document_lacks_is_said() {
        let refused = |document: &str| page(document).unwrap_err().to_string();
        assert!(refused(r#"{"paths": {"/a": {"get": {}}}}"#).contains("get /a names no roles"));
        assert!(refused(r#"{"paths": {"/a": {"get": {"x-roles": ["king"]}}}}"#).contains("'king'"));
    }

    #[test]
    fn the_committed_page_is_made_from_the_committed_document() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap();
        let expected = page(&read(crate::chores::OPENAPI_PATH)).unwrap();
        assert_eq!(read(PATH), expected, "run `cargo xtask access-matrix` and commit {PATH}");
    }
}
