//! The rules of this repository that no compiler checks.
//!
//! Layout, in reading order: [`tree`] what is checked, [`rust_tokens`] Rust source as a flat list of tokens,
//! [`crates`] which crate may depend on which, [`sources`] what code may not contain, [`size`] how long a file and a
//! function may be, [`clap_source`] and [`commands`] what can be typed, [`documents`] whether what documents name exists,
//! [`attacks`] whether every attack has its test.

use std::fmt;

mod attacks;
mod clap_source;
mod commands;
mod crates;
mod documents;
mod rust_tokens;
mod size;
mod sources;
mod tree;

pub use tree::Tree;

/// One violated rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// Relative to the repository's root.
    pub path: String,
    /// Counted from 1.
    pub line: usize,
    /// What is there.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

impl Finding {
    /// A finding at a line of a file.
    pub fn new(path: &str, line: usize, what: impl Into<String>, remedy: impl Into<String>) -> Finding {
        Finding { path: path.to_owned(), line, what: what.into(), remedy: remedy.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}; {}", self.path, self.line, self.what, self.remedy)
    }
}

/// What the rules found.
pub struct Report {
    /// Violations, in the order of paths and lines.
    pub findings: Vec<Finding>,
    /// What is worth knowing and fails nothing.
    pub notes: Vec<String>,
}

/// Holds a tree against every rule.
pub fn check(tree: &Tree) -> Report {
    let mut findings = Vec::new();
    let mut notes = Vec::new();
    crates::check(tree, &mut findings);
    sources::check(tree, &mut findings);
    size::check(tree, &mut findings, &mut notes);
    documents::check(tree, &mut findings);
    attacks::check(tree, &mut findings);
    findings.sort();
    findings.dedup();
    Report { findings, notes }
}

/// The one test helper of the rules: what `rule` says about a tree, one finding a line.
#[cfg(test)]
fn findings_of(rule: impl Fn(&Tree, &mut Vec<Finding>), files: &[(&str, &str)]) -> Vec<String> {
    let mut findings = Vec::new();
    rule(&Tree::from_files(files), &mut findings);
    findings.sort();
    findings.iter().map(ToString::to_string).collect()
}
