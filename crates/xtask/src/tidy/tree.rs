//! What is checked: the paths of the repository, and the text of those that hold text.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Context;

/// Larger files are weights, corpora and recordings: no rule reads them. The longest source allowed has 1,000 lines.
const TEXT_BYTES_MAX: u64 = 4 << 20;

/// The repository at one moment.
#[derive(Default)]
pub struct Tree {
    /// Files that hold UTF-8 text, by path relative to the root.
    texts: BTreeMap<String, String>,
    /// Every file and every folder, relative to the root; folders without a closing slash.
    paths: BTreeSet<String>,
}

impl Tree {
    /// Reads all that git would track: ignored files are neither checked nor do they count as existing.
    pub fn read(root: &Path) -> anyhow::Result<Tree> {
        let mut tree = Tree::default();
        let walk = ignore::WalkBuilder::new(root)
            .hidden(false)
            .parents(false)
            .require_git(false)
            .git_global(false)
            .filter_entry(|entry| entry.file_name() != ".git")
            .build();
        for entry in walk {
            let entry = entry.context("cannot walk the repository")?;
            let relative = entry.path().strip_prefix(root).context("walked out of the repository")?;
            let Some(path) = relative.to_str().filter(|path| !path.is_empty()) else { continue };
            let metadata = entry.metadata().with_context(|| format!("cannot read {path}"))?;
            let is_text = metadata.is_file() && metadata.len() <= TEXT_BYTES_MAX;
            let text = if is_text { std::fs::read_to_string(entry.path()).ok() } else { None };
            tree.insert(path, text);
        }
        Ok(tree)
    }

    /// A tree in memory, for tests of the rules.
    #[cfg(test)]
    pub fn from_files(files: &[(&str, &str)]) -> Tree {
        let mut tree = Tree::default();
        for (path, text) in files {
            tree.insert(path, Some((*text).to_owned()));
        }
        tree
    }

    fn insert(&mut self, path: &str, text: Option<String>) {
        let ends = path.match_indices('/').map(|(index, _)| index);
        self.paths.extend(ends.map(|end| path[..end].to_owned()));
        self.paths.insert(path.to_owned());
        if let Some(text) = text {
            self.texts.insert(path.to_owned(), text);
        }
    }

    /// The text of one file.
    pub fn text(&self, path: &str) -> Option<&str> {
        self.texts.get(path).map(String::as_str)
    }

    /// Whether a file or folder exists.
    pub fn contains(&self, path: &str) -> bool {
        let path = path.trim_end_matches('/');
        path.is_empty() || path == "." || self.paths.contains(path)
    }

    /// Every file and folder.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.paths.iter().map(String::as_str)
    }

    /// Text files, in the order of their paths.
    pub fn texts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.texts.iter().map(|(path, text)| (path.as_str(), text.as_str()))
    }

    /// Text files whose name ends so.
    pub fn texts_ending(&self, ending: &str) -> impl Iterator<Item = (&str, &str)> {
        self.texts().filter(move |(path, _)| path.ends_with(ending))
    }

    /// Folder names under `crates/` that hold a manifest.
    pub fn crate_names(&self) -> impl Iterator<Item = &str> {
        self.texts().filter_map(|(path, _)| path.strip_prefix("crates/")?.strip_suffix("/Cargo.toml"))
    }
}

/// The crate that a path under `crates/` belongs to.
pub fn crate_of(path: &str) -> Option<&str> {
    path.strip_prefix("crates/")?.split_once('/').map(|(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_files_exist() {
        let tree = Tree::from_files(&[("crates/model/src/lib.rs", ""), ("crates/model/Cargo.toml", "")]);
        for path in ["crates", "crates/", "crates/model/src", "crates/model/src/lib.rs", "."] {
            assert!(tree.contains(path), "{path}");
        }
        assert!(!tree.contains("crates/mode"));
        assert_eq!(tree.crate_names().collect::<Vec<_>>(), ["model"]);
    }

    #[test]
    fn a_path_names_its_crate() {
        assert_eq!(crate_of("crates/store/src/sql.rs"), Some("store"));
        assert_eq!(crate_of("tests/store.rs"), None);
    }
}
