//! `pods/<uid>` in the run directory: what a handoff volume shows.
//!
//! Invariant: it belongs to this process's user, nobody else may write in it, and it holds the socket alone. A
//! pod's uid is a file's name by its syntax. What the pod sees is a read-only view.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, XattrFlags};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, move_mount};
use sotto_core::identity::PodUid;

use crate::mountinfo::Mount;
use crate::view;

const PODS: &str = "pods";
/// The socket's name in it.
pub(super) const SOCKET: &str = "handoff.sock";
/// Passable, for sidecars of pods whose users are mapped too; what counts is who connects.
const MODE: Mode = Mode::from_raw_mode(0o755);
/// Which pods there are is nobody's business.
const PASSABLE: Mode = Mode::from_raw_mode(0o711);
const LABEL: &str = "security.selinux";
/// What containers may use, on nodes where kubelet names no context.
pub(super) const CONTAINERS_LABEL: &str = "system_u:object_r:container_file_t:s0";

fn path(run_dir: &Path, pod: &PodUid) -> PathBuf {
    run_dir.join(PODS).join(pod.as_str())
}

/// Where the pod's socket is.
pub(super) fn socket(run_dir: &Path, pod: &PodUid) -> PathBuf {
    path(run_dir, pod).join(SOCKET)
}

/// Makes the pod's directory, or takes the one that is there.
pub(super) fn make(run_dir: &Path, pod: &PodUid) -> io::Result<()> {
    for (directory, mode) in [(run_dir.join(PODS), PASSABLE), (path(run_dir, pod), MODE)] {
        match rustix::fs::mkdir(&directory, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        rustix::fs::fchmod(open_at(&directory)?, mode)?;
    }
    Ok(())
}

/// Gives directory and socket an SELinux label: a container may not connect to what has the run directory's.
pub(super) fn label(run_dir: &Path, pod: &PodUid, label: &str) -> io::Result<()> {
    // With the zero that ends it, as the kernel has it.
    let label = [label.as_bytes(), &[0]].concat();
    for place in [path(run_dir, pod), socket(run_dir, pod)] {
        rustix::fs::lsetxattr(&place, LABEL, &label, XattrFlags::empty())?;
    }
    Ok(())
}

/// Removes it with its socket; done already is done.
pub(super) fn remove(run_dir: &Path, pod: &PodUid) -> io::Result<()> {
    let path = path(run_dir, pod);
    for (name, flags) in [(path.join(SOCKET), AtFlags::empty()), (path, AtFlags::REMOVEDIR)] {
        match rustix::fs::unlinkat(CWD, &name, flags) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// All pods that have one.
pub(super) fn all(run_dir: &Path) -> io::Result<Vec<PodUid>> {
    let mut pods = Vec::new();
    let entries = match std::fs::read_dir(run_dir.join(PODS)) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(pods),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let name = entry?.file_name();
        pods.extend(name.to_str().and_then(|name| PodUid::parse(name).ok()));
    }
    Ok(pods)
}

/// Shows the directory, read-only, at `target`, an open directory.
pub(super) fn show(run_dir: &Path, pod: &PodUid, target: &OwnedFd) -> io::Result<()> {
    let view = view::read_only(open_at(&path(run_dir, pod))?)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(move_mount(&view, "", target, "", flags)?)
}

/// Finds mounts that show pods' directories, by the mount table alone.
pub(super) struct Shown<'a> {
    mounts: &'a [Mount],
    /// The run directory's file system, and where in it the run directory is.
    base: Option<(&'a str, PathBuf)>,
}

impl<'a> Shown<'a> {
    pub(super) fn new(run_dir: &Path, mounts: &'a [Mount]) -> Self {
        // A link in its path is followed once, here.
        let run_dir = run_dir.canonicalize().unwrap_or_else(|_| run_dir.to_owned());
        let around = mounts.iter().filter(|mount| run_dir.starts_with(&mount.mount_point));
        // Of several on one path the last one is on top.
        let nearest = around.max_by_key(|mount| mount.mount_point.components().count());
        let base = nearest.and_then(|mount| {
            let beneath = run_dir.strip_prefix(&mount.mount_point).ok()?;
            Some((mount.device.as_str(), mount.root.join(beneath)))
        });
        Self { mounts, base }
    }

    /// Whether this mount shows the pod's directory.
    pub(super) fn by(&self, pod: &PodUid, mount: &Mount) -> bool {
        self.base.as_ref().is_some_and(|(device, root)| {
            mount.device == *device && mount.root == root.join(PODS).join(pod.as_str())
        })
    }

    /// Whether any mount does.
    pub(super) fn anywhere(&self, pod: &PodUid) -> bool {
        self.mounts.iter().any(|mount| self.by(pod, mount))
    }
}

fn open_at(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(CWD, path, flags, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mountinfo;

    #[test]
    fn a_pods_directory_is_told_from_another_drivers_of_the_same_file_system() {
        let table = "10 1 0:30 / /dev/shm rw - tmpfs tmpfs rw\n\
                     11 1 0:31 /sotto /run/sotto-test rw - tmpfs tmpfs rw\n\
                     12 1 0:31 /sotto/pods/uid-1 /k/a ro - tmpfs tmpfs rw\n\
                     13 1 0:31 /other/pods/uid-2 /k/b ro - tmpfs tmpfs rw\n\
                     14 1 0:30 /sotto/pods/uid-3 /k/c ro - tmpfs tmpfs rw\n";
        let mounts = mountinfo::parse(table.as_bytes()).unwrap();
        let shown = Shown::new(Path::new("/run/sotto-test"), &mounts);
        let anywhere = |pod: &str| shown.anywhere(&PodUid::parse(pod).unwrap());
        assert!(anywhere("uid-1"));
        assert!(!anywhere("uid-2") && !anywhere("uid-3") && !anywhere("uid-4"));
    }
}
