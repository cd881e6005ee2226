//! The file-system operations of a rotation, relative to a writable view of the mount, so that inotify
//! reports what a rename on tmpfs would. Runs only in the short-lived helper process.
//!
//! Invariant: each operation may be repeated (a helper or an agent was killed half-way): what is done
//! already is not an error.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT,
};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

const DATA_LINK: &str = "..data";
const NEW_DATA_LINK: &str = "..data_tmp";
/// Where a retired generation goes that a subPath bind still shows.
const HIDDEN: &str = "..sotto";
/// Deepest nesting of an object's name.
const DEEPEST: usize = 16;

/// What a helper is told to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Operation {
    /// Turn to a new generation.
    Rotate {
        /// Its number.
        generation: u64,
        /// Names that come into the root.
        add_links: Vec<String>,
        /// Names that leave the root.
        remove_links: Vec<String>,
    },
    /// Remove an old generation's directory, or move it out of sight.
    Retire {
        /// Its number.
        generation: u64,
        /// A bind mount still shows files of it.
        bound: bool,
    },
    /// Set the modification time of files of a hidden generation.
    Touch {
        /// Its number.
        generation: u64,
        /// Relative to the generation's directory.
        paths: Vec<String>,
    },
}

impl Operation {
    /// Makes the operations beneath `root`, a writable view of the volume.
    ///
    /// # Errors
    /// What the kernel or the agent refused.
    pub fn perform(&self, root: impl AsFd) -> io::Result<()> {
        let root = root.as_fd();
        match self {
            Self::Rotate { generation, add_links, remove_links } => {
                turn(root, *generation)?;
                add_links.iter().try_for_each(|name| link(root, name))?;
                remove_links.iter().try_for_each(|name| unlink(root, name))
            }
            Self::Retire { generation, bound: false } => remove_directory(root, *generation),
            Self::Retire { generation, bound: true } => hide(root, *generation),
            Self::Touch { generation, paths } => {
                paths.iter().try_for_each(|path| touch(root, *generation, path))
            }
        }
    }
}

fn turn(root: impl AsFd, generation: u64) -> io::Result<()> {
    let root = root.as_fd();
    let directory = format!("..{generation}");
    if rustix::fs::readlinkat(root, DATA_LINK, Vec::new())?.as_bytes() == directory.as_bytes() {
        return Ok(());
    }
    done_already(rustix::fs::mkdirat(root, &directory, Mode::from_raw_mode(0o755)), Errno::EXIST)?;
    done_already(rustix::fs::symlinkat(&directory, root, NEW_DATA_LINK), Errno::EXIST)?;
    Ok(rustix::fs::renameat(root, NEW_DATA_LINK, root, DATA_LINK)?)
}

fn link(root: impl AsFd, name: &str) -> io::Result<()> {
    done_already(rustix::fs::symlinkat(format!("{DATA_LINK}/{name}"), root, name), Errno::EXIST)
}

fn unlink(root: impl AsFd, name: &str) -> io::Result<()> {
    done_already(rustix::fs::unlinkat(root, name, AtFlags::empty()), Errno::NOENT)
}

/// File by file, as AtomicWriter does: a watcher of a file learns of its end only by its own unlink.
fn remove_directory(root: impl AsFd, generation: u64) -> io::Result<()> {
    let name = format!("..{generation}");
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(root.as_fd(), &name, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(error.into()),
        Ok(directory) => empty(directory, DEEPEST)?,
    }
    done_already(rustix::fs::unlinkat(root, &name, AtFlags::REMOVEDIR), Errno::NOENT)
}

fn empty(directory: OwnedFd, depth: usize) -> io::Result<()> {
    if depth == 0 {
        return Err(io::Error::other("the directories are nested too deeply"));
    }
    for entry in Dir::read_from(&directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let flags = if entry.file_type() == FileType::Directory {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            empty(rustix::fs::openat(&directory, name, flags, Mode::empty())?, depth - 1)?;
            AtFlags::REMOVEDIR
        } else {
            AtFlags::empty()
        };
        done_already(rustix::fs::unlinkat(&directory, name, flags), Errno::NOENT)?;
    }
    Ok(())
}

fn hide(root: impl AsFd, generation: u64) -> io::Result<()> {
    let root = root.as_fd();
    let directory = format!("..{generation}");
    let hidden = format!("{HIDDEN}/{directory}");
    done_already(rustix::fs::renameat(root, &directory, root, &hidden), Errno::NOENT)
}

fn touch(root: impl AsFd, generation: u64, path: &str) -> io::Result<()> {
    let path = format!("{HIDDEN}/..{generation}/{path}");
    let (directory, name) = path.rsplit_once('/').ok_or(io::ErrorKind::InvalidInput)?;
    // The agent answers for what lies on the way: none of its links may lead out of its volume.
    let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = match rustix::fs::openat2(root, directory, flags, Mode::empty(), beneath) {
        Ok(directory) => directory,
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
    };
    let touched = rustix::fs::utimensat(directory, name, &times, AtFlags::SYMLINK_NOFOLLOW);
    // A file that the new generation doesn't have any more has no watchers to tell.
    done_already(touched, Errno::NOENT)
}

fn done_already(result: rustix::io::Result<()>, harmless: Errno) -> io::Result<()> {
    match result {
        Err(error) if error != harmless => Err(error.into()),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};
    use std::path::Path;

    fn volume() -> (tempfile::TempDir, OwnedFd) {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("..1")).unwrap();
        fs::create_dir(directory.path().join(HIDDEN)).unwrap();
        std::os::unix::fs::symlink("..1", directory.path().join(DATA_LINK)).unwrap();
        let root = File::open(directory.path()).unwrap().into();
        (directory, root)
    }

    fn rotate() -> Operation {
        Operation::Rotate {
            generation: 2,
            add_links: vec!["new".to_owned()],
            remove_links: vec!["old".to_owned()],
        }
    }

    fn target(directory: &Path, name: &str) -> String {
        fs::read_link(directory.join(name)).unwrap().display().to_string()
    }

    #[test]
    fn a_rotation_turns_the_link_and_may_be_repeated() {
        let (directory, root) = volume();
        std::os::unix::fs::symlink("..data/old", directory.path().join("old")).unwrap();
        for _ in 0..2 {
            rotate().perform(&root).unwrap();
            assert_eq!(target(directory.path(), DATA_LINK), "..2");
            assert_eq!(target(directory.path(), "new"), "..data/new");
            assert!(!directory.path().join("old").is_symlink());
            assert!(!directory.path().join(NEW_DATA_LINK).is_symlink());
        }
    }

    #[test]
    fn a_rotation_that_was_cut_short_is_completed() {
        let (directory, root) = volume();
        fs::create_dir(directory.path().join("..2")).unwrap();
        std::os::unix::fs::symlink("..2", directory.path().join(NEW_DATA_LINK)).unwrap();
        rotate().perform(&root).unwrap();
        assert_eq!(target(directory.path(), DATA_LINK), "..2");
    }

    #[test]
    fn a_link_of_the_agent_leads_no_touch_out_of_the_volume() {
        let (directory, root) = volume();
        let outside = tempfile::tempdir().unwrap();
        let file = outside.path().join("passwd");
        fs::write(&file, "x").unwrap();
        let before = fs::metadata(&file).unwrap().modified().unwrap();
        std::os::unix::fs::symlink(outside.path(), directory.path().join("..sotto/..1")).unwrap();
        let touch = Operation::Touch { generation: 1, paths: vec!["passwd".into()] };
        assert!(touch.perform(&root).is_err());
        assert_eq!(fs::metadata(&file).unwrap().modified().unwrap(), before);
    }

    #[test]
    fn an_old_generation_goes_or_hides() {
        let (directory, root) = volume();
        fs::write(directory.path().join("..1/a"), "x").unwrap();
        for _ in 0..2 {
            Operation::Retire { generation: 1, bound: true }.perform(&root).unwrap();
        }
        let touch = Operation::Touch { generation: 1, paths: vec!["a".into(), "gone".into()] };
        touch.perform(&root).unwrap();
        assert!(directory.path().join("..sotto/..1/a").exists());
        fs::create_dir_all(directory.path().join("..2/nested")).unwrap();
        fs::write(directory.path().join("..2/nested/file"), "x").unwrap();
        for _ in 0..2 {
            Operation::Retire { generation: 2, bound: false }.perform(&root).unwrap();
        }
        assert!(!directory.path().join("..2").exists());
    }
}
