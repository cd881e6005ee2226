//! Whether a mount is dead (every holder of its connection is gone, and all it ever says is ENOTCONN), and
//! whether anybody answers for it.
//!
//! Invariant: only a short-lived process of its own asks. A mount that is alive and unserved would keep
//! whoever asks waiting, without end and unkillable once the question was read.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::io::Errno;
use tokio::process::Command;

use crate::target::TargetPath;

/// The helper's subcommand.
pub const HELPER_COMMAND: &str = "mount-health";
/// The helper's exit status for a dead mount.
pub const DEAD: u8 = 3;
/// A dead mount answers at once, and a served one nearly so.
const ANSWER_DEADLINE: Duration = Duration::from_secs(2);

/// Whether the mount at `target` is dead for certain.
pub async fn is_dead(kubelet_dir: &Path, target: &TargetPath) -> bool {
    asked(kubelet_dir, target).await == Said::Dead
}

/// Whether nobody answers for the mount at `target`, for certain.
pub async fn is_silent(kubelet_dir: &Path, target: &TargetPath) -> bool {
    asked(kubelet_dir, target).await == Said::Nothing
}

#[derive(Debug, PartialEq, Eq)]
enum Said {
    Dead,
    /// Whatever it was, or it could not be asked.
    Something,
    Nothing,
}

async fn asked(kubelet_dir: &Path, target: &TargetPath) -> Said {
    let child = Command::new("/proc/self/exe")
        .arg(HELPER_COMMAND)
        .args([kubelet_dir, &target.relative()])
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true) // killed and reaped in the background, never waited for
        .spawn();
    let ended = async { child?.wait().await };
    match tokio::time::timeout(ANSWER_DEADLINE, ended).await {
        Ok(Ok(status)) if status.code() == Some(i32::from(DEAD)) => Said::Dead,
        Ok(Ok(_)) => Said::Something,
        Ok(Err(error)) => {
            tracing::warn!(%target, %error, "the mount's health can't be asked for");
            Said::Something
        }
        Err(_) => Said::Nothing,
    }
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
