//! `sotto-node`: serves the secrets of this node's pods. Only the sequence is here.
#![forbid(unsafe_code)]

use std::fmt::Display;
use std::process::ExitCode;

use clap::Parser;
use sotto_core::identity::NodeName;
use sotto_node::arguments::{Arguments, Command, ServeArguments, mode};
use sotto_node::config::Config;
use sotto_node::{admin, app, check, process};
use sotto_runtime::allocator::WipingAllocator;
use sotto_runtime::{EXIT_CONFIGURATION, telemetry};
use sotto_supervisor::{Pace, Program, TakenUp};

#[global_allocator]
static ALLOCATOR: WipingAllocator = WipingAllocator;

fn main() -> ExitCode {
    if let Err(error) = process::protect() {
        return refuse(error);
    }
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return usage(&error),
    };
    // Nobody installs another one in this process.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    match arguments.command {
        None => serve(arguments.serve),
        Some(Command::Probe { admin, live }) => match admin::probe(&admin, live) {
            Ok(()) => ExitCode::SUCCESS,
            Err(reason) => fail(format!("not ready: {reason}")),
        },
        Some(Command::Refresh { admin, pod }) => match admin::refresh(&admin, &pod) {
            Ok(answers) => {
                answers.lines.iter().for_each(say);
                if answers.are_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
            }
            Err(reason) => fail(format!("not refreshed: {reason}")),
        },
        Some(Command::Check { config, development }) => {
            match check::check(&config, mode(development)) {
                Ok(check::Summary { stores, keys, classes }) => {
                    let classes = classes.map_or_else(
                        || "classes of the API server".to_owned(),
                        |classes| format!("{classes} classes"),
                    );
                    say(format!("usable: {stores} stores, {keys} signing keys, {classes}"));
                    ExitCode::SUCCESS
                }
                Err(faults) => refuse(faults),
            }
        }
    }
}

fn serve(arguments: ServeArguments) -> ExitCode {
    // Of a worker's threads none is there yet; of a supervisor's there will be no other.
    let released = |taken| sotto_supervisor::release_signals().map(|()| taken);
    let taken = match sotto_supervisor::take_up().and_then(released) {
        Ok(taken) => taken,
        Err(error) => return refuse(format!("the supervisor: {error}")),
    };
    if let Err(error) = telemetry::init(&arguments.log) {
        return refuse(error);
    }
    if let Err(error) = process::confine(arguments.mode()) {
        return refuse(error);
    }
    match taken {
        Some(taken) => work(arguments, taken),
        None => supervise(),
    }
}

/// PID 1: runs this binary again as the worker.
fn supervise() -> ExitCode {
    let program = Program {
        path: "/proc/self/exe".into(),
        arguments: std::env::args_os().collect(),
        hopeless: EXIT_CONFIGURATION,
        // The node's next agent goes on with the volumes.
        last_workers: 0,
    };
    match sotto_supervisor::supervise(&program, Pace::default()) {
        Ok(code) => ExitCode::from(code),
        Err(error) => fail(format!("the worker can't be supervised: {error}")),
    }
}

fn work(arguments: ServeArguments, taken: TakenUp) -> ExitCode {
    let begun = app::Begun::with(taken, &arguments);
    let node = match NodeName::parse(arguments.node_name.clone().unwrap_or_default()) {
        Ok(node) => node,
        Err(error) => return refuse(format!("--node-name: {error}")),
    };
    let file = arguments.config.clone().unwrap_or_default();
    let config = match Config::load(&file, arguments.mode()) {
        Ok(config) => config,
        Err(faults) => return refuse(faults),
    };
    let config = match config.driver.clone().named(arguments.driver_name.clone()) {
        Ok(driver) => Config { driver, ..config },
        Err(fault) => return refuse(fault),
    };
    match app::run(config, node, &arguments, begun) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(format!("{error:#}")),
    }
}

fn usage(error: &clap::Error) -> ExitCode {
    // Help and the version are no errors, and go to standard output.
    let code = if error.use_stderr() { EXIT_CONFIGURATION } else { 0 };
    let _ = error.print();
    ExitCode::from(code)
}

fn fail(reason: impl Display) -> ExitCode {
    say_error(reason);
    ExitCode::FAILURE
}

fn refuse(error: impl Display) -> ExitCode {
    say_error(error);
    ExitCode::from(EXIT_CONFIGURATION)
}

#[expect(clippy::print_stdout, reason = "the result of a subcommand")]
fn say(text: impl Display) {
    println!("{text}");
}

#[expect(clippy::print_stderr, reason = "before the log, or beside it, for who started us by hand")]
fn say_error(text: impl Display) {
    eprintln!("sotto-node: {text}");
}
