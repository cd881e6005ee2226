//! The supervisor's process: one thread, one poll.
//!
//! Invariant: it never blocks but in that poll; whatever a worker sends, it only keeps and counts. Called by
//! an agent's `main`, before it has a second thread.

mod keep;

use std::collections::VecDeque;
use std::ffi::OsString;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, Shutdown, SocketFlags, SocketType, socketpair,
};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};

use crate::message::{Kind, Received, receive, send};
use crate::signals::{Arrived, Signals};
use crate::{INSTANCE, RESTARTS};
use keep::Keep;

/// glibc's settings, which it reads at the start of a process.
const TUNABLES: &str = "GLIBC_TUNABLES";
/// What was freed goes back to the machine. Kept for threads to come, the stacks of three hundred volumes would stay
/// resident; kept by each thread for its next allocations, a few freed blocks of each size hold the pages they are in.
const NOTHING_KEPT: &str = "glibc.pthread.stack_cache_size=0:glibc.malloc.tcache_count=0";

/// Packets of a worker that are read before anything else is looked at again.
const MOST_AT_ONCE: usize = 256;

/// What is run.
#[derive(Debug, Clone)]
pub struct Program {
    /// The file; `/proc/self/exe` is this very binary, whatever happens to its file.
    pub path: PathBuf,
    /// All arguments, the program's name first.
    pub arguments: Vec<OsString>,
    /// A worker that ends so can't be helped by another start.
    pub hopeless: u8,
    /// Workers that may be started after a signal to end, one after the other and told to end at once, as long as
    /// something is kept that only a worker can give up: a store's token that is to be revoked. 0: at the end nothing
    /// is given up, since another agent goes on with it.
    pub last_workers: u32,
}

/// When a worker is started again, or given up.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Pause before a restart where there is one. It doubles as long as workers end before they have served.
    pub first_pause: Duration,
    /// Longest pause.
    pub longest_pause: Duration,
    /// A worker that has served and lived so long is replaced without a pause; one that lived shorter after the
    /// first pause, so that what kills one after the other doesn't take a whole processor.
    pub well_after: Duration,
    /// Silence of a worker that has spoken, after which it is killed.
    pub hung_after: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            first_pause: Duration::from_millis(50),
            longest_pause: Duration::from_secs(2),
            well_after: Duration::from_secs(1),
            hung_after: Duration::from_secs(15),
        }
    }
}

impl Pace {
    /// The pause after a worker that lived so long; `failures` in a row did not serve.
    fn before_next(&self, failures: u32, has_served: bool, lived: Duration) -> Duration {
        if has_served && lived >= self.well_after {
            return Duration::ZERO;
        }
        match failures {
            0 => self.first_pause,
            // Whatever killed it may be over.
            1 => Duration::ZERO,
            more => {
                let doubled = self.first_pause.saturating_mul(1 << (more - 2).min(16));
                doubled.min(self.longest_pause)
            }
        }
    }
}

struct Worker {
    pid: Pid,
    socket: OwnedFd,
    offer: VecDeque<keep::Offer>,
    started: Instant,
    heard: Option<Instant>,
    /// It said that it lives: it serves what it was left.
    has_served: bool,
    restoring: Option<String>,
}

struct Supervisor<'a> {
    program: &'a Program,
    pace: Pace,
    instance: String,
    signals: Signals,
    keep: Keep,
    /// Workers in a row that ended before they served.
    failures: u32,
    /// Workers that ended and were followed by another one.
    restarts: u64,
    /// Before the next start.
    pause: Duration,
    /// The signal to end that came.
    leaving: Option<Signal>,
    /// Workers that were started since then.
    last_workers: u32,
}

/// Runs the program, again and again, until it ends by itself with 0 or `hopeless`, or a signal to end came. A worker
/// that dies of something else in that moment is followed by a last one, if [`Program::last_workers`] says so: what was
/// kept is given up by a worker, not forgotten. Returns the exit status to end with.
///
/// # Errors
/// The process can't supervise, or the program can't be started.
pub fn supervise(program: &Program, pace: Pace) -> io::Result<u8> {
    let signals = Signals::take()?;
    let random = || RandomState::new().build_hasher().finish();
    let instance = format!("{:016x}{:016x}", random(), random());
    let keep = Keep::default();
    Supervisor {
        program,
        pace,
        instance,
        signals,
        keep,
        failures: 0,
        restarts: 0,
        pause: Duration::ZERO,
        leaving: None,
        last_workers: 0,
    }
    .run()
}

/// What a worker's end means.
enum Next {
    Again,
    End(u8),
}

impl Supervisor<'_> {
    fn run(mut self) -> io::Result<u8> {
        loop {
            let worker = self.start()?;
            if let Some(signal) = self.leaving {
                self.last_workers += 1;
                // It has it blocked until it can act on it.
                let _ = rustix::process::kill_process(worker.pid, signal);
            }
            if let Next::End(code) = self.attend(worker)? {
                return Ok(code);
            }
            self.pause()?;
            if self.leaving.is_some() && !self.has_use_for_a_last_one() {
                return Ok(0);
            }
        }
    }

    fn start(&self) -> io::Result<Worker> {
        let (socket, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let mut arguments = self.program.arguments.iter();
        let mut command = Command::new(&self.program.path);
        if let Some(name) = arguments.next() {
            command.arg0(name);
        }
        // Whoever set some wants them as they are.
        if std::env::var_os(TUNABLES).is_none() {
            command.env(TUNABLES, NOTHING_KEPT);
        }
        let child = command
            .args(arguments)
            .env(INSTANCE, &self.instance)
            .env(RESTARTS, self.restarts.to_string())
            .stdin(Stdio::from(theirs))
            .spawn()?;
        let pid = Pid::from_child(&child);
        let offer = self.keep.offers();
        tracing::info!(pid = pid.as_raw_nonzero(), kept = self.keep.len(), "a worker is started");
        let started = Instant::now();
        let (heard, has_served, restoring) = (None, false, None);
        Ok(Worker { pid, socket, offer, started, heard, has_served, restoring })
    }

    fn attend(&mut self, mut worker: Worker) -> io::Result<Next> {
        loop {
            let mut wanted = PollFlags::IN;
            wanted.set(PollFlags::OUT, !worker.offer.is_empty());
            let (signalled, flags) = {
                let mut fds = [
                    PollFd::new(&self.signals, PollFlags::IN),
                    PollFd::new(&worker.socket, wanted),
                ];
                wait(&mut fds, Duration::from_secs(1))?;
                (!fds[0].revents().is_empty(), fds[1].revents())
            };
            if flags.intersects(PollFlags::IN | PollFlags::HUP) {
                self.listen(&mut worker);
            }
            if flags.contains(PollFlags::OUT) {
                self.tell(&mut worker);
            }
            if signalled && let Some(status) = self.signalled(&worker)? {
                // What it said before it died counts; nothing comes after it, whoever else has its end of the socket.
                let _ = rustix::net::shutdown(&worker.socket, Shutdown::Read);
                while self.listen(&mut worker) {}
                return Ok(self.ended(&worker, status));
            }
            self.kill_if_hung(&worker);
        }
    }

    /// Reads the signals; the worker's status, if it ended.
    fn signalled(&mut self, worker: &Worker) -> io::Result<Option<WaitStatus>> {
        if let Arrived::ToEnd(signal) = self.signals.read()? {
            self.leaving = Some(signal);
            let _ = rustix::process::kill_process(worker.pid, signal);
        }
        let mut ended = None;
        // As PID 1 it has other processes' orphans too.
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            if pid == worker.pid && !status.stopped() {
                ended = Some(status);
            }
        }
        Ok(ended)
    }

    fn ended(&mut self, worker: &Worker, status: WaitStatus) -> Next {
        let code = status.exit_status().and_then(|code| u8::try_from(code).ok());
        let signal = status.terminating_signal();
        let lived = worker.started.elapsed();
        if code == Some(0) || code == Some(self.program.hopeless) {
            return Next::End(code.unwrap_or(1));
        }
        if let Some(volume) = &worker.restoring {
            tracing::error!(
                volume,
                "a worker ended while it restored this volume, which is given up"
            );
            self.keep.forget(volume);
        }
        if self.leaving.is_some() && !self.has_use_for_a_last_one() {
            return Next::End(code.unwrap_or(1));
        }
        self.failures = if worker.has_served { 0 } else { self.failures + 1 };
        self.restarts += 1;
        self.pause = self.pace.before_next(self.failures, worker.has_served, lived);
        tracing::error!(?code, ?signal, ?lived, "the worker ended; another one is started");
        Next::Again
    }

    /// Whether another worker is to give up what is kept, though the process ends.
    fn has_use_for_a_last_one(&self) -> bool {
        self.keep.len() > 0 && self.last_workers < self.program.last_workers
    }

    /// The pause before the next start; a signal to end cuts it short.
    fn pause(&mut self) -> io::Result<()> {
        let end = Instant::now() + self.pause;
        while self.leaving.is_none()
            && let Some(left) = end.checked_duration_since(Instant::now())
        {
            wait(&mut [PollFd::new(&self.signals, PollFlags::IN)], left)?;
            if let Arrived::ToEnd(signal) = self.signals.read()? {
                self.leaving = Some(signal);
            }
        }
        Ok(())
    }

    /// Reads what the worker says; whether there may be more.
    fn listen(&mut self, worker: &mut Worker) -> bool {
        for _ in 0..MOST_AT_ONCE {
            let message = match receive(&worker.socket, RecvFlags::DONTWAIT) {
                Ok(Received::Message(message)) => message,
                Ok(Received::Strange) => {
                    tracing::warn!("the worker sent something strange");
                    continue;
                }
                // Its end is seen by its status.
                Ok(Received::End) | Err(_) => return false,
            };
            worker.heard = Some(Instant::now());
            match (message.kind, message.fd) {
                (Kind::Connection, Some(fd)) => self.keep.connection(message.key, fd),
                (Kind::Values, Some(fd)) => self.keep.values(message.key, fd, message.at_ms),
                (kind @ (Kind::Connection | Kind::Values), None) => {
                    tracing::warn!(
                        volume = message.key,
                        "what the worker left arrived without its file"
                    );
                    if kind == Kind::Values {
                        self.keep.lose_values(&message.key);
                    }
                }
                (Kind::Forget, _) => self.keep.forget(&message.key),
                (Kind::Restoring, _) => worker.restoring = Some(message.key),
                (Kind::Restored, _) => worker.restoring = None,
                (Kind::Alive, _) => worker.has_served = true,
                (Kind::Confirmed, _) => self.keep.confirmed(&message.key, message.at_ms),
                (Kind::Last, _) => {}
            }
        }
        true
    }

    fn tell(&self, worker: &mut Worker) {
        while let Some(offer) = worker.offer.front() {
            let sent = match offer.packet(&self.keep) {
                Some(packet) => send(&worker.socket, packet, SendFlags::DONTWAIT),
                None => Ok(()),
            };
            match sent {
                Ok(()) => drop(worker.offer.pop_front()),
                // Full, or too many fds of this uid in flight: the worker reads on.
                Err(error) if is_passing(&error) => return,
                Err(error) => {
                    tracing::warn!(%error, "the worker can't be told what was kept");
                    worker.offer.clear();
                }
            }
        }
    }

    fn kill_if_hung(&self, worker: &Worker) {
        let silent = worker.heard.map_or(Duration::ZERO, |heard| heard.elapsed());
        if silent > self.pace.hung_after && self.leaving.is_none() {
            tracing::error!(?silent, "the worker hangs and is killed");
            let _ = rustix::process::kill_process(worker.pid, Signal::KILL);
        }
    }
}

fn is_passing(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::AGAIN | Errno::TOOMANYREFS | Errno::NOBUFS))
}

fn wait(fds: &mut [PollFd<'_>], longest: Duration) -> io::Result<()> {
    let longest = Timespec::try_from(longest).map_err(|_| io::ErrorKind::InvalidInput)?;
    match poll(fds, Some(&longest)) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// For polls.
impl AsFd for Signals {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.fd()
    }
}
