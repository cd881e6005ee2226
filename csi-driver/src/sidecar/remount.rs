//! An injected pod's volume whose connection nobody holds any more, mounted anew.
//!
//! kubelet doesn't publish such a volume again, so this process does by itself what a republish does for the
//! others: a driver that ends between the publish and the sidecar's first connection takes the only holder along.
//!
//! Invariant: only a mount that is dead for certain is replaced. The caller has the volume's turn.

use std::io;
use std::sync::Arc;

use super::publish::mounted;
use crate::driver::{Driver, blocking};
use crate::mount::{self, End};
use crate::mount_health;
use crate::notices;
use crate::publish::Place;
use crate::volume::{Mode, Volume};

/// One that no container uses goes; on another the new one is put on top, for containers that start later.
async fn take_away(driver: &Driver, volume: &Volume) -> io::Result<()> {
    let (kubelet, target) = (Arc::clone(&driver.kubelet), volume.target.clone());
    blocking(move || mount::end(&kubelet.open_parent(&target)?, End::Connection)).await
}

/// Whether the volume has a connection again.
pub(crate) async fn replaces(driver: &Driver, volume: &Volume) -> bool {
    // A pod whose socket is gone has ended, or has not begun.
    if volume.spec.mode != Mode::Sidecar
        || !driver.pods.has(&volume.spec.identity.pod_uid)
        || !mount_health::is_dead(driver, volume).await
    {
        return false;
    }
    if let Err(error) = take_away(driver, volume).await {
        tracing::warn!(volume = %volume.id, %error, "a dead mount stays beneath");
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
