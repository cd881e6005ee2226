//! The end of a process: everyone is told, everyone is waited for, but not for ever.

use std::future::Future;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Owns every task of a process and ends them together.
#[derive(Debug, Clone, Default)]
pub struct Drain {
    begun: CancellationToken,
    tasks: TaskTracker,
}

/// Tasks that had not ended by the deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} tasks had not ended by the deadline")]
pub struct DrainTimeout(pub usize);

impl Drain {
    /// A drain that has not begun.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts a task that the drain waits for; it should end soon after [`Self::begun`].
    pub fn spawn<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.tasks.spawn(task);
    }

    /// Waits until the drain begins.
    pub async fn begun(&self) {
        self.begun.cancelled().await;
    }

    /// Whether the drain has begun.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.begun.is_cancelled()
    }

    /// Tells every task to end.
    pub fn begin(&self) {
        self.begun.cancel();
        self.tasks.close();
    }

    /// Begins the drain if need be, and waits for the tasks.
    ///
    /// # Errors
    /// The number of tasks that were still running at `deadline`.
    pub async fn finish(&self, deadline: Duration) -> Result<(), DrainTimeout> {
        self.begin();
        tokio::time::timeout(deadline, self.tasks.wait())
            .await
            .map_err(|_| DrainTimeout(self.tasks.len()))
    }
}

/// Waits for SIGTERM or SIGINT.
///
/// # Errors
/// The handlers could not be installed.
pub async fn termination_signal() -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_drain_waits_for_its_tasks() {
        let drain = Drain::new();
        let task = drain.clone();
        drain.spawn(async move { task.begun().await });
        assert!(!drain.has_begun());
        assert_eq!(drain.finish(Duration::from_secs(5)).await, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_never_ends_is_reported_not_awaited_for_ever() {
        let drain = Drain::new();
        drain.spawn(std::future::pending());
        assert_eq!(drain.finish(Duration::from_secs(5)).await, Err(DrainTimeout(1)));
    }
}
