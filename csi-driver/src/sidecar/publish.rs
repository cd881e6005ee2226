//! The first publish of an injected pod's secrets: mounted with nobody to serve them yet.
//!
//! Invariant: sotto-node has said that the class can be used and that the pod has our sidecar, so that a pod that
//! can't have its secrets is told by its event, and not by a container that waits. Nobody touches the volume before
//! a container starts that mounts it, and that waits for the sidecar.

use std::sync::Arc;

use sotto_core::identity::VolumeId;

use super::assignment;
use crate::driver::Driver;
use crate::mount_health;
use crate::node::checks::{Content, Invalid};
use crate::notices;
use crate::publish::{Place, PublishError, attach, create, unmake};
use crate::target::{Parent, TargetPath};
use crate::volume::{Volume, VolumeSpec};

/// Mounts it.
///
/// # Errors
/// Why it isn't; nothing is left then.
pub(crate) async fn first(
    driver: &Driver,
    (id, target): (VolumeId, TargetPath),
    mut spec: VolumeSpec,
    parent: Arc<Parent>,
) -> Result<(), PublishError> {
    let agent = driver.broker.wait(driver.settings.agent_patience).await?;
    let assignment = assignment::resolve(&agent, &id, &spec).await?;
    spec.own_users = assignment.own_users;
    let place = Place::New(Arc::clone(&parent));
    match mounted(driver, (&id, &target, place), spec).await {
        Ok(volume) => {
            volume.keep_assignment(assignment);
            // Its sidecar may be there already.
            driver.look_for_agents();
            tracing::info!(volume = %id, %target, "published, for the pod's sidecar to serve");
            Ok(())
        }
        Err(error) => {
            unmake(driver, &id, parent).await;
            Err(error)
        }
    }
}

/// A publish of what is mounted already, as kubelet repeats it after its own restart. No error, whatever is wrong:
/// kubelet would delete the mount's directory.
pub(crate) async fn again(
    driver: &Driver,
    id: &VolumeId,
    target: &TargetPath,
    content: Result<Content, Invalid>,
) {
    let spec = match content {
        Ok(content) => content.spec,
        Err(error) => {
            tracing::warn!(volume = %id, %error, "a republish is not as it should be");
            return;
        }
    };
    // kubelet brings nothing new for a volume that is known.
    if driver.volumes.get(id).is_some() {
        return;
    }
    if !mount_health::is_dead_at(driver, target).await {
        tracing::error!(volume = %id, %target, "a mount is not in the journal, and not dead: restart its pod");
        return;
    }
    let made = (id, target, Place::OverDead);
    match mounted(driver, made, spec).await {
        Ok(volume) => {
            tracing::warn!(volume = %id, %target, "a dead mount that no journal knew is mounted afresh");
            notices::mounted_anew(driver, &volume.spec);
            driver.look_for_agents();
        }
        Err(error) => tracing::warn!(volume = %id, %error, "a dead volume is not mounted afresh"),
    }
}

/// A mount that this process alone holds.
pub(super) async fn mounted(
    driver: &Driver,
    (id, target, place): (&VolumeId, &TargetPath, Place),
    spec: VolumeSpec,
) -> Result<Arc<Volume>, PublishError> {
    let fresh = create(driver, id, &spec).await?;
    let init = fresh.negotiated;
    let connection = attach(driver, fresh, (id, target, place), &spec).await?;
    let volume = Volume::new(id.clone(), target.clone(), spec, init, Some(connection));
    Ok(driver.volumes.insert(volume))
}
