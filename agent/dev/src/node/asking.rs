//! What an administrator asks of a running agent: its own executable, run beside it as `kubectl exec` would.

use std::time::Duration;

use super::machine::Machine;
use super::{Node, NodeError, agent_user};
use crate::kubelet::Pod;
use crate::process::{Program, Running, Stream};

/// Longer than the agent's own deadline.
const DEADLINE: Duration = Duration::from_secs(30);

/// The agent's admin socket: each machine's has a name of its own.
pub(super) fn admin(machine: &Machine) -> String {
    let root = machine.path("");
    let name = root.file_name().unwrap_or_default();
    format!("{}-admin", name.to_string_lossy())
}

impl Node {
    /// The name of the agent's admin socket.
    #[must_use]
    pub fn admin(&self) -> String {
        admin(&self.machine)
    }

    /// `sotto-node refresh` for a pod: whether all its volumes show what their stores have, and the lines
    /// that were printed.
    ///
    /// # Errors
    /// It could not be started, or took too long.
    pub async fn refresh(&self, pod: &Pod) -> Result<(bool, Vec<String>), NodeError> {
        let program = Program::new("sotto-node refresh", self.machine.path("bin/sotto-node"));
        let program = program.user(agent_user()).arguments([
            "refresh".to_owned(),
            format!("{}/{}", pod.namespace, pod.name),
            format!("--admin={}", self.admin()),
        ]);
        let asking = Running::start(program).await?;
        let status = asking.wait(DEADLINE).await?;
        let mut lines = asking.log().lines(Stream::Output);
        lines.extend(asking.log().lines(Stream::Error));
        Ok((status.success(), lines))
    }
}
