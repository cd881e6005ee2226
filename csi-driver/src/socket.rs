//! The unix sockets that kubelet connects to: private before anybody can connect, and for one user only.
//!
//! Invariant: a socket has mode 0600 before it listens, and each connection's user is checked besides.

pub mod authority;

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use futures::{Stream, StreamExt};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use sotto_handoff::peer;
use tokio::net::{UnixListener, UnixStream};
use tokio_stream::wrappers::UnixListenerStream;

use authority::AnyAuthority;

const MODE: Mode = Mode::from_raw_mode(0o600);
/// kubelet opens a connection for each call, and a connect to a full backlog fails at once.
const BACKLOG: i32 = 1024;

/// The name of a listening socket; removed on drop if it still is that socket's.
#[derive(Debug)]
pub struct SocketName {
    directory: OwnedFd,
    name: PathBuf,
    inode: u64,
}

/// Listens at `path`. A socket that an earlier process left there is removed; anything else is an error.
///
/// # Errors
/// The directory doesn't exist, the name is taken by something that isn't a socket, or the kernel's.
pub fn listen(path: &Path) -> io::Result<(UnixListener, SocketName)> {
    let (directory, name) = open_parent(path)?;
    remove_stale(&directory, name)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // Beneath the open directory: kubelet's paths exceed the 108 bytes of sun_path.
    let beneath = format!("/proc/self/fd/{}", directory.as_raw_fd());
    rustix::net::bind(&socket, &SocketAddrUnix::new(Path::new(&beneath).join(name))?)?;
    rustix::fs::chmodat(&directory, name, MODE, AtFlags::empty())?;
    rustix::net::listen(&socket, BACKLOG)?;
    let inode = inode(&directory, name)?;
    let listener = UnixListener::from_std(std::os::unix::net::UnixListener::from(socket))?;
    Ok((listener, SocketName { directory, name: name.into(), inode }))
}

/// The connections of processes that run as `uid`; others are dropped. Whatever host a call is for, it is for us.
pub fn connections_of(
    listener: UnixListener,
    uid: u32,
) -> impl Stream<Item = io::Result<AnyAuthority<UnixStream>>> + Send {
    let connections = UnixListenerStream::new(listener).filter(move |connection| {
        let wanted = match connection {
            Err(_) => true, // the server logs it and goes on
            Ok(connection) => match peer::require_uid(connection, uid) {
                Ok(_) => true,
                Err(error) => {
                    tracing::warn!(%error, "a connection is refused");
                    false
                }
            },
        };
        std::future::ready(wanted)
    });
    connections.map(|connection| connection.map(AnyAuthority::of))
}

impl Drop for SocketName {
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

fn open_parent(path: &Path) -> io::Result<(OwnedFd, &OsStr)> {
    let invalid =
        || io::Error::new(io::ErrorKind::InvalidInput, "not an absolute path to a socket");
    let name = path.file_name().filter(|_| path.is_absolute()).ok_or_else(invalid)?;
    let parent = path.parent().ok_or_else(invalid)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok((rustix::fs::openat(CWD, parent, flags, Mode::empty())?, name))
}

fn remove_stale(directory: &OwnedFd, name: &OsStr) -> io::Result<()> {
    match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => Ok(()),
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
    use std::os::unix::fs::PermissionsExt;
    use std::pin::pin;
    use tokio::io::AsyncReadExt;

    fn own_uid() -> u32 {
        rustix::process::geteuid().as_raw()
    }

    #[tokio::test]
    async fn the_socket_is_private_and_goes_with_its_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("csi.sock");
        let (listener, name) = listen(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let mut connections = pin!(connections_of(listener, own_uid()));
        let _client = UnixStream::connect(&path).await.unwrap();
        assert!(connections.next().await.unwrap().is_ok());
        drop(name);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn another_user_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("csi.sock");
        let (listener, _name) = listen(&path).unwrap();
        let mut connections = pin!(connections_of(listener, own_uid() + 1));
        let mut client = UnixStream::connect(&path).await.unwrap();
        let mut byte = [0];
        tokio::select! {
            _ = connections.next() => panic!("another user's connection was taken"),
            read = client.read(&mut byte) => assert_eq!(read.unwrap(), 0, "it is closed"),
        }
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_a_file_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("csi.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        drop(listen(&path).unwrap());
        std::fs::write(&path, "precious").unwrap();
        assert_eq!(listen(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert!(path.exists());
    }

    #[tokio::test]
    async fn a_successors_socket_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("csi.sock");
        let (_old_listener, old) = listen(&path).unwrap();
        let (_listener, _name) = listen(&path).unwrap();
        drop(old);
        assert!(path.exists());
    }
}
