//! Rotations: the file-system operations that an agent asks for, made by a short-lived helper process.
//!
//! The process that serves a mount must not make them (killed while its own operation waits for itself it
//! stays in D state for ever), and neither should the driver, whose fds keep every mount alive. So the
//! driver runs itself as `sotto-csi rotation-helper`, with no FUSE fd, and ends it at a deadline.
//!
//! Invariant: a helper that hangs costs the driver nothing but an entry in the process table; operations
//! may be repeated.

mod operations;
mod view;

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::process::Command;

pub use operations::Operation;

/// The helper's subcommand.
pub const HELPER_COMMAND: &str = "rotation-helper";
/// Longest time that the operations of one request may take.
pub const OPERATION_DEADLINE: Duration = Duration::from_secs(2);
/// Most of a helper's complaint that is read.
const MAX_COMPLAINT_BYTES: u64 = 512;

/// Why an operation wasn't made.
#[derive(Debug, thiserror::Error)]
pub enum RotationError {
    /// No helper could be started.
    #[error("the rotation helper can't be started")]
    Spawn(#[source] io::Error),
    /// The helper said why.
    #[error("the rotation's operations failed: {0}")]
    Failed(String),
    /// The agent didn't answer the operations.
    #[error("the agent did not answer the rotation's operations within 2 s")]
    Deadline,
}

/// Lets a helper perform `operation` on the volume mounted at `target`, a path relative to the kubelet
/// directory `kubelet_dir`.
///
/// # Errors
/// The helper failed or was ended at the deadline.
pub async fn run(
    kubelet_dir: &std::path::Path,
    target: &std::path::Path,
    operation: &Operation,
) -> Result<(), RotationError> {
    let operation = serde_json::to_string(operation)
        .map_err(|error| RotationError::Spawn(io::Error::other(error)))?;
    let mut child = Command::new("/proc/self/exe")
        .args([HELPER_COMMAND.into(), OsString::from(kubelet_dir), target.into(), operation.into()])
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true) // killed and reaped in the background, never waited for
        .spawn()
        .map_err(RotationError::Spawn)?;
    let complaint = child.stderr.take();
    let ended = tokio::time::timeout(OPERATION_DEADLINE, async {
        let mut text = String::new();
        if let Some(pipe) = complaint {
            pipe.take(MAX_COMPLAINT_BYTES).read_to_string(&mut text).await?;
        }
        Ok::<_, io::Error>((child.wait().await?, text))
    });
    match ended.await {
        Err(_) => Err(RotationError::Deadline),
        Ok(Err(error)) => Err(RotationError::Spawn(error)),
        Ok(Ok((status, _))) if status.success() => Ok(()),
        Ok(Ok((status, text))) if text.is_empty() => Err(RotationError::Failed(status.to_string())),
        Ok(Ok((_, text))) => Err(RotationError::Failed(text.trim().to_owned())),
    }
}

/// What the helper process does: opens a writable view of the mount at `target` (an O_PATH fd of its
/// root) and performs the operation there.
///
/// # Errors
/// What the kernel or the agent refused.
pub fn perform(target: OwnedFd, operation: &str) -> io::Result<()> {
    let operation: Operation = serde_json::from_str(operation)?;
    operation.perform(view::writable_view(target)?)
}
