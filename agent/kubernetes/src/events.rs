//! Events on pods, as `kubectl describe pod` shows them.
//!
//! Invariant: [`Events::report`] never waits and never fails. What doesn't fit the queue, the rate or
//! the API server's patience is counted and lost; an event is a courtesy, the audit log is the record.
//!
//! core/v1 is written, as kubelet writes it, and not events.k8s.io/v1: `kubectl describe` shows its
//! count, age and source in every version, and a repeat is one small patch.

mod bucket;
mod filter;
mod sender;
mod wire;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sotto_core::clock::{Clock, SystemClock};
use sotto_core::identity::{Namespace, NodeName, PodName, PodUid};
use tokio::sync::mpsc;

use crate::client::Cluster;
use crate::text;

/// Longest message of an event, in bytes: the API's own limit for a note.
pub const LONGEST_MESSAGE_BYTES: usize = 1024;

/// How serious it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Severity {
    /// For information.
    Normal,
    /// Somebody should act.
    Warning,
}

/// The pod that an event is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PodReference {
    /// Its namespace.
    pub namespace: Namespace,
    /// Its name.
    pub name: PodName,
    /// Its uid: an event without it isn't shown by `kubectl describe`.
    pub uid: PodUid,
}

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodEvent {
    /// Whom it is about.
    pub pod: PodReference,
    /// How serious it is.
    pub severity: Severity,
    /// In CamelCase, a word that machines match: `SecretsUnavailable`.
    pub reason: &'static str,
    /// What happened and what to do; never a value or a token. Control characters are replaced and it
    /// is cut to [`LONGEST_MESSAGE_BYTES`].
    pub message: String,
}

/// Bounds; the defaults are for production.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Events that wait for being sent; more are dropped and counted.
    pub queue: usize,
    /// Within this time the same event of the same pod is only counted; then the count is sent.
    pub window: Duration,
    /// Events that are remembered for that.
    pub remembered: usize,
    /// Events that one pod can cause at once, and the time after which it may cause one more.
    pub pod: Rate,
    /// The same for the whole node.
    pub node: Rate,
    /// How long one call may take.
    pub request_deadline: Duration,
    /// The first pause after a failure.
    pub shortest_pause: Duration,
    /// How often a failed call is tried again before its event is given up.
    pub retries: u32,
}

/// A token bucket's size and refill.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    /// At once.
    pub burst: u32,
    /// One more after this time.
    pub every: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            queue: 256,
            window: Duration::from_secs(5 * 60),
            remembered: 1024,
            pod: Rate { burst: 10, every: Duration::from_secs(60) },
            node: Rate { burst: 50, every: Duration::from_secs(1) },
            request_deadline: Duration::from_secs(10),
            shortest_pause: Duration::from_secs(1),
            retries: 4,
        }
    }
}

/// Who reports, as the event says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reporter {
    /// The component: `sotto-node`.
    pub component: String,
    /// The node.
    pub node: NodeName,
}

/// What became of the events so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Calls that created or updated an event.
    pub sent: u64,
    /// Repeats within the window, counted only.
    pub repeated: u64,
    /// Dropped: the queue was full.
    pub dropped_queue_full: u64,
    /// Dropped: the pod's or the node's rate was used up.
    pub dropped_rate_limited: u64,
    /// Given up: the API server refused, or stayed away.
    pub failed: u64,
}

#[derive(Debug, Default)]
struct Counters {
    sent: AtomicU64,
    repeated: AtomicU64,
    dropped_queue_full: AtomicU64,
    dropped_rate_limited: AtomicU64,
    failed: AtomicU64,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Where events are handed in; cheap to clone.
#[derive(Clone)]
pub struct Events {
    queue: mpsc::Sender<PodEvent>,
    counters: Arc<Counters>,
}

impl Events {
    /// An empty queue, and the task that sends: the caller spawns it and owns it; it ends once every
    /// handle is gone and what was queued is sent.
    pub fn start(
        cluster: &Cluster,
        reporter: Reporter,
        settings: Settings,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        Self::start_with_clock(cluster, reporter, settings, Arc::new(SystemClock))
    }

    /// As [`Self::start`], with the clock that stamps the events.
    pub fn start_with_clock(
        cluster: &Cluster,
        reporter: Reporter,
        settings: Settings,
        clock: Arc<dyn Clock>,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (queue, waiting) = mpsc::channel(settings.queue.max(1));
        let counters = Arc::new(Counters::default());
        let writer = wire::Writer::new(cluster, reporter, settings.request_deadline, clock);
        let sender = sender::Sender::new(writer, settings, Arc::clone(&counters));
        (Self { queue, counters }, sender.run(waiting))
    }

    /// Hands an event in; returns at once.
    pub fn report(&self, mut event: PodEvent) {
        event.message = text::one_line(&event.message, LONGEST_MESSAGE_BYTES);
        if self.queue.try_send(event).is_err() {
            count(&self.counters.dropped_queue_full);
        }
    }

    /// What became of the events so far, for the metrics.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            sent: read(&self.counters.sent),
            repeated: read(&self.counters.repeated),
            dropped_queue_full: read(&self.counters.dropped_queue_full),
            dropped_rate_limited: read(&self.counters.dropped_rate_limited),
            failed: read(&self.counters.failed),
        }
    }
}
