//! Who takes part in the demo.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::client::Client;

/// The two code bases of opposite style that ship with Atelier.
const EXAMPLES: [&str; 2] = ["acme", "globex"];

/// A tenant's name and the folder that it learns from.
pub struct Folder {
    /// The tenant's name.
    pub name: String,
    /// Its code.
    pub path: PathBuf,
}

/// A tenant of the demo as the story goes on.
pub struct DemoTenant {
    /// Its name.
    pub name: String,
    /// Its key.
    pub key: String,
    /// A client with that key.
    pub client: Client,
    /// The run that learned for it.
    pub run: Value,
    /// The completion before it.
    pub before: String,
    /// The completion after it.
    pub after: String,
}

/// The folders told by `--tenant name=PATH`, else the examples.
pub fn folders(told: &[String]) -> Result<Vec<Folder>> {
    if told.is_empty() {
        return EXAMPLES
            .iter()
            .map(|name| Ok(Folder { name: (*name).to_owned(), path: find_example(name)? }))
            .collect();
    }
    let folders: Vec<Folder> = told
        .iter()
        .map(|text| {
            let (name, path) = text.split_once('=').context("--tenant takes NAME=PATH, such as acme=./code.")?;
            let path = PathBuf::from(path);
            if !path.is_dir() {
                bail!("--tenant {name}: {} is not a folder.", path.display());
            }
            Ok(Folder { name: name.to_owned(), path })
        })
        .collect::<Result<_>>()?;
    if folders.len() < 2 {
        bail!("The demo shows tenants side by side: name at least two with --tenant NAME=PATH.");
    }
    Ok(folders)
}

fn find_example(name: &str) -> Result<PathBuf> {
    let beside_binary = std::env::current_exe().unwrap_or_default();
    [Path::new("."), beside_binary.as_path()]
        .iter()
        .flat_map(|start| start.ancestors())
        .map(|folder| folder.join("examples").join(name))
        .find(|folder| folder.is_dir())
        .with_context(|| format!("examples/{name} is not here. Run the demo from the repository, or give --tenant."))
}
