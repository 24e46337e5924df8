//! A PostgreSQL database for one test, on the server that `scripts/test-postgres.sh` started for the run.

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

static MADE: AtomicU32 = AtomicU32::new(0);

/// A database of the test's own. Removed when dropped.
#[derive(Debug)]
pub struct TestDatabase {
    pub name: String,
    /// The role that owns nothing.
    pub application_role: String,
}

impl TestDatabase {
    pub fn create() -> Self {
        let name = format!("t_{}_{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        program("createdb", &["-O", "atelier_owner", &name]);
        Self::named(name)
    }

    /// One that is there already.
    pub fn named(name: String) -> Self {
        Self { name, application_role: "atelier_app".to_owned() }
    }

    /// Where the application finds it.
    pub fn application_url(&self) -> String {
        self.url_of(&self.application_role)
    }

    /// Where its owner finds it.
    pub fn owner_url(&self) -> String {
        self.url_of("atelier_owner")
    }

    fn url_of(&self, role: &str) -> String {
        format!("postgres:///{}?host={}&user={role}", self.name, socket_folder())
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        // The server goes after the run anyhow; this keeps the disk small meanwhile.
        let own = "SELECT 'atelier_' || substr(id, 5) FROM atelier.tenants WHERE 'database' IN (separation, leftover)";
        let own = command("psql").args(["-qXAt", "-U", "postgres", "-d", &self.name, "-c", own]).output();
        let own = own.ok().and_then(|output| String::from_utf8(output.stdout).ok()).unwrap_or_default();
        for name in own.lines().chain([self.name.as_str()]) {
            let _ = command("dropdb").args(["-U", "postgres", "--force", "--if-exists", name]).output();
        }
    }
}

/// A program of PostgreSQL's, pointed to the server.
pub fn command(name: &str) -> Command {
    let mut command = Command::new(PathBuf::from(variable("ATELIER_TEST_POSTGRES_PROGRAMS")).join(name));
    command.args(["-h", &socket_folder()]);
    command
}

fn program(name: &str, arguments: &[&str]) {
    let output = command(name).args(["-U", "postgres"]).args(arguments).output().unwrap();
    assert!(output.status.success(), "{name} {arguments:?}: {output:?}");
}

fn socket_folder() -> String {
    variable("ATELIER_TEST_POSTGRES")
}

fn variable(name: &str) -> String {
    std::env::var(name)
        .unwrap_or_else(|_| panic!("{name} is not set: run the tests through scripts/test.sh or cargo nextest"))
}
