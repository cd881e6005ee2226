//! What was seen, how fresh it is, and who wants to know of changes.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use sotto_core::class::SecretProviderClass;
use sotto_core::identity::{ClassName, Namespace};
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;

use super::wire::{Entry, Key};
use super::{Change, Freshness, LookUpError};
use crate::api_error::ApiError;

pub(super) struct Cache {
    entries: RwLock<HashMap<Key, Entry>>,
    freshness: watch::Sender<Freshness>,
    changes: broadcast::Sender<Change>,
}

impl Cache {
    pub(super) fn new(changes: usize) -> Self {
        Self {
            entries: RwLock::default(),
            freshness: watch::Sender::new(Freshness::NotSynced { why: None }),
            changes: broadcast::Sender::new(changes.max(1)),
        }
    }

    pub(super) fn look_up(
        &self,
        namespace: &Namespace,
        name: &ClassName,
    ) -> Result<Arc<SecretProviderClass>, LookUpError> {
        let key = (namespace.clone(), name.clone());
        let found = self.entries.read().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        let (namespace, name) = key;
        match (found, self.freshness()) {
            (Some(Ok(class)), _) => Ok(class),
            (Some(Err(reason)), _) => Err(LookUpError::Unusable { namespace, name, reason }),
            (None, Freshness::NotSynced { why }) => Err(LookUpError::NotSynced { why }),
            (None, Freshness::Live) => Err(LookUpError::Unknown { namespace, name, behind: None }),
            (None, Freshness::Behind { since, why }) => {
                let behind = Some((since.elapsed(), why));
                Err(LookUpError::Unknown { namespace, name, behind })
            }
        }
    }

    pub(super) fn freshness(&self) -> Freshness {
        self.freshness.borrow().clone()
    }

    pub(super) async fn synced(&self, deadline: Duration) -> Result<(), LookUpError> {
        let mut freshness = self.freshness.subscribe();
        let synced = freshness.wait_for(|it| !matches!(it, Freshness::NotSynced { .. }));
        match tokio::time::timeout(deadline, synced).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => match self.freshness() {
                Freshness::NotSynced { why } => Err(LookUpError::NotSynced { why }),
                Freshness::Live | Freshness::Behind { .. } => Ok(()),
            },
        }
    }

    pub(super) fn subscribe(&self) -> broadcast::Receiver<Change> {
        self.changes.subscribe()
    }

    /// A complete list: it replaces everything at once.
    pub(super) fn replace(&self, listed: HashMap<Key, Entry>) {
        let before = {
            let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *entries, listed.clone())
        };
        let gone = before.keys().filter(|key| !listed.contains_key(*key));
        let other = listed.iter().filter(|(key, entry)| before.get(*key) != Some(*entry));
        let changed: Vec<Key> = other.map(|(key, _)| key).chain(gone).cloned().collect();
        self.live();
        changed.into_iter().for_each(|key| self.tell(key));
    }

    /// One class was created or changed.
    pub(super) fn apply(&self, key: Key, entry: Entry) {
        let before = {
            let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
            entries.insert(key.clone(), entry.clone())
        };
        // A change of labels or annotations only is none for us.
        if before.as_ref() != Some(&entry) {
            self.tell(key);
        }
    }

    pub(super) fn remove(&self, key: Key) {
        let before = self.entries.write().unwrap_or_else(PoisonError::into_inner).remove(&key);
        if before.is_some() {
            self.tell(key);
        }
    }

    /// A watch is open. Whether it was not before.
    pub(super) fn live(&self) -> bool {
        self.freshness.send_if_modified(|freshness| {
            let changes = *freshness != Freshness::Live;
            *freshness = Freshness::Live;
            changes
        })
    }

    /// A call failed. Whether it is the first failure in a row.
    pub(super) fn behind(&self, error: &ApiError) -> bool {
        let mut first = false;
        self.freshness.send_modify(|freshness| {
            let why = error.to_string();
            *freshness = match &*freshness {
                Freshness::NotSynced { why: before } => {
                    first = before.is_none();
                    Freshness::NotSynced { why: Some(why) }
                }
                Freshness::Live => {
                    first = true;
                    Freshness::Behind { since: Instant::now(), why }
                }
                Freshness::Behind { since, .. } => Freshness::Behind { since: *since, why },
            };
        });
        first
    }

    fn tell(&self, (namespace, name): Key) {
        // An error only means that nobody listens.
        drop(self.changes.send(Change::Class { namespace, name }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn key(name: &str) -> Key {
        (Namespace::parse("shop").unwrap(), ClassName::parse(name).unwrap())
    }

    fn entry(name: &str, role: &str) -> (Key, Entry) {
        let (namespace, class_name) = key(name);
        let class = SecretProviderClass {
            namespace,
            name: class_name,
            provider: "openbao".to_owned(),
            parameters: BTreeMap::from([("roleName".to_owned(), role.to_owned())]),
            wants_secret_objects: false,
        };
        (key(name), Ok(Arc::new(class)))
    }

    fn told(receiver: &mut broadcast::Receiver<Change>) -> Vec<String> {
        let mut names = Vec::new();
        while let Ok(Change::Class { name, .. }) = receiver.try_recv() {
            names.push(name.to_string());
        }
        names.sort();
        names
    }

    #[test]
    fn a_new_list_tells_exactly_what_differs() {
        let cache = Cache::new(16);
        cache.replace(HashMap::from([entry("same", "r"), entry("other", "r"), entry("gone", "r")]));
        let mut changes = cache.subscribe();
        cache.replace(HashMap::from([entry("same", "r"), entry("other", "s"), entry("new", "r")]));
        assert_eq!(told(&mut changes), ["gone", "new", "other"]);
        let (at, unchanged) = entry("same", "r");
        cache.apply(at, unchanged);
        assert_eq!(told(&mut changes), Vec::<String>::new());
    }

    #[test]
    fn an_unknown_class_during_an_outage_says_how_old_the_knowledge_is() {
        let cache = Cache::new(1);
        let (namespace, name) = key("web");
        let error = ApiError::Unreachable("connection refused".to_owned());
        assert!(cache.behind(&error), "the first failure is told");
        assert!(!cache.behind(&error), "and not repeated");
        let text = cache.look_up(&namespace, &name).unwrap_err().to_string();
        assert!(text.contains("not been read from the API server yet"), "{text}");
        assert!(text.contains("connection refused"), "{text}");
        cache.replace(HashMap::new());
        let text = cache.look_up(&namespace, &name).unwrap_err().to_string();
        assert!(text.starts_with("no SecretProviderClass web in namespace shop: create"), "{text}");
        assert!(cache.behind(&error));
        let text = cache.look_up(&namespace, &name).unwrap_err().to_string();
        assert!(text.contains("as the API server said 0 s ago"), "{text}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_sync_is_awaited_with_a_deadline() {
        let cache = Cache::new(1);
        let wait = Duration::from_secs(5);
        assert!(matches!(cache.synced(wait).await, Err(LookUpError::NotSynced { .. })));
        cache.replace(HashMap::new());
        assert_eq!(cache.synced(wait).await, Ok(()));
    }
}
