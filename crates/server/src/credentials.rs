//! Keys by signing in, kept for this user of the machine: one for each server.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use crate::environment;

const FILE: &str = "credentials.json";
/// Nobody else on this machine reads a key.
const FILE_MODE: u32 = 0o600;
const FOLDER_MODE: u32 = 0o700;

/// What is kept.
#[derive(Debug, Default)]
pub struct Credentials {
    /// The server that was signed in to last.
    pub last: Option<String>,
    /// By the server's URL.
    servers: BTreeMap<String, Credential>,
}

/// A key of one server.
#[derive(Clone)]
pub struct Credential {
    /// The key.
    pub key: String,
    /// Whose people it belongs to.
    pub organization: String,
    /// Who signed in.
    pub email: String,
    /// Its end, in unix seconds.
    pub expires_at: Option<i64>,
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credential").field("email", &self.email).finish_non_exhaustive()
    }
}

/// Where they are kept.
pub fn path() -> Result<PathBuf> {
    let folder = environment::config_folder()
        .context("There is no place for a key of yours: set HOME, or XDG_CONFIG_HOME to a folder.")?;
    Ok(folder.join("atelier").join(FILE))
}

impl Credentials {
    /// Reads them; none where there is no file, or no place for one.
    pub fn read() -> Result<Self> {
        let Ok(path) = path() else { return Ok(Self::default()) };
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error).with_context(|| format!("{} cannot be read", path.display())),
        };
        let json: Value = serde_json::from_str(&text)
            .with_context(|| format!("{} is damaged. Remove it and run `atelier login` again", path.display()))?;
        let field = |server: &Value, name: &str| server[name].as_str().map(str::to_owned);
        let servers = json["servers"].as_object().into_iter().flatten().filter_map(|(url, server)| {
            let (key, organization) = (field(server, "key")?, field(server, "organization")?);
            let email = field(server, "email")?;
            let expires_at = server["expires_at"].as_i64();
            Some((url.clone(), Credential { key, organization, email, expires_at }))
        });
        Ok(Self { last: json["last"].as_str().map(str::to_owned), servers: servers.collect() })
    }

    /// The key of a server.
    pub fn of(&self, url: &str) -> Option<&Credential> {
        self.servers.get(url)
    }

    /// Keeps a key in place of the one before.
    pub fn keep(&mut self, url: &str, credential: Credential) -> Result<PathBuf> {
        self.last = Some(url.to_owned());
        self.servers.insert(url.to_owned(), credential);
        self.write()
    }

    /// Forgets the key of a server.
    pub fn forget(&mut self, url: &str) -> Result<()> {
        self.servers.remove(url);
        if self.last.as_deref() == Some(url) {
            self.last = self.servers.keys().next().cloned();
        }
        self.write().map(|_| ())
    }

    fn write(&self) -> Result<PathBuf> {
        let path = path()?;
        let servers: Map<String, Value> = self
            .servers
            .iter()
            .map(|(url, known)| {
                let Credential { key, organization, email, expires_at } = known;
                let server =
                    json!({"key": key, "organization": organization, "email": email, "expires_at": expires_at});
                (url.clone(), server)
            })
            .collect();
        let text = format!("{:#}\n", json!({"last": self.last, "servers": servers}));
        let written = (|| {
            if let Some(folder) = path.parent() {
                fs::DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder)?;
            }
            // A new file each time: one that was there keeps the mode that somebody gave it.
            let draft = path.with_extension(format!("{}.new", std::process::id()));
            let _ = fs::remove_file(&draft);
            let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(&draft)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&draft, &path)
        })();
        written.with_context(|| format!("{} cannot be written", path.display()))?;
        Ok(path)
    }
}
