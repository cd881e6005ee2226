//! A device of this process's own on a FUSE connection, and the notification that takes requests back.
//!
//! Invariant: the shared device is only written to; its mode is never changed.
#![expect(
    unsafe_code,
    reason = "FUSE_DEV_IOC_CLONE, and tokio's promise that an fd stays the same"
)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{CWD, OFlags};
use rustix::ioctl::{Opcode, Setter, ioctl, opcode};
use sotto_core::fuse_init::RESEND;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// `_IOR(229, 0, uint32_t)` of `include/uapi/linux/fuse.h`.
const FUSE_DEV_IOC_CLONE: Opcode = opcode::read::<u32>(229, 0);

/// How a device waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// As an agent's server needs it.
    Blocking,
    /// As this process needs it.
    NonBlocking,
}

/// Opens a device and puts it on the connection of `shared`. What is read from it must be answered on it.
///
/// # Errors
/// There is no device, or `shared` is on no connection.
pub(super) fn cloned(shared: impl AsFd, mode: Mode) -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let flags = match mode {
        Mode::Blocking => flags,
        Mode::NonBlocking => flags | OFlags::NONBLOCK,
    };
    let device = rustix::fs::openat(CWD, "/dev/fuse", flags, rustix::fs::Mode::empty())?;
    let number = shared.as_fd().as_raw_fd().cast_unsigned();
    // SAFETY: the kernel reads one u32 for this opcode, the number of an fd that is open in this process.
    unsafe { ioctl(&device, Setter::<FUSE_DEV_IOC_CLONE, u32>::new(number)) }?;
    Ok(device)
}

/// Takes back what was read from any of the connection's devices and not answered: it can be read again, and
/// its callers can be killed.
///
/// # Errors
/// The kernel is older than 6.9, or the connection is gone.
pub(super) fn resend(device: impl AsFd) -> io::Result<()> {
    rustix::io::write(device, &RESEND)?;
    Ok(())
}

/// Registers a non-blocking device with the runtime.
///
/// # Errors
/// The runtime refused.
pub(super) fn watched(device: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd is open and names the same device until it is dropped, and nobody takes it out of
    // the AsyncFd or replaces it there.
    Ok(unsafe { AsyncFd::register_with_interest(device, Interest::READABLE) }?)
}
