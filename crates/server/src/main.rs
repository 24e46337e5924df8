//! The binary `atelier`: serve, demo, and the commands of people who run it.
//!
//! `cli` says what can be asked, `serve` runs a server, `demo` shows the whole line, `commands` ask a running server
//! over its API. Only this crate reads the environment.

use std::process::ExitCode;

mod cli;
mod client;
mod commands;
mod connection;
mod credentials;
mod demo;
mod environment;
mod listen;
mod log;
mod output;
mod places;
mod process;
mod serve;
mod tls;
mod wire;

use cli::{Cli, Command};
use client::{Client, Place};
use commands::runs::RunEnded;
use output::Output;

/// Exit status of a command that waited for a run which came to nothing: scripts tell it from a command that failed.
const RUN_ENDED_STATUS: u8 = 3;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let (cli, place) = Cli::read();
    // A server says what it answers; a story or a command's result is not interrupted by less than a warning.
    log::start(if matches!(cli.command, Command::Serve(_)) { "warn,atelier=info" } else { "warn" });
    tls::install_cryptography();
    if matches!(cli.command, Command::Serve(_) | Command::Demo(_)) {
        process::prepare();
    }
    let result = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(run(cli, &place)));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", output::line_of(error.as_ref()));
            if error.is::<RunEnded>() { ExitCode::from(RUN_ENDED_STATUS) } else { ExitCode::FAILURE }
        }
    }
}

async fn run(cli: Cli, place: &Place) -> anyhow::Result<()> {
    let output = Output::new(cli.json);
    match cli.command {
        Command::Serve(args) => serve::run(place, *args, output).await,
        Command::Demo(args) => demo::run(place, args, output).await,
        Command::Tenant { command } => commands::tenant::run(place, command, output).await,
        Command::Key { command } => commands::key::run(place, command, output).await,
        Command::Learn(args) => commands::learn::run(place, args, output).await,
        Command::Runs(args) => commands::runs::run(place, args, output).await,
        Command::Versions(args) => commands::versions::list(place, args, output).await,
        Command::Rollback(args) => commands::versions::roll_back(place, args, output).await,
        Command::Complete(args) => commands::complete::run(place, args, output).await,
        Command::Eval(args) => commands::eval::run(place, args, output).await,
        Command::Usage(args) => commands::usage::run(place, args, output).await,
        Command::Audit { command } => commands::audit::run(place, command, output).await,
        Command::Doctor(args) => commands::doctor::run(place, args, output).await,
        Command::RootKey { command } => commands::root_key::run(&place.data, command, output).await,
        Command::Project { command } => commands::organization::projects(Client::find(place)?, command, output).await,
        Command::User { command } => commands::organization::users(Client::find(place)?, command, output).await,
        Command::Invite { command } => commands::organization::invites(Client::find(place)?, command, output).await,
        Command::Login(args) => commands::login::log_in(place, args, output).await,
        Command::Logout => commands::login::log_out(place, output).await,
        Command::Openapi => commands::openapi::run(),
        Command::Completions { shell } => commands::completions::run(shell),
    }
}
