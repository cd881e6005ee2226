//! The kernel's table of mounts, read without touching any of them.
//!
//! Invariant: a line that can't be understood is an error and not a missing mount; whether something is
//! mounted decides whether a target may be touched.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// Largest table that is read: a node with a hundred thousand mounts.
const MAX_TABLE_BYTES: u64 = 32 << 20;
/// The kernel gives a page at a time whatever the buffer's size: a larger one is only paged in and wiped.
const BUFFER_BYTES: usize = 8 << 10;

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Its id.
    pub id: u32,
    /// The mount on which it lies.
    pub parent: u32,
    /// The file system's device, `major:minor`: the same for each bind of one file system.
    pub device: String,
    /// The part of the file system that is visible.
    pub root: PathBuf,
    /// Where.
    pub mount_point: PathBuf,
    /// The file system's type, e.g. `fuse.sotto`.
    pub fs_type: String,
    /// Its source, e.g. `sotto:csi-0a1b`.
    pub source: OsString,
}

/// Reads this process's mount namespace.
///
/// # Errors
/// The table can't be read or understood.
pub fn read() -> io::Result<Vec<Mount>> {
    let table = File::open("/proc/self/mountinfo")?.take(MAX_TABLE_BYTES);
    parse(BufReader::with_capacity(BUFFER_BYTES, table))
}

/// Parses a table in the format of proc_pid_mountinfo(5).
///
/// # Errors
/// The reader's, or the number of a line that can't be understood.
pub fn parse(mut reader: impl BufRead) -> io::Result<Vec<Mount>> {
    let mut mounts = Vec::new();
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line)? > 0 {
        let whole = line.pop_if(|last| *last == b'\n').is_some();
        match mount(&line) {
            Some(mount) if whole => mounts.push(mount),
            _ => {
                let what = format!("line {} of the mount table can't be read", mounts.len() + 1);
                return Err(io::Error::new(io::ErrorKind::InvalidData, what));
            }
        }
        line.clear();
    }
    Ok(mounts)
}

/// The mount that is seen at `path`: of several on top of each other the last.
#[must_use]
pub fn top_at<'a>(mounts: &'a [Mount], path: &Path) -> Option<&'a Mount> {
    let there = || mounts.iter().filter(|mount| mount.mount_point == path);
    let covers = |over: &Mount, under: &Mount| over.parent == under.id && over.id != under.id;
    there().find(|mount| !there().any(|other| covers(other, mount)))
}

fn mount(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let id = number(fields.next()?)?;
    let parent = number(fields.next()?)?;
    let device = text(fields.next()?)?;
    let root = PathBuf::from(unescape(fields.next()?));
    let mount_point = PathBuf::from(unescape(fields.next()?));
    // Options, then any number of optional fields up to a hyphen.
    fields.find(|field| *field == b"-")?;
    let fs_type = text(fields.next()?)?;
    let source = unescape(fields.next()?);
    Some(Mount { id, parent, device, root, mount_point, fs_type, source })
}

fn text(field: &[u8]) -> Option<String> {
    Some(std::str::from_utf8(field).ok()?.to_owned())
}

fn number(field: &[u8]) -> Option<u32> {
    std::str::from_utf8(field).ok()?.parse().ok()
}

/// Space, tab, newline, backslash and `#` come as three octal digits.
fn unescape(field: &[u8]) -> OsString {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        let octal = (byte == b'\\').then(|| after.first_chunk().and_then(octal)).flatten();
        bytes.push(octal.unwrap_or(byte));
        rest = if octal.is_some() { &after[3..] } else { after };
    }
    OsString::from_vec(bytes)
}

fn octal(digits: &[u8; 3]) -> Option<u8> {
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()
}

impl Mount {
    /// The source after `prefix`, if it begins with it.
    #[must_use]
    pub fn source_after(&self, prefix: &str) -> Option<&OsStr> {
        self.source.as_bytes().strip_prefix(prefix.as_bytes()).map(OsStr::from_bytes)
    }
}

#[cfg(test)]
mod tests;
