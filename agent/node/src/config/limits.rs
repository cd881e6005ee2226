//! `limits`: how large objects and volumes may be, and how many.

use std::ops::RangeInclusive;

use serde::Deserialize;
use serde_json::json;
use sotto_core::limits::Limits;

use super::Fault;
use super::section::{self, Section};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Raw {
    object_bytes: Option<usize>,
    volume_bytes: Option<usize>,
    objects: Option<usize>,
    volumes: Option<usize>,
}

pub(super) fn read(root: &mut Section, faults: &mut Vec<Fault>) -> Option<Limits> {
    let raw = root.take("limits").unwrap_or_else(|| json!({}));
    let raw: Raw = section::read(raw, "limits", &[], faults)?;
    let default = Limits::default();
    let mut within = |key: &str, value: Option<usize>, default, range: RangeInclusive<usize>| {
        let value = value.unwrap_or(default);
        if !range.contains(&value) {
            let (least, most) = (range.start(), range.end());
            let message = format!("{value} is out of range: write {least} to {most}");
            faults.push(Fault::new(format!("limits.{key}"), message));
        }
        value
    };
    let limits = Limits {
        object_bytes: within(
            "objectBytes",
            raw.object_bytes,
            default.object_bytes,
            Limits::OBJECT_BYTES,
        ),
        volume_bytes: within(
            "volumeBytes",
            raw.volume_bytes,
            default.volume_bytes,
            Limits::VOLUME_BYTES,
        ),
        objects: within("objects", raw.objects, default.objects, Limits::OBJECTS),
        volumes: within("volumes", raw.volumes, default.volumes, 1..=10_000),
    };
    if limits.object_bytes > limits.volume_bytes {
        let message = "larger than limits.volumeBytes: an object is a part of its volume";
        faults.push(Fault::new("limits.objectBytes", message));
    }
    Some(limits)
}
