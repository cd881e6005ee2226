//! Whether an fd that an agent gave is the FUSE connection of a mount.
//!
//! An agent is less trusted than the driver: the fd goes to the next agent, which will show a pod's secrets
//! on it. Checked, without asking the mount anything:
//!
//! | what | how | against |
//! |---|---|---|
//! | it is a FUSE device | the kind and the number of the device | any other file |
//! | it is open for reading and writing, and waits | its open flags | an fd that the next agent couldn't use, or would spin on |
//! | it is the connection of *this* mount | `fuse_connection` in fdinfo is the device number of the mount | another volume's connection, a mount of the agent's own |
//!
//! Kernels whose fdinfo doesn't name the connection let only the first two be checked, and that it is on some
//! connection. What an agent could gain there is to confuse volumes that it serves itself.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use rustix::fs::{FileType, OFlags, fcntl_getfl, fstat, major, minor};

use crate::mountinfo::Mount;
use crate::unserved;

/// `/dev/fuse`: MISC_MAJOR and FUSE_MINOR.
const FUSE_DEVICE: (u32, u32) = (10, 229);
/// Of a `dev_t` as the kernel counts it.
const MINOR_BITS: u32 = 20;
const FIELD: &str = "fuse_connection:";

/// An fd that isn't the mount's connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// Another kind of file.
    #[error("the fd is no FUSE device")]
    NotADevice,
    /// Not usable by a server.
    #[error("the FUSE device is not open for reading and writing, or doesn't wait")]
    Mode,
    /// Of another mount.
    #[error("the fd is on FUSE connection {seen}, the mount is device {wanted}")]
    OtherMount {
        /// The fd's.
        seen: String,
        /// The mount's.
        wanted: String,
    },
    /// On none.
    #[error("the FUSE device is on no connection")]
    Unconnected(#[source] io::Error),
    /// The kernel refused to tell.
    #[error("the kernel doesn't tell about the fd")]
    Io(#[from] io::Error),
}

/// Checks that `fd` is the connection of `mount`.
///
/// # Errors
/// What it is instead.
pub fn verify(fd: impl AsFd, mount: &Mount) -> Result<(), ConnectionError> {
    let fd = fd.as_fd();
    let stat = fstat(fd).map_err(io::Error::from)?;
    let device = (major(stat.st_rdev), minor(stat.st_rdev));
    if FileType::from_raw_mode(stat.st_mode) != FileType::CharacterDevice || device != FUSE_DEVICE {
        return Err(ConnectionError::NotADevice);
    }
    let flags = fcntl_getfl(fd).map_err(io::Error::from)?;
    if flags & OFlags::RWMODE != OFlags::RDWR || flags.contains(OFlags::NONBLOCK) {
        return Err(ConnectionError::Mode);
    }
    // A device on no connection can't be cloned.
    unserved::on_a_connection(fd).map_err(ConnectionError::Unconnected)?;
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd()))?;
    match connection_of(&info) {
        Some(seen) if Some(seen) != number(&mount.device) => {
            let wanted = mount.device.clone();
            Err(ConnectionError::OtherMount { seen: seen.to_string(), wanted })
        }
        Some(_) | None => Ok(()),
    }
}

/// The number in fdinfo; `None` on a kernel that doesn't write it.
fn connection_of(info: &str) -> Option<u32> {
    info.lines().find_map(|line| line.strip_prefix(FIELD))?.trim().parse().ok()
}

/// `major:minor` of mountinfo as the kernel's number.
fn number(device: &str) -> Option<u32> {
    let (major, minor) = device.split_once(':')?;
    let (major, minor): (u32, u32) = (major.parse().ok()?, minor.parse().ok()?);
    (minor >> MINOR_BITS == 0).then_some(major << MINOR_BITS | minor)
}

#[cfg(test)]
mod tests;
