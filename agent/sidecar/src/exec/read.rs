//! The values, read in time or not at all.
//!
//! Invariant: all of them are of one generation of the volume; all or none are used; a message names files, never
//! what is in them.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags};
use sotto_core::secret::SecretBytes;

use super::wanted::needs_naming;
use super::wanted::{Wanted, is_variable};

/// Longest value: Linux takes 128 KiB for a variable, its name and what is between them.
const MOST_BYTES: u64 = (128 << 10) - 512;
/// How often what isn't there yet is looked for.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// Where Kubernetes' volumes have the generation that they show.
const CURRENT: &str = "..data";

/// One variable with its value.
pub(super) struct Value {
    pub(super) name: String,
    value: SecretBytes,
}

impl Value {
    pub(super) fn expose(&self) -> &OsStr {
        OsStr::from_bytes(self.value.expose())
    }
}

/// Why there are no values.
#[derive(Debug)]
enum Fault {
    /// They may come.
    NotYet(String),
    /// They won't.
    Never(String),
}

/// Reads them as soon as all can be read.
pub(super) fn within(
    timeout: Duration,
    from: &Path,
    wanted: &[Wanted],
) -> Result<Vec<Value>, String> {
    let end = Instant::now().checked_add(timeout).ok_or("the timeout is too long")?;
    let (sender, receiver) = channel();
    let last = Arc::new(Mutex::new("nobody answers: is the volume served?".to_owned()));
    let (noted, from, wanted) = (Arc::clone(&last), from.to_owned(), wanted.to_vec());
    let reading = move || {
        loop {
            let read = match all(&from, &wanted) {
                Ok(values) => Ok(values),
                Err(Fault::Never(reason)) => Err(reason),
                Err(Fault::NotYet(reason)) => {
                    *noted.lock().unwrap_or_else(PoisonError::into_inner) = reason;
                    std::thread::park_timeout(LOOK_AGAIN);
                    continue;
                }
            };
            // Nobody waits any more.
            let _ = sender.send(read);
            return;
        }
    };
    let started = std::thread::Builder::new().name("read".to_owned()).spawn(reading);
    started.map_err(|error| format!("no thread can be started: {error}"))?;
    match receiver.recv_timeout(end.saturating_duration_since(Instant::now())) {
        Ok(read) => read,
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
            let last = last.lock().unwrap_or_else(PoisonError::into_inner);
            let timeout = humantime::format_duration(timeout);
            Err(format!("the values could not be read within {timeout}: {last}"))
        }
    }
}

fn all(from: &Path, wanted: &[Wanted]) -> Result<Vec<Value>, Fault> {
    let generation = generation(from).map_err(|error| not_yet(from, &error))?;
    if wanted.is_empty() {
        let names = variables(&generation, from)?;
        if let Some(name) = names.iter().find(|name| needs_naming(name)) {
            return Err(Fault::Never(format!(
                "a file in {} is named {name}, which programs act upon or which the container has already: name the values that you want, --env NAME=file",
                from.display()
            )));
        }
        let value = |name: String| value(&generation, &PathBuf::from(&name), name.clone());
        return names.into_iter().map(value).collect();
    }
    wanted.iter().map(|it| value(&generation, &it.file, it.name.clone())).collect()
}

/// The directory of the generation that is shown now: whatever is turned to meanwhile, its files belong together.
fn generation(from: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let volume = rustix::fs::openat(CWD, from, flags, Mode::empty())?;
    match rustix::fs::openat(&volume, CURRENT, flags, Mode::empty()) {
        Ok(generation) => Ok(generation),
        // Not one of Kubernetes' volumes.
        Err(rustix::io::Errno::NOENT) => Ok(volume),
        Err(error) => Err(error.into()),
    }
}

fn not_yet(path: &Path, error: &io::Error) -> Fault {
    Fault::NotYet(format!("{} can't be read: {error}", path.display()))
}

/// The names of the files that can be variables.
fn variables(generation: &OwnedFd, from: &Path) -> Result<Vec<String>, Fault> {
    let listed = || -> io::Result<(Vec<String>, bool)> {
        let (mut names, mut has_others) = (Vec::new(), false);
        for entry in Dir::read_from(generation)? {
            let entry = entry?;
            let name = entry.file_name();
            if name.to_bytes().starts_with(b".") {
                continue;
            }
            let file = rustix::fs::statat(generation, name, AtFlags::empty())?;
            match name.to_str() {
                Ok(name)
                    if is_variable(name)
                        && FileType::from_raw_mode(file.st_mode) == FileType::RegularFile =>
                {
                    names.push(name.to_owned());
                }
                _ => has_others = true,
            }
        }
        names.sort();
        Ok((names, has_others))
    };
    match listed().map_err(|error| not_yet(from, &error))? {
        (names, _) if !names.is_empty() => Ok(names),
        (_, true) => Err(Fault::Never(format!(
            "no file directly in {} has a name that a variable can have: name them, --env NAME=file",
            from.display()
        ))),
        _ => Err(Fault::NotYet(format!("{} is empty", from.display()))),
    }
}

fn value(generation: &OwnedFd, file: &Path, name: String) -> Result<Value, Fault> {
    let read = || -> io::Result<Vec<u8>> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let opened = File::from(rustix::fs::openat(generation, file, flags, Mode::empty())?);
        let known = usize::try_from(opened.metadata()?.len().min(MOST_BYTES)).unwrap_or(0);
        // Of its final size at once: nothing is left where it was smaller.
        let mut bytes = Vec::with_capacity(known + 1);
        opened.take(MOST_BYTES + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let mut bytes = read().map_err(|error| not_yet(file, &error))?;
    let refused = |reason: &str| Fault::Never(format!("{} {reason}", file.display()));
    if bytes.len() as u64 > MOST_BYTES {
        return Err(refused("is too long for a variable: let the command read the file"));
    }
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
    }
    let value = SecretBytes::new(bytes);
    if value.expose().contains(&0) {
        return Err(refused(
            "has a NUL byte, which no variable can have: let the command read the file",
        ));
    }
    Ok(Value { name, value })
}
