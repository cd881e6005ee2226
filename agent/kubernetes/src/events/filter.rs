//! Which events are sent: the pure part, on a clock that the caller gives.
//!
//! Invariant: bounded. At most [`Settings::remembered`] events and [`MOST_PODS`] pods are remembered.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};

use sotto_core::identity::PodUid;
use tokio::time::Instant;

use super::bucket::Bucket;
use super::{PodEvent, Settings};

/// More pods than a node runs; events of further ones are dropped until some bucket is full again.
const MOST_PODS: usize = 4096;

/// The same event of the same pod.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pod: PodUid,
    reason: &'static str,
    message: u64,
}

/// What is to be done with an event.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Send it.
    Send(Key),
    /// The same was sent within the window: it is counted.
    Repeated,
    /// A rate is used up.
    Limited,
}

/// An event to be sent, with how often it was seen so far.
#[derive(Debug, Clone)]
pub(super) struct Due {
    pub(super) event: PodEvent,
    pub(super) count: u32,
    /// The name of the object that stands for it; none yet for a new one.
    pub(super) object: Option<String>,
}

#[derive(Debug)]
struct Seen {
    due: Due,
    unsent: u32,
    window_ends: Instant,
}

#[derive(Debug)]
pub(super) struct Filter {
    settings: Settings,
    seen: HashMap<Key, Seen>,
    pods: HashMap<PodUid, Bucket>,
    node: Bucket,
    hasher: RandomState,
}

impl Filter {
    pub(super) fn new(settings: Settings, now: Instant) -> Self {
        let node = Bucket::full(settings.node, now);
        let (seen, pods, hasher) = (HashMap::new(), HashMap::new(), RandomState::new());
        Self { settings, seen, pods, node, hasher }
    }

    /// Takes an event in.
    pub(super) fn admit(&mut self, event: PodEvent, now: Instant) -> Verdict {
        let key = Key {
            pod: event.pod.uid.clone(),
            reason: event.reason,
            message: self.hasher.hash_one(&event.message),
        };
        if let Some(seen) = self.seen.get_mut(&key) {
            seen.due.count = seen.due.count.saturating_add(1);
            seen.unsent = seen.unsent.saturating_add(1);
            return Verdict::Repeated;
        }
        if !self.may_send(&key.pod, now) {
            return Verdict::Limited;
        }
        self.make_room();
        let due = Due { event, count: 1, object: None };
        let window_ends = now + self.settings.window;
        self.seen.insert(key.clone(), Seen { due, unsent: 1, window_ends });
        Verdict::Send(key)
    }

    /// Events whose window is over: those that were repeated are due again, the others forgotten.
    pub(super) fn over(&mut self, now: Instant) -> Vec<Key> {
        self.pods.retain(|_, bucket| !bucket.is_full(now));
        self.seen.retain(|_, seen| seen.window_ends > now || seen.unsent > 0);
        let window = self.settings.window;
        let mut due = Vec::new();
        for (key, seen) in self.seen.iter_mut().filter(|(_, seen)| seen.window_ends <= now) {
            if !self.node.has_one(now) {
                break;
            }
            self.node.take(now);
            seen.window_ends = now + window;
            due.push(key.clone());
        }
        due
    }

    /// What to send for a key; its repeats count as sent.
    pub(super) fn due(&mut self, key: &Key) -> Option<Due> {
        let seen = self.seen.get_mut(key)?;
        seen.unsent = 0;
        Some(seen.due.clone())
    }

    /// It was sent, under this name.
    pub(super) fn sent(&mut self, key: &Key, object: String) {
        if let Some(seen) = self.seen.get_mut(key) {
            seen.due.object = Some(object);
        }
    }

    /// It could not be sent: the next of its kind is a new one.
    pub(super) fn forget(&mut self, key: &Key) {
        self.seen.remove(key);
    }

    fn may_send(&mut self, pod: &PodUid, now: Instant) -> bool {
        if !self.pods.contains_key(pod) && self.pods.len() >= MOST_PODS {
            self.pods.retain(|_, bucket| !bucket.is_full(now));
            if self.pods.len() >= MOST_PODS {
                return false;
            }
        }
        let rate = self.settings.pod;
        let bucket = self.pods.entry(pod.clone()).or_insert_with(|| Bucket::full(rate, now));
        let may = bucket.has_one(now) && self.node.has_one(now);
        if may {
            bucket.take(now);
            self.node.take(now);
        }
        may
    }

    /// Forgets the event whose window ends first, if there is no room for one more.
    fn make_room(&mut self) {
        if self.seen.len() < self.settings.remembered.max(1) {
            return;
        }
        let first = self.seen.iter().min_by_key(|(_, seen)| seen.window_ends);
        if let Some(key) = first.map(|(key, _)| key.clone()) {
            self.seen.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests;
