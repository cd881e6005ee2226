//! The run directory, `/run/sotto`: where driver and agents meet and the journal lies.
//!
//! Invariant: nobody but this process's user can put a file there; it is in memory, so that it is gone
//! after a reboot, as the mounts are.

use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;

/// Others may pass through, to a socket whose name they know and whose mode lets them.
const MODE: Mode = Mode::from_raw_mode(0o711);
const TMPFS_MAGIC: i64 = 0x0102_1994;
const RAMFS_MAGIC: i64 = 0x8584_58f6;

/// A directory that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum RunDirError {
    /// The kernel's.
    #[error("the run directory {0} can't be used")]
    Io(PathBuf, #[source] io::Error),
    /// Others may write in it.
    #[error(
        "the run directory {0} belongs to uid {1} with mode {2:03o}: it must belong to this process's \
         user and be writable by nobody else"
    )]
    NotOurs(PathBuf, u32, u32),
    /// On a disk.
    #[error("the run directory {0} is not on tmpfs: mount one there, or name one with --run-dir")]
    NotInMemory(PathBuf),
}

/// Makes the directory if need be and checks it. In development it may be on a disk.
///
/// # Errors
/// Why it can't be used.
pub fn prepare(path: &Path, development: bool) -> Result<(), RunDirError> {
    let io = |error: Errno| RunDirError::Io(path.to_owned(), error.into());
    let made = match rustix::fs::mkdir(path, Mode::RWXU) {
        Ok(()) => true,
        Err(Errno::EXIST) => false,
        Err(error) => return Err(io(error)),
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::openat(CWD, path, flags, Mode::empty()).map_err(io)?;
    if made {
        rustix::fs::fchmod(&directory, MODE).map_err(io)?;
    }
    let found = rustix::fs::fstat(&directory).map_err(io)?;
    let mode = found.st_mode & 0o777;
    if found.st_uid != rustix::process::geteuid().as_raw() || mode & 0o022 != 0 {
        return Err(RunDirError::NotOurs(path.to_owned(), found.st_uid, mode));
    }
    // Its type differs between architectures.
    #[allow(clippy::useless_conversion, clippy::unnecessary_cast)]
    let kind = rustix::fs::fstatfs(&directory).map_err(io)?.f_type as i64;
    if kind != TMPFS_MAGIC && kind != RAMFS_MAGIC {
        if !development {
            return Err(RunDirError::NotInMemory(path.to_owned()));
        }
        tracing::warn!(path = %path.display(), "the run directory is not on tmpfs: development only");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn it_is_made_passable_and_not_listable() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("sotto");
        for _ in 0..2 {
            prepare(&path, true).unwrap();
        }
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o711);
    }

    #[test]
    fn one_that_others_may_write_in_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        for mode in [0o777, 0o720, 0o702] {
            fs::set_permissions(directory.path(), Permissions::from_mode(mode)).unwrap();
            let refused = prepare(directory.path(), true);
            assert!(matches!(refused, Err(RunDirError::NotOurs(_, _, seen)) if seen == mode));
        }
    }

    #[test]
    fn one_on_a_disk_is_refused_but_in_development() {
        // /proc stands for any file system that isn't in memory.
        let refused = prepare(Path::new("/proc/self"), false);
        assert!(matches!(refused, Err(RunDirError::NotInMemory(_))), "{refused:?}");
    }
}
