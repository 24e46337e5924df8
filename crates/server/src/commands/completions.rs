//! `atelier completions`: what makes a shell complete our commands.

use anyhow::Result;
use clap::CommandFactory;
use clap_complete::Shell;

use crate::cli::Cli;
use crate::output::print;

/// Prints it.
pub fn run(shell: Shell) -> Result<()> {
    // Into memory first: the library panics where its output is a closed pipe.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "atelier", &mut script);
    print(&script)
}
