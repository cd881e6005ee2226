//! The exec probe: asks a running driver over its socket.
//!
//! By HTTP/2 alone: tonic's client, with its pool, its balancer and its resolver of names, would be a tenth of this binary.

use std::io;
use std::path::Path;
use std::time::Duration;

use h2::RecvStream;
use h2::client::SendRequest;
use prost::Message as _;
use sotto_proto::csi::v1::ProbeResponse;
use tokio::net::UnixStream;
use tonic::codegen::{Bytes, http};
use tonic::{Code, Status};

use crate::settings::endpoint_path;

/// Within the 5 s that the manifests give.
const PROBE_DEADLINE: Duration = Duration::from_secs(3);
const METHOD: &str = "http://localhost/csi.v1.Identity/Probe";
/// Before each message of gRPC: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;
/// A ProbeRequest has no fields.
const REQUEST: [u8; PREFIX_BYTES] = [0; PREFIX_BYTES];
/// Of an answer; a driver's has 4 bytes.
const MAX_BYTES: usize = 1 << 10;

/// Why the driver isn't ready.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// Not a unix socket.
    #[error("--endpoint: {0}")]
    Endpoint(&'static str),
    /// Nobody listens there.
    #[error("the driver's socket can't be reached: {0}")]
    Connect(#[from] io::Error),
    /// It doesn't speak as a driver does.
    #[error("the driver's answer can't be read: {0}")]
    Protocol(#[from] h2::Error),
    /// Neither an answer nor a refusal.
    #[error("what listens at the driver's socket gives no answer of a CSI driver")]
    NoAnswer,
    /// It refused.
    #[error("the driver refused the probe: {0}")]
    Refused(#[from] Box<Status>),
    /// It said no.
    #[error(
        "the driver is not ready: it waits for the connections of volumes that an earlier one mounted"
    )]
    NotReady,
    /// It said nothing.
    #[error("the driver did not answer within 3 s")]
    Deadline,
}

/// Calls Probe at `endpoint`.
///
/// # Errors
/// The driver isn't ready, or doesn't answer.
pub async fn probe(endpoint: &str) -> Result<(), ProbeError> {
    let path = endpoint_path(endpoint).map_err(ProbeError::Endpoint)?;
    let answer = tokio::time::timeout(PROBE_DEADLINE, ask(&path)).await;
    match answer.map_err(|_| ProbeError::Deadline)??.ready {
        Some(true) | None => Ok(()), // absent means ready
        Some(false) => Err(ProbeError::NotReady),
    }
}

async fn ask(path: &Path) -> Result<ProbeResponse, ProbeError> {
    let socket = UnixStream::connect(path).await?;
    let (requests, connection) = h2::client::handshake(socket).await?;
    tokio::select! {
        answer = call(requests) => answer,
        ended = connection => Err(ended.err().map_or(ProbeError::NoAnswer, ProbeError::Protocol)),
    }
}

async fn call(requests: SendRequest<Bytes>) -> Result<ProbeResponse, ProbeError> {
    let request = http::Request::post(METHOD)
        .header(http::header::CONTENT_TYPE, "application/grpc")
        .header(http::header::TE, "trailers")
        .body(())
        .map_err(|_| ProbeError::NoAnswer)?;
    let mut requests = requests.ready().await?;
    let (answer, mut message) = requests.send_request(request, false)?;
    message.send_data(Bytes::from_static(&REQUEST), true)?;
    let (head, mut body) = answer.await?.into_parts();
    let bytes = read(&mut body).await?;
    // A refusal without a message has its status in the head.
    let status = body.trailers().await?.unwrap_or(head.headers);
    let status = Status::from_header_map(&status).ok_or(ProbeError::NoAnswer)?;
    if status.code() != Code::Ok {
        return Err(Box::new(status).into());
    }
    let message = bytes.get(PREFIX_BYTES..).ok_or(ProbeError::NoAnswer)?;
    ProbeResponse::decode(message).map_err(|_| ProbeError::NoAnswer)
}

async fn read(body: &mut RecvStream) -> Result<Vec<u8>, ProbeError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk?;
        body.flow_control().release_capacity(chunk.len())?;
        bytes.extend_from_slice(&chunk);
        if bytes.len() > MAX_BYTES {
            return Err(ProbeError::NoAnswer);
        }
    }
    Ok(bytes)
}
