//! Statements past the store, as whichever role.

use crate::postgres::{TestDatabase, command};

impl TestDatabase {
    /// Runs statements as the superuser, past every wall; what they answer, a line for each row.
    pub fn sql(&self, statements: &str) -> String {
        self.sql_as("postgres", statements).unwrap_or_else(|said| panic!("{statements}: {said}"))
    }

    /// Runs statements as a role; what they answer, or what is said against them.
    pub fn sql_as(&self, role: &str, statements: &str) -> Result<String, String> {
        let arguments = ["-qXAt", "-v", "ON_ERROR_STOP=1", "-U", role, "-d", &self.name, "-c", statements];
        let output = command("psql").args(arguments).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap().trim().to_owned();
        if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
    }
}
