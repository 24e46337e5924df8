//! Whether what the documents name exists: paths, commands, crates, and the files that links point to.

use std::collections::BTreeSet;

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

use super::commands::Commands;
use super::{Finding, Tree};

/// Fences whose lines are typed into a shell; the empty one is a fence without a language.
const SHELL_LANGUAGES: [&str; 5] = ["sh", "bash", "shell", "console", ""];
/// A name with a slash and such an ending claims to be a file of ours.
const FILE_ENDINGS: [&str; 8] = [".rs", ".md", ".py", ".sh", ".sql", ".toml", ".ts", ".json"];
/// Without a slash only these do: `config.json` and their like are names of formats.
const BARE_FILE_ENDINGS: [&str; 4] = [".rs", ".md", ".sh", ".sql"];
/// Programs whose arguments are held against what exists.
const PROGRAMS: [&str; 3] = ["make", "cargo", "atelier"];
/// What every finding here asks for.
const REMEDY: &str = "name what exists, or make it";

/// Holds every Markdown document against the tree.
pub fn check(tree: &Tree, findings: &mut Vec<Finding>) {
    let commands = Commands::read(tree);
    let ignored = ignored_names(tree.text(".gitignore").unwrap_or_default());
    for (path, text) in tree.texts_ending(".md") {
        Document { tree, commands: &commands, ignored: &ignored, path, findings }.check(text);
    }
}

/// Plain names in the ignore file: build outputs and data that documents name and that no clone has.
fn ignored_names(gitignore: &str) -> BTreeSet<&str> {
    gitignore.lines().map(|line| line.trim().trim_matches('/')).filter(|name| !name.is_empty()).collect()
}

struct Document<'a> {
    tree: &'a Tree,
    commands: &'a Commands,
    ignored: &'a BTreeSet<&'a str>,
    path: &'a str,
    findings: &'a mut Vec<Finding>,
}

/// Lines of one fenced block with their numbers.
struct Fence {
    language: String,
    lines: Vec<(usize, String)>,
}

impl Document<'_> {
    fn check(&mut self, text: &str) {
        let starts: Vec<usize> =
            std::iter::once(0).chain(text.match_indices('\n').map(|(index, _)| index + 1)).collect();
        let mut fence: Option<Fence> = None;
        for (event, range) in Parser::new_ext(text, Options::ENABLE_TABLES).into_offset_iter() {
            let line = starts.partition_point(|start| *start <= range.start);
            match event {
                Event::Code(code) => self.check_span(line, &code),
                Event::Start(Tag::CodeBlock(kind)) => {
                    fence = Some(Fence { language: language(&kind), lines: Vec::new() })
                }
                Event::Text(text) => {
                    let Some(fence) = &mut fence else { continue };
                    let lines = text.lines().enumerate();
                    fence.lines.extend(lines.map(|(index, text)| (line + index, text.to_owned())));
                }
                Event::End(TagEnd::CodeBlock) => self.check_fence(&fence.take().expect("a block that ends has begun")),
                Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                    self.check_link(line, &dest_url)
                }
                _ => {}
            }
        }
    }

    fn find(&mut self, line: usize, what: String) {
        self.findings.push(Finding::new(self.path, line, what, REMEDY));
    }

    fn check_span(&mut self, line: usize, code: &str) {
        let words = shell_words(code);
        match words.as_slice() {
            [word] => {
                self.check_path(line, word, Claim::AnyFileName);
                self.check_crate_name(line, word);
            }
            words => {
                self.check_command(line, words);
                for word in words {
                    self.check_path(line, word, Claim::FolderOfOurs);
                }
            }
        }
    }

    fn check_fence(&mut self, fence: &Fence) {
        for (line, text) in &fence.lines {
            for word in text.split(|letter: char| letter.is_whitespace() || "\"'`()[]<>=,:;".contains(letter)) {
                self.check_path(*line, word, Claim::FolderOfOurs);
            }
        }
        if SHELL_LANGUAGES.contains(&fence.language.as_str()) {
            for (line, text) in joined_lines(&fence.lines) {
                for command in shell_words(&text).split(|word| ["|", "||", "&&", ";", "&"].contains(&word.as_str())) {
                    self.check_command(line, command);
                }
            }
        }
    }

    fn check_command(&mut self, line: usize, words: &[String]) {
        let is_prefix = |word: &String| word == "$" || word.contains('=') && !word.starts_with('-');
        let words = &words[words.iter().take_while(|word| is_prefix(word)).count()..];
        let Some(program) = words.first() else { return };
        let is_ours =
            PROGRAMS.contains(&program.as_str()) || program.contains("target/") || program.starts_with("atelier-");
        if is_ours && let Err(what) = self.commands.check(words) {
            self.find(line, format!("`{}`: {what}", words.join(" ")));
        }
    }

    fn check_crate_name(&mut self, line: usize, word: &str) {
        let is_name = |text: &str| text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
        let is_claim = word.strip_prefix("atelier-").is_some_and(|rest| !rest.is_empty() && is_name(rest));
        let exists =
            self.commands.is_ours(word) || self.ignored.contains(word) || self.tree.contains(&format!("models/{word}"));
        if is_claim && !exists {
            self.find(line, format!("there is no crate, binary or model `{word}`"));
        }
    }

    fn check_path(&mut self, line: usize, word: &str, claim: Claim) {
        for path in path_claims(word) {
            let first = path.split('/').next().unwrap_or_default();
            let is_claim = match claim {
                Claim::FolderOfOurs => path.contains('/') && self.tree.contains(first),
                Claim::AnyFileName => self.claims_file(&path, first),
            };
            if is_claim && !self.ignored.contains(first) && !self.exists(&path) {
                self.find(line, format!("there is no `{path}`"));
            }
        }
    }

    fn claims_file(&self, path: &str, first: &str) -> bool {
        if !path.contains('/') {
            return BARE_FILE_ENDINGS.iter().any(|ending| path.len() > ending.len() && path.ends_with(ending));
        }
        let stands_in = first.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
        let is_file = FILE_ENDINGS.iter().any(|ending| path.ends_with(ending));
        self.tree.contains(first) || is_file && !stands_in
    }

    /// From the root, from the document's folder or from a folder between; a bare name anywhere.
    fn exists(&self, path: &str) -> bool {
        if !path.contains('/') {
            return self.tree.paths().any(|known| known.rsplit('/').next() == Some(path));
        }
        let folders = self.path.match_indices('/').map(|(end, _)| &self.path[..end]);
        self.tree.contains(path) || folders.into_iter().any(|folder| self.tree.contains(&format!("{folder}/{path}")))
    }

    fn check_link(&mut self, line: usize, target: &str) {
        let is_elsewhere = target.contains("://") || target.starts_with("mailto:") || target.starts_with('#');
        let file = target.split(['#', '?']).next().unwrap_or_default();
        if is_elsewhere || file.is_empty() {
            return;
        }
        let folder = self.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        let exists = resolve(folder, file).is_some_and(|path| self.tree.contains(&path));
        if !exists {
            self.find(line, format!("a link to `{target}`, which is not there"));
        }
    }
}

/// How much a word must look like a path to claim to be one.
#[derive(Clone, Copy)]
enum Claim {
    /// In running commands and diagrams: only what begins with a folder of the root.
    FolderOfOurs,
    /// In a code span of its own: also what ends like a source file.
    AnyFileName,
}

fn language(kind: &CodeBlockKind<'_>) -> String {
    match kind {
        CodeBlockKind::Fenced(info) => info.split([' ', ',']).next().unwrap_or_default().to_owned(),
        CodeBlockKind::Indented => "indented".to_owned(),
    }
}

/// The paths that a word may claim to be: without `./` and a line number, each alternative of `{a,b}` by itself; none
/// where it holds what no path of ours holds.
fn path_claims(word: &str) -> Vec<String> {
    let word = word.strip_prefix("./").unwrap_or(word).trim_end_matches('.');
    let word = match word.rsplit_once(':') {
        Some((path, line)) if line.bytes().all(|byte| byte.is_ascii_digit()) => path,
        _ => word,
    };
    let is_path = |letter: char| letter.is_ascii_alphanumeric() || "_.-/{},".contains(letter);
    if word.is_empty() || !word.chars().all(is_path) || word.starts_with('/') || word.contains("..") {
        return Vec::new();
    }
    let Some((before, rest)) = word.split_once('{') else { return vec![word.to_owned()] };
    let Some((alternatives, after)) = rest.split_once('}') else { return Vec::new() };
    alternatives.split(',').flat_map(|middle| path_claims(&format!("{before}{middle}{after}"))).collect()
}

/// Words of a line as a shell would see them, up to a comment; quotes hold words together.
fn shell_words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for letter in line.chars() {
        match letter {
            _ if quote == Some(letter) => quote = None,
            '"' | '\'' if quote.is_none() => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            '#' if quote.is_none() && word.is_none() => break,
            _ if letter.is_whitespace() && quote.is_none() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    words
}

/// Lines with those that a backslash continues, by the number of their first.
fn joined_lines(lines: &[(usize, String)]) -> Vec<(usize, String)> {
    let mut joined: Vec<(usize, String)> = Vec::new();
    let mut continues = false;
    for (number, line) in lines {
        let part = line.strip_suffix('\\').unwrap_or(line);
        match joined.last_mut() {
            Some((_, text)) if continues => text.push_str(part),
            _ => joined.push((*number, part.to_owned())),
        }
        continues = line.ends_with('\\');
    }
    joined
}

/// A link's file as a path from the root; `None` where it leaves the repository.
fn resolve(folder: &str, file: &str) -> Option<String> {
    let (folder, file) = file.strip_prefix('/').map_or((folder, file), |file| ("", file));
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in file.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::super::findings_of;
    use super::*;

    /// Checks one document in a small repository; findings without path and remedy.
    fn check_document(text: &str, expected: &[&str]) {
        let cli = "#[derive(clap::Parser)] struct Cli { #[command(subcommand)] verb: Verb }\n\
                   #[derive(clap::Subcommand)] enum Verb { Serve { #[arg(long)] listen: String } }";
        let files = [
            (".gitignore", "/target\n/atelier-data\n"),
            ("Makefile", "demo:\n\tcargo run\n"),
            ("crates/server/Cargo.toml", "[package]\nname = \"atelier-server\"\n[[bin]]\nname = \"atelier\"\n"),
            ("crates/server/src/main.rs", cli),
            ("docs/guide.md", text),
            ("docs/other.md", ""),
            ("models/atelier-base/config.json", ""),
        ];
        let found = findings_of(check, &files);
        let found: Vec<&str> = found
            .iter()
            .map(|line| line.trim_start_matches("docs/guide.md:").trim_end_matches(REMEDY).trim_end_matches("; "))
            .collect();
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn paths_exist() {
        check_document("`crates/server/src/main.rs:3` `docs/` `other.md` `crates/{server}/Cargo.toml`", &[]);
        check_document("`target/release/atelier` `atelier-data/x` `DIR/a.json` `application/json` `/v1/models`", &[]);
        check_document("a\n\nb `crates/sever/src/main.rs`", &["3: there is no `crates/sever/src/main.rs`"]);
        check_document(
            "`server/src/{main,cli}.rs`",
            &["1: there is no `server/src/cli.rs`", "1: there is no `server/src/main.rs`"],
        );
        check_document("`SECURITY.md`", &["1: there is no `SECURITY.md`"]);
        check_document("```\ngo → crates/server/src/cli.rs\n```", &["2: there is no `crates/server/src/cli.rs`"]);
    }

    #[test]
    fn commands_exist() {
        check_document("`make demo` and `atelier serve --listen X`, the model `atelier`, `make`", &[]);
        check_document("`make tset`", &["1: `make tset`: the Makefile has no target `tset`"]);
        check_document(
            "| a |\n|---|\n| `atelier sreve` |",
            &["3: `atelier sreve`: there is no command `sreve` among serve"],
        );
        let fence =
            "```sh\n# make nothing\nATELIER_KEY=\"a b\" atelier serve \\\n  --port 1 | make demo && make two\n```";
        check_document(
            fence,
            &[
                "3: `atelier serve --port 1`: there is no option `--port` of `serve`",
                "3: `make two`: the Makefile has no target `two`",
            ],
        );
        check_document("```python\nmake = 3\n```", &[]);
        check_document(
            "`cargo test -p atelier-sever`",
            &["1: `cargo test -p atelier-sever`: there is no package `atelier-sever`"],
        );
    }

    #[test]
    fn crates_and_models_exist() {
        check_document("`atelier-server` `atelier-base` `atelier-data`", &[]);
        check_document("`atelier-engin`", &["1: there is no crate, binary or model `atelier-engin`"]);
    }

    #[test]
    fn links_lead_somewhere() {
        check_document("[a](other.md#x) [b](../Makefile) [c](https://example.org) [d](#e) [e](/docs)", &[]);
        check_document("[a](missing.md)", &["1: a link to `missing.md`, which is not there"]);
        check_document("![a](../../x.png)", &["1: a link to `../../x.png`, which is not there"]);
    }
}
