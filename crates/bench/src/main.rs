//! The binary `atelier-bench`: how fast we serve and train, and what learning gains on code we did not write.
//!
//! Layout, in reading order: `speed` (one file under it for each kind of figure) and `walls` write `figures`; `personal` trains
//! and judges one tenant for each of the `packages`, `sweep` chooses the recipe's numbers on others, both with
//! `learn` and `arms`, kept in a `ledger`, shown in a `document`.
//!
//! Invariants: every figure says how it was measured, on which machine and at which commit; seeds are fixed; nothing
//! that is measured on is tuned on.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod arms;
mod document;
mod figures;
mod host;
mod learn;
mod ledger;
mod packages;
mod personal;
mod random;
mod random_base;
mod server;
mod speed;
mod sweep;
mod walls;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures Atelier on this machine.
#[derive(Parser)]
#[command(name = "atelier-bench", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Tokens per second of serving and training, time to first token, what the gateway costs
    #[command(after_long_help = figures::methods())]
    Speed(speed::SpeedArgs),
    /// What the walls between tenants cost the gateway, and each kind of them
    #[command(after_long_help = figures::methods())]
    Walls(walls::WallsArgs),
    /// What each package's own adapter gains on its held-out files, against the base and another's adapter
    Personal(personal::PersonalArgs),
    /// Learning rates and ranks on a few packages, to choose the recipe's for this base
    Sweep(sweep::SweepArgs),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Speed(args) => speed::run(&args),
        Command::Walls(args) => walls::run(&args),
        Command::Personal(args) => personal::run(&args),
        Command::Sweep(args) => sweep::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
