//! Who is at the other end of a connection, as the kernel recorded it when the connection was made.
#![expect(
    unsafe_code,
    reason = "rustix reads the pid as a number that can't be 0; it is 0 for a peer in another pid namespace"
)]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

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
