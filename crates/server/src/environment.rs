//! The variables of the environment that are not flags: where a command finds the server, and what must not stand on a
//! command line. Nothing else in Atelier reads the environment.

use std::path::PathBuf;

use anyhow::{Context, Result};
use atelier_platform::{RootKey, S3_SETTINGS};

/// URL of the server, instead of what the data folder says.
pub fn url() -> Option<String> {
    std::env::var("ATELIER_URL").ok().filter(|url| !url.is_empty())
}

/// Key to use, instead of the operator's in the data folder.
pub fn key() -> Option<String> {
    std::env::var("ATELIER_KEY").ok().filter(|key| !key.is_empty())
}

/// The root key itself, where the operator keeps it in no file.
pub fn root_key() -> Result<Option<RootKey>> {
    match std::env::var("ATELIER_ROOT_KEY").ok().filter(|key| !key.is_empty()) {
        Some(text) => text.parse().map(Some).context("ATELIER_ROOT_KEY"),
        None => Ok(None),
    }
}

/// Where programs of this user keep what is his.
pub fn config_folder() -> Option<PathBuf> {
    let named = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    named("XDG_CONFIG_HOME").or_else(|| Some(named("HOME")?.join(".config")))
}

/// Credentials of buckets and where to get them, by the names that are usual for them.
pub fn s3_settings() -> Vec<(String, String)> {
    let value = |name: &&str| std::env::var(name).ok().filter(|value| !value.is_empty());
    S3_SETTINGS.iter().filter_map(|name| Some(((*name).to_owned(), value(name)?))).collect()
}

/// File of certificates to trust, instead of the system's.
pub fn trusted_certificates() -> Option<PathBuf> {
    std::env::var_os("ATELIER_CA").filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// What to log: `RUST_LOG`'s filter, or what the command is best served by.
pub fn log_filter(default: &str) -> String {
    std::env::var("RUST_LOG").unwrap_or_else(|_| default.to_owned())
}
