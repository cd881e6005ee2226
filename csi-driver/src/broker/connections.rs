//! `node.sock`: connections are taken, checked and run until they end.

use std::sync::Arc;
use std::time::Duration;

use sotto_handoff::handshake::{self, HandshakeError};
use sotto_handoff::link::Link;
use sotto_handoff::message::Role;
use sotto_handoff::packet::Connection;
use sotto_handoff::peer::{self, PeerError};
use sotto_handoff::socket::Listener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::agent::Agent;
use super::pings;
use super::requests::{Requests, Scope};
use crate::driver::Driver;
use crate::volume::{Mode, Volume};
use crate::{standby, unserved};

/// Agents at one time: two during a surge, and room for restarts.
const MAX_CONNECTIONS: usize = 8;
/// Requests of one agent that are worked on at one time.
const MAX_REQUESTS: usize = 64;
/// Pause after an accept that failed, e.g. for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// A connection that isn't taken.
#[derive(Debug, thiserror::Error)]
enum ConnectionRefused {
    #[error(transparent)]
    Peer(#[from] PeerError),
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    #[error("the other side calls itself {0:?}, not a node agent")]
    Role(Role),
}

/// Takes connections until the drain begins; each is run by a task of the drain.
pub(crate) async fn serve(driver: Arc<Driver>, listener: Listener) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = driver.drain.begun() => return,
        };
        match (accepted, Arc::clone(&permits).try_acquire_owned()) {
            (Ok(connection), Ok(permit)) => {
                driver.drain.spawn(attend(Arc::clone(&driver), connection, permit));
            }
            (Ok(_), Err(_)) => tracing::warn!("too many agents are connected: one is turned away"),
            (Err(error), _) => {
                tracing::error!(%error, "a connection to node.sock can't be taken");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn attend(driver: Arc<Driver>, connection: Connection, _permit: OwnedSemaphorePermit) {
    let agreed = match welcome(&driver, &connection).await {
        Ok(agreed) => agreed,
        Err(error) => {
            tracing::warn!(%error, "a connection to node.sock is refused");
            return;
        }
    };
    let instance: Arc<str> = agreed.instance.as_str().into();
    let requests = Requests::new(Arc::clone(&driver), Arc::clone(&instance), Scope::Node);
    let (link, task) = Link::start(connection, Arc::new(requests), MAX_REQUESTS);
    tracing::info!(%instance, software = agreed.software, "sotto-node is connected");
    let agent = Agent::new(&instance, link);
    unserved::may_be_served(&driver, &instance).await;
    driver.broker.add(agent.clone());
    if agreed.standby {
        driver.drain.spawn(standby::run(Arc::clone(&driver), agent.clone()));
    }
    tokio::select! {
        never = pings::watch(&driver, &agent) => match never {},
        end = task => tracing::warn!(%instance, error = %end.0, "the link to sotto-node ended"),
        () = driver.drain.begun() => tracing::info!(%instance, "the link to sotto-node is left"),
    }
    driver.broker.sweep();
}

async fn welcome(
    driver: &Driver,
    connection: &Connection,
) -> Result<handshake::Agreed, ConnectionRefused> {
    peer::require_uid(connection, driver.settings.agent_uid)?;
    let served = |volume: &Arc<Volume>| volume.spec.mode == Mode::Node && volume.server().is_some();
    let standby = driver.volumes.all().iter().any(served);
    let agreed = handshake::welcome(connection, standby).await?;
    match agreed.role {
        Role::NodeAgent => Ok(agreed),
        other @ (Role::Unspecified | Role::Driver | Role::Sidecar | Role::Probe) => {
            Err(ConnectionRefused::Role(other))
        }
    }
}
