//! The log: what goes into it, and what never does.
//!
//! Our own crates log ids, counts and causes without content. Others' crates do not know what is secret here: below an
//! error they name the files that are walked, the parameters of a database's address and what they refuse, so they are
//! heard from errors up whatever `RUST_LOG` asks. A panic's text may quote what it stumbled on, so only its place is
//! told.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::IsTerminal;
use std::panic::PanicHookInfo;

use tracing_subscriber::filter::{EnvFilter, LevelFilter, Targets};
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::environment;

/// How the names of our crates begin.
const OURS: &str = "atelier";

/// Starts the log on standard error, so that standard output stays for results, and takes panics into it. `default` is
/// what is logged unless `RUST_LOG` says otherwise.
pub fn start(default: &str) {
    let lines = fmt::layer().with_writer(std::io::stderr).with_target(false).with_ansi(std::io::stderr().is_terminal());
    tracing_subscriber::registry()
        .with(heard())
        .with(EnvFilter::new(environment::log_filter(default)))
        .with(lines)
        .init();
    std::panic::set_hook(Box::new(note_panic));
}

/// Who may log from which level up, at most.
fn heard() -> Targets {
    // What it logs, it also gives back as an error, which is said in our own words.
    let twice = "rustls_platform_verifier";
    Targets::new()
        .with_default(LevelFilter::ERROR)
        .with_target(OURS, LevelFilter::TRACE)
        .with_target(twice, LevelFilter::OFF)
}

/// Writes down where a thread panicked, and nothing of what it said.
fn note_panic(panic: &PanicHookInfo<'_>) {
    let at = panic.location().map(ToString::to_string).unwrap_or_default();
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or("unnamed");
    // Function names only. It is there where RUST_BACKTRACE asks for it.
    let trace = Backtrace::capture();
    match trace.status() {
        BacktraceStatus::Captured => tracing::error!(at, thread, %trace, "a thread panicked"),
        _ => tracing::error!(at, thread, "a thread panicked"),
    }
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn others_are_heard_from_errors_up() {
        let heard = heard();
        for (target, level, expected) in [
            ("atelier_store::ledger", Level::TRACE, true),
            ("atelier", Level::TRACE, true),
            ("ignore::walk", Level::DEBUG, false),
            ("sqlx_postgres::options::parse", Level::WARN, false),
            ("axum::rejection", Level::TRACE, false),
            ("rustls::conn", Level::ERROR, true),
            ("rustls_platform_verifier::verification", Level::ERROR, false),
        ] {
            assert_eq!(heard.would_enable(target, &level), expected, "{target} {level}");
        }
    }
}
