//! A driver that leaves or comes without its agent's doing.

use std::time::Duration;

use rustix::process::Signal;

use super::{Node, NodeError, START_DEADLINE, csi_program};
use crate::process::Running;

/// A pod's grace period in `deploy/`.
const GRACE: Duration = Duration::from_secs(60);

impl Node {
    /// A rolling update of sotto-csi: the old one gets SIGTERM and its grace period, then the new one starts.
    ///
    /// # Errors
    /// The old one doesn't leave, the new one doesn't start.
    pub async fn roll_csi(&mut self) -> Result<(), NodeError> {
        self.csi.signal(Signal::TERM);
        self.csi.wait(GRACE).await?;
        self.restart_csi().await
    }

    /// Starts the driver again and registers it, without waiting for an agent: there is none. The old one is
    /// killed.
    ///
    /// # Errors
    /// It does not start.
    pub async fn restart_csi_alone(&mut self) -> Result<(), NodeError> {
        self.csi.kill().await?;
        self.csi = Running::start(csi_program(&self.machine, &self.settings)).await?;
        tokio::select! {
            registered = self.kubelet.register(START_DEADLINE) => { registered?; }
            ended = self.csi.line("its registration", START_DEADLINE, |_| false) => { ended?; }
        }
        Ok(())
    }
}
