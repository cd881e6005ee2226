//! The exec probe: asks a running driver over its socket.

use std::time::Duration;

use sotto_proto::csi::v1::{ProbeRequest, identity_client::IdentityClient};
use tonic::transport::Endpoint;

use crate::settings::endpoint_path;

/// Within the 5 s that the manifests give.
const PROBE_DEADLINE: Duration = Duration::from_secs(3);

/// Why the driver isn't ready.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// Not a unix socket.
    #[error("--endpoint: {0}")]
    Endpoint(&'static str),
    /// Nobody listens there.
    #[error("the driver's socket can't be reached")]
    Connect(#[from] tonic::transport::Error),
    /// It refused.
    #[error("the driver refused the probe: {0}")]
    Refused(#[from] Box<tonic::Status>),
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
    let ask = async {
        let channel =
            Endpoint::from_shared(format!("unix://{}", path.display()))?.connect().await?;
        let answer = IdentityClient::new(channel).probe(ProbeRequest {}).await;
        match answer.map_err(Box::new)?.into_inner().ready {
            Some(true) | None => Ok(()), // absent means ready
            Some(false) => Err(ProbeError::NotReady),
        }
    };
    tokio::time::timeout(PROBE_DEADLINE, ask).await.map_err(|_| ProbeError::Deadline)?
}
