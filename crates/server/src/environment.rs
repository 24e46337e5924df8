//! The variables of the environment that are not flags: where a command finds the server. Nothing else in Atelier
//! reads the environment.

use std::path::PathBuf;

/// URL of the server, instead of what the data folder says.
pub fn url() -> Option<String> {
    std::env::var("ATELIER_URL").ok().filter(|url| !url.is_empty())
}

/// Key to use, instead of the operator's in the data folder.
pub fn key() -> Option<String> {
    std::env::var("ATELIER_KEY").ok().filter(|key| !key.is_empty())
}

/// File of certificates to trust, instead of the system's.
pub fn trusted_certificates() -> Option<PathBuf> {
    std::env::var_os("ATELIER_CA").filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// What to log: `RUST_LOG`'s filter, or what the command is best served by.
pub fn log_filter(default: &str) -> String {
    std::env::var("RUST_LOG").unwrap_or_else(|_| default.to_owned())
}
