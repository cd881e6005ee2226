//! `sotto-agent exec`: a command with values of a volume in its environment.
//!
//! Invariant: the values are in the environment of the command that takes this process's place and nowhere else:
//! not in arguments, not in messages, not in a parent that stays. What is given up here doesn't last beyond the
//! exec, so that the command finds the process as it was. A volume that nobody serves blocks its readers: reads are
//! made by a thread that is left behind at the deadline.
//!
//! An environment is a weaker place than a file: whatever the command starts inherits it, /proc shows it to the
//! same user, and it keeps the first value although the secret was rotated or revoked.

mod read;
mod wanted;

use std::fmt;
use std::io::ErrorKind;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use rustix::process::DumpableBehavior;

use crate::arguments::ExecArguments;
use crate::process::ProcessError;
pub use wanted::Wanted;

/// Exit status where the values can't be had, as of chroot(1), env(1) and nohup(1).
pub const EXIT_FAILED: u8 = 125;
/// Exit status where the command is there and can't be run.
const EXIT_NOT_RUNNABLE: u8 = 126;
/// Exit status where there is no such command.
const EXIT_NOT_FOUND: u8 = 127;

/// Why the command doesn't run.
#[derive(Debug, PartialEq, Eq)]
pub struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    /// The exit status.
    #[must_use]
    pub fn code(&self) -> u8 {
        self.code
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "exec: {}", self.message)
    }
}

/// Makes this process unreadable until the command takes its place: an exec makes the process readable again.
///
/// # Errors
/// The kernel refused.
pub fn protect() -> Result<(), ProcessError> {
    let hidden = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
    hidden.map_err(|error| ProcessError::Kernel(error.into()))
}

/// Waits for the values and becomes the command. Comes back only with a failure.
#[must_use]
pub fn run(arguments: &ExecArguments) -> Failure {
    let Some((program, rest)) = arguments.command.split_first() else {
        return Failure { code: EXIT_FAILED, message: "no command".to_owned() };
    };
    let values = match read::within(arguments.timeout, &arguments.from, &arguments.env) {
        Ok(values) => values,
        Err(message) => return Failure { code: EXIT_FAILED, message },
    };
    let mut command = Command::new(program);
    command.args(rest);
    for value in &values {
        command.env(&value.name, value.expose());
    }
    drop(values);
    let error = command.exec();
    let code = match error.kind() {
        ErrorKind::NotFound => EXIT_NOT_FOUND,
        _ => EXIT_NOT_RUNNABLE,
    };
    Failure { code, message: format!("{} can't be run: {error}", program.display()) }
}
