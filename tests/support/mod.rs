//! A server to test against, and the people who use it: `operator`, `admin`, `stranger`, `anon`.

mod code;
mod issuer;
#[path = "../../crates/store/tests/store/postgres.rs"]
mod postgres;
mod server;
mod user;

pub use code::{Archive, Style, archive_of, archive_with, write_code};
pub use issuer::{CLIENT_ID, CLIENT_SECRET, Issuer};
pub use postgres::command as postgres_command;
pub use server::{Command, Process, World, atelier, quick, shipped_base, start_run};
pub use user::{Answer, User, client_trusting, http, runtime};
