//! A rolling update of sotto-node as the DaemonSet's surge makes it: the new pod comes first, and only once it is
//! ready does the old one get its SIGTERM.

use std::time::Duration;

use rustix::process::Signal;

use super::{Node, NodeError, START_DEADLINE, agent_user};
use crate::process::{Program, Running, Stream};

/// A pod's grace period in `deploy/`.
const GRACE: Duration = Duration::from_secs(60);
/// kubelet gives a probe 5 s.
const PROBE_DEADLINE: Duration = Duration::from_secs(5);
/// Between two probes; kubelet's are seconds apart.
const PROBE_PAUSE: Duration = Duration::from_millis(20);

/// An agent that is about to take the place of the present one.
pub struct Successor {
    agent: Running,
    admin: String,
}

impl Node {
    /// Starts another agent beside the present one.
    ///
    /// # Errors
    /// It does not start.
    pub async fn successor(&self) -> Result<Successor, NodeError> {
        // Each pod has a network namespace of its own, and with it abstract names of its own.
        let admin = format!("sotto-dev-{}", crate::random::hex::<8>());
        let agent = self.new_agent(admin.clone()).await?;
        Ok(Successor { agent, admin })
    }

    /// What the readiness probe of an agent says: nothing if it is ready.
    ///
    /// # Errors
    /// The probe does not start.
    pub async fn probe(&self, successor: &Successor) -> Result<Option<String>, NodeError> {
        let program = Program::new("sotto-node probe", self.machine.path("bin/sotto-node"));
        let arguments = ["probe".to_owned(), format!("--admin={}", successor.admin)];
        let probe = Running::start(program.user(agent_user()).arguments(arguments)).await?;
        let status = probe.wait(PROBE_DEADLINE).await?;
        let said = probe.log().lines(Stream::Error).join("\n");
        Ok((!status.success()).then_some(said))
    }

    /// Waits until the successor is ready, ends the present agent, and takes the other one for it.
    ///
    /// # Errors
    /// It is never ready; its last answer is in the message.
    pub async fn succeeded_by(&mut self, successor: Successor) -> Result<(), NodeError> {
        let mut said = None;
        let ready = async {
            loop {
                said = self.probe(&successor).await?;
                if said.is_none() {
                    return Ok::<_, NodeError>(());
                }
                tokio::time::sleep(PROBE_PAUSE).await;
            }
        };
        match tokio::time::timeout(START_DEADLINE, ready).await {
            Ok(ready) => ready?,
            Err(_) => {
                let said = said.unwrap_or_default();
                return Err(std::io::Error::other(format!("it is never ready: {said}")).into());
            }
        }
        self.agent.signal(Signal::TERM);
        self.agent.wait(GRACE).await?;
        self.agent = successor.agent;
        Ok(())
    }
}
