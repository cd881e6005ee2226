//! `sotto-dev`: the demo. Development only, loopback only.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use sotto_dev::demo;

/// Development tools of Sotto. Nothing here belongs in a cluster.
#[derive(Debug, Parser)]
#[command(name = "sotto-dev", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Delivers a pod's secrets here and now, and shows each step.
    Demo(demo::Options),
    /// Shows what this process's user sees in a directory and reads some of its files, as JSON.
    #[command(hide = true)]
    Read {
        /// The directory.
        directory: PathBuf,
        /// Files in it.
        names: Vec<String>,
    },
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Demo(options) => demo::run(options),
        Command::Read { directory, names } => demo::print_what_is_seen(&directory, &names),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nowhere to report that standard error is gone.
            drop(writeln!(std::io::stderr(), "sotto-dev: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
