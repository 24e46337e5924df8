//! Rust source as a flat list of tokens: no comments, no strings, each with its line and whether it is test code.

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// One token; groups are two tokens, their brackets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// An identifier, one character of punctuation, one bracket, or empty for a literal.
    pub text: String,
    /// Counted from 1.
    pub line: usize,
    /// Inside an item marked `#[cfg(test)]` or `#[test]`.
    pub in_test: bool,
}

/// The tokens of a source file; `None` where it does not lex, which the compiler reports better than we could.
pub fn tokens(source: &str) -> Option<Vec<Token>> {
    let mut out = Vec::new();
    flatten(source.parse().ok()?, false, &mut out);
    Some(out)
}

fn flatten(stream: TokenStream, in_test: bool, out: &mut Vec<Token>) {
    let trees: Vec<TokenTree> = stream.into_iter().collect();
    // The item that a test attribute marks ends with its braces or its semicolon.
    let mut in_marked_item = false;
    for (index, tree) in trees.iter().enumerate() {
        in_marked_item |= opens_test_item(&trees[index..]);
        let in_test = in_test || in_marked_item;
        let mut push = |text: String, span: proc_macro2::Span| {
            out.push(Token { text, line: span.start().line, in_test });
        };
        match tree {
            TokenTree::Ident(ident) => push(ident.to_string(), ident.span()),
            TokenTree::Literal(literal) => push(String::new(), literal.span()),
            TokenTree::Punct(punct) => {
                push(punct.as_char().to_string(), punct.span());
                in_marked_item &= punct.as_char() != ';';
            }
            TokenTree::Group(group) => {
                let (open, close) = brackets(group.delimiter());
                push(open.to_owned(), group.span_open());
                flatten(group.stream(), in_test, out);
                out.push(Token { text: close.to_owned(), line: group.span_close().start().line, in_test });
                in_marked_item &= group.delimiter() != Delimiter::Brace;
            }
        }
    }
}

fn opens_test_item(trees: &[TokenTree]) -> bool {
    let [TokenTree::Punct(hash), TokenTree::Group(attribute), ..] = trees else { return false };
    if hash.as_char() != '#' {
        return false;
    }
    let text: String = attribute.stream().to_string().split_whitespace().collect();
    text == "test" || text.ends_with("::test") || text == "cfg(test)" || text.starts_with("cfg(all(test,")
}

fn brackets(delimiter: Delimiter) -> (&'static str, &'static str) {
    match delimiter {
        Delimiter::Parenthesis => ("(", ")"),
        Delimiter::Brace => ("{", "}"),
        Delimiter::Bracket => ("[", "]"),
        Delimiter::None => ("", ""),
    }
}

/// Whether the tokens begin with these texts.
pub fn starts_with(tokens: &[Token], texts: &[&str]) -> bool {
    tokens.len() >= texts.len() && tokens.iter().zip(texts).all(|(token, text)| token.text == *text)
}

/// The tokens up to the bracket that closes the group which the first token opens, both included.
pub fn group(tokens: &[Token]) -> &[Token] {
    let mut depth = 0_usize;
    for (index, token) in tokens.iter().enumerate() {
        match token.text.as_str() {
            "(" | "{" | "[" => depth += 1,
            ")" | "}" | "]" => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return &tokens[..=index];
        }
    }
    tokens
}

/// A function with a body.
#[derive(Debug, PartialEq, Eq)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// The line of `fn`.
    pub line: usize,
    /// From `fn` to the closing brace, both included.
    pub line_count: usize,
}

/// Every function with a body, also nested ones.
pub fn functions(tokens: &[Token]) -> Vec<Function> {
    let starts = (0..tokens.len()).filter(|&index| tokens[index].text == "fn");
    starts.filter_map(|index| function_at(&tokens[index..])).collect()
}

fn function_at(tokens: &[Token]) -> Option<Function> {
    let name = &tokens.get(1)?.text;
    if !name.starts_with(|first: char| first.is_alphabetic() || first == '_') {
        return None; // a type such as `fn(u32)`, or a macro's `fn $name`
    }
    let mut index = 2;
    loop {
        match tokens.get(index)?.text.as_str() {
            ";" => return None,
            "{" => break,
            "(" | "[" => index += group(&tokens[index..]).len(),
            _ => index += 1,
        }
    }
    let close = group(&tokens[index..]).last()?;
    Some(Function { name: name.clone(), line: tokens[0].line, line_count: close.line - tokens[0].line + 1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_strings_are_not_tokens() {
        let tokens = tokens("// unsafe\n/* unsafe */ /// unsafe\nfn f() { let s = \"unsafe\"; }").expect("lexes");
        assert!(tokens.iter().all(|token| token.text != "unsafe"));
    }

    #[test]
    fn test_items_are_marked() {
        let source = "fn a() {}\n#[cfg(test)]\nmod tests { fn b() {} }\nfn c() {}\n#[test] fn d() {}\n\
                      #[cfg(test)] use e;\nfn f() {}";
        let tokens = tokens(source).expect("lexes");
        let marked: String = "abcdef"
            .chars()
            .filter(|name| tokens.iter().any(|token| token.text == name.to_string() && token.in_test))
            .collect();
        assert_eq!(marked, "bde");
    }

    #[test]
    fn functions_are_measured_from_signature_to_brace() {
        let source = "trait T { fn none(); }\nfn one(f: fn(u32)) {}\nimpl X {\n fn four(\n  a: u32,\n ) {\n  }\n}";
        let functions = functions(&tokens(source).expect("lexes"));
        let found: Vec<_> = functions.iter().map(|f| (f.name.as_str(), f.line, f.line_count)).collect();
        assert_eq!(found, [("one", 2, 1), ("four", 4, 4)]);
    }
}
