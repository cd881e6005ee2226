//! The key/value engines: version 2 with its versions, deletions and destructions; version 1, a map.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde_json::{Map, Value, json};

/// Versions that KV 2 keeps by default; older ones are gone.
const VERSIONS_KEPT: usize = 10;

/// A secrets engine.
pub(super) enum Engine {
    V1(BTreeMap<String, Value>),
    V2(Kv2),
}

impl Engine {
    pub(super) fn version(&self) -> &'static str {
        match self {
            Self::V1(_) => "1",
            Self::V2(_) => "2",
        }
    }
}

/// KV version 2.
#[derive(Default)]
pub(super) struct Kv2(BTreeMap<String, Secret>);

#[derive(Default)]
struct Secret {
    current: u64,
    versions: BTreeMap<u64, Version>,
}

struct Version {
    created: SystemTime,
    deleted: Option<SystemTime>,
    /// `None`: destroyed.
    data: Option<Map<String, Value>>,
}

/// What a read found.
pub(super) enum Found {
    Nothing,
    /// Deleted or destroyed: `data` is null.
    Gone(Value),
    Value(Value),
}

impl Kv2 {
    /// Adds a version; returns its number and metadata.
    pub(super) fn write(&mut self, path: &str, data: Map<String, Value>) -> (u64, Value) {
        let secret = self.0.entry(path.to_owned()).or_default();
        secret.current += 1;
        let version = Version { created: SystemTime::now(), deleted: None, data: Some(data) };
        let metadata = version.metadata(secret.current);
        secret.versions.insert(secret.current, version);
        while secret.versions.len() > VERSIONS_KEPT {
            secret.versions.pop_first();
        }
        (secret.current, metadata)
    }

    /// Reads a version; 0 means the newest.
    pub(super) fn read(&self, path: &str, number: u64) -> Found {
        let Some(secret) = self.0.get(path) else { return Found::Nothing };
        let number = if number == 0 { secret.current } else { number };
        let Some(version) = secret.versions.get(&number) else { return Found::Nothing };
        let metadata = version.metadata(number);
        match &version.data {
            Some(data) if version.deleted.is_none() => {
                Found::Value(json!({"data": data, "metadata": metadata}))
            }
            Some(_) | None => Found::Gone(json!({"data": null, "metadata": metadata})),
        }
    }

    /// Deletes versions (none named: the newest); their data can come back. As the others: whether
    /// there is such a secret.
    pub(super) fn delete(&mut self, path: &str, numbers: &[u64]) -> bool {
        self.each(path, numbers, |version| version.deleted = Some(SystemTime::now()))
    }

    pub(super) fn undelete(&mut self, path: &str, numbers: &[u64]) -> bool {
        self.each(path, numbers, |version| version.deleted = None)
    }

    /// Destroys the data of versions.
    pub(super) fn destroy(&mut self, path: &str, numbers: &[u64]) -> bool {
        self.each(path, numbers, |version| version.data = None)
    }

    /// Forgets the secret, so that versions begin at 1 again.
    pub(super) fn forget(&mut self, path: &str) -> bool {
        self.0.remove(path).is_some()
    }

    /// The metadata endpoint's answer.
    pub(super) fn metadata(&self, path: &str) -> Option<Value> {
        let secret = self.0.get(path)?;
        let versions: BTreeMap<_, _> = secret
            .versions
            .iter()
            .map(|(number, version)| (number.to_string(), version.times()))
            .collect();
        Some(json!({"current_version": secret.current, "versions": versions}))
    }

    fn each(&mut self, path: &str, numbers: &[u64], change: impl Fn(&mut Version)) -> bool {
        let Some(secret) = self.0.get_mut(path) else { return false };
        let newest = [secret.current];
        let numbers = if numbers.is_empty() { &newest[..] } else { numbers };
        for number in numbers {
            secret.versions.get_mut(number).map(&change);
        }
        true
    }
}

impl Version {
    fn times(&self) -> Value {
        let text = |time| humantime::format_rfc3339_nanos(time).to_string();
        json!({
            "created_time": text(self.created),
            "deletion_time": self.deleted.map(text).unwrap_or_default(),
            "destroyed": self.data.is_none(),
        })
    }

    fn metadata(&self, number: u64) -> Value {
        let mut metadata = self.times();
        metadata["custom_metadata"] = Value::Null;
        metadata["version"] = json!(number);
        metadata
    }
}
