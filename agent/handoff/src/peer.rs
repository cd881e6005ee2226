//! Who is at the other end of a connection, as the kernel recorded it when the connection was made.
#![expect(
    unsafe_code,
    reason = "rustix reads the pid as a number that can't be 0; it is 0 for a peer in another pid namespace"
)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// Linux 6.5; the same number on every architecture that we build for.
const SO_PEERPIDFD: libc::c_int = 77;

/// What SO_PEERCRED says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerCredentials {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Process id; `None` for a peer that this pid namespace doesn't see, e.g. the driver (hostPID) from
    /// an agent's pod.
    pub pid: Option<u32>,
}

/// A peer that may not connect.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// Another uid.
    #[error("the process at the other end runs as uid {seen}: only uid {wanted} may connect")]
    WrongUid {
        /// Its uid.
        seen: u32,
        /// The uid it should have.
        wanted: u32,
    },
    /// The kernel refused.
    #[error("the peer's credentials can't be read")]
    Io(#[from] io::Error),
}

/// Reads the peer's credentials.
///
/// # Errors
/// Not a unix socket, or not connected.
pub fn credentials(socket: impl AsFd) -> io::Result<PeerCredentials> {
    let mut peer = libc::ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
    let mut size = libc::socklen_t::try_from(size_of::<libc::ucred>()).map_err(io::Error::other)?;
    // SAFETY: the fd is open; the kernel writes at most `size` bytes into `peer`, which is plain integers
    // for which every bit pattern is a value.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut peer).cast(),
            &raw mut size,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // An unconnected socket has uid -1.
    if peer.uid == u32::MAX || size as usize != size_of::<libc::ucred>() {
        return Err(io::ErrorKind::NotConnected.into());
    }
    let pid = u32::try_from(peer.pid).ok().filter(|pid| *pid != 0);
    Ok(PeerCredentials { uid: peer.uid, gid: peer.gid, pid })
}

/// The process that made the connection, held so that its pid can't become another's unnoticed.
#[derive(Debug)]
pub struct PeerProcess {
    /// Its id in this pid namespace.
    pub pid: u32,
    held: OwnedFd,
}

impl PeerProcess {
    /// Whether it still runs: what was read by its pid before this call was its own.
    ///
    /// # Errors
    /// The kernel's.
    pub fn is_running(&self) -> io::Result<bool> {
        let mut ended = [PollFd::new(&self.held, PollFlags::IN)];
        Ok(poll(&mut ended, Some(&Timespec::default()))? == 0)
    }
}

/// The process at the other end; `None` for one that this pid namespace doesn't see.
///
/// # Errors
/// It has ended, or the kernel refused.
pub fn process(socket: impl AsFd) -> io::Result<Option<PeerProcess>> {
    let Some(pid) = credentials(&socket)?.pid else { return Ok(None) };
    let held = match pidfd_of(&socket) {
        Ok(held) => held,
        // A kernel before 6.5: from here on at least the pid stays this process's.
        Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => {
            let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
            pidfd_open(pid.ok_or(io::ErrorKind::InvalidData)?, PidfdFlags::empty())?
        }
        Err(error) => return Err(error),
    };
    Ok(Some(PeerProcess { pid, held }))
}

/// What the kernel holds since the connection was made: no later process of the same pid.
fn pidfd_of(socket: impl AsFd) -> io::Result<OwnedFd> {
    let mut pidfd: RawFd = -1;
    let mut size = libc::socklen_t::try_from(size_of::<RawFd>()).map_err(io::Error::other)?;
    // SAFETY: the fd is open; the kernel writes at most `size` bytes into `pidfd`, an integer.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PEERPIDFD,
            (&raw mut pidfd).cast(),
            &raw mut size,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    if pidfd < 0 {
        return Err(io::ErrorKind::InvalidData.into());
    }
    // SAFETY: the kernel made this fd for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(pidfd) })
}

/// Checks that the peer runs as `wanted`.
///
/// # Errors
/// It doesn't, or its credentials can't be read.
pub fn require_uid(socket: impl AsFd, wanted: u32) -> Result<PeerCredentials, PeerError> {
    let peer = credentials(socket)?;
    if peer.uid == wanted { Ok(peer) } else { Err(PeerError::WrongUid { seen: peer.uid, wanted }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::{UnixListener, UnixStream};

    #[test]
    fn the_own_uid_passes_and_any_other_is_refused() {
        let (one, _two) = UnixStream::pair().unwrap();
        let own = rustix::process::geteuid().as_raw();
        let peer = require_uid(&one, own).unwrap();
        assert_eq!((peer.uid, peer.pid), (own, Some(std::process::id())));
        let error = require_uid(&one, own + 1).unwrap_err();
        assert!(matches!(error, PeerError::WrongUid { seen, .. } if seen == own));
    }

    #[test]
    fn the_process_at_the_other_end_is_held() {
        let (one, _two) = UnixStream::pair().unwrap();
        let own = process(&one).unwrap().unwrap();
        assert_eq!((own.pid, own.is_running().unwrap()), (std::process::id(), true));
    }

    #[test]
    fn a_process_that_has_ended_is_not_taken_for_the_peer() {
        const CHILD: &str = "SOTTO_TEST_PEER_ENDS";
        const NAME: &str = "peer::tests::a_process_that_has_ended_is_not_taken_for_the_peer";
        if let Some(path) = std::env::var_os(CHILD) {
            drop(UnixStream::connect(path).unwrap());
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", NAME])
            .env(CHILD, &path)
            .spawn()
            .unwrap();
        let (connection, _) = listener.accept().unwrap();
        assert!(child.wait().unwrap().success());
        // Reaped: depending on the kernel nothing is left to be held, or what is held says that it ended.
        let running = process(&connection).ok().flatten().map(|peer| peer.is_running().unwrap());
        assert_ne!(running, Some(true));
    }

    /// The driver has hostPID, the agent has not: it sees the driver without a pid.
    #[test]
    fn a_peer_in_another_pid_namespace_has_a_uid_and_no_pid() {
        const CHILD: &str = "SOTTO_TEST_PEER_SOCKET";
        const NAME: &str = "peer::tests::a_peer_in_another_pid_namespace_has_a_uid_and_no_pid";
        if let Some(path) = std::env::var_os(CHILD) {
            let peer = credentials(UnixStream::connect(path).unwrap()).unwrap();
            assert_eq!(peer.pid, None, "the listener is outside this pid namespace");
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let _listener = UnixListener::bind(&path).unwrap();
        let status = std::process::Command::new("unshare")
            .args(["--user", "--map-root-user", "--pid", "--fork"])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", NAME])
            .env(CHILD, &path)
            .status()
            .unwrap();
        assert!(status.success());
    }
}
