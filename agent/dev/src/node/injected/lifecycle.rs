//! How a pod's containers end and come again.

use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::{Pid, Signal};

use super::Injected;
use crate::node::{Node, NodeError};

/// A pod's grace period, as Kubernetes has it by default.
const GRACE: Duration = Duration::from_secs(30);
/// What kubelet adds to each pause before it has started a container again.
const OVERHEAD: Duration = Duration::from_millis(800);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// When a container that has ended is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    /// At once.
    Immediate,
    /// After what kubelet waits.
    AsKubelet,
}

/// How long kubelet takes to start a container again that has ended for the `crashes`th time: from the second one on
/// its pause begins with 10 s and doubles.
#[must_use]
pub fn restart_delay(crashes: usize) -> Duration {
    let Some(doubled) = crashes.checked_sub(2) else { return OVERHEAD };
    let pause = Duration::from_secs(10) * 2_u32.saturating_pow(doubled.try_into().unwrap_or(5));
    pause.min(LONGEST_PAUSE) + OVERHEAD
}

impl Injected {
    /// Kills the sidecar's container: its PID 1, the supervisor, and with it the worker.
    ///
    /// # Errors
    /// None runs, or the kernel holds it.
    pub async fn kill_sidecar(&mut self) -> Result<ExitStatus, NodeError> {
        let status = self.running.as_ref().ok_or(NodeError::NoSidecar)?.kill().await?;
        self.crashes += 1;
        Ok(status)
    }

    /// Starts the sidecar's container again after its end.
    ///
    /// # Errors
    /// It does not start.
    pub async fn restart_sidecar(&mut self, node: &Node, when: Restart) -> Result<(), NodeError> {
        if when == Restart::AsKubelet {
            tokio::time::sleep(restart_delay(self.crashes)).await;
        }
        self.start_sidecar(node).await
    }

    /// The sidecar's worker: the child of its PID 1.
    #[must_use]
    pub fn worker(&self) -> Option<u32> {
        let pid = self.running.as_ref()?.pid();
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
        children.split_whitespace().next()?.parse().ok()
    }

    /// Kills the sidecar's worker; its supervisor lives on.
    ///
    /// # Errors
    /// There is none.
    pub fn kill_worker(&self) -> Result<u32, NodeError> {
        let worker = self.worker().ok_or(NodeError::NoSidecar)?;
        let pid = i32::try_from(worker).ok().and_then(Pid::from_raw).ok_or(NodeError::NoSidecar)?;
        rustix::process::kill_process(pid, Signal::KILL).map_err(std::io::Error::from)?;
        Ok(worker)
    }

    /// The application's containers have exited: their mount of the secrets is gone.
    ///
    /// # Errors
    /// It isn't mounted.
    pub fn end_application(&mut self, node: &Node) -> Result<(), NodeError> {
        self.unshow(node, &self.folder.join("secrets"))
    }

    /// SIGTERM for the sidecar, and SIGKILL after the grace period. Returns how it ended and how long that took.
    ///
    /// # Errors
    /// None runs, or the kernel holds it.
    pub async fn end_sidecar(&mut self, node: &Node) -> Result<(ExitStatus, Duration), NodeError> {
        let running = self.running.as_ref().ok_or(NodeError::NoSidecar)?;
        let begun = std::time::Instant::now();
        running.signal(Signal::TERM);
        let status = match running.wait(GRACE).await {
            Ok(status) => status,
            Err(_) => running.kill().await?,
        };
        let took = begun.elapsed();
        self.bury();
        self.unshow(node, &self.handoff_path())?;
        Ok((status, took))
    }

    /// Ends the whole pod in kubelet's order. What doesn't run or isn't mounted is passed over.
    ///
    /// # Errors
    /// A volume can't be unpublished.
    pub async fn end(&mut self, node: &Node) -> Result<(), NodeError> {
        self.end_application(node)?;
        if self.running.is_some() {
            self.end_sidecar(node).await?;
        }
        self.unshow(node, &self.handoff_path())?;
        node.kubelet.stop(&self.pod).await?;
        self.remove_files()
    }

    /// What kubelet and the runtime had for the pod is gone.
    fn remove_files(&self) -> Result<(), NodeError> {
        if let Some(cgroup) = &self.cgroup {
            // Its processes have been reaped; what is left goes with the machine.
            drop(std::fs::remove_dir(cgroup));
        }
        match std::fs::remove_dir_all(&self.folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            result => Ok(result?),
        }
    }

    fn unshow(&mut self, node: &Node, at: &Path) -> Result<(), NodeError> {
        if self.shown.iter().any(|shown| shown == at) {
            node.machine.unbind(at)?;
            self.shown.retain(|shown| shown != at);
        }
        Ok(())
    }

    /// Keeps the log of a container that has ended.
    pub(super) fn bury(&mut self) {
        if let Some(ended) = self.running.take() {
            self.logs.push(ended.log().clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 0.8, 11.8, 22.8, 41, 82 s were seen of a kubelet 1.36.
    #[test]
    fn restarts_are_as_far_apart_as_kubelets() {
        let seconds: Vec<u64> = (1..=8).map(|crash| restart_delay(crash).as_secs()).collect();
        assert_eq!(seconds, [0, 10, 20, 40, 80, 160, 300, 300]);
    }
}
