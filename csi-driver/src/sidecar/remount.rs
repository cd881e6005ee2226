//! An injected pod's volume whose connection nobody holds any more, mounted anew.
//!
//! kubelet doesn't publish such a volume again, so this process does by itself what a republish does for the
//! others: a driver that ends between the publish and the sidecar's first connection takes the only holder along.
//!
//! Invariant: only a mount that is dead for certain is replaced. The caller has the volume's turn.

use super::publish::mounted;
use crate::driver::Driver;
use crate::mount_health;
use crate::notices;
use crate::publish::Place;
use crate::volume::{Mode, Volume};

/// Whether the volume has a connection again.
pub(crate) async fn replaces(driver: &Driver, volume: &Volume) -> bool {
    if volume.spec.mode != Mode::Sidecar
        || !mount_health::is_dead(driver.kubelet.path(), &volume.target).await
    {
        return false;
    }
    let made = (&volume.id, &volume.target, Place::OverDead);
    match mounted(driver, made, volume.spec.clone()).await {
        Ok(anew) => {
            if let Some((_, assignment)) = volume.assignment() {
                anew.keep_assignment(assignment);
            }
            tracing::warn!(
                volume = %volume.id, target = %volume.target,
                "every holder of the volume's connection is gone: it is mounted afresh; containers that had it \
                 open see it after a restart"
            );
            notices::mounted_anew(driver, &volume.spec);
            driver.look_for_agents();
            true
        }
        Err(error) => {
            tracing::warn!(volume = %volume.id, %error, "a dead volume is not mounted afresh");
            false
        }
    }
}
