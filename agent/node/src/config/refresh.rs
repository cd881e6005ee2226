//! `refresh`: how often stores are asked again and how old values may become, where the pod doesn't say.

use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use sotto_core::attributes::MIN_REFRESH;
use sotto_core::rotation::{OnRevoke, RefreshPolicy};

use super::Fault;
use super::section::{self, Section};

/// Between two refreshes.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(120);
/// The age of the last good values at which they are closed.
const DEFAULT_MAX_STALE: Duration = Duration::from_secs(3_600);

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Raw {
    interval: Option<String>,
    max_stale: Option<String>,
    on_revoke: Option<RawOnRevoke>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum RawOnRevoke {
    Close,
    UntilMaxStale,
}

pub(super) fn read(root: &mut Section, faults: &mut Vec<Fault>) -> Option<RefreshPolicy> {
    let raw = root.take("refresh").unwrap_or_else(|| json!({}));
    let raw: Raw = section::read(raw, "refresh", &[], faults)?;
    let interval = duration(raw.interval.as_deref(), "refresh.interval", DEFAULT_INTERVAL, faults);
    let max_stale =
        duration(raw.max_stale.as_deref(), "refresh.maxStale", DEFAULT_MAX_STALE, faults);
    if interval < MIN_REFRESH {
        faults.push(Fault::new("refresh.interval", "too short: at least 1s"));
    }
    let on_revoke = match raw.on_revoke {
        None | Some(RawOnRevoke::Close) => OnRevoke::Close,
        Some(RawOnRevoke::UntilMaxStale) => OnRevoke::UntilMaxStale,
    };
    Some(RefreshPolicy { interval, max_stale, on_revoke })
}

fn duration(
    text: Option<&str>,
    path: &str,
    default: Duration,
    faults: &mut Vec<Fault>,
) -> Duration {
    let Some(text) = text else { return default };
    humantime::parse_duration(text).unwrap_or_else(|_| {
        faults.push(Fault::new(path, "not a duration: write e.g. 30s, 5m or 1h"));
        default
    })
}
