//! `sotto-agent probe`: is this pod's volume served? The driver says, at the pod's own socket.
//!
//! No port and no socket of our own: a probe runs in the sidecar's container, which has the handoff volume.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sotto_handoff::handshake;
use sotto_handoff::link::{Link, NoRequests};
use sotto_handoff::message::frame::Body;
use sotto_handoff::message::{Role, State, StateIs};
use sotto_handoff::{peer, socket};

/// Kubelet waits 3 s.
const DEADLINE: Duration = Duration::from_millis(2_500);

/// Asks the driver; blocks.
///
/// # Errors
/// Why the volume isn't served.
pub fn probe(socket: &Path, driver_uid: u32) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("the probe can't be started: {error}"))?;
    let asked = async { tokio::time::timeout(DEADLINE, ask(socket, driver_uid)).await };
    let late = |_| format!("the driver did not answer within {DEADLINE:?}");
    let StateIs { served, reason } = runtime.block_on(asked).map_err(late)??;
    if served { Ok(()) } else { Err(reason) }
}

async fn ask(socket: &Path, driver_uid: u32) -> Result<StateIs, String> {
    let connection = socket::connect(socket)
        .await
        .map_err(|error| format!("{} can't be connected to: {error}", socket.display()))?;
    peer::require_uid(&connection, driver_uid).map_err(|error| error.to_string())?;
    let agreed = handshake::hello(&connection, Role::Probe, "").await;
    let agreed = agreed.map_err(|error| format!("the driver: {error}"))?;
    if agreed.role != Role::Driver {
        return Err("what listens at the pod's socket is no driver".to_owned());
    }
    let (link, task) = Link::start(connection, Arc::new(NoRequests), 1);
    let answer = tokio::select! {
        answer = link.call(Body::State(State {}), None, DEADLINE) => answer,
        end = task => return Err(format!("the link to the driver ended: {}", end.0)),
    };
    match answer.map_err(|error| format!("the driver: {error}"))?.body {
        Body::StateIs(state) => Ok(state),
        _ => Err("the driver's answer is of another kind than the question".to_owned()),
    }
}
