//! gRPC over the driver's unix socket: a new connection for each call, as kubelet makes them.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};

/// Connects; `:authority` is `localhost`, as kubelet's from 1.26 on.
pub(super) async fn connect(socket: &Path) -> Result<Channel, tonic::transport::Error> {
    let socket = socket.to_owned();
    Endpoint::from_static("http://localhost")
        .connect_with_connector(tower::service_fn(move |_: Uri| stream(socket.clone())))
        .await
}

/// Through a descriptor of the directory: temporary paths exceed `sun_path` (108 bytes).
async fn stream(socket: PathBuf) -> io::Result<TokioIo<UnixStream>> {
    let not_a_socket = || io::Error::from(io::ErrorKind::InvalidInput);
    let directory = File::open(socket.parent().ok_or_else(not_a_socket)?)?;
    let name = socket.file_name().ok_or_else(not_a_socket)?;
    let short = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name);
    UnixStream::connect(short).await.map(TokioIo::new)
}
