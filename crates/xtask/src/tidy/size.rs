//! How long a file and a function may be.

use super::rust_tokens::{functions, tokens};
use super::{Finding, Tree};

/// Lines of one source file. What is longer holds more than one resource or verb.
const FILE_LINES_MAX: usize = 1_000;
/// Endings of the files that the limit holds for.
const MEASURED_ENDINGS: [&str; 4] = [".rs", ".ts", ".py", ".sh"];
/// Lines of one function, from signature to closing brace: what one screen shows.
const FUNCTION_LINES_MAX: usize = 70;
/// A ratchet: so many functions are longer today. Lower it when there are fewer, never raise it.
const LONG_FUNCTIONS_MAX: usize = 0;

/// Holds every source file against the limits.
pub fn check(tree: &Tree, findings: &mut Vec<Finding>, notes: &mut Vec<String>) {
    check_files(tree, findings);
    check_functions(tree, LONG_FUNCTIONS_MAX, findings, notes);
}

fn check_files(tree: &Tree, findings: &mut Vec<Finding>) {
    for (path, text) in tree.texts() {
        let line_count = text.lines().count();
        if line_count > FILE_LINES_MAX && MEASURED_ENDINGS.iter().any(|ending| path.ends_with(ending)) {
            let what = format!("{line_count} lines, of {FILE_LINES_MAX} allowed");
            findings.push(Finding::new(path, FILE_LINES_MAX + 1, what, "split it by resource or by verb"));
        }
    }
}

fn check_functions(tree: &Tree, long_max: usize, findings: &mut Vec<Finding>, notes: &mut Vec<String>) {
    let mut long = Vec::new();
    for (path, text) in tree.texts_ending(".rs") {
        let Some(tokens) = tokens(text) else { continue };
        for function in functions(&tokens).iter().filter(|function| function.line_count > FUNCTION_LINES_MAX) {
            let what =
                format!("`{}` has {} lines, of {FUNCTION_LINES_MAX} allowed", function.name, function.line_count);
            let remedy = "keep the decisions, move the loops into helpers";
            long.push(Finding::new(path, function.line, what, remedy));
        }
    }
    if long.len() > long_max {
        findings.extend(long);
    } else if long.len() < long_max {
        notes.push(format!("{} functions are long, {long_max} may be: lower LONG_FUNCTIONS_MAX", long.len()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_files_are_found_where_a_person_wrote_them() {
        let long = "x\n".repeat(FILE_LINES_MAX + 1);
        let allowed = "x\n".repeat(FILE_LINES_MAX);
        let files = [("a.py", long.as_str()), ("b.json", long.as_str()), ("c.rs", allowed.as_str())];
        let found = super::super::findings_of(check_files, &files);
        assert_eq!(found, ["a.py:1001: 1001 lines, of 1000 allowed; split it by resource or by verb"]);
    }

    #[test]
    fn the_ratchet_lets_through_as_many_long_functions_as_it_says() {
        let long = format!("fn long() {{\n{}}}\nfn short() {{}}\n", "    work();\n".repeat(FUNCTION_LINES_MAX));
        let tree = Tree::from_files(&[("crates/model/src/lib.rs", &long)]);
        let count = |long_max| {
            let (mut findings, mut notes) = (Vec::new(), Vec::new());
            check_functions(&tree, long_max, &mut findings, &mut notes);
            (findings.len(), notes.len())
        };
        assert_eq!([count(0), count(1), count(2)], [(1, 0), (0, 0), (0, 1)]);
    }
}
