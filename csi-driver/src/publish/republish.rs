//! A publish of a volume that is mounted: the fresh token is passed on, and kubelet hears OK.
//!
//! Invariant: no error, whatever is wrong; kubelet would delete the mount's directory and leave the pod
//! stale for good (kubernetes#121271).

use std::time::Duration;

use sotto_core::identity::VolumeId;
use sotto_handoff::link::CallError;
use sotto_handoff::message::Code;
use tokio::time::Instant;

use super::{Place, fetch_and_mount, give_up};
use crate::broker::Agent;
use crate::credentials::Credentials;
use crate::driver::Driver;
use crate::mount_health;
use crate::node::checks::{Content, Invalid};
use crate::notices;
use crate::target::TargetPath;
use crate::volume::Volume;

/// Trouble isn't waited for.
const TOKEN_DEADLINE: Duration = Duration::from_secs(2);

/// Passes the token on. What the request said comes back if neither the agent nor this process holds the
/// volume's connection.
pub(super) async fn refresh(
    driver: &Driver,
    id: &VolumeId,
    content: Result<Content, Invalid>,
) -> Option<Content> {
    let content = match content {
        Ok(content) => content,
        Err(error) => {
            tracing::warn!(volume = %id, %error, "a republish has no token to pass on");
            return None;
        }
    };
    let volume = driver.volumes.get(id);
    if let Some(volume) = volume.as_ref().filter(|volume| volume.is_held()) {
        refresh_held(driver, volume, content.credentials).await;
        return None;
    }
    // An earlier driver's mount: an agent that was there before serves it still.
    let known = volume.as_ref().and_then(|volume| volume.server());
    let agent = known.or_else(|| driver.broker.current())?;
    match pass(&agent, id, &content.credentials).await {
        Ok(()) => volume.inspect(|volume| volume.served_by(agent, None)).and(None),
        Err(error) if is_unknown(&error) => Some(content),
        Err(_) => None,
    }
}

/// Keeps the token of a mounted volume whose turn somebody else has; `None` for any other volume.
pub(super) fn keep(
    driver: &Driver,
    id: &VolumeId,
    target: &TargetPath,
    content: Result<Content, Invalid>,
) -> Option<()> {
    let volume = driver.volumes.get(id).filter(|volume| volume.target == *target)?;
    if let Ok(content) = content {
        volume.keep_credentials(content.credentials);
    }
    Some(())
}

async fn refresh_held(driver: &Driver, volume: &Volume, credentials: Credentials) {
    volume.keep_credentials(credentials);
    let (Some(agent), Some(credentials)) = (volume.server(), volume.credentials()) else {
        driver.look_for_agents();
        return;
    };
    match pass(&agent, &volume.id, &credentials).await {
        Ok(()) => volume.set_trouble(None),
        Err(error) if is_unknown(&error) => {
            volume.not_served();
            driver.look_for_agents();
        }
        Err(error) => volume.set_trouble(Some(error.to_string())),
    }
}

async fn pass(agent: &Agent, id: &VolumeId, credentials: &Credentials) -> Result<(), CallError> {
    let passed = agent.token(id, credentials, TOKEN_DEADLINE).await;
    if let Err(error) = &passed {
        tracing::warn!(volume = %id, %error, "sotto-node did not take a fresh token");
    }
    passed
}

fn is_unknown(error: &CallError) -> bool {
    matches!(error, CallError::Refused(refusal) if refusal.code() == Code::NotFound)
}

/// Mounts a volume afresh over its dead mount, whose last holder is gone. On top, so that containers that
/// receive the node's mounts see it; the others have to be restarted.
pub(super) async fn revive(
    driver: &Driver,
    id: &VolumeId,
    target: &TargetPath,
    content: Content,
    deadline: Instant,
) {
    let trouble = |text: &str| {
        if let Some(volume) = driver.volumes.get(id) {
            volume.set_trouble(Some(text.to_owned()));
        }
    };
    let is_dead = match driver.volumes.get(id) {
        Some(volume) => mount_health::is_dead(driver, &volume).await,
        None => mount_health::is_dead_at(driver, target).await,
    };
    if !is_dead {
        tracing::warn!(volume = %id, "sotto-node does not know a volume whose mount is not dead");
        trouble("sotto-node does not serve this volume");
        return;
    }
    let Some(agent) = driver.broker.current() else { return };
    tracing::warn!(
        volume = %id, %target,
        "every holder of the volume's connection is gone: it is mounted afresh; containers without \
         HostToContainer propagation see it after a restart"
    );
    notices::mounted_anew(driver, &content.spec);
    let made =
        fetch_and_mount(driver, &agent, (id, target, Place::OverDead), content, deadline).await;
    if let Err(error) = made {
        tracing::warn!(volume = %id, %error, "a dead volume is not mounted afresh");
        trouble("the mount lost its server: delete the pod if it doesn't heal");
        give_up(&agent, id).await;
    }
}
