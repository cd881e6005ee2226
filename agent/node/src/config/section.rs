//! A part of the file, read into a type; every mistake in it is found, not only the first.
//!
//! serde stops at the first mistake. So what it complained about is taken out, and the rest is read again,
//! until nothing is left to complain about.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use serde_path_to_error::Segment;

use super::Fault;

/// Most mistakes that are looked for in one section.
const MOST_FAULTS: usize = 64;

/// The file's top level.
pub(super) struct Section(Map<String, Value>);

impl Section {
    pub(super) fn root(value: Value, keys: &[&str], faults: &mut Vec<Fault>) -> Self {
        let map = match value {
            Value::Object(map) => map,
            Value::Null => Map::new(),
            _ => {
                faults.push(Fault::new("", "the file is not a map of keys"));
                Map::new()
            }
        };
        for key in map.keys().filter(|key| !keys.contains(&key.as_str())) {
            let known = keys.join(", ");
            faults.push(Fault::new(key, format!("unknown key: write one of {known}")));
        }
        Self(map)
    }

    /// What stands under `key`; an empty section counts as absent.
    pub(super) fn take(&mut self, key: &str) -> Option<Value> {
        self.0.remove(key).filter(|value| !value.is_null())
    }
}

/// Reads `value` into a type. `required` are the keys that must be there, by their paths within it.
pub(super) fn read<T: DeserializeOwned>(
    mut value: Value,
    at: &str,
    required: &[&str],
    faults: &mut Vec<Fault>,
) -> Option<T> {
    let before = faults.len();
    for path in required {
        let parent = path.rsplit_once('.').map_or("", |(parent, _)| parent);
        if find(&value, path).is_none() && find(&value, parent).is_some_and(Value::is_object) {
            faults.push(Fault::new(format!("{at}.{path}"), "missing: it has no default"));
        }
    }
    for _ in 0..MOST_FAULTS {
        let error = match serde_path_to_error::deserialize::<_, T>(value.clone()) {
            Ok(read) => return (faults.len() == before).then_some(read),
            Err(error) => error,
        };
        let message = error.inner().to_string();
        let path: Vec<Segment> = error.path().iter().cloned().collect();
        // What is missing was said above, or has just been taken out; the rest of its section was read by
        // then.
        if !message.starts_with("missing field") || faults.len() == before {
            faults.push(Fault::new(joined(at, &path), message));
        }
        if !take_out(&mut value, &path) {
            return None;
        }
    }
    None
}

fn find<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').filter(|key| !key.is_empty()).try_fold(value, |value, key| value.get(key))
}

fn joined(at: &str, path: &[Segment]) -> String {
    path.iter().fold(at.to_owned(), |at, segment| match segment {
        Segment::Seq { index } => format!("{at}[{index}]"),
        Segment::Map { key } => format!("{at}.{key}"),
        Segment::Enum { variant } => format!("{at}.{variant}"),
        Segment::Unknown => at,
    })
}

/// Removes what is at `path`. False if that is the whole value, or can't be found.
fn take_out(value: &mut Value, path: &[Segment]) -> bool {
    let Some((last, parents)) = path.split_last() else { return false };
    let parent = parents.iter().try_fold(value, |value, segment| match segment {
        Segment::Seq { index } => value.get_mut(index),
        Segment::Map { key } | Segment::Enum { variant: key } => value.get_mut(key),
        Segment::Unknown => None,
    });
    match (parent, last) {
        (Some(Value::Object(map)), Segment::Map { key } | Segment::Enum { variant: key }) => {
            map.remove(key).is_some()
        }
        (Some(Value::Array(list)), Segment::Seq { index }) if *index < list.len() => {
            list.remove(*index);
            true
        }
        _ => false,
    }
}
