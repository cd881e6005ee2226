//! gRPC over the driver's unix socket: a new connection for each call, as kubelet makes them.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::Path;

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};

/// Connects; `:authority` is `localhost`, as kubelet's from 1.26 on, but for what [`super::unnamed_host`] does.
pub(super) async fn connect(socket: &Path) -> Result<Channel, tonic::transport::Error> {
    let socket = socket.to_owned();
    Endpoint::from_static("http://localhost")
        .connect_with_connector(tower::service_fn(move |_: Uri| {
            let socket = socket.clone();
            async move { stream(&socket).await.map(TokioIo::new) }
        }))
        .await
}

/// Through a descriptor of the directory: temporary paths exceed `sun_path` (108 bytes).
pub(super) async fn stream(socket: &Path) -> io::Result<UnixStream> {
    let not_a_socket = || io::Error::from(io::ErrorKind::InvalidInput);
    let directory = File::open(socket.parent().ok_or_else(not_a_socket)?)?;
    let name = socket.file_name().ok_or_else(not_a_socket)?;
    let short = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name);
    UnixStream::connect(short).await
}
