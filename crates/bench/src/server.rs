//! A real server in its own process, on a data folder of its own.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::speed::client::Client;

/// Which server to start, and how.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The binary `atelier`.
    pub binary: PathBuf,
    /// The base that it serves.
    pub base: PathBuf,
    /// Threads that compute.
    pub threads: usize,
    /// PostgreSQL under the application's role and the owner's; SQLite without it.
    pub database: Option<[String; 2]>,
    /// How its tenants are kept apart, where it is not as the server would.
    pub separation: Option<&'static str>,
}

/// A server that runs; stopped and forgotten when dropped.
pub struct Server {
    setup: Setup,
    child: Child,
    /// Where it answers.
    pub url: String,
    operator_key: String,
    data: tempfile::TempDir,
}

impl Setup {
    /// The binary that was told, else the one beside this.
    pub fn binary(told: Option<&Path>) -> Result<PathBuf> {
        let path = match told {
            Some(path) => path.to_owned(),
            None => std::env::current_exe()?.with_file_name("atelier"),
        };
        ensure!(path.exists(), "{} is not built; `make bench` builds it, or name it with --server", path.display());
        Ok(path)
    }

    /// Starts it on a new data folder.
    pub fn start(self) -> Result<Server> {
        let data = tempfile::tempdir()?;
        let (child, said) = self.spawn(data.path())?;
        let operator_key = text(&said, "operator_key")?;
        Ok(Server { child, url: text(&said, "url")?, operator_key, data, setup: self })
    }

    fn spawn(&self, data: &Path) -> Result<(Child, Value)> {
        let mut command = Command::new(&self.binary);
        command.arg("--data").arg(data).args(["--json", "serve", "--listen", "127.0.0.1:0"]);
        command.args(["--threads", &self.threads.to_string(), "--base"]).arg(&self.base);
        if let Some([application, owner]) = &self.database {
            command.args(["--database", application, "--database-owner", owner]);
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("{} does not start", self.binary.display()))?;
        let mut line = String::new();
        let stdout = child.stdout.take().context("the server's output is piped")?;
        BufReader::new(stdout).read_line(&mut line)?;
        let said = serde_json::from_str(&line).context("the server ended before it listened")?;
        Ok((child, said))
    }
}

impl Server {
    /// Ends the process and starts another on the same data: it remembers nothing.
    pub fn restart(&mut self) -> Result<()> {
        self.end();
        let (child, said) = self.setup.spawn(self.data.path())?;
        (self.child, self.url) = (child, text(&said, "url")?);
        Ok(())
    }

    /// Makes a tenant; its key.
    pub fn new_tenant_key(&self, name: &str, plan: &str) -> Result<String> {
        let mut client = Client::connect(&self.url)?;
        let mut body = json!({"name": name, "plan": plan});
        if let Some(separation) = self.setup.separation {
            body["separation"] = json!(separation);
        }
        let request = client.request("POST", "/v1/tenants", Some(&self.operator_key), &body.to_string());
        let answer: Value = serde_json::from_slice(&client.exchange(&request)?)?;
        answer["key"]["value"].as_str().map(str::to_owned).context("the new tenant came without a key")
    }

    fn end(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

fn text(said: &Value, name: &str) -> Result<String> {
    said[name].as_str().map(str::to_owned).with_context(|| format!("the server said no {name}"))
}
