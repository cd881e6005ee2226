//! A socket on tokio's reactor: the one unsafe call of this crate.
#![expect(unsafe_code, reason = "tokio asks its callers to promise that the fd stays the same")]

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Registers `socket`, which must be non-blocking.
///
/// # Errors
/// The reactor refused it.
pub(crate) fn register(socket: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd is open and names the same file description until it is dropped, and nobody in
    // this crate takes it out of the AsyncFd or replaces it there.
    Ok(unsafe { AsyncFd::register_with_interest(socket, interest) }?)
}
