//! The pods whose sockets are open, and the process that is each one's sidecar.
//!
//! Invariant: a pod has one sidecar. Another process is let in only after the link of the one before has ended,
//! or if it is of the same instance: another worker of the same supervisor.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sotto_core::identity::{PodUid, VolumeId};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::broker::Agent;

/// How often something is said about who was refused at one pod's socket: so many times in so long.
const MOST_TOLD: usize = 10;
const TELL_INTERVAL: Duration = Duration::from_secs(60);

/// The pod has another sidecar already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("another process serves this pod's secrets: a pod has one sidecar, and that is it")]
pub struct Taken;

/// Pods with a sidecar.
#[derive(Debug, Default)]
pub struct Pods {
    table: Mutex<HashMap<PodUid, Pod>>,
    claims: AtomicU64,
}

#[derive(Debug)]
struct Pod {
    /// The volume that shows its socket; `None` after a restart of this process.
    volume: Option<VolumeId>,
    sidecar: Option<Sidecar>,
    /// When something was said of who was refused.
    told: Vec<Instant>,
    /// Its end closes the socket.
    _open: watch::Sender<()>,
}

#[derive(Debug)]
enum Sidecar {
    /// It is being welcomed, by this claim; the one before stays until it is.
    Coming {
        claim: u64,
        instance: String,
        before: Option<Agent>,
    },
    Here(Agent),
}

impl Pod {
    fn is_claimed_by(&self, number: u64) -> bool {
        matches!(&self.sidecar, Some(Sidecar::Coming { claim, .. }) if *claim == number)
    }
}

impl Sidecar {
    fn agent(&self) -> Option<&Agent> {
        match self {
            Self::Coming { before, .. } => before.as_ref(),
            Self::Here(agent) => Some(agent),
        }
    }

    fn into_agent(self) -> Option<Agent> {
        match self {
            Self::Coming { before, .. } => before,
            Self::Here(agent) => Some(agent),
        }
    }

    /// Whether a process of `instance` has to wait for this one's end.
    fn keeps_out(&self, instance: &str) -> bool {
        match self {
            Self::Coming { instance: other, .. } => other != instance,
            Self::Here(agent) => agent.is_live() && *agent.instance() != *instance,
        }
    }
}

/// The right to be a pod's sidecar, until [`Self::take`] or its drop.
#[derive(Debug)]
pub struct Claim<'a> {
    pods: &'a Pods,
    pod: PodUid,
    number: u64,
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
                let added =
                    Pod { volume: volume.cloned(), sidecar: None, told: Vec::new(), _open: open };
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
        self.linked(pod).filter(Agent::takes)
    }

    /// The pod's sidecar, if it answers: one that is about to end may hold what nobody else does.
    #[must_use]
    pub fn linked(&self, pod: &PodUid) -> Option<Agent> {
        self.with(|table| table.get(pod)?.sidecar.as_ref()?.agent().cloned()).filter(Agent::answers)
    }

    /// Whether the pod's socket is open.
    #[must_use]
    pub fn has(&self, pod: &PodUid) -> bool {
        self.with(|table| table.contains_key(pod))
    }

    /// Whether something may be said about the pod again, to the log and to its author: whoever is refused may come
    /// again and again.
    pub fn may_tell(&self, pod: &PodUid) -> bool {
        let now = Instant::now();
        self.with(|table| {
            let Some(known) = table.get_mut(pod) else { return false };
            known.told.retain(|told| now < *told + TELL_INTERVAL);
            let may = known.told.len() < MOST_TOLD;
            if may {
                known.told.push(now);
            }
            may
        })
    }

    /// Lets a process of this instance become the pod's sidecar.
    ///
    /// # Errors
    /// Another one is.
    pub fn claim(&self, pod: &PodUid, instance: &str) -> Result<Claim<'_>, Taken> {
        self.with(|table| {
            let known = table.get_mut(pod).ok_or(Taken)?;
            if known.sidecar.as_ref().is_some_and(|it| it.keeps_out(instance)) {
                return Err(Taken);
            }
            let number = self.claims.fetch_add(1, Ordering::Relaxed);
            let before = known.sidecar.take().and_then(Sidecar::into_agent);
            let instance = instance.to_owned();
            known.sidecar = Some(Sidecar::Coming { claim: number, instance, before });
            Ok(Claim { pods: self, pod: pod.clone(), number })
        })
    }

    /// The sidecar is about to end.
    pub fn leaves(&self, pod: &PodUid, instance: &str) {
        self.with(|table| {
            let agent = table.get(pod).and_then(|pod| pod.sidecar.as_ref()?.agent());
            if let Some(agent) = agent.filter(|agent| *agent.instance() == *instance) {
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
            if let Some(pod) = table.get_mut(&self.pod)
                && pod.is_claimed_by(self.number)
            {
                pod.sidecar = Some(Sidecar::Here(agent));
            }
        });
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.pods.with(|table| {
            if let Some(pod) = table.get_mut(&self.pod)
                && pod.is_claimed_by(self.number)
            {
                pod.sidecar = pod.sidecar.take().and_then(Sidecar::into_agent).map(Sidecar::Here);
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

    #[tokio::test]
    async fn one_that_is_never_welcomed_displaces_nobody() {
        let pods = Pods::default();
        let _end = pods.add(&uid("uid-1"), None).unwrap();
        let (first, _other_end, _task) = agent("one");
        pods.claim(&uid("uid-1"), "one").unwrap().take(first);
        let claim = pods.claim(&uid("uid-1"), "one").unwrap();
        assert!(pods.linked(&uid("uid-1")).is_some(), "the one before serves on meanwhile");
        let later = pods.claim(&uid("uid-1"), "one").unwrap();
        drop(claim);
        assert_eq!(pods.claim(&uid("uid-1"), "two").err(), Some(Taken));
        drop(later);
        assert!(pods.current(&uid("uid-1")).is_some());
        assert_eq!(pods.claim(&uid("uid-1"), "two").err(), Some(Taken));
    }

    #[test]
    fn a_pod_is_told_of_strangers_now_and_then() {
        let pods = Pods::default();
        let _end = pods.add(&uid("uid-1"), None).unwrap();
        assert!((0..MOST_TOLD).all(|_| pods.may_tell(&uid("uid-1"))));
        assert!(!pods.may_tell(&uid("uid-1")));
        assert!(!pods.may_tell(&uid("uid-2")), "no such pod");
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
