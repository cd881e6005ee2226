//! Child processes that never outlive their owner: killed when their [`Running`] is dropped, and by the
//! kernel when this process ends in any way.
//!
//! Invariant: each child is started and reaped by a thread of its own, which lives exactly as long as the
//! child. PR_SET_PDEATHSIG means the death of the *thread* that forked, so no pool's thread may fork.
//! Children are ended through a pidfd, so never a stranger that got their number.

mod log;
mod spawn;

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Signal, pidfd_send_signal};
use tokio::sync::watch;

pub use log::{Line, Log, Stream};

/// From SIGTERM to SIGKILL.
const GRACE: Duration = Duration::from_secs(5);
/// A killed process is gone at once, unless the kernel holds it.
const KILL_DEADLINE: Duration = Duration::from_secs(5);

/// What to start.
#[derive(Debug, Clone)]
pub struct Program {
    /// For messages.
    pub name: String,
    /// The executable.
    pub path: PathBuf,
    /// Its arguments, without the name.
    pub arguments: Vec<String>,
    /// Environment variables; nothing else is inherited but PATH.
    pub environment: Vec<(String, String)>,
    /// User and group to become; supplementary groups and capabilities are dropped with them.
    pub user: Option<(u32, u32)>,
    /// The directory of the cgroup to begin in.
    pub cgroup: Option<PathBuf>,
    /// A file that is its standard input.
    pub input: Option<PathBuf>,
}

impl Program {
    /// A program with the caller's own user.
    #[must_use]
    pub fn new(name: &str, path: impl Into<PathBuf>) -> Self {
        Self {
            name: name.to_owned(),
            path: path.into(),
            arguments: Vec::new(),
            environment: Vec::new(),
            user: None,
            cgroup: None,
            input: None,
        }
    }

    /// Adds arguments.
    #[must_use]
    pub fn arguments<S: Into<String>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Becomes this user and group.
    #[must_use]
    pub fn user(mut self, user: Option<(u32, u32)>) -> Self {
        self.user = user;
        self
    }

    /// Begins in this cgroup.
    #[must_use]
    pub fn cgroup(mut self, directory: Option<PathBuf>) -> Self {
        self.cgroup = directory;
        self
    }

    /// Reads this file.
    #[must_use]
    pub fn input(mut self, file: impl Into<PathBuf>) -> Self {
        self.input = Some(file.into());
        self
    }
}

/// What went wrong with a child.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// It could not be started.
    #[error("{name} ({path}) could not be started")]
    Start {
        /// The program's name.
        name: String,
        /// Its executable.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It ended while something was awaited from it.
    #[error("{name} ended ({status}) before {awaited}; its last lines:\n{lines}")]
    Ended {
        /// The program's name.
        name: String,
        /// What was awaited.
        awaited: String,
        /// How it ended.
        status: ExitStatus,
        /// The end of its log.
        lines: String,
    },
    /// It did not do what was awaited in time.
    #[error("{name}: {awaited} did not come within {deadline:?}; its last lines:\n{lines}")]
    Deadline {
        /// The program's name.
        name: String,
        /// What was awaited.
        awaited: String,
        /// How long it was awaited.
        deadline: Duration,
        /// The end of its log.
        lines: String,
    },
}

/// A child process.
pub struct Running {
    name: String,
    pid: u32,
    executed: Instant,
    pidfd: OwnedFd,
    exit: watch::Receiver<Option<ExitStatus>>,
    log: Arc<Log>,
}

impl Running {
    /// Starts a program with its output captured.
    ///
    /// # Errors
    /// It could not be started.
    pub async fn start(program: Program) -> Result<Self, ProcessError> {
        let (name, path) = (program.name.clone(), program.path.clone());
        spawn::start(program).await.map_err(|source| ProcessError::Start { name, path, source })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The moment of its exec: what was done before, such as to move it into its cgroup, is not its own work.
    #[must_use]
    pub fn executed(&self) -> Instant {
        self.executed
    }

    /// What it has written so far.
    #[must_use]
    pub fn log(&self) -> &Arc<Log> {
        &self.log
    }

    /// How it ended, if it has.
    #[must_use]
    pub fn status(&self) -> Option<ExitStatus> {
        *self.exit.borrow()
    }

    /// Waits until a line of the log satisfies the condition; returns the first that does.
    ///
    /// # Errors
    /// The process ended, or the deadline passed.
    pub async fn line(
        &self,
        awaited: &str,
        deadline: Duration,
        condition: impl Fn(&str) -> bool,
    ) -> Result<String, ProcessError> {
        let found = self.log.until(|lines| lines.iter().find(|it| condition(&it.text)).cloned());
        let mut exit = self.exit.clone();
        tokio::select! {
            biased;
            line = found => Ok(line.text.to_string()),
            Ok(status) = async { exit.wait_for(Option::is_some).await.map(|status| *status) } => {
                Err(ProcessError::Ended {
                    name: self.name.clone(),
                    awaited: awaited.to_owned(),
                    status: status.unwrap_or_default(),
                    lines: self.log.tail(),
                })
            }
            () = tokio::time::sleep(deadline) => Err(self.late(awaited, deadline)),
        }
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// The deadline passed.
    pub async fn wait(&self, deadline: Duration) -> Result<ExitStatus, ProcessError> {
        let mut exit = self.exit.clone();
        let ended = async {
            match exit.wait_for(Option::is_some).await {
                Ok(status) => status.unwrap_or_default(),
                // The thread that reaps is gone without a word: it can only have panicked.
                Err(_) => ExitStatus::default(),
            }
        };
        tokio::time::timeout(deadline, ended).await.map_err(|_| self.late("its end", deadline))
    }

    /// Sends a signal. A process that has ended gets none.
    pub fn signal(&self, signal: Signal) {
        if let Err(error) = pidfd_send_signal(&self.pidfd, signal) {
            tracing::debug!(name = self.name, %error, "no signal was sent");
        }
    }

    /// Ends it: SIGTERM, and SIGKILL after a grace period.
    ///
    /// # Errors
    /// The kernel holds it, even after SIGKILL.
    pub async fn end(&self) -> Result<ExitStatus, ProcessError> {
        self.signal(Signal::TERM);
        match self.wait(GRACE).await {
            Ok(status) => Ok(status),
            Err(_) => self.kill().await,
        }
    }

    /// Kills it with SIGKILL and waits until it is gone.
    ///
    /// # Errors
    /// The kernel holds it.
    pub async fn kill(&self) -> Result<ExitStatus, ProcessError> {
        self.signal(Signal::KILL);
        self.wait(KILL_DEADLINE).await
    }

    fn late(&self, awaited: &str, deadline: Duration) -> ProcessError {
        let (name, awaited) = (self.name.clone(), awaited.to_owned());
        ProcessError::Deadline { name, awaited, deadline, lines: self.log.tail() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.status().is_none() {
            self.signal(Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests;
