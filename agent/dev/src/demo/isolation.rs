//! A mount namespace of the demo's own, so that nothing it mounts is seen elsewhere or outlives it; and for
//! whoever isn't root a user namespace, in which mounting is allowed.
//!
//! Called by [`super::run`] before any thread is started: namespaces belong to threads.
#![expect(unsafe_code, reason = "unshare(2)")]

use std::fs::File;
use std::io;

use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::process::{getegid, geteuid};
use rustix::thread::{UnshareFlags, unshare_unsafe};

const FUSE: &str = "/dev/fuse";

/// What the demo runs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Isolation {
    /// Real root, with every uid there is.
    Root,
    /// A user namespace, in which the caller is root and nobody else exists.
    UserNamespace,
}

/// Why nothing can be mounted.
#[derive(Debug, thiserror::Error)]
pub(super) enum IsolationError {
    #[error(
        "there is no {FUSE} here: load the module (modprobe fuse), or give the container the device"
    )]
    NoFuse,
    #[error(
        "this user may not open {FUSE}: run the demo as root, or chmod 0666 it, as most systems have it"
    )]
    FuseDenied(#[source] io::Error),
    #[error(
        "this user may not make a user namespace: run the demo as root, or allow it (sysctl \
         kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0)"
    )]
    UserNamespace(#[source] io::Error),
    #[error("the mounts can't be made private")]
    Private(#[source] io::Error),
}

/// Moves this process, which has one thread, into namespaces of its own.
pub(super) fn isolate() -> Result<Isolation, IsolationError> {
    match File::options().read(true).write(true).open(FUSE) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return Err(IsolationError::FuseDenied(error));
        }
        Err(_) => return Err(IsolationError::NoFuse),
    }
    let isolation = match geteuid().is_root().then(|| unshare(UnshareFlags::NEWNS)) {
        Some(Ok(())) => whoever_is_mapped(),
        Some(Err(_)) | None => {
            user_namespace().map_err(IsolationError::UserNamespace)?;
            Isolation::UserNamespace
        }
    };
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).map_err(|error| IsolationError::Private(error.into()))?;
    hide_temporary_files();
    Ok(isolation)
}

/// Puts a tmpfs over the directory of temporary files, here only: what is made there is in memory and goes
/// with the namespace, even if this process is killed. Not where this executable itself is below it.
fn hide_temporary_files() {
    let directory = std::env::temp_dir();
    let executable = std::env::current_exe().unwrap_or_default();
    let working = std::env::current_dir().unwrap_or_default();
    if executable.starts_with(&directory) || working.starts_with(&directory) {
        return;
    }
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    if let Err(error) = mount("tmpfs", &directory, "tmpfs", flags, c"mode=1777") {
        // Only a kill would show the difference.
        tracing::debug!(%error, "temporary files are not hidden");
    }
}

/// Root may be root of a user namespace that somebody else made (`unshare --map-root-user`).
fn whoever_is_mapped() -> Isolation {
    match crate::node::is_mapped(crate::node::AGENT_ID) {
        true => Isolation::Root,
        false => Isolation::UserNamespace,
    }
}

fn unshare(flags: UnshareFlags) -> Result<(), Errno> {
    // SAFETY: file descriptor tables aren't unshared, which is all that the function asks for.
    unsafe { unshare_unsafe(flags) }
}

fn user_namespace() -> io::Result<()> {
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNS)?;
    // An unprivileged process may write gid_map only after this.
    std::fs::write("/proc/self/setgroups", "deny")?;
    std::fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
    std::fs::write("/proc/self/gid_map", format!("0 {gid} 1"))
}
