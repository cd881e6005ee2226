//! How a provider's socket is reached.
//!
//! Providers run as root and leave their sockets to root alone, so on a node it is the driver that connects and
//! passes the connection on; where the administrator names directories, we connect ourselves.

use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use futures::FutureExt;
use futures::future::BoxFuture;
use sotto_core::identity::StoreName;
use tokio::net::UnixStream;

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SocketError {
    /// No directory has its socket.
    #[error("no socket")]
    NotInstalled,
    /// Nobody listens, or the way there is barred; the words are for a pod's event.
    #[error("{0}")]
    Unreachable(String),
}

/// Connects to providers.
pub trait ProviderSockets: Send + Sync {
    /// A fresh connection to the provider of that name. The caller bounds the time.
    fn connect<'a>(
        &'a self,
        provider: &'a StoreName,
    ) -> BoxFuture<'a, Result<UnixStream, SocketError>>;
}

/// Sockets that this process may connect to, `<provider>.sock` in the first directory that has one.
pub(crate) struct Directories(pub(crate) Vec<PathBuf>);

impl Directories {
    /// Anew for each call: a provider may come later or move.
    async fn find(&self, provider: &StoreName) -> Result<PathBuf, SocketError> {
        for directory in &self.0 {
            let socket = directory.join(format!("{provider}.sock"));
            match tokio::fs::metadata(&socket).await {
                Ok(found) if found.file_type().is_socket() => return Ok(socket),
                Ok(_no_socket) => {}
                Err(error)
                    if [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory]
                        .contains(&error.kind()) => {}
                Err(error) => return Err(unreachable(&socket, &error)),
            }
        }
        Err(SocketError::NotInstalled)
    }
}

impl ProviderSockets for Directories {
    fn connect<'a>(
        &'a self,
        provider: &'a StoreName,
    ) -> BoxFuture<'a, Result<UnixStream, SocketError>> {
        async move {
            let socket = self.find(provider).await?;
            UnixStream::connect(&socket).await.map_err(|error| unreachable(&socket, &error))
        }
        .boxed()
    }
}

fn unreachable(socket: &Path, error: &io::Error) -> SocketError {
    let socket = socket.display();
    SocketError::Unreachable(match error.kind() {
        io::ErrorKind::ConnectionRefused => format!("nobody listens at {socket}"),
        io::ErrorKind::PermissionDenied => {
            format!(
                "the agent may not connect to {socket}: leave directories out, and the driver does"
            )
        }
        other => format!("{socket}: {other}"),
    })
}
