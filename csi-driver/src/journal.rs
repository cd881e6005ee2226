//! The journal: one small file a volume in `<run dir>/volumes`, for a driver that starts again.
//!
//! Invariant: an entry is written before its mount is attached and removed after the mount is gone, so
//! each mount of ours has one, or is found by its source in mountinfo; an entry is whole or absent
//! (written aside, then renamed); there is no secret and no token in it.

use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use sotto_core::fuse_init::Negotiated;
use sotto_core::identity::VolumeId;

use crate::volume::VolumeSpec;

const DIRECTORY: &str = "volumes";
const SUFFIX: &str = ".json";
/// Begins with a dot, which no volume id does.
const ASIDE: &str = ".new-";
/// An entry's largest size; ours have about 1 KiB.
const MAX_ENTRY_BYTES: u64 = 64 << 10;
const VERSION: u32 = 1;

/// What is kept of a volume. Fields are only added, so that a driver reads what its predecessor wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    version: u32,
    /// The volume.
    pub volume_id: VolumeId,
    /// Its target, relative to the kubelet directory.
    pub target: PathBuf,
    /// What kubelet said about it.
    pub spec: VolumeSpec,
    init: Init,
}

/// [`Negotiated`] as a file holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Init {
    major: u32,
    minor: u32,
    max_readahead: u32,
    flags: u64,
    max_write: u32,
}

impl Entry {
    /// An entry of this version.
    #[must_use]
    pub fn new(volume_id: VolumeId, target: PathBuf, spec: VolumeSpec, init: Negotiated) -> Self {
        let Negotiated { major, minor, max_readahead, flags, max_write } = init;
        let init = Init { major, minor, max_readahead, flags, max_write };
        Self { version: VERSION, volume_id, target, spec, init }
    }

    /// What was agreed upon with the kernel.
    #[must_use]
    pub fn init(&self) -> Negotiated {
        let Init { major, minor, max_readahead, flags, max_write } = self.init;
        Negotiated { major, minor, max_readahead, flags, max_write }
    }
}

/// The journal's directory, kept open.
#[derive(Debug)]
pub struct Journal {
    directory: OwnedFd,
}

impl Journal {
    /// Opens the journal of `run_dir`, made where it isn't there, readable by its owner only.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open(run_dir: &Path) -> io::Result<Self> {
        let path = run_dir.join(DIRECTORY);
        match rustix::fs::mkdir(&path, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = rustix::fs::openat(CWD, &path, flags, Mode::empty())?;
        rustix::fs::fchmod(&directory, Mode::RWXU)?;
        Ok(Self { directory })
    }

    /// Writes an entry, whole or not at all.
    ///
    /// # Errors
    /// The kernel's; an earlier entry stays.
    pub fn record(&self, entry: &Entry) -> io::Result<()> {
        let name = file_name(&entry.volume_id);
        let aside = format!("{ASIDE}{name}");
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let file = rustix::fs::openat(&self.directory, &aside, flags, mode)?;
        std::fs::File::from(file).write_all(&serde_json::to_vec(entry)?)?;
        Ok(rustix::fs::renameat(&self.directory, &aside, &self.directory, &name)?)
    }

    /// Removes an entry; done already is done.
    ///
    /// # Errors
    /// The kernel's.
    pub fn forget(&self, volume: &VolumeId) -> io::Result<()> {
        self.remove(&file_name(volume))
    }

    /// All entries. What a crash left half-written is removed, what can't be understood as well: its mount
    /// is found by mountinfo.
    ///
    /// # Errors
    /// The directory can't be read.
    pub fn load(&self) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for found in rustix::fs::Dir::read_from(&self.directory)? {
            let found = found?;
            let Ok(name) = found.file_name().to_str() else { continue };
            if name == "." || name == ".." {
                continue;
            }
            match self.entry(name) {
                Ok(entry) => entries.push(entry),
                Err(error) => {
                    tracing::warn!(name, %error, "a journal entry is left out and removed");
                    self.remove(name)?;
                }
            }
        }
        Ok(entries)
    }

    fn entry(&self, name: &str) -> io::Result<Entry> {
        let invalid = |what| io::Error::new(io::ErrorKind::InvalidData, what);
        let id = name.strip_suffix(SUFFIX).ok_or_else(|| invalid("not an entry's name"))?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.directory, name, flags, Mode::empty())?;
        let mut text = Vec::new();
        std::fs::File::from(file).take(MAX_ENTRY_BYTES).read_to_end(&mut text)?;
        let entry: Entry = serde_json::from_slice(&text)?;
        if entry.volume_id.as_str() == id {
            Ok(entry)
        } else {
            Err(invalid("the entry is of another volume"))
        }
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        match rustix::fs::unlinkat(&self.directory, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

fn file_name(volume: &VolumeId) -> String {
    format!("{volume}{SUFFIX}")
}

#[cfg(test)]
mod tests;
