//! Providers' sockets, connected by the driver: they belong to root, and this process is nobody.

use std::os::unix::net;

use sotto_core::identity::StoreName;
use sotto_handoff::link::CallError;
use sotto_handoff::message::Code;
use sotto_store::{ProviderSockets, SocketError};
use sotto_volume::cluster::Answering;
use sotto_volume::driver::{DriverCallError, DriverCalls};
use tokio::net::UnixStream;

/// Asks the driver.
pub struct DriverSockets(pub DriverCalls);

impl ProviderSockets for DriverSockets {
    fn connect<'a>(
        &'a self,
        provider: &'a StoreName,
    ) -> Answering<'a, Result<UnixStream, SocketError>> {
        Box::pin(async move {
            let connected =
                self.0.connect_provider(provider).await.map_err(|error| told(&error))?;
            let stream = net::UnixStream::from(connected);
            stream
                .set_nonblocking(true)
                .and_then(|()| UnixStream::from_std(stream))
                .map_err(|error| SocketError::Unreachable(error.kind().to_string()))
        })
    }
}

fn told(error: &DriverCallError) -> SocketError {
    match error {
        DriverCallError::Call(CallError::Refused(refusal)) if refusal.code() == Code::NotFound => {
            SocketError::NotInstalled
        }
        DriverCallError::Call(CallError::Refused(refusal)) => {
            SocketError::Unreachable(refusal.to_string())
        }
        DriverCallError::Away | DriverCallError::Call(_) | DriverCallError::Unexpected => {
            SocketError::Unreachable(format!("its socket is reached through the driver: {error}"))
        }
    }
}
