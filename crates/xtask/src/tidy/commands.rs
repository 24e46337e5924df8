//! What can be typed in this repository: make's targets, cargo's commands and our own binaries.

use std::collections::BTreeSet;

use super::Tree;
use super::clap_source::Command;

/// Commands of cargo, and of the tools that our Makefile installs or uses.
const CARGO_COMMANDS: [&str; 19] = [
    "add", "bench", "build", "check", "clean", "clippy", "deny", "doc", "fetch", "fix", "fmt", "install", "metadata",
    "nextest", "run", "test", "tree", "update", "help",
];
/// What `cargo run` runs when it is told nothing else.
const DEFAULT_BINARY: &str = "atelier";

/// Every command that a document may name.
pub struct Commands {
    make_targets: BTreeSet<String>,
    cargo_aliases: BTreeSet<String>,
    packages: BTreeSet<String>,
    binaries: BTreeSet<String>,
    atelier: Option<Command>,
    xtask: Option<Command>,
}

impl Commands {
    /// Collects them from the Makefile, the manifests and the clap definitions.
    pub fn read(tree: &Tree) -> Commands {
        let mut packages = BTreeSet::new();
        let mut binaries = BTreeSet::new();
        for name in tree.crate_names() {
            let manifest = tree.text(&format!("crates/{name}/Cargo.toml")).unwrap_or_default();
            let Ok(table) = manifest.parse::<toml::Table>() else { continue };
            let name_of = |value: &toml::Value| Some(value.get("name")?.as_str()?.to_owned());
            packages.extend(table.get("package").and_then(name_of));
            let declared = table.get("bin").and_then(toml::Value::as_array);
            binaries.extend(declared.into_iter().flatten().filter_map(name_of));
            let folder = format!("crates/{name}/src/bin/");
            let files = tree.paths().filter_map(|path| path.strip_prefix(&folder));
            binaries.extend(files.map(|file| file.split(['/', '.']).next().unwrap_or(file).to_owned()));
        }
        Commands {
            make_targets: make_targets(tree.text("Makefile").unwrap_or_default()),
            cargo_aliases: cargo_aliases(tree.text(".cargo/config.toml").unwrap_or_default()),
            packages,
            binaries,
            atelier: Command::read(tree, "crates/server/src"),
            xtask: Command::read(tree, "crates/xtask/src"),
        }
    }

    /// Whether a word is the name of a package or of a binary of ours.
    pub fn is_ours(&self, name: &str) -> bool {
        self.packages.contains(name) || self.binaries.contains(name)
    }

    /// Says what does not exist in a command; programs that are not ours pass.
    pub fn check(&self, words: &[String]) -> Result<(), String> {
        let Some((program, arguments)) = words.split_first() else { return Ok(()) };
        let program = program
            .rsplit_once("target/")
            .map_or(program.as_str(), |(_, path)| path.rsplit('/').next().unwrap_or(path));
        match program {
            "make" => self.check_make(arguments),
            "cargo" => self.check_cargo(arguments),
            DEFAULT_BINARY => check_defined(self.atelier.as_ref(), "crates/server/src", arguments),
            _ if program.starts_with("atelier-") && !self.is_ours(program) => {
                Err(format!("there is no binary `{program}`"))
            }
            _ => Ok(()),
        }
    }

    fn check_make(&self, arguments: &[String]) -> Result<(), String> {
        let targets = arguments.iter().filter(|word| !word.contains('=') && !word.starts_with('-'));
        let mut unknown = targets.filter(|target| !self.make_targets.contains(*target));
        unknown.next().map_or(Ok(()), |target| Err(format!("the Makefile has no target `{target}`")))
    }

    fn check_cargo(&self, arguments: &[String]) -> Result<(), String> {
        let arguments = match arguments.first() {
            Some(toolchain) if toolchain.starts_with('+') => &arguments[1..],
            _ => arguments,
        };
        let Some((verb, rest)) = arguments.split_first() else { return Ok(()) };
        if verb == "xtask" && self.cargo_aliases.contains(verb) {
            return check_defined(self.xtask.as_ref(), "crates/xtask/src", rest);
        }
        if !CARGO_COMMANDS.contains(&verb.as_str()) && !self.cargo_aliases.contains(verb) && !verb.starts_with('-') {
            return Err(format!("cargo has no command `{verb}` here"));
        }
        let (ours, handed_on) = rest.split_at(rest.iter().position(|word| word == "--").unwrap_or(rest.len()));
        let package = value_of(ours, &["-p", "--package"]);
        if let Some(package) = package.filter(|package| !self.packages.contains(*package)) {
            return Err(format!("there is no package `{package}`"));
        }
        let binary = value_of(ours, &["--bin"]);
        if let Some(binary) = binary.filter(|binary| !self.binaries.contains(*binary)) {
            return Err(format!("there is no binary `{binary}`"));
        }
        match (verb.as_str(), package, binary) {
            ("run", Some("xtask"), _) => check_defined(self.xtask.as_ref(), "crates/xtask/src", skip_one(handed_on)),
            ("run", _, None | Some(DEFAULT_BINARY)) => {
                check_defined(self.atelier.as_ref(), "crates/server/src", skip_one(handed_on))
            }
            _ => Ok(()),
        }
    }
}

fn check_defined(command: Option<&Command>, folder: &str, words: &[String]) -> Result<(), String> {
    match command {
        Some(command) => command.check(words),
        None if words.is_empty() => Ok(()),
        None => Err(format!("no command line is defined under {folder}")),
    }
}

fn skip_one(words: &[String]) -> &[String] {
    words.get(1..).unwrap_or_default()
}

fn value_of<'a>(words: &'a [String], options: &[&str]) -> Option<&'a str> {
    let index = words.iter().position(|word| options.contains(&word.as_str()))?;
    words.get(index + 1).map(String::as_str)
}

fn make_targets(makefile: &str) -> BTreeSet<String> {
    let rules = makefile.lines().filter(|line| !line.starts_with(['\t', '#', '.', ' ']));
    let heads = rules.filter_map(|line| line.split_once(':')).filter(|(_, rest)| !rest.starts_with('='));
    heads.flat_map(|(targets, _)| targets.split_whitespace()).map(str::to_owned).collect()
}

fn cargo_aliases(config: &str) -> BTreeSet<String> {
    let table = config.parse::<toml::Table>().unwrap_or_default();
    let aliases = table.get("alias").and_then(toml::Value::as_table);
    aliases.into_iter().flat_map(toml::Table::keys).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str) -> Result<(), String> {
        let server = "[package]\nname = \"atelier-server\"\n[[bin]]\nname = \"atelier\"\n";
        let cli = "use clap::Parser;\n#[derive(Parser)] struct Cli { #[command(subcommand)] verb: Verb }\n\
                   #[derive(clap::Subcommand)] enum Verb { Serve, Demo { #[arg(long)] exit: bool } }";
        let tree = Tree::from_files(&[
            ("Makefile", "DATA := x\n.PHONY: demo\ndemo test: build\n\tcargo run\nbuild:\n"),
            (".cargo/config.toml", "[alias]\nxtask = \"run -p xtask --\"\n"),
            ("crates/server/Cargo.toml", server),
            ("crates/server/src/main.rs", cli),
            ("crates/server/src/bin/atelier-bench.rs", ""),
            ("crates/xtask/Cargo.toml", "[package]\nname = \"xtask\"\n"),
            ("crates/xtask/src/main.rs", "#[derive(clap::Parser)] enum Chore { Tidy }"),
        ]);
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        Commands::read(&tree).check(&words)
    }

    #[test]
    fn what_exists_passes() {
        let lines = [
            "make demo ARGS=--exit -j2",
            "cargo run --release -- demo --exit",
            "cargo run --release -p atelier-server --bin atelier-bench -- --anything",
            "cargo +stable clippy --workspace --all-targets -- -D warnings",
            "./target/release/atelier serve",
            "atelier-bench --quick",
            "git clone x",
        ];
        for line in lines {
            assert_eq!(check(line), Ok(()), "{line}");
        }
    }

    #[test]
    fn what_does_not_exist_is_named() {
        let cases = [
            ("make tests", "the Makefile has no target `tests`"),
            ("cargo tset", "cargo has no command `tset` here"),
            ("cargo test -p atelier-kernel", "there is no package `atelier-kernel`"),
            ("cargo run -- sreve", "there is no command `sreve` among serve, demo"),
            ("target/debug/atelier demo --fast", "there is no option `--fast` of `demo`"),
            ("cargo xtask tydi", "no command line is defined under crates/xtask/src"),
            ("atelier-lsp --stdio", "there is no binary `atelier-lsp`"),
        ];
        for (line, expected) in cases {
            assert_eq!(check(line), Err(expected.to_owned()), "{line}");
        }
    }
}
