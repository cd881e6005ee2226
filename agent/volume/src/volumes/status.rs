//! What `..sotto/status.json` shows of a volume. Written by its owner, and by who serves it before there is one.
//!
//! Invariant: nothing here says anything of a value.

use std::time::SystemTime;

use serde_json::json;
use sotto_core::rotation::Freshness;
use sotto_core::snapshot::Snapshot;

/// The file's text; `checked` is when the store was asked last, or, of a volume that a former worker served, when it last
/// answered.
pub(super) fn text(freshness: Freshness, snapshot: &Snapshot, checked: SystemTime) -> Vec<u8> {
    let state = match freshness {
        Freshness::Fresh => "fresh",
        Freshness::Stale => "stale",
        Freshness::Closed => "closed",
    };
    let mut text = json!({
        "state": state,
        "generation": snapshot.generation().get(),
        "fetched": humantime::format_rfc3339_millis(snapshot.created()).to_string(),
        "checked": humantime::format_rfc3339_millis(checked).to_string(),
    })
    .to_string();
    text.push('\n');
    text.into_bytes()
}
