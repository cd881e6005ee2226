//! Connections that come back from the agents, once this process was restarted.
//!
//! Invariant: a volume of an earlier process is held again only by an fd that is its mount's connection
//! (see [`crate::connection`]), given by an agent that serves it; what the agent says beside that is what it
//! could say in `Prepared`. The pod's token comes along, since kubelet's next one may be minutes away and the
//! next agent can't log in without.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use sotto_core::secret::SecretBytes;
use sotto_handoff::link::CallError;
use sotto_handoff::message::Code;
use sotto_handoff::refusal::Refusal;

use crate::broker::Agent;
use crate::connection::{self, ConnectionError};
use crate::credentials::Credentials;
use crate::driver::{Driver, blocking};
use crate::mount;
use crate::mountinfo;
use crate::volume::{Mode, Volume};

/// An agent only duplicates an fd.
pub(crate) const RETURN_DEADLINE: Duration = Duration::from_secs(5);

/// Why a volume's connection isn't here yet.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReturnError {
    #[error("no agent is connected that could give the volume's connection back")]
    Nobody,
    #[error("the agent doesn't give the volume's connection back: {0}")]
    Agent(#[from] CallError),
    #[error("the agent gave back no fd")]
    NoFd,
    #[error("what the agent gave back is not the volume's connection: {0}")]
    Wrong(#[from] ConnectionError),
    #[error("the volume is not in the mount table any more")]
    NotMounted,
    #[error("the mount table can't be read")]
    MountTable(#[source] io::Error),
}

impl From<io::Error> for ReturnError {
    fn from(error: io::Error) -> Self {
        Self::MountTable(error)
    }
}

impl ReturnError {
    /// Whether that is as it must be: nobody is there yet, or it is somebody else's or an older one.
    pub(crate) fn is_expected(&self) -> bool {
        match self {
            Self::Nobody => true,
            Self::Agent(CallError::Refused(refusal)) => is_not_there(refusal),
            Self::Agent(_) | Self::NoFd | Self::Wrong(_) | Self::NotMounted => false,
            Self::MountTable(_) => false,
        }
    }
}

/// Whether an agent that says so doesn't serve the volume, or knows no such request.
pub(crate) fn is_not_there(refusal: &Refusal) -> bool {
    matches!(refusal.code(), Code::NotFound | Code::Unimplemented)
}

/// Asks the agents, the newest first, for a volume's connection. The caller has the volume's turn.
pub(crate) async fn fetch(driver: &Driver, volume: &Volume) -> Result<(), ReturnError> {
    let mut last = ReturnError::Nobody;
    for agent in driver.agents_of(volume) {
        match from(driver, volume, agent).await {
            Ok(()) => return Ok(()),
            // A real failure says more than that another agent doesn't know the volume.
            Err(error) if !error.is_expected() || last.is_expected() => last = error,
            Err(_) => {}
        }
    }
    Err(last)
}

async fn from(driver: &Driver, volume: &Volume, agent: Agent) -> Result<(), ReturnError> {
    let (mut returned, fd) = agent.give_back(&volume.id, RETURN_DEADLINE).await?;
    let fd = fd.ok_or(ReturnError::NoFd)?;
    let (id, place) = (volume.id.clone(), driver.kubelet.mount_point(&volume.target));
    let fd: OwnedFd = blocking(move || {
        let mounts = mountinfo::read()?;
        let top = mountinfo::top_at(&mounts, &place);
        let own = top.filter(|top| mount::volume_of(top).as_ref() == Some(&id));
        connection::verify(&fd, own.ok_or(ReturnError::NotMounted)?)?;
        Ok::<_, ReturnError>(fd)
    })
    .await?;
    // A sidecar keeps its token to itself.
    let wants_token = volume.spec.mode == Mode::Node && volume.credentials().is_none();
    if wants_token && !returned.service_account_tokens.is_empty() {
        let tokens = SecretBytes::new(std::mem::take(&mut returned.service_account_tokens));
        volume.keep_credentials(Credentials::of_tokens(tokens));
    }
    let objects = returned.object_count as usize;
    volume.shows(returned.into());
    tracing::info!(volume = %volume.id, instance = %agent.instance(), "the connection is back");
    // Served first: held and unserved, it would be handed to the next agent.
    volume.served_by(agent, Some(objects));
    volume.hold(fd);
    // The agent may have died in this very moment.
    driver.look_for_agents();
    Ok(())
}
