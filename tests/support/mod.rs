//! A server to test against, and the people who use it: `operator`, `admin`, `stranger`, `anon`.

mod code;
#[path = "../../crates/store/tests/store/postgres.rs"]
mod postgres;
#[path = "../../crates/store/tests/store/s3_server.rs"]
mod s3_server;
mod server;
mod user;

pub use code::{Archive, Style, archive_of, archive_with, files, write_code};
pub use postgres::command as postgres_command;
pub use s3_server::{S3Server, SECRET_KEY, SHARED_BUCKET};
pub use server::{Command, Process, SHARED_PREFIX, World, quick, shipped_base, start_run};
pub use user::{Answer, User, client_trusting, http, runtime};
