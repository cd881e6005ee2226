//! A peer: files on tmpfs as kubelet's AtomicWriter lays them out, which is how every other driver delivers.
//!
//! `name -> ..data/name`, `..data -> ..<generation>`, turned by a rename of `..data_tmp`.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::ensure;
use tempfile::TempDir;

/// A tmpfs on every Linux.
const AT: &str = "/dev/shm";
/// As deep as a volume in a container.
const VOLUME: &str = "secrets";
const TMPFS_MAGIC: i64 = 0x0102_1994;

/// A directory of files.
pub(crate) struct Tmpfs(TempDir);

impl Tmpfs {
    /// With these files: names and sizes.
    pub(crate) fn of(files: &[(String, usize)]) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("sotto-tmpfs-").tempdir_in(AT)?;
        let kind = rustix::fs::statfs(directory.path())?.f_type;
        ensure!(kind as i64 == TMPFS_MAGIC, "{AT} is no tmpfs");
        let at = &directory.path().join(VOLUME);
        std::fs::create_dir_all(at.join("..1"))?;
        for (name, bytes) in files {
            std::fs::write(at.join("..1").join(name), vec![b'x'; *bytes])?;
            symlink(Path::new("..data").join(name), at.join(name))?;
        }
        symlink("..1", at.join("..data_tmp"))?;
        std::fs::rename(at.join("..data_tmp"), at.join("..data"))?;
        Ok(Self(directory))
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.0.path().join(VOLUME)
    }
}
