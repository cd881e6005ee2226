//! Who is at the other end of a connection, as the kernel recorded it when the connection was made.

use std::os::fd::AsFd;

/// What SO_PEERCRED says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerCredentials {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Process id; meaningful only in the same or a child pid namespace.
    pub pid: i32,
}

/// A peer that may not connect.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// Another uid.
    #[error(
        "the process at the other end (pid {pid}) runs as uid {seen}: only uid {wanted} may connect"
    )]
    WrongUid {
        /// Its uid.
        seen: u32,
        /// The uid it should have.
        wanted: u32,
        /// Its pid.
        pid: i32,
    },
    /// The kernel refused.
    #[error("the peer's credentials can't be read")]
    Io(#[from] std::io::Error),
}

/// Reads the peer's credentials.
///
/// # Errors
/// Not a unix socket, or not connected.
pub fn credentials(socket: impl AsFd) -> std::io::Result<PeerCredentials> {
    let peer = rustix::net::sockopt::socket_peercred(socket)?;
    Ok(PeerCredentials {
        uid: peer.uid.as_raw(),
        gid: peer.gid.as_raw(),
        pid: peer.pid.as_raw_nonzero().get(),
    })
}

/// Checks that the peer runs as `wanted`.
///
/// # Errors
/// It doesn't, or its credentials can't be read.
pub fn require_uid(socket: impl AsFd, wanted: u32) -> Result<PeerCredentials, PeerError> {
    let peer = credentials(socket)?;
    if peer.uid == wanted {
        Ok(peer)
    } else {
        Err(PeerError::WrongUid { seen: peer.uid, wanted, pid: peer.pid })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Connection;

    #[tokio::test]
    async fn the_own_uid_passes_and_any_other_is_refused() {
        let (one, _two) = Connection::pair().unwrap();
        let own = rustix::process::geteuid().as_raw();
        assert_eq!(require_uid(&one, own).unwrap().uid, own);
        let error = require_uid(&one, own + 1).unwrap_err();
        assert!(matches!(error, PeerError::WrongUid { seen, .. } if seen == own));
    }
}
