//! A server to test against, and the people who use it: `operator`, `admin`, `stranger`, `anon`.

use std::thread;
use std::time::{Duration, Instant};

mod code;
#[path = "../../crates/store/tests/store/files.rs"]
mod files;
mod issuer;
#[path = "../../crates/store/tests/store/postgres.rs"]
mod postgres;
#[path = "../../crates/store/tests/store/s3_server.rs"]
mod s3_server;
mod server;
mod user;

pub use code::{Archive, Style, archive_of, archive_with, files, write_code};
pub use files::files_under;
pub use issuer::{CLIENT_ID, CLIENT_SECRET, Issuer};
pub use postgres::command as postgres_command;
pub use s3_server::{S3Server, SECRET_KEY, SHARED_BUCKET};
pub use server::{Command, Process, SHARED_PREFIX, World, atelier, quick, shipped_base, start_run};
pub use user::{Answer, User, client_trusting, http, runtime};

/// How long [`wait_until`] waits for what a busy machine does in a moment.
const PATIENCE: Duration = Duration::from_secs(90);
/// Time between two looks.
const POLL: Duration = Duration::from_millis(50);

/// Waits until it is so; what to say where it never is.
pub fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < PATIENCE, "{what}");
        thread::sleep(POLL);
    }
}
