//! Which language a source file is in, by its file name alone.

/// A language that completion places can be cut from by syntax; `Other` gets random spans.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Language {
    /// `.py`, `.pyi`
    Python,
    /// `.js`, `.mjs`, `.cjs`, `.jsx`: one grammar reads both plain and JSX files.
    JavaScript,
    /// `.ts`, `.mts`, `.cts`
    TypeScript,
    /// `.tsx`: a grammar of its own, because `<T>x` is a cast in TypeScript and a tag here.
    Tsx,
    /// `.rs`
    Rust,
    /// `.java`
    Java,
    /// `.go`
    Go,
    /// Anything else.
    Other,
}

impl Language {
    /// Every language that has a grammar.
    pub const WITH_GRAMMAR: [Language; 7] = [
        Language::Python,
        Language::JavaScript,
        Language::TypeScript,
        Language::Tsx,
        Language::Rust,
        Language::Java,
        Language::Go,
    ];

    /// By the extension of `path`, upper or lower case.
    pub fn from_path(path: &str) -> Language {
        let name = path.rsplit(['/', '\\']).next().unwrap_or(path);
        let Some((_, extension)) = name.rsplit_once('.') else { return Language::Other };
        match extension.to_ascii_lowercase().as_str() {
            "py" | "pyi" => Language::Python,
            "js" | "mjs" | "cjs" | "jsx" => Language::JavaScript,
            "ts" | "mts" | "cts" => Language::TypeScript,
            "tsx" => Language::Tsx,
            "rs" => Language::Rust,
            "java" => Language::Java,
            "go" => Language::Go,
            _ => Language::Other,
        }
    }

    /// The grammar, or `None` for `Other`.
    pub(crate) fn grammar(self) -> Option<tree_sitter::Language> {
        Some(match self {
            Language::Python => tree_sitter_python::LANGUAGE.into(),
            Language::JavaScript => tree_sitter_javascript::LANGUAGE.into(),
            Language::TypeScript => tree_sitter_typescript::LANGUAGE_TYPESCRIPT.into(),
            Language::Tsx => tree_sitter_typescript::LANGUAGE_TSX.into(),
            Language::Rust => tree_sitter_rust::LANGUAGE.into(),
            Language::Java => tree_sitter_java::LANGUAGE.into(),
            Language::Go => tree_sitter_go::LANGUAGE.into(),
            Language::Other => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn language_by_path() {
        let cases = [
            ("a/b.py", Language::Python),
            ("stubs.pyi", Language::Python),
            ("x.JS", Language::JavaScript),
            ("x.mjs", Language::JavaScript),
            ("c.ts", Language::TypeScript),
            ("c.tsx", Language::Tsx),
            ("src/lib.rs", Language::Rust),
            ("A.java", Language::Java),
            ("main.go", Language::Go),
            ("Makefile", Language::Other),
            ("dir.py/readme", Language::Other),
            ("windows\\path.rs", Language::Rust),
            ("", Language::Other),
        ];
        for (path, expected) in cases {
            assert_eq!(Language::from_path(path), expected, "{path}");
        }
    }

    #[test]
    fn every_grammar_is_accepted_by_the_parser() {
        for language in Language::WITH_GRAMMAR {
            let grammar = language.grammar().expect("listed as having one");
            tree_sitter::Parser::new().set_language(&grammar).expect("compatible version");
        }
        assert!(Language::Other.grammar().is_none());
    }
}
