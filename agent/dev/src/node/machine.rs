//! The directories of one machine: a tmpfs of its own, so that no key and no journal touches a disk, with
//! the executables bound into it, so that every user reaches them wherever they were built.
//!
//! Invariant: everything below is unmounted when it is dropped, deepest first, and only then is the empty
//! directory removed; nothing is removed recursively, since a bound directory could be on the way.

use std::io;
use std::path::{Path, PathBuf};

use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_change, unmount,
};

/// Everything is small; the limit is for mistakes.
const OPTIONS: &std::ffi::CStr = c"mode=0711,size=256m";

/// A machine's directory could not be made.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// The temporary directory.
    #[error("no temporary directory can be made")]
    Directory(#[source] io::Error),
    /// Mounts aren't allowed here.
    #[error("nothing can be mounted here: run as root, or where user namespaces are allowed")]
    Mount(#[source] io::Error),
}

/// A machine's directory.
pub(super) struct Machine {
    root: PathBuf,
}

impl Machine {
    pub(super) fn new(executables: &Path) -> Result<Self, MachineError> {
        let folder = tempfile::Builder::new().prefix("sotto-").tempdir();
        let folder = folder.map_err(MachineError::Directory)?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        mount("tmpfs", folder.path(), "tmpfs", flags, OPTIONS)
            .map_err(|error| MachineError::Mount(error.into()))?;
        // From here on `Drop` takes everything back.
        let machine = Self { root: folder.keep() };
        // What is mounted below stays below, wherever the machine's own mounts are shared with.
        mount_change(&machine.root, MountPropagationFlags::PRIVATE)
            .map_err(|error| MachineError::Mount(error.into()))?;
        let names = [
            "bin",
            "classes",
            "etc",
            "kubelet",
            "kubelet/plugins_registry",
            "mnt",
            "pods",
            "providers",
        ];
        for name in names {
            std::fs::create_dir(machine.root.join(name)).map_err(MachineError::Directory)?;
        }
        machine.bind(executables, "bin")?;
        Ok(machine)
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Shows a directory at a second place, as a container's runtime does with a volume.
    pub(super) fn bind(&self, from: &Path, to: &str) -> Result<PathBuf, MachineError> {
        let to = self.root.join(to);
        self.bind_at(from, &to)?;
        Ok(to)
    }

    /// As [`Self::bind`], at a path of this machine.
    pub(super) fn bind_at(&self, from: &Path, to: &Path) -> Result<(), MachineError> {
        std::fs::create_dir_all(to).map_err(MachineError::Directory)?;
        mount_bind(from, to).map_err(|error| MachineError::Mount(error.into()))
    }

    /// Takes one mount back.
    pub(super) fn unbind(&self, at: &Path) -> io::Result<()> {
        Ok(unmount(at, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)?)
    }

    /// Mount points below the machine's directory, in the order they were mounted.
    pub(super) fn mounts(&self) -> Vec<PathBuf> {
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(unescape);
        points.filter(|point| *point != self.root && point.starts_with(&self.root)).collect()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // A detach never waits, not even for a file system that nobody serves.
        for mount in self.mounts().iter().rev().chain([&self.root]) {
            if let Err(error) = self.unbind(mount) {
                tracing::error!(mount = %mount.display(), %error, "a mount is left behind");
            }
        }
        if let Err(error) = std::fs::remove_dir(&self.root) {
            tracing::error!(path = %self.root.display(), %error, "a directory is left behind");
        }
    }
}

/// mountinfo writes space, tab, newline and backslash as `\ooo`.
fn unescape(text: &str) -> PathBuf {
    use std::os::unix::ffi::OsStringExt as _;
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        bytes.push(match (first, after) {
            (b'\\', [a, b, c, ..]) => {
                rest = &after[3..];
                (a - b'0') << 6 | (b - b'0') << 3 | (c - b'0')
            }
            (byte, _) => *byte,
        });
    }
    std::ffi::OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_with_spaces_are_read() {
        assert_eq!(unescape(r"/tmp/a\040b"), Path::new("/tmp/a b"));
        assert_eq!(unescape("/tmp/plain"), Path::new("/tmp/plain"));
    }
}
