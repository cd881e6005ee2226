//! One map of the settings file; every mistake in it is found, not only the first.

use std::fmt::Display;

use serde_json::{Map, Value};

use crate::fault::Fault;

/// A map whose keys are taken out one by one; what is left was not known.
pub(super) struct Section {
    map: Map<String, Value>,
    at: String,
    known: Vec<&'static str>,
}

impl Section {
    pub(super) fn root(value: Value, faults: &mut Vec<Fault>) -> Self {
        Self::of(value, "", faults)
    }

    fn of(value: Value, at: &str, faults: &mut Vec<Fault>) -> Self {
        let map = match value {
            Value::Object(map) => map,
            Value::Null => Map::new(),
            _ => {
                faults.push(Fault::new(at, "not a map of keys"));
                Map::new()
            }
        };
        Self { map, at: at.to_owned(), known: Vec::new() }
    }

    /// The map under `key`; empty if it isn't there.
    pub(super) fn section(&mut self, key: &'static str, faults: &mut Vec<Fault>) -> Self {
        let at = self.path(key);
        Self::of(self.take(key).unwrap_or(Value::Null), &at, faults)
    }

    /// What stands under `key`, whatever it is.
    pub(super) fn take(&mut self, key: &'static str) -> Option<Value> {
        self.known.push(key);
        self.map.remove(key).filter(|value| !value.is_null())
    }

    /// A text; without a default it must be there.
    pub(super) fn text(
        &mut self,
        key: &'static str,
        default: Option<&str>,
        faults: &mut Vec<Fault>,
    ) -> String {
        match (self.take(key), default) {
            (Some(Value::String(text)), _) => return text,
            (Some(_), _) => faults.push(Fault::new(self.path(key), "not a text: quote it")),
            (None, Some(_)) => {}
            (None, None) => {
                faults.push(Fault::new(self.path(key), "missing: it has no default"));
            }
        }
        default.unwrap_or_default().to_owned()
    }

    /// A list of texts.
    pub(super) fn texts(
        &mut self,
        key: &'static str,
        default: &[&str],
        faults: &mut Vec<Fault>,
    ) -> Vec<String> {
        let Some(value) = self.take(key) else {
            return default.iter().map(|one| (*one).to_owned()).collect();
        };
        let texts: Option<Vec<String>> = value
            .as_array()
            .and_then(|list| list.iter().map(|one| one.as_str().map(str::to_owned)).collect());
        texts.unwrap_or_else(|| {
            faults.push(Fault::new(self.path(key), "not a list of texts"));
            Vec::new()
        })
    }

    /// A text that is read further; a number is taken as it is written.
    pub(super) fn parsed<T, E: Display>(
        &mut self,
        key: &'static str,
        default: &str,
        parse: fn(&str) -> Result<T, E>,
        faults: &mut Vec<Fault>,
    ) -> T {
        let text = match self.take(key) {
            None => default.to_owned(),
            Some(Value::String(text)) => text,
            Some(other) => other.to_string(),
        };
        parse(&text).unwrap_or_else(|error| {
            faults.push(Fault::new(self.path(key), error));
            parse(default).ok().expect("a default can be read")
        })
    }

    /// Complains about every key that nobody took.
    pub(super) fn finish(self, faults: &mut Vec<Fault>) {
        for key in self.map.keys() {
            let message = format!("unknown key: write one of {}", self.known.join(", "));
            faults.push(Fault::new(self.path(key), message));
        }
    }

    fn path(&self, key: &str) -> String {
        if self.at.is_empty() { key.to_owned() } else { format!("{}.{key}", self.at) }
    }
}
