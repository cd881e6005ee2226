//! One call of a provider: its socket, the deadline, the size limit.
//!
//! Invariant: a connection serves one call, so that no call meets one that a provider's restart has left
//! half dead; a call ends by its deadline.

use std::error::Error;
use std::io;

use hyper_util::rt::TokioIo;
use sotto_core::identity::StoreName;
use sotto_proto::provider::v1alpha1::csi_driver_provider_client::CsiDriverProviderClient;
use sotto_proto::provider::v1alpha1::{MountRequest, MountResponse};
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Request, Status, TimeoutExpired};

use super::sockets::{ProviderSockets, SocketError};

/// Largest answer: what gRPC accepts unless told otherwise, and providers are made for.
pub(super) const MAX_ANSWER_BYTES: usize = 4 << 20;

/// Why a call brought no answer.
#[derive(Debug)]
pub(super) enum CallError {
    /// No directory has its socket.
    NoSocket,
    /// No connection, or it broke; the words are ours.
    Broken(String),
    /// It was too slow.
    Deadline,
    /// Over [`MAX_ANSWER_BYTES`].
    TooLarge,
    /// The provider's own refusal.
    Refused(Status),
}

/// Asks for a volume's files.
pub(super) async fn mount(
    sockets: &dyn ProviderSockets,
    provider: &StoreName,
    request: MountRequest,
    until: Instant,
) -> Result<MountResponse, CallError> {
    let call = async {
        let channel = connect(sockets, provider).await?;
        let mut client =
            CsiDriverProviderClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
        let mut request = Request::new(request);
        request.set_timeout(until.saturating_duration_since(Instant::now()));
        client.mount(request).await.map(tonic::Response::into_inner).map_err(refused)
    };
    tokio::time::timeout_at(until, call).await.unwrap_or(Err(CallError::Deadline))
}

/// `:authority` is `localhost`: gRPC servers refuse a socket's path there.
async fn connect(
    sockets: &dyn ProviderSockets,
    provider: &StoreName,
) -> Result<Channel, CallError> {
    let stream = sockets.connect(provider).await.map_err(|error| match error {
        SocketError::NotInstalled => CallError::NoSocket,
        SocketError::Unreachable(reason) => CallError::Broken(reason),
    })?;
    let mut stream = Some(TokioIo::new(stream));
    let connector = tower::service_fn(move |_: Uri| {
        let again = || io::Error::other("a connection serves one call");
        std::future::ready(stream.take().ok_or_else(again))
    });
    let channel = Endpoint::from_static("http://localhost").connect_with_connector(connector).await;
    channel.map_err(|_| CallError::Broken("its socket doesn't speak gRPC".to_owned()))
}

/// What was said by the provider, and what only happened on the way: a status of our own making has a source.
fn refused(status: Status) -> CallError {
    if status.code() == Code::DeadlineExceeded || find_source::<TimeoutExpired>(&status).is_some() {
        CallError::Deadline
    } else if says_too_large(&status) {
        CallError::TooLarge
    } else if status.source().is_some() {
        CallError::Broken("the connection broke before its answer was there".to_owned())
    } else {
        CallError::Refused(status)
    }
}

/// tonic's words about an answer over our limit, and those of gRPC for Go about a message over its own.
fn says_too_large(status: &Status) -> bool {
    match status.code() {
        Code::OutOfRange => status.message().contains("message length too large"),
        Code::ResourceExhausted => status.message().contains("message larger than max"),
        _other => false,
    }
}

fn find_source<'a, E: Error + 'static>(mut error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    loop {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        error = error.source()?;
    }
}
