//! One entry of `objects` as its author wrote it.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, Value};

use crate::text;

/// An entry before any check. Empty texts are as good as none.
#[derive(Default)]
pub(super) struct RawObject {
    pub(super) name: Option<String>,
    pub(super) path: Option<String>,
    pub(super) key: Option<String>,
    pub(super) method: Option<String>,
    pub(super) args: Option<Map<String, Value>>,
    pub(super) permission: Value,
    pub(super) encoding: Option<String>,
    unknown: Vec<String>,
}

/// Nodes of a list, what aliases stand for counted each time: a list of 1,000 objects with all keys has some 14,000.
const MOST_NODES: usize = 50_000;
/// Bytes of its texts, counted likewise. An API object has 1.5 MiB at most.
const MOST_BYTES: usize = 2 << 20;

/// Parses the list. YAML 1.1 octal numbers are numbers; `yes` and `no` are texts, as in YAML 1.2.
pub(super) fn parse(text: &str) -> Result<Vec<RawObject>, String> {
    let options = serde_saphyr::options! {
        legacy_octal_numbers: true,
        strict_booleans: true,
        with_snippet: false,
        budget: serde_saphyr::budget! { max_nodes: MOST_NODES, max_total_scalar_bytes: MOST_BYTES },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: MOST_NODES },
    };
    let list = serde_saphyr::from_str_with_options::<Option<Vec<RawObject>>>(text, options);
    list.map(Option::unwrap_or_default).map_err(|error| text::reason(&[error.to_string()], &[]))
}

impl RawObject {
    /// Its name for a message.
    pub(super) fn label(&self) -> String {
        match self.name.as_deref() {
            None => "without a name".to_owned(),
            Some(name) if name.len() <= 80 && name.bytes().all(|b| b.is_ascii_graphic()) => {
                name.to_owned()
            }
            Some(name) => format!("{:?}", text::excerpt(name)),
        }
    }

    /// What of it is ignored, in words.
    pub(super) fn warnings(&self) -> Vec<String> {
        let unknown = |key: &String| format!("key {key:?} is unknown and was ignored");
        let mut warnings: Vec<String> = self.unknown.iter().map(unknown).collect();
        if self.args.is_some() && self.method.as_deref().is_none_or(|method| method == "GET") {
            warnings.push("secretArgs are ignored with method GET: write method: PUT".to_owned());
        }
        if self.key.is_none() && self.encoding.is_some() {
            warnings.push("encoding is ignored without secretKey".to_owned());
        }
        warnings
    }
}

impl<'de> Deserialize<'de> for RawObject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Entries)
    }
}

/// Not derived: unknown keys are kept by name, and texts stay as written (`objectName: 0123`).
struct Entries;

impl<'de> Visitor<'de> for Entries {
    type Value = RawObject;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with objectName and secretPath")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawObject, A::Error> {
        let mut object = RawObject::default();
        let text = |text: Option<String>| text.filter(|text| !text.is_empty());
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "objectName" => object.name = text(map.next_value()?),
                "secretPath" => object.path = text(map.next_value()?),
                "secretKey" => object.key = text(map.next_value()?),
                "method" => object.method = text(map.next_value()?),
                "secretArgs" => object.args = map.next_value()?,
                "filePermission" => object.permission = map.next_value()?,
                "encoding" => object.encoding = text(map.next_value()?),
                _unknown => {
                    map.next_value::<IgnoredAny>()?;
                    object.unknown.push(text::excerpt(&key));
                }
            }
        }
        Ok(object)
    }
}
