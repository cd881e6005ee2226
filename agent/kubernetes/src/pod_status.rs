//! SecretProviderClassPodStatus objects: what is mounted where, for people and their tools.
//!
//! Invariant: output only. This crate has no call that reads one, so no path and no decision can be
//! taken from it (CVE-2020-8568). Each belongs to its pod and is removed with it by the garbage
//! collector, so nothing here needs the right to delete.

mod wire;
mod writer;

use std::sync::Arc;
use std::time::Duration;

use sotto_core::identity::{ClassName, Namespace, NodeName, PodName, PodUid};

use crate::client::Cluster;
use writer::Pending;

/// One object of a volume and its version.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectVersion {
    /// The object's id: what it is, never its value.
    pub id: String,
    /// Its version, as the store says it.
    pub version: String,
}

/// Which status: one for each pod and class.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StatusKey {
    /// The pod's namespace.
    pub namespace: Namespace,
    /// The pod's name.
    pub pod_name: PodName,
    /// The class.
    pub class: ClassName,
}

/// The status of one volume.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PodStatus {
    /// Whose it is.
    pub key: StatusKey,
    /// The pod's uid: the owner's reference needs it.
    pub pod_uid: PodUid,
    /// Whether the volume is mounted.
    pub mounted: bool,
    /// The target path, for people to read.
    pub target_path: String,
    /// The objects, in any order.
    pub objects: Vec<ObjectVersion>,
}

/// Bounds; the defaults are for production.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Statuses that wait for being written, at most: as many as the node has volumes. Of one volume
    /// only the latest waits.
    pub waiting: usize,
    /// How long one call may take.
    pub request_deadline: Duration,
    /// The first pause after a failure.
    pub shortest_pause: Duration,
    /// The longest pause after failures.
    pub longest_pause: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            waiting: 1024,
            request_deadline: Duration::from_secs(10),
            shortest_pause: Duration::from_secs(1),
            longest_pause: Duration::from_secs(60),
        }
    }
}

/// What became of the statuses so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Written.
    pub written: u64,
    /// Not written since nothing had changed.
    pub unchanged: u64,
    /// Dropped: too many waited.
    pub dropped: u64,
    /// Given up: the API server refused.
    pub failed: u64,
}

/// Where statuses are handed in; cheap to clone.
#[derive(Clone)]
pub struct PodStatuses {
    pending: Arc<Pending>,
}

impl PodStatuses {
    /// Nothing to write yet, and the task that writes: the caller spawns it and owns it; it never ends
    /// by itself. During an outage the latest status of each volume waits.
    pub fn start(
        cluster: &Cluster,
        node: NodeName,
        settings: Settings,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let pending = Arc::new(Pending::new(settings.waiting));
        let writer = writer::Writer::new(cluster, node, settings, Arc::clone(&pending));
        (Self { pending }, writer.run())
    }

    /// Hands a status in, in place of one of the same volume that still waits; returns at once.
    pub fn write(&self, status: PodStatus) {
        self.pending.put(status);
    }

    /// The volume is gone: its status waits no more, and is written anew should it come back. The
    /// object itself goes with its pod.
    pub fn forget(&self, key: &StatusKey) {
        self.pending.forget(key);
    }

    /// What became of the statuses so far, for the metrics.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.pending.counts()
    }
}
