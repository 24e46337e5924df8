//! The unmodified OpenAI client for Python against our server: `openai_client.py` says what it does.

use std::process::Command;

use crate::support::{Style, World, archive_of, quick, shipped_base};

/// Names the Python that has the client; `scripts/test.sh` makes one.
const PYTHON: &str = "ATELIER_TEST_PYTHON";

#[test]
fn the_openai_client_works_unmodified() {
    let Some(python) = std::env::var_os(PYTHON).filter(|python| !python.is_empty()) else {
        assert!(std::env::var_os("CI").is_none(), "{PYTHON} is not set: run the tests by scripts/test.sh");
        eprintln!("SKIPPED: {PYTHON} is not set, so the OpenAI client was not tried. `make test` tries it.");
        return;
    };
    let world = World::start();
    let (acme, other) = (world.tenant("acme", "tuned"), world.tenant("other", "tuned"));
    let run = world.learn(&other, &archive_of(Style::Gated, 14), quick());
    assert_eq!(run["status"], "live", "{run:#}\n{}", world.log());
    let foreign = other.get("/v1/versions").ok()["data"][0]["id"].as_str().unwrap().to_owned();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/openai_client.py");
    let output = Command::new(python)
        .arg(script)
        .env_clear()
        .env("OPENAI_BASE_URL", format!("{}/v1", world.url()))
        .env("OPENAI_API_KEY", acme.key())
        .env("OPENAI_ADMIN_KEY", acme.key())
        .env("FOREIGN_MODEL", foreign)
        .env("TOKENIZER_FILE", shipped_base().join("tokenizer.json"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{complained}\n{}", world.log());
    assert!(said.trim_end().ends_with("all good"), "{said}{complained}");
}
