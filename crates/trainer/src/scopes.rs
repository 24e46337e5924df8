//! Places where a person would ask for a completion: spans of a file that end where a thought ends.
//!
//! Syntax comes from tree-sitter where there is a grammar; every file also has its next lines. Cost is bounded
//! by bytes and by parser work, not by the clock: a clock would make the samples, and so the adapter, depend
//! on how busy the machine was.

use std::ops::{ControlFlow, Range};

use tree_sitter::{Node, ParseOptions, Parser, Tree};

use crate::language::Language;

/// Bytes of the largest file that is parsed; a larger one is nearly always generated, and gets lines and
/// random spans only.
pub const PARSE_BYTES_MAX: usize = 256 * 1024;

/// Progress reports (one per hundred parser operations) before a parse is given up. Ordinary code needs
/// about one per 60 bytes; text that makes the parser branch without end stops here, within about a second.
pub const PARSE_REPORTS_MAX: usize = 40_000;

/// Bytes of the longest span that is kept: many times the longest completion, so nothing useful is lost,
/// and a list of scopes stays small.
pub const SCOPE_BYTES_MAX: usize = 4 * 1024;

/// What a span is in the syntax of its language.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ScopeKind {
    /// One statement or declaration.
    Statement,
    /// What stands between the parentheses of a call.
    Arguments,
    /// The body of a function, without its braces.
    Body,
    /// Any other block, without its braces.
    Block,
    /// A line from its first character that is not white space to its end.
    Line,
}

impl ScopeKind {
    /// Every kind, in the order of `kind as usize`.
    pub const ALL: [ScopeKind; 5] =
        [ScopeKind::Statement, ScopeKind::Arguments, ScopeKind::Body, ScopeKind::Block, ScopeKind::Line];
}

/// A span of a file's text, in bytes, on character boundaries, never empty or blank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// What it is.
    pub kind: ScopeKind,
    /// Where it is.
    pub range: Range<usize>,
}

/// Every scope of `text`, by start, then end, then kind.
pub fn scopes(text: &str, language: Language) -> Vec<Scope> {
    let mut found = line_scopes(text);
    if let Some(tree) = parse(text, language) {
        collect(&tree, text, &mut found);
    }
    found.sort_by_key(|scope| (scope.range.start, scope.range.end, scope.kind));
    found.dedup();
    found
}

fn line_scopes(text: &str) -> Vec<Scope> {
    let mut found = Vec::new();
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        push_trimmed(&mut found, text, ScopeKind::Line, start..start + line.len());
        start += line.len();
    }
    found
}

fn parse(text: &str, language: Language) -> Option<Tree> {
    if text.len() > PARSE_BYTES_MAX {
        return None;
    }
    let mut parser = Parser::new();
    parser.set_language(&language.grammar()?).ok()?;
    let bytes = text.as_bytes();
    let mut reports = 0;
    let mut within_budget = |_: &tree_sitter::ParseState| {
        reports += 1;
        if reports > PARSE_REPORTS_MAX { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let options = ParseOptions::new().progress_callback(&mut within_budget);
    parser.parse_with_options(&mut |offset, _| bytes.get(offset..).unwrap_or_default(), None, Some(options))
}

/// Walks the tree without recursion, and with the kinds of the nodes above at hand: a tree's depth is under the
/// control of whoever wrote the file, and asking a node for its parent walks down from the root.
fn collect(tree: &Tree, text: &str, found: &mut Vec<Scope>) {
    let mut cursor = tree.walk();
    let mut above: Vec<&str> = Vec::new();
    loop {
        let node = cursor.node();
        if let Some((kind, range)) = scope_of(node, above.last().copied().unwrap_or_default()) {
            push_trimmed(found, text, kind, range);
        }
        if !node.is_error() && cursor.goto_first_child() {
            above.push(node.kind());
            continue;
        }
        while !cursor.goto_next_sibling() {
            if !cursor.goto_parent() {
                return;
            }
            above.pop();
        }
    }
}

/// What a node under a node of kind `parent` is to a person who types, across the grammars we ship; they agree on most names.
fn scope_of(node: Node<'_>, parent: &str) -> Option<(ScopeKind, Range<usize>)> {
    if !node.is_named() || node.is_missing() || node.is_error() {
        return None;
    }
    match node.kind() {
        "argument_list" | "arguments" => Some((ScopeKind::Arguments, inside(node))),
        "block" | "statement_block" | "constructor_body" | "function_body" => {
            Some((if is_function(parent) { ScopeKind::Body } else { ScopeKind::Block }, inside(node)))
        }
        "class_body"
        | "declaration_list"
        | "field_declaration_list"
        | "match_block"
        | "switch_body"
        | "switch_block"
        | "interface_body"
        | "enum_body" => Some((ScopeKind::Block, inside(node))),
        kind if kind.contains("comment") => None,
        kind if is_statement(kind) || holds_statements(parent) => Some((ScopeKind::Statement, node.byte_range())),
        _ => None,
    }
}

fn is_function(kind: &str) -> bool {
    kind.contains("function")
        || kind.contains("method")
        || kind.contains("constructor")
        || matches!(kind, "closure_expression" | "lambda_expression" | "func_literal")
}

fn is_statement(kind: &str) -> bool {
    kind.ends_with("_statement") || matches!(kind, "let_declaration" | "lexical_declaration" | "variable_declaration")
}

/// Nodes whose named children are statements or items.
fn holds_statements(kind: &str) -> bool {
    matches!(
        kind,
        "module" | "program" | "source_file" | "block" | "statement_block" | "statement_list" | "constructor_body"
    )
}

/// A node's text without its brackets, if it has them (a Python block has none).
fn inside(node: Node<'_>) -> Range<usize> {
    let range = node.byte_range();
    let count = node.child_count();
    let is_bracket =
        |index: u32, brackets: [&str; 2]| node.child(index).is_some_and(|child| brackets.contains(&child.kind()));
    if count >= 2 && is_bracket(0, ["(", "{"]) && is_bracket(count - 1, [")", "}"]) {
        range.start + 1..range.end - 1
    } else {
        range
    }
}

fn push_trimmed(found: &mut Vec<Scope>, text: &str, kind: ScopeKind, range: Range<usize>) {
    let Some(span) = text.get(range.clone()) else { return };
    let start = range.end - span.trim_start().len();
    let end = range.start + span.trim_end().len();
    if start < end && end - start <= SCOPE_BYTES_MAX {
        found.push(Scope { kind, range: start..end });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(language: Language, text: &str, kind: ScopeKind, expected: &[&str]) {
        let found: Vec<&str> = scopes(text, language)
            .into_iter()
            .filter(|scope| scope.kind == kind)
            .map(|scope| &text[scope.range])
            .collect();
        assert_eq!(found, expected, "{language:?} {kind:?} in {text:?}");
    }

    #[test]
    fn python() {
        let text = "def area(w, h):\n    size = mul(w, h)\n    return size\n\nif ready:\n    go(1)\n";
        check(Language::Python, text, ScopeKind::Body, &["size = mul(w, h)\n    return size"]);
        check(Language::Python, text, ScopeKind::Block, &["go(1)"]);
        check(Language::Python, text, ScopeKind::Arguments, &["w, h", "1"]);
        check(
            Language::Python,
            text,
            ScopeKind::Statement,
            &[
                "def area(w, h):\n    size = mul(w, h)\n    return size",
                "size = mul(w, h)",
                "return size",
                "if ready:\n    go(1)",
                "go(1)",
            ],
        );
        check(
            Language::Python,
            text,
            ScopeKind::Line,
            &["def area(w, h):", "size = mul(w, h)", "return size", "if ready:", "go(1)"],
        );
    }

    #[test]
    fn javascript_and_typescript() {
        let text = "function f(a) {\n  if (a) { g(a, 2); }\n  return () => { h(); };\n}\n";
        for language in [Language::JavaScript, Language::TypeScript, Language::Tsx] {
            check(language, text, ScopeKind::Arguments, &["a, 2"]);
            check(language, text, ScopeKind::Body, &["if (a) { g(a, 2); }\n  return () => { h(); };", "h();"]);
            check(language, text, ScopeKind::Block, &["g(a, 2);"]);
        }
        let typed = "const x: Map<string, number> = make<string>(1 as any);\n";
        check(Language::TypeScript, typed, ScopeKind::Statement, &[typed.trim_end()]);
        check(Language::TypeScript, typed, ScopeKind::Arguments, &["1 as any"]);
        let tag = "const view = <Card title={name(1)}>text</Card>;\n";
        check(Language::Tsx, tag, ScopeKind::Arguments, &["1"]);
    }

    #[test]
    fn rust() {
        let text = "impl A { fn f(&self) -> u8 { let x = g(1, 2); x } }\n";
        check(Language::Rust, text, ScopeKind::Body, &["let x = g(1, 2); x"]);
        check(Language::Rust, text, ScopeKind::Arguments, &["1, 2"]);
        check(
            Language::Rust,
            text,
            ScopeKind::Statement,
            &["impl A { fn f(&self) -> u8 { let x = g(1, 2); x } }", "let x = g(1, 2);", "x"],
        );
        check(Language::Rust, text, ScopeKind::Block, &["fn f(&self) -> u8 { let x = g(1, 2); x }"]);
    }

    #[test]
    fn java() {
        let text = "class A {\n  int f(int a) {\n    if (a > 0) { return g(a); }\n    return 0;\n  }\n}\n";
        check(Language::Java, text, ScopeKind::Body, &["if (a > 0) { return g(a); }\n    return 0;"]);
        check(Language::Java, text, ScopeKind::Arguments, &["a"]);
    }

    #[test]
    fn go() {
        let text = "package a\n\nfunc F(n int) int {\n\tx := g(n, 1)\n\tif x > 0 {\n\t\treturn x\n\t}\n\treturn 0\n}\n";
        check(Language::Go, text, ScopeKind::Body, &["x := g(n, 1)\n\tif x > 0 {\n\t\treturn x\n\t}\n\treturn 0"]);
        check(Language::Go, text, ScopeKind::Block, &["return x"]);
        check(Language::Go, text, ScopeKind::Arguments, &["n, 1"]);
    }

    #[test]
    fn other_files_have_lines_only() {
        let text = "first line\n\n   second\nlast without newline";
        let found = scopes(text, Language::Other);
        assert!(found.iter().all(|scope| scope.kind == ScopeKind::Line));
        check(Language::Other, text, ScopeKind::Line, &["first line", "second", "last without newline"]);
        assert!(scopes("", Language::Other).is_empty());
    }

    #[test]
    fn broken_and_hostile_text_stays_bounded() {
        let deep = "(".repeat(100_000);
        let nested = format!("{}x{}", "f(".repeat(5_000), ")".repeat(5_000));
        let large = "x = 1\n".repeat(PARSE_BYTES_MAX / 6 + 1);
        let wide = "é = \"ü\"\n".repeat(50);
        for language in Language::WITH_GRAMMAR {
            for text in [deep.as_str(), nested.as_str(), "def f(:\n  ][", "\u{0}\u{feff}{{{", wide.as_str()] {
                for scope in scopes(text, language) {
                    assert!(text.is_char_boundary(scope.range.start) && text.is_char_boundary(scope.range.end));
                    assert!(!text[scope.range].trim().is_empty());
                }
            }
        }
        assert!(scopes(&large, Language::Python).iter().all(|scope| scope.kind == ScopeKind::Line));
    }
}
