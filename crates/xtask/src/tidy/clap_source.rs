//! A command line as its clap definitions in the source say it is.
//!
//! Read from the source and not from the binary, so that tidy neither builds nor starts the server.

use std::collections::{BTreeMap, BTreeSet};

use syn::punctuated::Punctuated;
use syn::{Attribute, Expr, Field, Fields, Item, ItemEnum, ItemStruct, Lit, Meta, Token, Type};

use super::Tree;

/// Subcommands of subcommands: ends a definition that names itself.
const DEPTH_MAX: usize = 8;

/// One command, or the program itself.
#[derive(Debug, Default)]
pub struct Command {
    /// The name, then its aliases.
    pub names: Vec<String>,
    /// Long options without their dashes.
    options: BTreeMap<String, Takes>,
    /// Subcommands.
    pub children: Vec<Command>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Takes {
    Nothing,
    Value,
}

impl Command {
    /// The command line of the binary whose sources lie in a folder: the struct there that derives `Parser`.
    pub fn read(tree: &Tree, folder: &str) -> Option<Command> {
        let mut definitions = Definitions::default();
        let other_binaries = format!("{folder}/bin/");
        for (path, text) in tree.texts_ending(".rs") {
            let is_of_binary = path.starts_with(&format!("{folder}/")) && !path.starts_with(&other_binaries);
            if is_of_binary
                && text.contains("clap")
                && let Ok(file) = syn::parse_file(text)
            {
                definitions.take(file.items);
            }
        }
        let root = definitions.structs.values().find(|item| derives(&item.attrs, "Parser"))?;
        Some(definitions.command(vec![root.ident.to_string()], &root.fields, 0))
    }

    /// Holds words typed after the program's name against the definition; says what does not exist.
    pub fn check(&self, words: &[String]) -> Result<(), String> {
        let mut path = vec![self];
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let command = path[path.len() - 1];
            if word == "--" || is_stand_in(word) {
                return Ok(());
            } else if let Some(option) = word.strip_prefix("--") {
                let (name, has_value) = option.split_once('=').map_or((option, false), |(name, _)| (name, true));
                if takes(&path, name)? == Takes::Value && !has_value {
                    words.next();
                }
            } else if !command.children.is_empty() && !word.starts_with('-') {
                let mut children = word.split('|').map(|name| command.child(name));
                path.push(children.next().ok_or("no command")??);
                children.try_for_each(|child| child.map(drop))?;
            }
        }
        Ok(())
    }

    fn child(&self, name: &str) -> Result<&Command, String> {
        let child = self.children.iter().find(|child| child.names.iter().any(|known| known == name));
        child.ok_or_else(|| {
            let known: Vec<&str> = self.children.iter().map(|child| child.names[0].as_str()).collect();
            format!("there is no command `{name}` among {}", known.join(", "))
        })
    }
}

/// Words that stand for what the reader puts there.
fn is_stand_in(word: &str) -> bool {
    word.starts_with(['<', '[', '…']) || word.contains("...")
}

/// An option belongs to one of the commands on the way to it.
fn takes(path: &[&Command], option: &str) -> Result<Takes, String> {
    if option == "help" || option == "version" {
        return Ok(Takes::Nothing);
    }
    let found = path.iter().rev().find_map(|command| command.options.get(option).copied());
    found.ok_or_else(|| {
        let commands: Vec<&str> = path.iter().skip(1).map(|command| command.names[0].as_str()).collect();
        format!("there is no option `--{option}` of `{}`", commands.join(" "))
    })
}

#[derive(Default)]
struct Definitions {
    enums: BTreeMap<String, ItemEnum>,
    structs: BTreeMap<String, ItemStruct>,
}

impl Definitions {
    fn take(&mut self, items: Vec<Item>) {
        for item in items {
            match item {
                Item::Enum(item) => drop(self.enums.insert(item.ident.to_string(), item)),
                Item::Struct(item) => drop(self.structs.insert(item.ident.to_string(), item)),
                Item::Mod(module) => self.take(module.content.map_or_else(Vec::new, |(_, items)| items)),
                _ => {}
            }
        }
    }

    fn command(&self, names: Vec<String>, fields: &Fields, depth: usize) -> Command {
        let mut command = Command { names, ..Command::default() };
        self.add_fields(&mut command, fields, depth);
        command
    }

    fn add_fields(&self, command: &mut Command, fields: &Fields, depth: usize) {
        for field in fields {
            let settings = Settings::of(&field.attrs);
            if settings.has("flatten") || settings.has("subcommand") || field.ident.is_none() {
                self.add_type(command, &field.ty, depth);
            } else if let Some(name) = long_name(field, &settings) {
                let takes = if type_name(&field.ty) == "bool" { Takes::Nothing } else { Takes::Value };
                command.options.insert(name, takes);
            }
        }
    }

    /// Adds what a flattened struct or a subcommand enum brings.
    fn add_type(&self, command: &mut Command, ty: &Type, depth: usize) {
        let name = type_name(ty);
        if depth == DEPTH_MAX {
            return;
        }
        if let Some(item) = self.structs.get(&name) {
            self.add_fields(command, &item.fields, depth + 1);
        }
        let Some(item) = self.enums.get(&name) else { return };
        for variant in &item.variants {
            let settings = Settings::of(&variant.attrs);
            if settings.has("flatten") {
                self.add_fields(command, &variant.fields, depth + 1);
                continue;
            }
            let mut names = vec![settings.value("name").unwrap_or_else(|| kebab(&variant.ident.to_string()))];
            names.extend(settings.value("alias"));
            names.extend(settings.value("visible_alias"));
            command.children.push(self.command(names, &variant.fields, depth + 1));
        }
    }
}

/// What `#[arg(..)]` and `#[command(..)]` say about one item.
struct Settings(Vec<Meta>);

impl Settings {
    fn of(attributes: &[Attribute]) -> Settings {
        let ours = attributes
            .iter()
            .filter(|attribute| ["arg", "command", "clap"].iter().any(|name| attribute.path().is_ident(name)));
        let parsed = ours
            .filter_map(|attribute| attribute.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated).ok());
        Settings(parsed.flatten().collect())
    }

    fn get(&self, name: &str) -> Option<&Meta> {
        self.0.iter().find(|meta| meta.path().is_ident(name))
    }

    fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    fn value(&self, name: &str) -> Option<String> {
        let Meta::NameValue(pair) = self.get(name)? else { return None };
        let Expr::Lit(literal) = &pair.value else { return None };
        let Lit::Str(text) = &literal.lit else { return None };
        Some(text.value())
    }
}

fn long_name(field: &Field, settings: &Settings) -> Option<String> {
    settings.get("long")?;
    settings.value("long").or_else(|| Some(kebab(&field.ident.as_ref()?.to_string())))
}

fn derives(attributes: &[Attribute], name: &str) -> bool {
    let lists = attributes.iter().filter(|attribute| attribute.path().is_ident("derive"));
    let parsed = lists
        .filter_map(|attribute| attribute.parse_args_with(Punctuated::<syn::Path, Token![,]>::parse_terminated).ok());
    let names: BTreeSet<String> =
        parsed.flatten().filter_map(|path| Some(path.segments.last()?.ident.to_string())).collect();
    names.contains(name)
}

/// The last name of a type's path, looking into the wrappers that clap looks into.
fn type_name(ty: &Type) -> String {
    let Type::Path(path) = ty else { return String::new() };
    let Some(last) = path.path.segments.last() else { return String::new() };
    let name = last.ident.to_string();
    if let ("Option" | "Box" | "Vec", syn::PathArguments::AngleBracketed(inner)) = (name.as_str(), &last.arguments)
        && let Some(syn::GenericArgument::Type(inner)) = inner.args.first()
    {
        return type_name(inner);
    }
    name
}

/// `RotateKey` and `rotate_key` become `rotate-key`.
fn kebab(name: &str) -> String {
    let mut out = String::new();
    for (index, letter) in name.char_indices() {
        if letter == '_' || letter.is_uppercase() && index > 0 {
            out.push('-');
        }
        if letter != '_' {
            out.extend(letter.to_lowercase());
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = r#"
        use clap::{Args, Parser, Subcommand};
        /// Serves.
        #[derive(Parser)]
        struct Cli {
            #[arg(long, global = true, default_value = "./atelier-data")]
            data: PathBuf,
            #[command(subcommand)]
            command: Verb,
        }
        #[derive(Subcommand)]
        enum Verb {
            Serve(ServeOptions),
            #[command(subcommand, visible_alias = "org")]
            Tenant(TenantVerb),
            Learn { #[arg(long = "tenant")] name: String, path: PathBuf, #[arg(long)] wait: bool, #[command(flatten)] output: Output },
        }
        #[derive(Args)]
        struct ServeOptions { #[arg(long, env = "ATELIER_LISTEN")] listen: Option<String> }
        #[derive(Args)]
        struct Output { #[arg(long)] json: bool }
        #[derive(Subcommand)]
        enum TenantVerb { Create { name: String, #[arg(long)] plan: Option<Plan> }, RotateKey { name: String } }
    "#;

    fn check(line: &str) -> Result<(), String> {
        let tree = Tree::from_files(&[("crates/server/src/cli.rs", SOURCE)]);
        let command = Command::read(&tree, "crates/server/src").expect("defines a command line");
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        command.check(&words)
    }

    #[test]
    fn what_exists_passes() {
        let lines = [
            "serve --data ./d --listen=127.0.0.1:1",
            "tenant create acme --plan tuned",
            "org rotate-key acme",
            "tenant create|rotate-key",
            "--data serve learn --tenant acme ./code --wait --json",
            "tenant …",
            "serve --help",
        ];
        for line in lines {
            assert_eq!(check(line), Ok(()), "{line}");
        }
    }

    #[test]
    fn what_does_not_exist_is_named() {
        let cases = [
            ("server", "there is no command `server` among serve, tenant, learn"),
            ("tenant create|drop", "there is no command `drop` among create, rotate-key"),
            ("learn --tenant acme --plan tuned ./code", "there is no option `--plan` of `learn`"),
            ("tenant create acme --json", "there is no option `--json` of `tenant create`"),
        ];
        for (line, expected) in cases {
            assert_eq!(check(line), Err(expected.to_owned()), "{line}");
        }
    }
}
