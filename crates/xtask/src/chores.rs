//! Chores that run another program: the server's own description, the golden files, the benchmark.

use std::io::Write;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, bail};

use crate::matrix;

/// The API's description; committed, so that a change of the wire shows in review and clients can be generated from it.
pub const OPENAPI_PATH: &str = "docs/openapi.json";
/// Writes the golden files next to itself.
const GOLDEN_SCRIPT_PATH: &str = "crates/model/golden/make.py";

/// Writes the OpenAPI document, or with `check` only compares it.
pub fn openapi(root: &Path, check: bool) -> anyhow::Result<ExitCode> {
    let output = cargo(root, &["run", "--quiet", "--package", "atelier-server", "--bin", "atelier", "--", "openapi"])
        .stderr(std::process::Stdio::inherit())
        .output()
        .context("cargo does not start")?;
    if !output.status.success() {
        bail!("`atelier openapi` failed: {}", output.status);
    }
    made(root, OPENAPI_PATH, &output.stdout, "openapi", check)
}

/// Writes the access matrix, or with `check` only compares it.
pub fn access_matrix(root: &Path, check: bool) -> anyhow::Result<ExitCode> {
    let document = std::fs::read_to_string(root.join(OPENAPI_PATH)).context("cannot read the OpenAPI document")?;
    made(root, matrix::PATH, matrix::page(&document)?.as_bytes(), "access-matrix", check)
}

/// Writes a file that is made by a chore, or with `check` only compares it.
fn made(root: &Path, name: &str, content: &[u8], chore: &str, check: bool) -> anyhow::Result<ExitCode> {
    let path = root.join(name);
    if std::fs::read(&path).unwrap_or_default() == content {
        say(&format!("{name} is up to date"))?;
        return Ok(ExitCode::SUCCESS);
    }
    if check {
        say(&format!("{name}: differs from what it is made from; run `cargo xtask {chore}` and commit it"))?;
        return Ok(ExitCode::FAILURE);
    }
    std::fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
    say(&format!("{name} written; read the difference before you commit it"))?;
    Ok(ExitCode::SUCCESS)
}

/// Remakes the golden files with the Python given.
pub fn golden(root: &Path, python: &Path) -> anyhow::Result<ExitCode> {
    say(&format!(
        "Golden files are what the reference implementation computes: logits of each family, the loss and every LoRA\n\
         gradient. They need torch, transformers and peft in the Python that you name (--python PATH); the versions\n\
         that made the committed files stand at the top of {GOLDEN_SCRIPT_PATH}. Tests only read the files."
    ))?;
    let mut script = Command::new(python);
    script.arg(GOLDEN_SCRIPT_PATH).current_dir(root);
    run(script)
}

/// Runs the benchmark in the release profile.
pub fn bench(root: &Path, arguments: &[String]) -> anyhow::Result<ExitCode> {
    let mut bench = cargo(root, &["run", "--release", "--package", "atelier-bench", "--"]);
    bench.args(arguments);
    run(bench)
}

fn cargo(root: &Path, arguments: &[&str]) -> Command {
    // Set by cargo itself when it runs us: the same cargo, whatever is first on the path.
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.args(arguments).current_dir(root);
    command
}

fn run(mut command: Command) -> anyhow::Result<ExitCode> {
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command.status().with_context(|| format!("{program} does not start"))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn say(line: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{line}")?;
    Ok(())
}
