//! Whether a mount is dead (every holder of its connection is gone, and all it ever says is ENOTCONN), and
//! whether anybody answers for it.
//!
//! Invariant: only a short-lived process of its own asks. A mount that is alive and unserved would keep
//! whoever asks waiting, without end and unkillable once the question was read; so there is one for each volume, and
//! few in all.

use std::io;
use std::os::fd::AsFd;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use tokio::process::{Child, Command};
use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit};

use crate::driver::Driver;
use crate::target::TargetPath;
use crate::volume::Volume;

/// The helper's subcommand.
pub const HELPER_COMMAND: &str = "mount-health";
/// The helper's exit status for a dead mount.
pub const DEAD: u8 = 3;
/// A dead mount answers at once, and a served one nearly so.
const ANSWER_DEADLINE: Duration = Duration::from_secs(2);

/// Whether the volume's mount is dead for certain.
pub(crate) async fn is_dead(driver: &Driver, volume: &Volume) -> bool {
    asked(driver, volume).await == Said::Dead
}

/// The same of one that this process has no entry of.
pub(crate) async fn is_dead_at(driver: &Driver, target: &TargetPath) -> bool {
    let Ok(place) = Arc::clone(&driver.askers).try_acquire_owned() else { return false };
    ask_at(driver, target, Asking { _turn: None, _place: place }).await == Said::Dead
}

/// Whether nobody answers for the volume's mount, for certain.
pub(crate) async fn is_silent(driver: &Driver, volume: &Volume) -> bool {
    asked(driver, volume).await == Said::Nothing
}

#[derive(Debug, PartialEq, Eq)]
enum Said {
    Dead,
    /// Whatever it was, or it could not be asked.
    Something,
    Nothing,
}

/// What a process holds until it is gone: one whose question was read and not answered can't be killed.
struct Asking {
    _turn: Option<OwnedMutexGuard<()>>,
    _place: OwnedSemaphorePermit,
}

async fn asked(driver: &Driver, volume: &Volume) -> Said {
    // The one that asked before waits still.
    let Ok(turn) = Arc::clone(&volume.health).try_lock_owned() else { return Said::Nothing };
    let Ok(place) = Arc::clone(&driver.askers).try_acquire_owned() else { return Said::Something };
    ask_at(driver, &volume.target, Asking { _turn: Some(turn), _place: place }).await
}

async fn ask_at(driver: &Driver, target: &TargetPath, asking: Asking) -> Said {
    let child = Command::new("/proc/self/exe")
        .arg(HELPER_COMMAND)
        .args([driver.kubelet.path(), &target.relative()])
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) => {
            tracing::warn!(%target, %error, "the mount's health can't be asked for");
            return Said::Something;
        }
    };
    match tokio::time::timeout(ANSWER_DEADLINE, child.wait()).await {
        Ok(Ok(status)) if status.code() == Some(i32::from(DEAD)) => Said::Dead,
        Ok(Ok(_)) => Said::Something,
        Ok(Err(error)) => {
            tracing::warn!(%target, %error, "the mount's health can't be asked for");
            Said::Something
        }
        Err(_) => {
            tokio::spawn(reaped(child, asking));
            Said::Nothing
        }
    }
}

/// Its owner is the place that it holds: there are few.
async fn reaped(mut child: Child, asking: Asking) {
    if let Err(error) = child.kill().await {
        tracing::warn!(%error, "a process that asks for a mount's health can't be ended");
    }
    drop(asking);
}

/// What the helper does: asks the mount whose root is `mount`.
///
/// # Errors
/// Anything but a clear answer.
pub fn ask(mount: impl AsFd) -> io::Result<bool> {
    match rustix::fs::fstatfs(mount) {
        Ok(_) => Ok(false),
        Err(Errno::NOTCONN) => Ok(true),
        Err(error) => Err(error.into()),
    }
}
