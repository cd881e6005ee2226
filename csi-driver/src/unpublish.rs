//! NodeUnpublishVolume, once its request is checked.
//!
//! Invariant: done already is done, at each step; the pod's end waits neither for the agent nor for a
//! process that keeps a file open.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use sotto_core::identity::VolumeId;

use crate::driver::{Driver, blocking};
use crate::mount::{self, End};
use crate::mountinfo;
use crate::target::{TargetPath, is_gone};
use crate::volume::Volume;
use crate::volumes::Busy;

/// How long a call waits for another one of the same volume, a take-over included; kubelet gives up after
/// 2 min.
const TURN_PATIENCE: Duration = Duration::from_secs(60);
/// The agent revokes the store's token before it answers; it also notices the end of the connection.
const RELEASE_DEADLINE: Duration = Duration::from_secs(5);

/// Why a volume is still there.
#[derive(Debug, thiserror::Error)]
pub enum UnpublishError {
    /// Another call works on it.
    #[error(transparent)]
    Busy(#[from] Busy),
    /// The kernel refused.
    #[error("the target path {0} can't be unmounted and removed: {1}")]
    Target(TargetPath, #[source] io::Error),
    /// The journal.
    #[error("the driver's journal can't be written: {0}")]
    Journal(#[source] io::Error),
}

/// Unmounts a volume and forgets it.
///
/// # Errors
/// What is left; kubelet calls again.
pub async fn unpublish(
    driver: &Driver,
    id: VolumeId,
    target: TargetPath,
) -> Result<(), UnpublishError> {
    // A take-over that waits for an agent gives its turn up.
    let mounted = driver.volumes.get(&id).filter(|volume| volume.target == target);
    let _ending = mounted.as_ref().map(Volume::ending);
    let _turn = driver.volumes.turn(&id, TURN_PATIENCE).await?;
    clear(driver, &target).await.map_err(|error| UnpublishError::Target(target.clone(), error))?;
    let known = driver.volumes.get(&id);
    if known.as_ref().is_some_and(|volume| volume.target != target) {
        tracing::warn!(volume = %id, %target, "the volume is mounted elsewhere: it stays there");
        return Ok(());
    }
    // Our dup closes when the call ends; with the mount gone the agent's session ends as well.
    let server = known.and_then(|volume| volume.server().or_else(|| driver.agent_for(&volume)));
    driver.volumes.remove(&id);
    if let Some(agent) = server.or_else(|| driver.broker.current())
        && let Err(error) = agent.release(&id, RELEASE_DEADLINE).await
    {
        tracing::warn!(volume = %id, %error, "sotto-node did not confirm the release");
    }
    let (journal, volume) = (Arc::clone(&driver.journal), id.clone());
    blocking(move || journal.forget(&volume)).await.map_err(UnpublishError::Journal)?;
    driver.tidy.soon();
    tracing::info!(volume = %id, %target, "unpublished");
    Ok(())
}

/// Takes away what is mounted on the target, ours or not, and its directory.
pub(crate) async fn clear(driver: &Driver, target: &TargetPath) -> io::Result<()> {
    let (kubelet, target) = (Arc::clone(&driver.kubelet), target.clone());
    blocking(move || {
        let parent = match kubelet.open_parent(&target) {
            Ok(parent) => parent,
            Err(error) if is_gone(&error) => return Ok(()),
            Err(error) => return Err(error),
        };
        let mounts = mountinfo::read()?;
        if let Some(top) = mountinfo::top_at(&mounts, &kubelet.mount_point(&target)) {
            let ours = mount::volume_of(top).is_some();
            mount::end(&parent, if ours { End::Forced } else { End::Lazy })?;
        }
        parent.remove_target()
    })
    .await
}
