//! Listening and connecting: a socket that nobody else could ever have connected to.
//!
//! Invariant: between `bind` and `listen` the socket has its final owner and mode, and a path is walked
//! once: names are bound and connected beneath an open directory, so that neither a swapped link nor
//! the 108 bytes of `sun_path` get in the way.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, Uid};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::packet::Connection;
use crate::reactor;

/// Longest wait for a listener that is busy.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// Connections that the kernel keeps until they are accepted.
const BACKLOG: i32 = 16;

/// A listening SEQPACKET socket; its name is removed on drop.
#[derive(Debug)]
pub struct Listener {
    socket: AsyncFd<OwnedFd>,
    directory: OwnedFd,
    name: PathBuf,
    inode: u64,
}

/// Listens at `path` with `mode`, owned by `owner` (uid, gid) where one is given. A socket that an earlier
/// process left there is removed; anything else at that path is an error.
///
/// # Errors
/// The directory doesn't exist, the name is taken by something that isn't a socket, or the kernel refused.
pub fn listen(path: &Path, mode: u32, owner: Option<(u32, u32)>) -> io::Result<Listener> {
    let (directory, name) = open_parent(path)?;
    remove_stale(&directory, name)?;
    let socket = new_socket()?;
    // Nobody can connect before `listen`, so the socket is private until then whatever the umask is.
    rustix::net::bind(&socket, &address(&directory, name)?)?;
    if let Some((uid, gid)) = owner {
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        rustix::fs::chownat(&directory, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    }
    rustix::fs::chmodat(&directory, name, Mode::from_raw_mode(mode), AtFlags::empty())?;
    rustix::net::listen(&socket, BACKLOG)?;
    let socket = reactor::register(socket, Interest::READABLE)?;
    let inode = inode(&directory, name)?;
    Ok(Listener { socket, directory, name: name.into(), inode })
}

/// Connects to a listener.
///
/// # Errors
/// Nobody listens there, this uid may not connect, or the listener was busy for 5 s.
pub async fn connect(path: &Path) -> io::Result<Connection> {
    let (directory, name) = open_parent(path)?;
    let address = address(&directory, name)?;
    let socket = new_socket()?;
    tokio::time::timeout(CONNECT_DEADLINE, async {
        let mut pause = Duration::from_millis(1);
        // A unix socket doesn't connect in the background: a full backlog is EAGAIN, to be tried again.
        while let Err(error) = rustix::net::connect(&socket, &address) {
            if error != rustix::io::Errno::AGAIN {
                return Err(error.into());
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(100));
        }
        Connection::new(socket)
    })
    .await
    .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the listener accepted nothing for 5 s"))?
}

impl Listener {
    /// Takes the next connection. Cancel-safe.
    ///
    /// # Errors
    /// The kernel refused, e.g. for want of file descriptors.
    pub async fn accept(&self) -> io::Result<Connection> {
        let accept = |socket: &OwnedFd| {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            Ok(rustix::net::accept_with(socket, flags)?)
        };
        Connection::new(self.socket.async_io(Interest::READABLE, accept).await?)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // The name may be another's by now: a successor removed ours and bound its own.
        if inode(&self.directory, self.name.as_os_str()).is_ok_and(|there| there == self.inode) {
            let _ = rustix::fs::unlinkat(&self.directory, &self.name, AtFlags::empty());
        }
    }
}

fn inode(directory: &OwnedFd, name: &OsStr) -> io::Result<u64> {
    Ok(rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?.st_ino)
}

fn new_socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

fn open_parent(path: &Path) -> io::Result<(OwnedFd, &OsStr)> {
    let name = path.file_name().ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidInput, "a socket's path must end in a name")
    })?;
    let parent = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok((rustix::fs::openat(CWD, parent, flags, Mode::empty())?, name))
}

fn address(directory: &impl AsFd, name: &OsStr) -> io::Result<SocketAddrUnix> {
    let beneath = format!("/proc/self/fd/{}", directory.as_fd().as_raw_fd());
    Ok(SocketAddrUnix::new(Path::new(&beneath).join(name))?)
}

fn remove_stale(directory: &OwnedFd, name: &OsStr) -> io::Result<()> {
    match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(rustix::io::Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
        Ok(found) if FileType::from_raw_mode(found.st_mode) == FileType::Socket => {
            Ok(rustix::fs::unlinkat(directory, name, AtFlags::empty())?)
        }
        Ok(_) => Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "something that is not a socket has the socket's name: move it away",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Frame, Serving, frame::Body};
    use std::os::unix::fs::PermissionsExt;

    #[tokio::test]
    async fn a_socket_has_its_mode_and_carries_frames() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("node.sock");
        let listener = listen(&path, 0o660, None).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        let (client, server) = tokio::join!(connect(&path), listener.accept());
        let frame = Frame { request: 1, answer: false, body: Some(Body::Serving(Serving {})) };
        client.unwrap().send(&frame, None).await.unwrap();
        assert_eq!(server.unwrap().receive().await.unwrap().frame.request, 1);
        drop(listener);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_file_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("node.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        drop(listen(&path, 0o600, None).unwrap());
        std::fs::write(&path, "precious").unwrap();
        let error = listen(&path, 0o600, None).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }

    #[tokio::test]
    async fn a_successors_socket_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("node.sock");
        let old = listen(&path, 0o600, None).unwrap();
        let new = listen(&path, 0o600, None).unwrap();
        drop(old);
        assert!(path.exists());
        drop(new);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_path_longer_than_sun_path_works() {
        let directory = tempfile::tempdir().unwrap();
        let deep = directory.path().join("d".repeat(120));
        std::fs::create_dir(&deep).unwrap();
        let path = deep.join("s");
        let listener = listen(&path, 0o600, None).unwrap();
        let (client, server) = tokio::join!(connect(&path), listener.accept());
        assert!(client.is_ok() && server.is_ok());
    }

    #[tokio::test]
    async fn nobody_listening_is_an_error_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let error = connect(&directory.path().join("none")).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
