//! Fork and exec, on the thread that will also reap.
#![expect(unsafe_code, reason = "pre_exec: prctl between fork and exec")]

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use rustix::process::{
    Pid, PidfdFlags, Signal, getpid, getppid, pidfd_open, set_parent_process_death_signal,
};
use tokio::sync::{oneshot, watch};

use super::log::{Log, Stream};
use super::{Program, Running};

/// How long a dead child's lines are still read.
const LAST_LINES_DEADLINE: Duration = Duration::from_secs(1);

pub(super) async fn start(program: Program) -> io::Result<Running> {
    let (started, begun) = oneshot::channel();
    let thread = std::thread::Builder::new().name(program.name.clone());
    thread.spawn(move || own(&program, started))?;
    begun.await.map_err(|_| io::Error::other("the thread that starts it ended"))?
}

/// Starts the child, gives its handle away, and waits for its end.
fn own(program: &Program, started: oneshot::Sender<io::Result<Running>>) {
    let (exited, exit) = watch::channel(None);
    let (mut child, executed) = match spawn(program) {
        Ok(spawned) => spawned,
        Err(error) => {
            // Whoever asked may have given up.
            drop(started.send(Err(error)));
            return;
        }
    };
    let (reading, read) = mpsc::channel();
    let running = handle(program, (&mut child, executed), exit, &reading);
    drop(reading);
    if running.is_err() {
        // Not ended by itself and not to be left behind; reaped below.
        drop(child.kill());
    }
    drop(started.send(running));
    let status: ExitStatus = child.wait().unwrap_or_default();
    // Its last lines come before its end; a child of its own may keep the pipes open for longer.
    if read.recv_timeout(LAST_LINES_DEADLINE) == Err(RecvTimeoutError::Timeout) {
        tracing::debug!(name = program.name, "its output is still open");
    }
    exited.send_replace(Some(status));
}

fn handle(
    program: &Program,
    (child, executed): (&mut Child, Instant),
    exit: watch::Receiver<Option<ExitStatus>>,
    reading: &mpsc::Sender<()>,
) -> io::Result<Running> {
    let log = Arc::new(Log::default());
    let pipe = || io::Error::other("the child's output was not captured");
    log.follow(Stream::Output, child.stdout.take().ok_or_else(pipe)?, reading.clone());
    log.follow(Stream::Error, child.stderr.take().ok_or_else(pipe)?, reading.clone());
    // Not reaped yet, so the number is still this child's.
    let pidfd = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    Ok(Running { name: program.name.clone(), pid: child.id(), executed, pidfd, exit, log })
}

/// The child, and the moment of its exec.
fn spawn(program: &Program) -> io::Result<(Child, Instant)> {
    let mut command = command(program)?;
    let parent = getpid();
    let changes_user = program.user.is_some();
    // Opened here: the child may not be allowed to any more, and the kernel asks who opened it.
    let cgroup = program.cgroup.as_ref().map(|it| it.join("cgroup.procs"));
    let cgroup = cgroup.map(|file| File::options().write(true).open(file)).transpose()?;
    let (mut told, mut tell) = io::pipe()?;
    let began = Instant::now();
    // SAFETY: only system calls between fork and exec; nothing allocates or locks.
    unsafe {
        command.pre_exec(move || {
            if let Some(cgroup) = &cgroup {
                rustix::io::write(cgroup, b"0")?;
            }
            if changes_user {
                rustix::thread::set_no_new_privs(true)?;
            }
            // After setuid, which clears it. The parent may be gone already.
            set_parent_process_death_signal(Some(Signal::KILL))?;
            if getppid() != Some(parent) {
                return Err(io::ErrorKind::NotFound.into());
            }
            tell.write_all(&began.elapsed().as_micros().to_ne_bytes())
        });
    }
    let child = command.spawn()?;
    // Of a clock that both have. It was written before the exec, which has been made.
    let mut bytes = [0; size_of::<u128>()];
    told.read_exact(&mut bytes)?;
    let before = u64::try_from(u128::from_ne_bytes(bytes)).unwrap_or(u64::MAX);
    Ok((child, began + Duration::from_micros(before)))
}

fn command(program: &Program) -> io::Result<Command> {
    let mut command = Command::new(&program.path);
    command
        .args(&program.arguments)
        .env_clear()
        .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
        .envs(program.environment.iter().map(|(name, value)| (name, value)))
        .current_dir("/")
        .stdin(match &program.input {
            Some(file) => Stdio::from(File::open(file)?),
            None => Stdio::null(),
        })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // Ctrl-C is for the owner, who ends its children in order.
        .process_group(0);
    if let Some((uid, gid)) = program.user {
        command.uid(uid).gid(gid);
    }
    Ok(command)
}
