//! `sotto-agent`: serves the secrets of its own pod. Only the sequence is here.
#![forbid(unsafe_code)]

use std::fmt::Display;
use std::process::ExitCode;

use clap::Parser;
use sotto_runtime::allocator::WipingAllocator;
use sotto_runtime::{EXIT_CONFIGURATION, telemetry};
use sotto_sidecar::app::{self, Ended};
use sotto_sidecar::arguments::{Arguments, Command, Handoff, ServeArguments};
use sotto_sidecar::withdrawal::EXIT_WITHDRAWN;
use sotto_sidecar::{exec, probe, process};
use sotto_supervisor::{Pace, Program, TakenUp};

/// That may have to be started to revoke what the pod has, since nobody else ever will.
const MOST_LAST_WORKERS: u32 = 3;

#[global_allocator]
static ALLOCATOR: WipingAllocator = WipingAllocator;

fn main() -> ExitCode {
    // Before anything else where it lasts; the command of `exec` must find the process as it was.
    let is_exec = std::env::args_os().nth(1).is_some_and(|word| word == "exec");
    let protected = if is_exec { exec::protect() } else { process::protect() };
    if let Err(error) = protected {
        return refuse(error);
    }
    match Arguments::try_parse() {
        Err(error) => usage(&error, is_exec),
        Ok(Arguments { command: None, serve }) => serve_volume(&serve),
        Ok(Arguments { command: Some(Command::Probe(handoff)), .. }) => ask(&handoff),
        Ok(Arguments { command: Some(Command::Exec(arguments)), .. }) => {
            // It only comes back where it failed.
            let failure = exec::run(&arguments);
            say_error(&failure);
            ExitCode::from(failure.code())
        }
    }
}

fn ask(handoff: &Handoff) -> ExitCode {
    match probe::probe(&handoff.socket(), handoff.driver_uid()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => fail(format!("not served: {reason}")),
    }
}

fn serve_volume(arguments: &ServeArguments) -> ExitCode {
    // Of a worker's threads none is there yet; of a supervisor's there will be no other.
    let taken = match sotto_supervisor::take_up() {
        Ok(taken) => taken,
        Err(error) => return refuse(format!("the supervisor: {error}")),
    };
    let settings = arguments.check();
    let logging = telemetry::init(&arguments.log);
    let settings = match (settings, logging) {
        (Ok(settings), Ok(())) => settings,
        (Err(faults), Ok(())) => return refuse(faults),
        (Ok(_), Err(error)) => return refuse(format!("--log: {error}")),
        (Err(faults), Err(error)) => return refuse(format!("{faults}\n--log: {error}")),
    };
    if let Err(error) = process::confine(arguments.handoff.development) {
        return refuse(error);
    }
    let Some(taken) = taken else { return supervise() };
    // Nobody installs another one in this process.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    work(settings, arguments.handoff.driver_uid(), taken)
}

/// PID 1: runs this binary again as the worker.
fn supervise() -> ExitCode {
    let program = Program {
        path: "/proc/self/exe".into(),
        arguments: std::env::args_os().collect(),
        hopeless: EXIT_CONFIGURATION,
        last_workers: MOST_LAST_WORKERS,
    };
    match sotto_supervisor::supervise(&program, Pace::default()) {
        Ok(code) => ExitCode::from(code),
        Err(error) => fail(format!("the worker can't be supervised: {error}")),
    }
}

fn work(settings: sotto_sidecar::arguments::Settings, driver_uid: u32, taken: TakenUp) -> ExitCode {
    match app::run(settings, driver_uid, taken) {
        Ok(Ended::Finished) => ExitCode::SUCCESS,
        Ok(Ended::Withdrawn) => ExitCode::from(EXIT_WITHDRAWN),
        Err(error) => fail(format!("{error:#}")),
    }
}

fn usage(error: &clap::Error, is_exec: bool) -> ExitCode {
    // Help and the version are no errors, and go to standard output.
    let of_errors = if is_exec { exec::EXIT_FAILED } else { EXIT_CONFIGURATION };
    let code = if error.use_stderr() { of_errors } else { 0 };
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

#[expect(clippy::print_stderr, reason = "before the log, or beside it, for who started us by hand")]
fn say_error(text: impl Display) {
    eprintln!("sotto-agent: {text}");
}
