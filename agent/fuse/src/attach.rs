//! Puts a fuser session on a FUSE connection whose INIT somebody else answered, at start as after a crash.
//!
//! fuser insists on the handshake. It gets a socket with an INIT made from what was negotiated; once it
//! has answered, the real device takes the socket's place under the same number (facts/fuse.md,
//! "Take-over"). So the first server and every later one attach alike.
#![expect(
    unsafe_code,
    reason = "dup3 onto the session's fd, and the fd that the session keeps open"
)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use fuser::{Config, Filesystem, Notifier, Session, SessionACL};
use rustix::fs::OFlags;
use rustix::io::Errno;
use sotto_core::fuse_init::{Negotiated, RESEND, notification};
use sotto_core::snapshot::Inode;

const NOTIFY_INVAL_INODE: u32 = 2;
/// `fuse_out_header` and `fuse_notify_inval_inode_out`.
const INVAL_INODE_BYTES: usize = 40;
/// The handshake runs over a socket in this process; it has no reason to wait at all.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(1);

/// Makes a session on `fuse`; with `resend`, asks the kernel to send again what a former server left.
///
/// # Errors
/// The fd is no live FUSE connection, or is in non-blocking mode (fuser would spin on it).
pub(crate) fn attach<F: Filesystem>(
    filesystem: F,
    fuse: OwnedFd,
    init: &Negotiated,
    resend: bool,
) -> io::Result<Session<F>> {
    if rustix::fs::fcntl_getfl(&fuse)?.contains(OFlags::NONBLOCK) {
        let problem = "the FUSE connection is in non-blocking mode: whoever set that must unset it";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
    }
    let (kernel_end, session_end) = UnixDatagram::pair()?;
    kernel_end.set_read_timeout(Some(HANDSHAKE_DEADLINE))?;
    session_end.set_read_timeout(Some(HANDSHAKE_DEADLINE))?;
    kernel_end.send(&init.synthetic_request())?;
    let mut config = Config::default();
    config.acl = SessionACL::All;
    let session = Session::from_fd(filesystem, session_end.into(), SessionACL::All, config)?;
    // The reply says what the driver told the kernel long ago.
    kernel_end.recv(&mut [0; 256])?;
    swap_in(&fuse, session.as_fd())?;
    if resend && init.can_resend() {
        rustix::io::write(session.as_fd(), &RESEND)?;
    }
    Ok(session)
}

fn swap_in(fuse: &OwnedFd, place: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: both are open; replacing what the session's number stands for is what this is for, and
    // the session has started no thread yet.
    let result = unsafe { libc::dup3(fuse.as_raw_fd(), place.as_raw_fd(), libc::O_CLOEXEC) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The device of a session, for notifications; lives longer than the session.
pub(crate) struct Device {
    number: RawFd,
    /// Keeps `number` open.
    _open: Notifier,
}

impl Device {
    pub(crate) fn of<F: Filesystem>(session: &Session<F>) -> Self {
        Self { number: session.as_fd().as_raw_fd(), _open: session.notifier() }
    }

    /// Drops what the kernel has cached of `inode`: pages and attributes. False if the kernel doesn't
    /// know the inode (any more), which fuser's own notifier hides.
    pub(crate) fn invalidate(&self, inode: Inode) -> io::Result<bool> {
        let mut bytes = [0; INVAL_INODE_BYTES];
        let header = notification(NOTIFY_INVAL_INODE, INVAL_INODE_BYTES as u32);
        bytes[..header.len()].copy_from_slice(&header);
        bytes[16..24].copy_from_slice(&inode.0.to_ne_bytes());
        // Offset 0 and length 0: everything.
        match rustix::io::write(self.borrow(), &bytes) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn borrow(&self) -> BorrowedFd<'_> {
        // SAFETY: the notifier shares the session's fd and closes it only when dropped, with `self`.
        unsafe { BorrowedFd::borrow_raw(self.number) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Nothing;
    impl Filesystem for Nothing {}

    fn negotiated() -> Negotiated {
        Negotiated { major: 7, minor: 40, max_readahead: 4096, flags: 0, max_write: 4096 }
    }

    #[test]
    fn the_device_takes_the_place_of_the_handshakes_socket() {
        let (device, other) = UnixDatagram::pair().unwrap();
        other.set_read_timeout(Some(HANDSHAKE_DEADLINE)).unwrap();
        let session = attach(Nothing, device.into(), &negotiated(), false).unwrap();
        rustix::io::write(session.as_fd(), b"through the session").unwrap();
        let mut buffer = [0; 64];
        let size = other.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..size], b"through the session");
    }

    #[test]
    fn a_kernel_that_cannot_resend_is_not_asked_to() {
        let (device, other) = UnixDatagram::pair().unwrap();
        other.set_nonblocking(true).unwrap();
        let _session = attach(Nothing, device.into(), &negotiated(), true).unwrap();
        assert_eq!(other.recv(&mut [0; 64]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_non_blocking_connection_is_refused() {
        let (device, _other) = UnixDatagram::pair().unwrap();
        device.set_nonblocking(true).unwrap();
        let error = attach(Nothing, device.into(), &negotiated(), false).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}
