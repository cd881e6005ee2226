//! The objects and the history of their changes, with resource versions.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// Resource, namespace, name.
type Key = (String, String, String);

/// One change that watchers are told.
#[derive(Debug, Clone)]
pub(super) struct Change {
    pub(super) version: u64,
    pub(super) kind: &'static str,
    pub(super) resource: String,
    pub(super) namespace: String,
    pub(super) object: Value,
}

#[derive(Debug)]
pub(super) struct Objects {
    version: u64,
    /// Watches from before this version are too old.
    oldest: u64,
    live: BTreeMap<Key, Value>,
    history: Vec<Change>,
}

impl Default for Objects {
    fn default() -> Self {
        Self { version: 1, oldest: 0, live: BTreeMap::new(), history: Vec::new() }
    }
}

impl Objects {
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn is_too_old(&self, version: u64) -> bool {
        version < self.oldest
    }

    pub(super) fn compact(&mut self) {
        self.version += 1;
        self.oldest = self.version;
        self.history.clear();
    }

    pub(super) fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<&Value> {
        self.live.get(&key(resource, namespace, name))
    }

    pub(super) fn list(&self, resource: &str, namespace: Option<&str>) -> Vec<Value> {
        self.live
            .iter()
            .filter(|((of, within, _), _)| {
                of == resource && namespace.is_none_or(|it| it == within)
            })
            .map(|(_, object)| object.clone())
            .collect()
    }

    /// Changes after `version` of a resource, oldest first.
    pub(super) fn since(&self, version: u64, resource: &str, namespace: &str) -> Vec<Change> {
        self.history
            .iter()
            .filter(|one| one.version > version && one.resource == resource)
            .filter(|one| namespace.is_empty() || one.namespace == namespace)
            .cloned()
            .collect()
    }

    /// Stores the object under its own namespace and name; a uid that it brings along is kept.
    pub(super) fn put(&mut self, resource: &str, mut object: Value) -> u64 {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let namespace = text(&object["metadata"]["namespace"]);
        let name = text(&object["metadata"]["name"]);
        let at = key(resource, &namespace, &name);
        self.version += 1;
        let old = self.live.get(&at);
        let uid = old.map_or_else(
            || match &object["metadata"]["uid"] {
                Value::String(own) => json!(own),
                _ => json!(format!("00000000-0000-4000-8000-{:012x}", self.version)),
            },
            |old| old["metadata"]["uid"].clone(),
        );
        let kind = if old.is_some() { "MODIFIED" } else { "ADDED" };
        object["metadata"]["uid"] = uid;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.live.insert(at, object.clone());
        self.remember(kind, resource, namespace, object);
        self.version
    }

    pub(super) fn delete(&mut self, resource: &str, namespace: &str, name: &str) -> bool {
        let Some(mut object) = self.live.remove(&key(resource, namespace, name)) else {
            return false;
        };
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.remember("DELETED", resource, namespace.to_owned(), object);
        true
    }

    pub(super) fn delete_unseen(&mut self, resource: &str, namespace: &str, name: &str) {
        self.live.remove(&key(resource, namespace, name));
        self.version += 1;
    }

    fn remember(&mut self, kind: &'static str, resource: &str, namespace: String, object: Value) {
        let (version, resource) = (self.version, resource.to_owned());
        self.history.push(Change { version, kind, resource, namespace, object });
    }
}

fn key(resource: &str, namespace: &str, name: &str) -> Key {
    (resource.to_owned(), namespace.to_owned(), name.to_owned())
}
