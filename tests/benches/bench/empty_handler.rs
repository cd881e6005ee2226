//! A floor: a FUSE server whose handlers are empty. It answers with constants what the kernel asks of a volume with
//! one file: what an open costs at least when a process of its own has to answer it.
//!
//! The layout and what the kernel may cache are a volume's: `value -> ..data/value`, `..data -> ..1`, names and pages
//! for an hour, each open asked for. Run as a process of its own (`--empty-handler <directory> <bytes>`) by
//! [`EmptyHandler::start`]; nothing of it is shared with `sotto-fuse`.

use std::io::{self, Write as _};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use sotto_dev::process::{Program, Running};
use tempfile::TempDir;

/// The first argument of the process that serves.
pub(crate) const ARGUMENT: &str = "--empty-handler";
const READY: &str = "serving";
const START_DEADLINE: Duration = Duration::from_secs(10);
/// A request without what a write brings; the kernel insists on no less.
const BUFFER: usize = 64 << 10;

const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const READLINK: u32 = 5;
const OPEN: u32 = 14;
const READ: u32 = 15;
const RELEASE: u32 = 18;
const INIT: u32 = 26;
const OPENDIR: u32 = 27;
const RELEASEDIR: u32 = 29;
const INTERRUPT: u32 = 36;
const BATCH_FORGET: u32 = 42;

const ROOT: u64 = 1;
const DATA_LINK: u64 = 2;
const DIRECTORY: u64 = 3;
const LINK: u64 = 4;
const FILE: u64 = 5;

/// FOPEN_KEEP_CACHE and FOPEN_NOFLUSH.
const OPEN_FLAGS: u32 = 1 << 1 | 1 << 5;
/// ASYNC_READ, PARALLEL_DIROPS, CACHE_SYMLINKS.
const INIT_FLAGS: u32 = 1 | 1 << 18 | 1 << 23;
const MAX_WRITE: u32 = 4096;
const HOUR: u64 = 3_600;

/// A running server.
pub(crate) struct EmptyHandler {
    process: Running,
    directory: TempDir,
}

impl EmptyHandler {
    /// Starts one that serves a file of so many bytes.
    pub(crate) async fn start(bytes: usize) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("sotto-empty-").tempdir()?;
        let at = directory.path().display().to_string();
        let program = Program::new("the empty handler", std::env::current_exe()?);
        let program = program.arguments([ARGUMENT.to_owned(), at, bytes.to_string()]);
        let empty = Self { process: Running::start(program).await?, directory };
        empty.process.line("its mount", START_DEADLINE, |line| line == READY).await?;
        Ok(empty)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.directory.path().join("value")
    }
}

impl Drop for EmptyHandler {
    fn drop(&mut self) {
        // The server ends with its mount; one that never mounted is killed with its handle.
        let flags = UnmountFlags::DETACH | UnmountFlags::NOFOLLOW;
        let _ = unmount(self.directory.path(), flags);
    }
}

/// The process: mounts, says so, and answers until it is unmounted.
pub(crate) fn serve(mut arguments: impl Iterator<Item = String>) -> anyhow::Result<()> {
    let directory = arguments.next().context("no directory")?;
    let content = vec![b'x'; arguments.next().context("no size")?.parse()?];
    let fuse = mounted(Path::new(&directory))?;
    let mut out = io::stdout();
    writeln!(out, "{READY}")?;
    out.flush()?;
    let mut buffer = vec![0; BUFFER];
    loop {
        match rustix::io::read(&fuse, &mut buffer) {
            Ok(size) => answer(&fuse, &buffer[..size], &content)?,
            Err(Errno::INTR | Errno::AGAIN | Errno::NOENT) => {}
            Err(Errno::NODEV) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

fn mounted(directory: &Path) -> anyhow::Result<OwnedFd> {
    let fuse = rustix::fs::open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    let options = format!(
        "fd={},rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions",
        fuse.as_raw_fd()
    );
    let options = std::ffi::CString::new(options)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    mount("empty", directory, "fuse", flags, options.as_c_str())?;
    Ok(fuse)
}

fn answer(fuse: &OwnedFd, request: &[u8], content: &[u8]) -> anyhow::Result<()> {
    let word = |at: usize| {
        request.get(at..at + 4).and_then(|it| Some(u32::from_ne_bytes(it.try_into().ok()?)))
    };
    let long = |at: usize| {
        request.get(at..at + 8).and_then(|it| Some(u64::from_ne_bytes(it.try_into().ok()?)))
    };
    let short = "a request that is cut off";
    let (opcode, unique) = (word(4).context(short)?, long(8).context(short)?);
    let node = long(16).context(short)?;
    let body = match opcode {
        FORGET | BATCH_FORGET | INTERRUPT => return Ok(()),
        INIT => Ok(init(word(44).context(short)?)),
        LOOKUP => child(node, request.get(40..).context(short)?).map(|it| entry(it, content.len())),
        GETATTR => Ok([longs(&[HOUR, 0]), attributes(node, content.len())].concat()),
        READLINK => Ok(if node == LINK { b"..data/value".to_vec() } else { b"..1".to_vec() }),
        OPEN | OPENDIR => Ok(longs(&[0, u64::from(OPEN_FLAGS)])),
        READ => {
            let from = (long(48).context(short)? as usize).min(content.len());
            let size = word(56).context(short)? as usize;
            Ok(content[from..content.len().min(from + size)].to_vec())
        }
        RELEASE | RELEASEDIR => Ok(Vec::new()),
        _ => Err(Errno::NOSYS),
    };
    let (error, body) = match body {
        Ok(body) => (0, body),
        Err(error) => (-error.raw_os_error(), Vec::new()),
    };
    let mut reply = ((16 + body.len()) as u32).to_ne_bytes().to_vec();
    reply.extend(error.to_ne_bytes());
    reply.extend(unique.to_ne_bytes());
    reply.extend(body);
    match rustix::io::write(fuse, &reply) {
        // Whoever asked is gone.
        Ok(_) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// `fuse_init_out`.
fn init(minor: u32) -> Vec<u8> {
    let mut out = Vec::new();
    for word in [7, minor.min(40), 128 << 10, INIT_FLAGS, 0, MAX_WRITE, 1] {
        out.extend(word.to_ne_bytes());
    }
    out.resize(64, 0);
    out
}

fn child(parent: u64, name: &[u8]) -> Result<u64, Errno> {
    match (parent, name) {
        (ROOT, b"value\0") => Ok(LINK),
        (ROOT, b"..data\0") => Ok(DATA_LINK),
        (ROOT, b"..1\0") => Ok(DIRECTORY),
        (DIRECTORY, b"value\0") => Ok(FILE),
        _ => Err(Errno::NOENT),
    }
}

/// `fuse_entry_out`.
fn entry(node: u64, bytes: usize) -> Vec<u8> {
    [longs(&[node, 0, HOUR, HOUR, 0]), attributes(node, bytes)].concat()
}

/// `fuse_attr`.
fn attributes(node: u64, bytes: usize) -> Vec<u8> {
    let (mode, size) = match node {
        FILE => (0o100_444, bytes),
        LINK => (0o120_777, b"..data/value".len()),
        DATA_LINK => (0o120_777, b"..1".len()),
        _ => (0o040_755, 0),
    };
    let mut out = longs(&[node, size as u64, 1, 0, 0, 0]);
    for word in [0, 0, 0, mode, 1, 0, 0, 0, 4096_u32, 0] {
        out.extend(word.to_ne_bytes());
    }
    out
}

fn longs(of: &[u64]) -> Vec<u8> {
    of.iter().flat_map(|long| long.to_ne_bytes()).collect()
}
