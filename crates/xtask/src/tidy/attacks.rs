//! The attack suite's table: every case of it has a row, every test that a row names exists, and every test that is
//! named after a case stands in the table.

use std::collections::BTreeSet;

use super::{Finding, Tree};

/// The table.
const TABLE_PATH: &str = "docs/attack-suite.md";
/// Cases that the suite has.
const CASES: usize = 46;
/// What a test's name begins with when it is one of the suite's.
const CASE_PREFIX: &str = "case_";

/// Holds the table against the sources.
pub fn check(tree: &Tree, findings: &mut Vec<Finding>) {
    let Some(table) = tree.text(TABLE_PATH) else { return };
    let mut numbers = BTreeSet::new();
    let mut named = BTreeSet::new();
    for (line, cells) in rows(table) {
        let held_by = cells.last().copied().unwrap_or_default();
        if let Some(number) = cells.first().and_then(|cell| cell.parse::<usize>().ok()) {
            if !(1..=CASES).contains(&number) || !numbers.insert(number) {
                findings.push(Finding::new(TABLE_PATH, line, format!("case {number}"), "give each case one row"));
            }
            if held_by.is_empty() {
                let what = format!("case {number} has neither a test nor a reason");
                let remedy = "name the test, or say why the case does not apply";
                findings.push(Finding::new(TABLE_PATH, line, what, remedy));
            }
        }
        for (folder, test) in tests(held_by) {
            let has_it = |(path, text): (&str, &str)| path.starts_with(&format!("{folder}/")) && defines(text, test);
            if !tree.texts_ending(".rs").any(has_it) {
                let what = format!("no test `{test}` under {folder}");
                findings.push(Finding::new(TABLE_PATH, line, what, "name what exists, or make it"));
            }
            named.insert(test);
        }
    }
    for missing in (1..=CASES).filter(|number| !numbers.contains(number)) {
        findings.push(Finding::new(TABLE_PATH, 1, format!("no row for case {missing}"), "give each case one row"));
    }
    for (path, text) in tree.texts_ending(".rs") {
        for (line, test) in case_tests(text).filter(|(_, test)| !named.contains(test)) {
            let what = format!("`{test}` stands in no row of {TABLE_PATH}");
            findings.push(Finding::new(path, line, what, "add it to its case's row"));
        }
    }
}

/// The rows of all tables in a document: their lines, counted from 1, and their cells.
fn rows(text: &str) -> impl Iterator<Item = (usize, Vec<&str>)> {
    text.lines().enumerate().filter_map(|(index, line)| {
        let inside = line.trim().strip_prefix('|')?.strip_suffix('|')?;
        Some((index + 1, inside.split('|').map(str::trim).collect()))
    })
}

/// The tests that a cell names, as `folder::test` between backticks.
fn tests(cell: &str) -> impl Iterator<Item = (&str, &str)> {
    cell.split('`').skip(1).step_by(2).filter_map(|name| name.split_once("::"))
}

/// Whether a source defines a function of this name.
fn defines(text: &str, name: &str) -> bool {
    text.match_indices(name).any(|(at, _)| {
        let ends = !text[at + name.len()..].starts_with(|next: char| next.is_alphanumeric() || next == '_');
        text[..at].ends_with("fn ") && ends
    })
}

/// Functions of a source that are named after a case, with their lines.
fn case_tests(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().filter_map(|(index, line)| {
        let (_, name) = line.split_once("fn ").filter(|(before, _)| ["", "async "].contains(&before.trim_start()))?;
        let name = name.split('(').next()?;
        let number = name.strip_prefix(CASE_PREFIX)?;
        number.starts_with(|first: char| first.is_ascii_digit()).then_some((index + 1, name))
    })
}

#[cfg(test)]
mod tests {
    use super::super::findings_of;
    use super::*;

    fn table(first_row: &str) -> String {
        let others: String = (2..=CASES).map(|number| format!("| {number} | attack | not ours |\n")).collect();
        format!("| # | attack | held by |\n|---|---|---|\n{first_row}\n{others}")
    }

    #[test]
    fn rows_and_tests_belong_together() {
        let whole = table("| 1 | reading | `crates/a::case_01_reads`, `tests::told` |");
        let sources = ("crates/a/src/a.rs", "    async fn case_01_reads() {}");
        let told = ("tests/b.rs", "fn told(world: World) {}");
        assert_eq!(findings_of(check, &[(TABLE_PATH, &whole), sources, told]), [] as [&str; 0]);
        assert_eq!(findings_of(check, &[sources]), [] as [&str; 0], "a repository without a suite");
    }

    #[test]
    fn what_is_missing_is_said() {
        let lost = table("| 1 | reading | `crates/a::case_01_reads` |");
        let said = findings_of(check, &[(TABLE_PATH, &lost), ("crates/a/src/a.rs", "fn case_01_reads_not() {}")]);
        assert_eq!(said.len(), 2, "{said:#?}");
        assert!(said[0].contains("`case_01_reads_not` stands in no row"), "{said:#?}");
        assert!(said[1].contains("no test `case_01_reads` under crates/a"), "{said:#?}");
        let empty = table("| 1 | reading | |");
        assert!(findings_of(check, &[(TABLE_PATH, &empty)])[0].contains("neither a test nor a reason"));
        let twice = table("| 1 | reading | no |\n| 1 | again | no |");
        assert!(findings_of(check, &[(TABLE_PATH, &twice)])[0].contains("one row"));
        let none = table("no table here");
        assert!(findings_of(check, &[(TABLE_PATH, &none)])[0].contains("no row for case 1"));
    }
}
