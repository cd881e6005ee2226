//! The agents that are connected: who they are, and the newest of them.
//!
//! Invariant: only a process of the agent's uid that completed the handshake as a node agent is in the list,
//! and only while its link is alive. One that leaves pings unanswered stays in it and isn't counted on.

mod agent;
mod connections;
mod pings;
mod requests;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

pub use agent::Agent;
pub(crate) use connections::serve;
pub(crate) use pings::watch;
pub(crate) use requests::{Requests, Scope};

/// No agent is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "sotto-node isn't connected, or is stopped: it must run on this node and reach the driver's socket \
     node.sock in the run directory"
)]
pub struct NoAgent;

/// The connected agents.
#[derive(Debug)]
pub struct Broker {
    agents: Mutex<Vec<Agent>>,
    changes: watch::Sender<u64>,
}

impl Default for Broker {
    fn default() -> Self {
        Self { agents: Mutex::default(), changes: watch::Sender::new(0) }
    }
}

impl Broker {
    /// The agent that connected last, of those that answer and stay.
    #[must_use]
    pub fn current(&self) -> Option<Agent> {
        self.with(|agents| agents.iter().rev().find(|agent| agent.takes()).cloned())
    }

    /// All agents that answer, the newest first.
    #[must_use]
    pub fn live(&self) -> Vec<Agent> {
        self.with(|agents| agents.iter().rev().filter(|agent| agent.answers()).cloned().collect())
    }

    /// The current agent, waited for if there is none.
    ///
    /// # Errors
    /// None connected within `patience`.
    pub async fn wait(&self, patience: Duration) -> Result<Agent, NoAgent> {
        let mut changes = self.changes.subscribe();
        let connected = async {
            loop {
                if let Some(agent) = self.current() {
                    return agent;
                }
                if changes.changed().await.is_err() {
                    std::future::pending::<()>().await; // the sender is ours: it lives
                }
            }
        };
        tokio::time::timeout(patience, connected).await.map_err(|_| NoAgent)
    }

    /// Tells when an agent came or went.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Adds a connected agent.
    pub(crate) fn add(&self, agent: Agent) {
        self.with(|agents| agents.push(agent));
        self.changed();
    }

    /// Takes agents out whose links have ended.
    pub(crate) fn sweep(&self) {
        self.with(|agents| agents.retain(Agent::is_live));
        self.changed();
    }

    /// All links of this process are about to end.
    pub(crate) fn leaves(&self, instance: &str) {
        self.with(|agents| {
            let its = agents.iter().filter(|agent| *agent.instance() == *instance);
            its.for_each(Agent::set_leaving);
        });
        self.changed();
    }

    /// One of them began or ceased to answer.
    pub(crate) fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    fn with<T>(&self, act: impl FnOnce(&mut Vec<Agent>) -> T) -> T {
        act(&mut self.agents.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sotto_handoff::link::{Link, NoRequests};
    use sotto_handoff::packet::Connection;
    use std::sync::Arc;

    /// An agent and what keeps it alive: the other end of its link.
    fn agent(instance: &str) -> (Agent, Connection, tokio::task::JoinHandle<()>) {
        let (ours, theirs) = Connection::pair().unwrap();
        let (link, task) = Link::start(ours, Arc::new(NoRequests), 1);
        let task = tokio::spawn(async move {
            task.await;
        });
        (Agent::new(instance, link), theirs, task)
    }

    #[tokio::test]
    async fn the_newest_live_agent_is_the_current_one() {
        let broker = Broker::default();
        assert!(broker.current().is_none());
        let (old, _old_end, _task) = agent("old");
        let (new, new_end, new_task) = agent("new");
        broker.add(old);
        broker.add(new);
        assert_eq!(&*broker.current().unwrap().instance(), "new");
        drop(new_end);
        new_task.await.unwrap();
        assert_eq!(&*broker.current().unwrap().instance(), "old");
        broker.sweep();
        assert_eq!(broker.with(|agents| agents.len()), 1);
    }

    #[tokio::test]
    async fn a_caller_waits_for_an_agent_but_not_for_ever() {
        let broker = Arc::new(Broker::default());
        assert_eq!(broker.wait(Duration::from_millis(1)).await.err(), Some(NoAgent));
        let waiting = Arc::clone(&broker);
        let waiting = tokio::spawn(async move { waiting.wait(Duration::from_secs(60)).await });
        let (first, _end, _task) = agent("first");
        broker.add(first);
        assert_eq!(&*waiting.await.unwrap().unwrap().instance(), "first");
    }
}
