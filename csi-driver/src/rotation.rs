//! Rotations: the file-system operations that an agent asks for, made by a short-lived helper process.
//!
//! The process that serves a mount must not make them (killed while its own operation waits for itself it
//! stays in D state for ever), and neither should the driver, whose fds keep every mount alive. So the
//! driver runs itself as `sotto-csi rotation-helper`, with no FUSE fd, and ends it at a deadline.
//!
//! Invariant: a helper that hangs costs the driver an entry in the process table, and one of the places for
//! helpers until it is gone; operations may be repeated.

mod operations;

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit};

pub use operations::Operation;

/// The helper's subcommand.
pub const HELPER_COMMAND: &str = "rotation-helper";
/// Longest time that the operations of one request may take.
pub const OPERATION_DEADLINE: Duration = Duration::from_secs(2);
/// Most of a helper's complaint that is read.
const MAX_COMPLAINT_BYTES: u64 = 512;

/// Longest operation in JSON: some thousand names.
const MAX_OPERATION_BYTES: u64 = 4 << 20;

/// What a helper holds until it is gone: a place among the helpers, and its volume's turn, so that a volume whose
/// server doesn't answer costs one place.
#[derive(Debug)]
pub struct Place {
    /// Among the helpers.
    pub place: OwnedSemaphorePermit,
    /// The volume's.
    pub turn: OwnedMutexGuard<()>,
}

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
/// directory `kubelet_dir`. It keeps its place until it is gone, however long that takes.
///
/// # Errors
/// The helper failed or was ended at the deadline.
pub async fn run(
    kubelet_dir: &std::path::Path,
    target: &std::path::Path,
    operation: &Operation,
    place: Place,
) -> Result<(), RotationError> {
    let operation = serde_json::to_vec(operation)
        .map_err(|error| RotationError::Spawn(io::Error::other(error)))?;
    let mut child = Command::new("/proc/self/exe")
        .args([HELPER_COMMAND.into(), OsString::from(kubelet_dir), target.into()])
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(RotationError::Spawn)?;
    let ended = tokio::time::timeout(OPERATION_DEADLINE, attend(&mut child, &operation)).await;
    let Ok(ended) = ended else {
        // It may wait in the kernel for an answer that nobody gives.
        tokio::spawn(reaped(child, place));
        return Err(RotationError::Deadline);
    };
    match ended.map_err(RotationError::Spawn)? {
        (status, _) if status.success() => Ok(()),
        (status, text) if text.is_empty() => Err(RotationError::Failed(status.to_string())),
        (_, text) => Err(RotationError::Failed(text.trim().to_owned())),
    }
}

/// Names don't fit into a command line: a volume may have a thousand.
async fn attend(child: &mut Child, operation: &[u8]) -> io::Result<(ExitStatus, String)> {
    if let Some(mut pipe) = child.stdin.take() {
        // A helper that ends early says why on its way out.
        let _ = pipe.write_all(operation).await;
    }
    let mut text = String::new();
    if let Some(pipe) = child.stderr.take() {
        pipe.take(MAX_COMPLAINT_BYTES).read_to_string(&mut text).await?;
    }
    Ok((child.wait().await?, text))
}

/// Its owner is the place that it holds: there are few.
async fn reaped(mut child: Child, place: Place) {
    if let Err(error) = child.kill().await {
        tracing::warn!(%error, "a helper can't be ended");
    }
    drop(place);
}

/// What the helper process does: opens a writable view of the mount at `target` (an O_PATH fd of its
/// root) and performs the operation there.
///
/// # Errors
/// What the kernel or the agent refused.
pub fn perform(target: OwnedFd, operation: impl io::Read) -> io::Result<()> {
    let operation: Operation = serde_json::from_reader(operation.take(MAX_OPERATION_BYTES))?;
    operation.perform(crate::view::writable(target)?)
}
