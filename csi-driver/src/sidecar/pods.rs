//! The pods whose sockets are open, and the process that is each one's sidecar.
//!
//! Invariant: a pod has one sidecar. Another process is let in only after the link of the one before has ended,
//! or if it is of the same instance: another worker of the same supervisor.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use sotto_core::identity::{PodUid, VolumeId};
use tokio::sync::watch;

use crate::broker::Agent;

/// The pod has another sidecar already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("another process serves this pod's secrets: a pod has one sidecar, and that is it")]
pub struct Taken;

/// Pods with a sidecar.
#[derive(Debug, Default)]
pub struct Pods {
    table: Mutex<HashMap<PodUid, Pod>>,
}

#[derive(Debug)]
struct Pod {
    /// The volume that shows its socket; `None` after a restart of this process.
    volume: Option<VolumeId>,
    sidecar: Option<Sidecar>,
    /// Its end closes the socket.
    _open: watch::Sender<()>,
}

#[derive(Debug)]
enum Sidecar {
    /// It is being welcomed.
    Coming(String),
    Here(Agent),
}

/// The right to be a pod's sidecar, until [`Self::take`] or its drop.
#[derive(Debug)]
pub struct Claim<'a> {
    pods: &'a Pods,
    pod: PodUid,
    instance: String,
}

impl Pods {
    /// Adds a pod whose socket is about to be opened; the receiver tells its end. `None`: it is open already.
    pub fn add(&self, pod: &PodUid, volume: Option<&VolumeId>) -> Option<watch::Receiver<()>> {
        self.with(|table| match table.get_mut(pod) {
            Some(known) => {
                known.volume = volume.cloned().or_else(|| known.volume.take());
                None
            }
            None => {
                let (open, end) = watch::channel(());
                let added = Pod { volume: volume.cloned(), sidecar: None, _open: open };
                table.insert(pod.clone(), added);
                Some(end)
            }
        })
    }

    /// Closes a pod's socket.
    pub fn remove(&self, pod: &PodUid) {
        self.with(|table| table.remove(pod));
    }

    /// Whether `volume` is the one that shows the pod's socket.
    #[must_use]
    pub fn has_handoff(&self, pod: &PodUid, volume: &VolumeId) -> bool {
        self.with(|table| {
            table.get(pod).and_then(|pod| pod.volume.clone()).as_ref() == Some(volume)
        })
    }

    /// How many.
    #[must_use]
    pub fn count(&self) -> usize {
        self.with(|table| table.len())
    }

    /// The pod's sidecar, if it answers and stays.
    #[must_use]
    pub fn current(&self, pod: &PodUid) -> Option<Agent> {
        self.with(|table| match table.get(pod)?.sidecar.as_ref()? {
            Sidecar::Here(agent) => Some(agent.clone()).filter(Agent::takes),
            Sidecar::Coming(_) => None,
        })
    }

    /// Lets a process of this instance become the pod's sidecar.
    ///
    /// # Errors
    /// Another one is.
    pub fn claim(&self, pod: &PodUid, instance: &str) -> Result<Claim<'_>, Taken> {
        self.with(|table| {
            let known = table.get_mut(pod).ok_or(Taken)?;
            let is_free = match &known.sidecar {
                None => true,
                Some(Sidecar::Coming(other)) => other == instance,
                Some(Sidecar::Here(agent)) => !agent.is_live() || *agent.instance() == *instance,
            };
            if !is_free {
                return Err(Taken);
            }
            known.sidecar = Some(Sidecar::Coming(instance.to_owned()));
            Ok(Claim { pods: self, pod: pod.clone(), instance: instance.to_owned() })
        })
    }

    /// The sidecar is about to end.
    pub fn leaves(&self, pod: &PodUid, instance: &str) {
        self.with(|table| {
            if let Some(Sidecar::Here(agent)) = table.get(pod).and_then(|pod| pod.sidecar.as_ref())
                && *agent.instance() == *instance
            {
                agent.set_leaving();
            }
        });
    }

    fn with<T>(&self, act: impl FnOnce(&mut HashMap<PodUid, Pod>) -> T) -> T {
        act(&mut self.table.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Claim<'_> {
    /// The pod's sidecar from now on.
    pub fn take(self, agent: Agent) {
        self.pods.with(|table| {
            if let Some(pod) = table.get_mut(&self.pod) {
                pod.sidecar = Some(Sidecar::Here(agent));
            }
        });
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.pods.with(|table| {
            if let Some(pod) = table.get_mut(&self.pod)
                && matches!(&pod.sidecar, Some(Sidecar::Coming(instance)) if *instance == self.instance)
            {
                pod.sidecar = None;
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sotto_handoff::link::{Link, NoRequests};
    use sotto_handoff::packet::Connection;
    use std::sync::Arc;

    fn uid(text: &str) -> PodUid {
        PodUid::parse(text).unwrap()
    }

    /// An agent, its other end, and its task.
    fn agent(instance: &str) -> (Agent, Connection, tokio::task::JoinHandle<()>) {
        let (ours, theirs) = Connection::pair().unwrap();
        let (link, task) = Link::start(ours, Arc::new(NoRequests), 1);
        let task = tokio::spawn(async move {
            task.await;
        });
        (Agent::new(instance, link), theirs, task)
    }

    #[tokio::test]
    async fn a_second_process_is_refused_until_the_first_has_ended() {
        let pods = Pods::default();
        let _end = pods.add(&uid("uid-1"), None).unwrap();
        let (first, other_end, task) = agent("first");
        pods.claim(&uid("uid-1"), "first").unwrap().take(first);
        assert!(pods.current(&uid("uid-1")).is_some());
        assert_eq!(pods.claim(&uid("uid-1"), "second").err(), Some(Taken));
        drop(other_end);
        task.await.unwrap();
        assert!(pods.current(&uid("uid-1")).is_none());
        assert!(pods.claim(&uid("uid-1"), "second").is_ok());
    }

    #[tokio::test]
    async fn a_worker_of_the_same_supervisor_takes_the_place_of_the_one_before() {
        let pods = Pods::default();
        let _end = pods.add(&uid("uid-1"), None).unwrap();
        let (first, _other_end, _task) = agent("one");
        pods.claim(&uid("uid-1"), "one").unwrap().take(first);
        assert!(pods.claim(&uid("uid-1"), "one").is_ok());
    }

    #[test]
    fn one_that_is_never_welcomed_leaves_the_place_free() {
        let pods = Pods::default();
        let _end = pods.add(&uid("uid-1"), None).unwrap();
        let claim = pods.claim(&uid("uid-1"), "one").unwrap();
        assert_eq!(pods.claim(&uid("uid-1"), "two").err(), Some(Taken));
        drop(claim);
        assert!(pods.claim(&uid("uid-1"), "two").is_ok());
        assert_eq!(pods.claim(&uid("uid-2"), "two").err(), Some(Taken), "no such pod");
    }

    #[test]
    fn a_pods_end_is_told() {
        let pods = Pods::default();
        let id = VolumeId::parse("csi-1").unwrap();
        let end = pods.add(&uid("uid-1"), Some(&id)).unwrap();
        assert!(pods.add(&uid("uid-1"), None).is_none());
        assert!(pods.has_handoff(&uid("uid-1"), &id), "its volume is known still");
        pods.remove(&uid("uid-1"));
        assert!(end.has_changed().is_err() && pods.count() == 0);
    }
}
