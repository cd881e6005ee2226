//! The sockets of this node's secrets-store providers, which belong to root: the driver connects, the agent
//! speaks.
//!
//! Invariant: a name is one word, so that no path can be made of it; the directories are the administrator's;
//! the driver neither reads nor writes on a connection that it passes on.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sotto_handoff::message::Code;
use sotto_handoff::refusal::Refusal;
use tokio::net::UnixStream;

/// Where providers put their sockets; the first that has one wins.
pub const DIRECTORIES: [&str; 2] =
    ["/etc/kubernetes/secrets-store-csi-providers", "/var/run/secrets-store-csi-providers"];
/// How long a provider may take to accept.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
const MAX_NAME_BYTES: usize = 30;

/// Connects to the provider of that name.
///
/// # Errors
/// NOT_FOUND: no directory has its socket. UNAVAILABLE: nobody accepts.
pub async fn connect(directories: &[PathBuf], name: &str) -> Result<OwnedFd, Refusal> {
    if !is_name(name) {
        return Err(Refusal::new(Code::InvalidArgument, "that is no name of a provider"));
    }
    let socket = find(directories, name).await?;
    let unavailable = |error: io::Error| {
        let message = format!("{}: {}", socket.display(), error.kind());
        Refusal::new(Code::Unavailable, &message)
    };
    let connected = tokio::time::timeout(CONNECT_DEADLINE, UnixStream::connect(&socket)).await;
    let late = |_| unavailable(io::ErrorKind::TimedOut.into());
    let stream = connected.map_err(late)?.map_err(unavailable)?;
    stream.into_std().map(OwnedFd::from).map_err(unavailable)
}

async fn find(directories: &[PathBuf], name: &str) -> Result<PathBuf, Refusal> {
    for directory in directories {
        let socket = directory.join(format!("{name}.sock"));
        match tokio::fs::metadata(&socket).await {
            Ok(found) if found.file_type().is_socket() => return Ok(socket),
            Ok(_no_socket) => {}
            Err(error)
                if [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory]
                    .contains(&error.kind()) => {}
            Err(error) => {
                let message = format!("{}: {}", socket.display(), error.kind());
                return Err(Refusal::new(Code::Unavailable, &message));
            }
        }
    }
    let listed: Vec<_> = directories.iter().map(|it| Path::display(it).to_string()).collect();
    let message = format!("no socket {name}.sock in {}", listed.join(" or "));
    Err(Refusal::new(Code::NotFound, &message))
}

fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    !name.is_empty() && name.len() <= MAX_NAME_BYTES && name.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn code(directories: &[PathBuf], name: &str) -> Option<Code> {
        connect(directories, name).await.err().map(|refusal| refusal.code())
    }

    #[tokio::test]
    async fn the_first_directory_with_a_socket_wins_and_no_name_leads_elsewhere() {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let directories = [first.path().to_owned(), second.path().to_owned()];
        let listener = tokio::net::UnixListener::bind(second.path().join("aws.sock")).unwrap();
        std::fs::write(first.path().join("aws.sock"), "not a socket").unwrap();
        assert_eq!(code(&directories, "aws").await, None);
        assert_eq!(code(&directories, "azure").await, Some(Code::NotFound));
        for hostile in ["", "../aws", "a/b", "aws.sock/..", "a\0b", &"x".repeat(31)] {
            assert_eq!(code(&directories, hostile).await, Some(Code::InvalidArgument), "{hostile}");
        }
        drop(listener);
        assert_eq!(code(&directories, "aws").await, Some(Code::Unavailable));
    }
}
