//! The binary `atelier`: serve, demo, and the commands of people who run it.
//!
//! `cli` says what can be asked, `serve` runs a server, `demo` shows the whole line, `commands` ask a running server
//! over its API. Only this crate reads the environment.

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;

mod cli;
mod client;
mod commands;
mod credentials;
mod demo;
mod environment;
mod listen;
mod output;
mod process;
mod serve;
mod tls;

use cli::{Cli, Command};
use output::Output;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    // A server says what it answers; a story or a command's result is not interrupted by less than a warning.
    start_log(if matches!(cli.command, Command::Serve(_)) { "warn,atelier=info" } else { "warn" });
    tls::install_cryptography();
    if matches!(cli.command, Command::Serve(_) | Command::Demo(_)) {
        process::prepare();
    }
    let result = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(run(cli)));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> anyhow::Result<()> {
    let output = Output::new(cli.json);
    let data = cli.data.as_path();
    match cli.command {
        Command::Serve(args) => serve::run(data, args, output).await,
        Command::Demo(args) => demo::run(args, output).await,
        Command::Tenant { command } => commands::tenant::run(data, command, output).await,
        Command::Key { command } => commands::key::run(data, command, output).await,
        Command::Project { command } => {
            commands::organization::projects(client::Client::find(data)?, command, output).await
        }
        Command::User { command } => commands::organization::users(client::Client::find(data)?, command, output).await,
        Command::Invite { command } => {
            commands::organization::invites(client::Client::find(data)?, command, output).await
        }
        Command::RootKey { command } => commands::root_key::run(data, command, output).await,
        Command::Learn(args) => commands::learn::run(data, args, output).await,
        Command::Versions(args) => commands::versions::list(data, args, output).await,
        Command::Rollback(args) => commands::versions::roll_back(data, args, output).await,
        Command::Complete(args) => commands::complete::run(data, args, output).await,
        Command::Eval(args) => commands::eval::run(data, args, output).await,
        Command::Usage(args) => commands::usage::run(data, args, output).await,
        Command::Audit { command } => commands::audit::run(data, command, output).await,
        Command::Login(args) => commands::login::log_in(data, args, output).await,
        Command::Logout => commands::login::log_out(data, output).await,
        Command::Doctor(args) => commands::doctor::run(data, args, output).await,
        Command::Openapi => commands::openapi::run(),
    }
}

fn start_log(default: &str) {
    // The log goes to standard error, so that standard output stays for results.
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(tracing_subscriber::EnvFilter::new(environment::log_filter(default)))
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
}
