//! Detached views of what is mounted: a writable one of a volume, a read-only one of a directory.
#![expect(unsafe_code, reason = "mount_setattr has no wrapper in rustix")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::mount::{OpenTreeFlags, open_tree};

/// `struct mount_attr` of mount_setattr(2).
#[repr(C)]
#[derive(Default)]
struct MountAttributes {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

const MOUNT_ATTR_RDONLY: u64 = 1;
const MOUNT_ATTR_NOSUID: u64 = 2;
const MOUNT_ATTR_NODEV: u64 = 4;
const MOUNT_ATTR_NOEXEC: u64 = 8;

/// Clones the mount at `target` (an O_PATH fd of its root) as a detached mount that can be written.
/// Nothing is asked of the file system's server.
///
/// # Errors
/// The kernel refused.
pub(crate) fn writable(target: impl AsFd) -> io::Result<OwnedFd> {
    changed(target, &MountAttributes { clear: MOUNT_ATTR_RDONLY, ..MountAttributes::default() })
}

/// Clones `directory` as a detached mount of its own, in which nothing can be written, run or opened as a device.
///
/// # Errors
/// The kernel refused.
pub(crate) fn read_only(directory: impl AsFd) -> io::Result<OwnedFd> {
    let set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
    changed(directory, &MountAttributes { set, ..MountAttributes::default() })
}

fn changed(target: impl AsFd, attributes: &MountAttributes) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    let view = open_tree(target, "", flags)?;
    // SAFETY: the fd is open, the path a C string, the structure lives across the call and its size is
    // told; the kernel only reads it.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            view.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            std::ptr::from_ref(attributes),
            size_of::<MountAttributes>(),
        )
    };
    if result == 0 { Ok(view) } else { Err(io::Error::last_os_error()) }
}
