//! The task that writes statuses: the latest of each volume, until it is written or refused.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasher as _;
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kube::Api;
use kube::api::{Patch, PatchParams};
use kube::core::DynamicObject;
use sotto_core::identity::NodeName;
use tokio::sync::Notify;

use super::{Counts, PodStatus, Settings, StatusKey, wire};
use crate::api_error::ApiError;
use crate::backoff::Backoff;
use crate::calls::APPLY_STATUS;
use crate::client::{Cluster, within};

/// The name under which server-side apply knows our fields.
const FIELD_MANAGER: &str = "sotto-node";

/// The statuses that wait, by volume.
pub(super) struct Pending {
    most: usize,
    hasher: RandomState,
    inner: Mutex<Inner>,
    arrived: Notify,
}

#[derive(Default)]
struct Inner {
    waiting: BTreeMap<StatusKey, PodStatus>,
    /// Hashes of what was written last, so that a republish writes nothing.
    written: HashMap<StatusKey, u64>,
    counts: Counts,
}

impl Inner {
    fn behind(&self, last: Option<&StatusKey>) -> Option<PodStatus> {
        let behind = last.and_then(|last| self.waiting.range((Excluded(last), Unbounded)).next());
        behind.or_else(|| self.waiting.iter().next()).map(|(_, status)| status.clone())
    }
}

impl Pending {
    pub(super) fn new(most: usize) -> Self {
        let (hasher, inner) = (RandomState::new(), Mutex::default());
        Self { most, hasher, inner, arrived: Notify::new() }
    }

    pub(super) fn put(&self, status: PodStatus) {
        let hash = self.hasher.hash_one(&status);
        let mut inner = self.lock();
        if !inner.waiting.contains_key(&status.key) {
            if inner.written.get(&status.key) == Some(&hash) {
                inner.counts.unchanged += 1;
                return;
            }
            if inner.waiting.len() >= self.most {
                inner.counts.dropped += 1;
                return;
            }
        }
        inner.waiting.insert(status.key.clone(), status);
        drop(inner);
        self.arrived.notify_one();
    }

    pub(super) fn forget(&self, key: &StatusKey) {
        let mut inner = self.lock();
        inner.waiting.remove(key);
        inner.written.remove(key);
    }

    pub(super) fn counts(&self) -> Counts {
        self.lock().counts
    }

    /// A status that waits, the one behind `last` if there is one, so that no status that fails again
    /// and again keeps the others waiting. It stays until it is said to be done.
    async fn next(&self, last: Option<&StatusKey>) -> PodStatus {
        loop {
            let next = self.lock().behind(last);
            match next {
                Some(status) => return status,
                None => self.arrived.notified().await,
            }
        }
    }

    /// It was written, or refused for good: it waits no more, unless a newer one took its place.
    fn done(&self, status: &PodStatus, written: bool) {
        let hash = self.hasher.hash_one(status);
        let mut inner = self.lock();
        let waited = inner.waiting.get(&status.key) == Some(status);
        if waited {
            inner.waiting.remove(&status.key);
        }
        if !written {
            inner.counts.failed += 1;
            return;
        }
        inner.counts.written += 1;
        // Bounded like what waits; a volume that was forgotten meanwhile isn't remembered again.
        if waited && (inner.written.len() < self.most || inner.written.contains_key(&status.key)) {
            inner.written.insert(status.key.clone(), hash);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) struct Writer {
    client: kube::Client,
    node: NodeName,
    settings: Settings,
    pending: Arc<Pending>,
}

impl Writer {
    pub(super) fn new(
        cluster: &Cluster,
        node: NodeName,
        settings: Settings,
        pending: Arc<Pending>,
    ) -> Self {
        Self { client: cluster.client(), node, settings, pending }
    }

    pub(super) async fn run(self) {
        let mut backoff = Backoff::new(self.settings.shortest_pause, self.settings.longest_pause);
        let mut last = None;
        loop {
            let status = self.pending.next(last.as_ref()).await;
            last = Some(status.key.clone());
            match self.apply(&status).await {
                Ok(()) => {
                    backoff.reset();
                    self.pending.done(&status, true);
                }
                Err(error) if error.is_outage() || matches!(error, ApiError::Conflict { .. }) => {
                    let pause = backoff.next(error.retry_after());
                    tracing::debug!(%error, ?pause, "a status waits");
                    tokio::time::sleep(pause).await;
                }
                Err(error) => {
                    let key = &status.key;
                    tracing::warn!(namespace = %key.namespace, pod = %key.pod_name,
                        class = %key.class, %error, "a status was not written");
                    self.pending.done(&status, false);
                }
            }
        }
    }

    async fn apply(&self, status: &PodStatus) -> Result<(), ApiError> {
        let namespace = status.key.namespace.as_str();
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), namespace, &wire::resource());
        let object = wire::object(status, &self.node);
        let patch = Patch::Apply(&object);
        // Forced: the reference driver may have written the same fields before a switch-over.
        let parameters = PatchParams::apply(FIELD_MANAGER).force();
        let name = wire::name(&status.key);
        let call = api.patch(&name, &parameters, &patch);
        within(APPLY_STATUS, self.settings.request_deadline, call).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sotto_core::identity::{ClassName, Namespace, PodName, PodUid};

    fn status(pod: &str, mounted: bool) -> PodStatus {
        PodStatus {
            key: StatusKey {
                namespace: Namespace::parse("shop").unwrap(),
                pod_name: PodName::parse(pod).unwrap(),
                class: ClassName::parse("db").unwrap(),
            },
            pod_uid: PodUid::parse("uid").unwrap(),
            mounted,
            target_path: "/t".to_owned(),
            objects: Vec::new(),
        }
    }

    #[tokio::test]
    async fn only_the_latest_status_of_a_volume_waits() {
        let pending = Pending::new(8);
        pending.put(status("a", false));
        pending.put(status("a", true));
        assert!(pending.next(None).await.mounted);
        assert_eq!(pending.lock().waiting.len(), 1);
    }

    #[tokio::test]
    async fn a_status_that_changed_while_it_was_written_is_written_again() {
        let pending = Pending::new(8);
        pending.put(status("a", false));
        let under_way = pending.next(None).await;
        pending.put(status("a", true));
        pending.done(&under_way, true);
        assert!(pending.next(None).await.mounted);
    }

    #[tokio::test]
    async fn a_status_that_fails_is_followed_by_the_others() {
        let pending = Pending::new(8);
        pending.put(status("a", true));
        pending.put(status("b", true));
        let failed = pending.next(None).await.key;
        assert_eq!(pending.next(Some(&failed)).await, status("b", true));
        assert_eq!(pending.next(Some(&status("b", true).key)).await, status("a", true));
    }

    #[tokio::test]
    async fn what_did_not_change_is_not_written_again_until_it_is_forgotten() {
        let pending = Pending::new(8);
        pending.put(status("a", true));
        pending.done(&pending.next(None).await, true);
        pending.put(status("a", true));
        assert_eq!(pending.counts(), Counts { written: 1, unchanged: 1, ..Counts::default() });
        assert!(pending.lock().waiting.is_empty());
        pending.forget(&status("a", true).key);
        pending.put(status("a", true));
        assert_eq!(pending.lock().waiting.len(), 1);
    }

    #[test]
    fn what_waits_is_bounded_and_what_is_dropped_is_counted() {
        let pending = Pending::new(2);
        for pod in ["a", "b", "c", "d"] {
            pending.put(status(pod, true));
        }
        pending.put(status("a", false));
        assert_eq!(pending.lock().waiting.len(), 2);
        assert_eq!(pending.counts().dropped, 2);
    }
}
