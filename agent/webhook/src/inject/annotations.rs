//! What a pod's author may write: the whole contract of the pod's annotations.
//!
//! Invariant: an unknown `sotto.dev/` annotation is a fault, so that a typing error doesn't end in a default.
//! None of them names an image, a store, an audience or a command.

use std::fmt::Display;

use serde_json::{Map, Value};
use sotto_core::attributes::{MAX_STALE, MIN_REFRESH, REFRESH, SOTTO_PREFIX};
use sotto_core::identity::ClassName;

use super::mount_path;
use crate::fault::{Fault, quoted};
use crate::quantity::{Cpu, Memory};
use crate::settings::Settings;

const CLASS: &str = "sotto.dev/secret-provider-class";
const MOUNT_PATH: &str = "sotto.dev/mount-path";
const CONTAINERS: &str = "sotto.dev/containers";
const AGENT_CPU: &str = "sotto.dev/agent-cpu";
const AGENT_MEMORY: &str = "sotto.dev/agent-memory";
const KNOWN: &[&str] =
    &[CLASS, MOUNT_PATH, CONTAINERS, REFRESH, MAX_STALE, AGENT_CPU, AGENT_MEMORY];
/// Where secrets are unless the pod says otherwise.
const DEFAULT_MOUNT_PATH: &str = "/mnt/secrets";
/// Longest duration, in bytes.
const MAX_DURATION_BYTES: usize = 64;

/// What the pod asks for. After a fault it holds defaults, so that the rest can be checked too.
pub(super) struct Request {
    pub(super) class: String,
    pub(super) mount_path: String,
    /// Names of containers; all of them where the pod names none.
    pub(super) containers: Option<Vec<String>>,
    pub(super) refresh: Option<String>,
    pub(super) max_stale: Option<String>,
    pub(super) cpu_request: Cpu,
    pub(super) memory_limit: Memory,
}

/// Where an annotation is, for messages.
pub(super) fn path(key: &str) -> String {
    format!("metadata.annotations[{key}]")
}

/// The path of the annotation that chooses containers.
pub(super) fn containers_path() -> String {
    path(CONTAINERS)
}

struct Annotations<'a> {
    map: Option<&'a Map<String, Value>>,
    faults: &'a mut Vec<Fault>,
}

pub(super) fn read(pod: &Value, settings: &Settings, faults: &mut Vec<Fault>) -> Request {
    let map = pod.pointer("/metadata/annotations").and_then(Value::as_object);
    let ours = map.into_iter().flat_map(Map::keys).filter(|key| key.starts_with(SOTTO_PREFIX));
    for key in ours.filter(|key| !KNOWN.contains(&key.as_str())) {
        let message = format!("unknown: write one of {}", KNOWN.join(", "));
        faults.push(Fault::new(format!("metadata.annotations[{}]", quoted(key)), message));
    }
    let mut annotations = Annotations { map, faults };
    Request {
        class: annotations.class(),
        mount_path: annotations
            .parsed(MOUNT_PATH, |text| mount_path::parse(text).map(str::to_owned))
            .unwrap_or_else(|| DEFAULT_MOUNT_PATH.to_owned()),
        containers: annotations.parsed(CONTAINERS, names),
        refresh: annotations.parsed(REFRESH, refresh),
        max_stale: annotations.parsed(MAX_STALE, duration),
        cpu_request: annotations
            .parsed(AGENT_CPU, |text| {
                let cpu = Cpu::parse(text).map_err(|error| error.to_string())?;
                within(cpu, settings.cpu.request, settings.cpu.most)
            })
            .unwrap_or(settings.cpu.request),
        memory_limit: annotations
            .parsed(AGENT_MEMORY, |text| {
                let memory = Memory::parse(text).map_err(|error| error.to_string())?;
                within(memory, settings.memory.request, settings.memory.most)
            })
            .unwrap_or(settings.memory.limit),
    }
}

impl Annotations<'_> {
    fn class(&mut self) -> String {
        if self.map.is_none_or(|map| !map.contains_key(CLASS)) {
            let message = "missing: name a SecretProviderClass of the pod's namespace";
            self.faults.push(Fault::new(path(CLASS), message));
        }
        let parse = |text: &str| ClassName::parse(text).map_err(|error| error.to_string());
        self.parsed(CLASS, parse).map(String::from).unwrap_or_default()
    }

    fn parsed<T>(&mut self, key: &str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let value = self.map?.get(key)?;
        let parsed = match value.as_str() {
            Some(text) => parse(text).map_err(|why| format!("it is {}: {why}", quoted(text))),
            None => Err("not a text: quote it".to_owned()),
        };
        parsed.map_err(|message| self.faults.push(Fault::new(path(key), message))).ok()
    }
}

fn names(text: &str) -> Result<Vec<String>, String> {
    let names: Vec<String> = text.split(',').map(|name| name.trim().to_owned()).collect();
    let mut unique = names.clone();
    unique.sort();
    unique.dedup();
    if names.iter().any(String::is_empty) || unique.len() != names.len() {
        return Err("write each container's name once, with commas between them".to_owned());
    }
    Ok(names)
}

fn refresh(text: &str) -> Result<String, String> {
    let written = duration(text)?;
    match humantime::parse_duration(text) {
        Ok(duration) if duration < MIN_REFRESH => Err("at least 1s".to_owned()),
        _ => Ok(written),
    }
}

fn duration(text: &str) -> Result<String, String> {
    let read = text.len() <= MAX_DURATION_BYTES && humantime::parse_duration(text).is_ok();
    read.then(|| text.to_owned()).ok_or_else(|| "write a duration such as 30s, 5m or 1h".to_owned())
}

fn within<T: PartialOrd + Display>(value: T, least: T, most: T) -> Result<T, String> {
    if value < least || value > most {
        return Err(format!("out of the administrator's bounds: write {least} to {most}"));
    }
    Ok(value)
}
