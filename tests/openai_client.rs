//! The unmodified OpenAI client for Python against our server: `openai_client.py` says what it does as a user's, and
//! `openai_admin.py` as the admin client of a tenant.

use std::process::Command;

use crate::support::{Style, User, World, archive_of, quick, shipped_base};

/// Names the Python that has the client; `scripts/test.sh` makes one.
const PYTHON: &str = "ATELIER_TEST_PYTHON";

/// Runs a script of this folder as the admin of a tenant; false where there is no Python to run it.
fn run(script: &str, world: &World, admin: &User, variables: &[(&str, String)]) -> bool {
    let Some(python) = std::env::var_os(PYTHON).filter(|python| !python.is_empty()) else {
        assert!(std::env::var_os("CI").is_none(), "{PYTHON} is not set: run the tests by scripts/test.sh");
        eprintln!("SKIPPED: {PYTHON} is not set, so the OpenAI client was not tried. `make test` tries it.");
        return false;
    };
    let output = Command::new(python)
        .arg(format!("{}/../../tests/{script}", env!("CARGO_MANIFEST_DIR")))
        .env_clear()
        .env("OPENAI_BASE_URL", format!("{}/v1", world.url()))
        .env("OPENAI_API_KEY", admin.key())
        .env("OPENAI_ADMIN_KEY", admin.key())
        .envs(variables.iter().map(|(name, value)| (*name, value.as_str())))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{complained}\n{}", world.log());
    assert!(said.trim_end().ends_with("all good"), "{said}{complained}");
    true
}

#[test]
fn the_openai_client_works_unmodified() {
    let world = World::start();
    let (acme, other) = (world.tenant("acme", "tuned"), world.tenant("other", "tuned"));
    let run_of_other = world.learn(&other, &archive_of(Style::Gated, 14), quick());
    assert_eq!(run_of_other["status"], "live", "{run_of_other:#}\n{}", world.log());
    let foreign = other.get("/v1/versions").ok()["data"][0]["id"].as_str().unwrap().to_owned();
    let tokenizer = shipped_base().join("tokenizer.json").display().to_string();
    run("openai_client.py", &world, &acme, &[("FOREIGN_MODEL", foreign), ("TOKENIZER_FILE", tokenizer)]);
}

#[test]
fn the_openai_client_is_the_admin_client_of_a_tenant() {
    let world = World::start_with(&["--workers", "0"], &[]);
    let (acme, other) = (world.tenant("acme", "shared"), world.tenant("other", "shared"));
    if run("openai_admin.py", &world, &acme, &[]) {
        let theirs = other.get("/v1/organization/projects").ok()["data"].as_array().unwrap().len();
        assert_eq!(theirs, 1, "another tenant has its default project and no more");
        assert_eq!(other.get("/v1/organization/users").ok()["data"], serde_json::json!([]));
    }
}
