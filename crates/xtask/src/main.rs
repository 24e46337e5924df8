//! The repository's own chores, run as `cargo xtask <chore>`.
//! `tidy` holds the rules that no compiler holds; the others remake the files that are made from code.
//! Nothing here is shipped.
//!
//! Layout, in reading order: [`tidy`] the rules, one file for each kind; [`chores`] everything that runs another program,
//! [`matrix`] who may call what, as a page.
//!
//! Invariants: a rule is a pure function from a [`tidy::Tree`] to findings, so that each has a test over a tree in
//! memory that violates it; the same rules run as an ordinary test over the real repository.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};

mod chores;
mod matrix;
mod tidy;

/// Chores of the Atelier repository.
#[derive(Parser)]
#[command(name = "xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Check the rules of this repository that no compiler checks
    Tidy,
    /// Remake docs/openapi.json from the server's own description of its API
    Openapi {
        /// Only compare: fail if the committed document is not what the server says
        #[arg(long)]
        check: bool,
    },
    /// Remake docs/access-matrix.md from docs/openapi.json, which the server made from its policy
    AccessMatrix {
        /// Only compare: fail if the committed matrix is not what the document says
        #[arg(long)]
        check: bool,
    },
    /// Remake the golden files of crates/model with PyTorch, transformers and PEFT
    Golden {
        /// The Python that has them installed
        #[arg(long, default_value = "python3")]
        python: PathBuf,
    },
    /// Run the benchmark; arguments are handed on to atelier-bench
    Bench {
        /// Arguments of atelier-bench
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

fn main() -> anyhow::Result<ExitCode> {
    let root = repository_root()?;
    match Cli::parse().chore {
        Chore::Tidy => report_tidy(&root),
        Chore::Openapi { check } => chores::openapi(&root, check),
        Chore::AccessMatrix { check } => chores::access_matrix(&root, check),
        Chore::Golden { python } => chores::golden(&root, &python),
        Chore::Bench { arguments } => chores::bench(&root, &arguments),
    }
}

fn repository_root() -> anyhow::Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.canonicalize().with_context(|| format!("no repository root at {}", root.display()))
}

fn report_tidy(root: &Path) -> anyhow::Result<ExitCode> {
    let report = tidy::check(&tidy::Tree::read(root)?);
    let mut out = std::io::stdout().lock();
    for finding in &report.findings {
        writeln!(out, "{finding}")?;
    }
    for note in &report.notes {
        writeln!(out, "note: {note}")?;
    }
    writeln!(out, "tidy: {} findings", report.findings.len())?;
    Ok(if report.findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repository_is_tidy() {
        let root = repository_root().expect("the crate lies in the repository");
        let report = tidy::check(&tidy::Tree::read(&root).expect("the repository can be read"));
        let lines: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
        assert!(lines.is_empty(), "\n{}", lines.join("\n"));
    }

    #[test]
    fn command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
