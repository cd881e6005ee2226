//! Every metric of Sotto, in one place.
//!
//! | metric | unit | labels | stability |
//! |---|---|---|---|
//! | `sotto_volumes` | volumes | | stable |
//! | `sotto_volumes_limit` | volumes | | stable |
//! | `sotto_volumes_not_fresh` | volumes | `state`: stale, closed | stable |
//! | `sotto_driver_requests_total` | requests | `request`, `code` | stable |
//! | `sotto_prepare_seconds` | seconds | | stable |
//! | `sotto_logins_total` | logins | `store`, `result` | stable |
//! | `sotto_refreshes_total` | attempts | `store`, `result`: unchanged, changed, refused, outage | stable |
//! | `sotto_lease_renewals_total` | renewals | `store`, `result` | stable |
//! | `sotto_rotations_total` | rotations | `result` | stable |
//! | `sotto_opens_total` | opens | `decision` | stable |
//! | `sotto_audit_records_lost` | records since the last line that told of some | | stable |
//! | `sotto_worker_restarts_total` | workers that ended and were replaced, in the container's life | | stable |
//! | `sotto_secret_mappings` | mappings | `protection`: memfd_secret, locked, unlocked | stable |
//! | `sotto_pod_events_total` | events | `result` | experimental |
//! | `sotto_driver_volumes` | volumes | `state`: served, unserved | stable |
//! | `sotto_driver_volumes_limit` | volumes | | stable |
//! | `sotto_driver_calls_total` | CSI calls | `method`, `code` | stable |
//! | `sotto_driver_unserved_answers_total` | requests of readers answered with an error | | stable |
//! | `sotto_driver_helpers_total` | helper processes | `result` | stable |
//!
//! Invariant: no label has a pod, a volume, a secret's name or anything that a tenant writes: their number is
//! bounded by the configuration. The driver's metrics, the last five, go out through `sotto-node`.

use std::fmt;
use std::sync::atomic::AtomicU64;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
pub use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// What `Content-Type` a scrape is answered with.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// The last line of a scrape.
const END: &str = "# EOF\n";

/// Labels of a request of the driver.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Request {
    /// Which.
    pub request: &'static str,
    /// `ok`, or the code of the refusal.
    pub code: &'static str,
}

/// Labels of what was done at a store.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct AtStore {
    /// The administrator's name for it.
    pub store: String,
    /// How it went.
    pub result: &'static str,
}

/// How it went.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Result {
    /// One word.
    pub result: &'static str,
}

/// How it was decided.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Decision {
    /// `allowed` or `denied`.
    pub decision: &'static str,
}

/// What state it is in.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct State {
    /// One word.
    pub state: &'static str,
}

/// A CSI call.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Call {
    /// Which.
    pub method: &'static str,
    /// `OK`, or the gRPC code.
    pub code: &'static str,
}

/// A counter that is cheap to clone.
pub type Counted = Counter<u64, AtomicU64>;

/// An agent's counters; the rest is sampled when somebody asks.
#[derive(Debug)]
pub struct AgentMetrics {
    /// Requests of the driver, by their answers.
    pub requests: Family<Request, Counter>,
    /// From a Prepare to its answer.
    pub prepare_seconds: Histogram,
    /// Logins.
    pub logins: Family<AtStore, Counter>,
    /// Refreshes.
    pub refreshes: Family<AtStore, Counter>,
    /// Leases and tokens that were prolonged, or not.
    pub renewals: Family<AtStore, Counter>,
    /// Turns to another generation.
    pub rotations: Family<Result, Counter>,
    /// Opens, as the audit log has them.
    pub opens: Family<Decision, Counter>,
    /// Workers of this supervisor before this process.
    pub worker_restarts: Counted,
    /// Volumes whose values are not fresh.
    pub not_fresh: Family<State, Gauge>,
}

impl Default for AgentMetrics {
    fn default() -> Self {
        Self {
            requests: Family::default(),
            // 1 ms to 65 s.
            prepare_seconds: Histogram::new(exponential_buckets(0.001, 2.0, 17)),
            logins: Family::default(),
            refreshes: Family::default(),
            renewals: Family::default(),
            rotations: Family::default(),
            opens: Family::default(),
            worker_restarts: Counted::default(),
            not_fresh: Family::default(),
        }
    }
}

impl AgentMetrics {
    /// Everything under its name, with what is sampled.
    #[must_use]
    pub fn registry(&self, sampled: Vec<Sample>) -> Registry {
        let mut registry = Registry::with_prefix("sotto");
        let requests = "Requests of the driver by their answers";
        registry.register("driver_requests", requests, self.requests.clone());
        let seconds = "Time from a Prepare to its answer, in seconds";
        registry.register("prepare_seconds", seconds, self.prepare_seconds.clone());
        registry.register("logins", "Logins at stores as pods", self.logins.clone());
        registry.register("refreshes", "Refreshes of volumes", self.refreshes.clone());
        let renewals = "Leases and store tokens that were to be prolonged";
        registry.register("lease_renewals", renewals, self.renewals.clone());
        registry.register("rotations", "Turns to another generation", self.rotations.clone());
        registry.register("opens", "Opens of secret files", self.opens.clone());
        let restarts = "Workers that ended and were replaced";
        registry.register("worker_restarts", restarts, self.worker_restarts.clone());
        let not_fresh = "Volumes whose last good values are served, or closed";
        registry.register("volumes_not_fresh", not_fresh, self.not_fresh.clone());
        registry.register_collector(Box::new(Samples(sampled)));
        registry
    }
}

/// The driver's counters.
#[derive(Debug, Default)]
pub struct DriverMetrics {
    /// CSI calls.
    pub calls: Family<Call, Counter>,
    /// Requests of readers that the driver answered since nobody served.
    pub unserved_answers: Counted,
    /// Helper processes.
    pub helpers: Family<Result, Counter>,
}

impl DriverMetrics {
    /// Everything under its name, with what is sampled.
    #[must_use]
    pub fn registry(&self, sampled: Vec<Sample>) -> Registry {
        let mut registry = Registry::with_prefix("sotto_driver");
        registry.register("calls", "CSI calls by their answers", self.calls.clone());
        let answers = "Requests of readers answered with an error since no agent serves";
        registry.register("unserved_answers", answers, self.unserved_answers.clone());
        registry.register("helpers", "Short-lived helper processes", self.helpers.clone());
        registry.register_collector(Box::new(Samples(sampled)));
        registry
    }
}

/// A gauge that is read when somebody asks.
pub struct Sample {
    /// Its name, without the prefix.
    pub name: &'static str,
    /// What it says.
    pub help: &'static str,
    /// Its one label, if it has one: name and value.
    pub label: Option<(&'static str, &'static str)>,
    /// Reads it; must not block.
    pub read: Box<dyn Fn() -> f64 + Send + Sync>,
}

struct Samples(Vec<Sample>);

impl fmt::Debug for Samples {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|sample| sample.name)).finish()
    }
}

impl Collector for Samples {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::result::Result<(), fmt::Error> {
        let mut told: Vec<&str> = Vec::new();
        for sample in &self.0 {
            let Sample { name, help, .. } = sample;
            if told.contains(name) {
                continue;
            }
            told.push(name);
            let kind = prometheus_client::metrics::MetricType::Gauge;
            let mut encoder = encoder.encode_descriptor(name, help, None, kind)?;
            if sample.label.is_none() {
                ConstGauge::new((sample.read)()).encode(encoder)?;
                continue;
            }
            for sample in self.0.iter().filter(|sample| sample.name == *name) {
                let gauge = ConstGauge::new((sample.read)());
                if let Some(label) = sample.label {
                    gauge.encode(encoder.encode_family(&[label])?)?;
                }
            }
        }
        Ok(())
    }
}

/// The text of a scrape.
#[must_use]
pub fn text(registry: &Registry) -> String {
    let mut text = String::new();
    // Writing to a string doesn't fail.
    let _ = prometheus_client::encoding::text::encode(&mut text, registry);
    text
}

/// Two scrapes as one.
#[must_use]
pub fn joined(mut first: String, second: &str) -> String {
    if let Some(open) = first.strip_suffix(END) {
        first.truncate(open.len());
    }
    first.push_str(second.strip_suffix(END).unwrap_or(second));
    first.push_str(END);
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volumes(state: &'static str, number: f64) -> Sample {
        let (name, help) = ("volumes", "Volumes");
        Sample { name, help, label: Some(("state", state)), read: Box::new(move || number) }
    }

    #[test]
    fn a_scrape_has_counters_and_samples_under_their_names() {
        let metrics = AgentMetrics::default();
        let store = "main".to_owned();
        metrics.logins.get_or_create(&AtStore { store, result: "ok" }).inc();
        metrics.prepare_seconds.observe(0.004);
        let text = text(&metrics.registry(vec![volumes("served", 3.0), volumes("ready", 1.0)]));
        for line in [
            "sotto_logins_total{store=\"main\",result=\"ok\"} 1",
            "sotto_prepare_seconds_count 1",
            "sotto_volumes{state=\"served\"} 3.0",
            "sotto_volumes{state=\"ready\"} 1.0",
        ] {
            assert!(text.lines().any(|it| it == line), "{line} is not in\n{text}");
        }
        assert_eq!(text.matches("# TYPE sotto_volumes gauge").count(), 1, "{text}");
    }

    #[test]
    fn two_scrapes_end_once() {
        let agent = text(&AgentMetrics::default().registry(Vec::new()));
        let driver = DriverMetrics::default();
        driver.unserved_answers.inc();
        let both = joined(agent, &text(&driver.registry(Vec::new())));
        assert_eq!(both.matches(END).count(), 1);
        assert!(both.ends_with(END));
        assert!(both.contains("sotto_driver_unserved_answers_total 1\n"), "{both}");
    }

    /// Each metric that is registered stands in the table above, and the other way round.
    #[test]
    fn the_table_is_complete() {
        let source = include_str!("metrics.rs");
        let table: Vec<&str> = source
            .lines()
            .filter_map(|line| line.strip_prefix("//! | `sotto_"))
            .filter_map(|line| line.split('`').next())
            .collect();
        assert!(table.len() > 15);
        let agent = text(&AgentMetrics::default().registry(Vec::new()));
        let driver = text(&DriverMetrics::default().registry(Vec::new()));
        let registered = agent.lines().chain(driver.lines());
        for line in registered.filter_map(|line| line.strip_prefix("# TYPE sotto_")) {
            let (name, kind) = line.split_once(' ').unwrap();
            let total = format!("{name}_total");
            let name = if kind == "counter" { total.as_str() } else { name };
            assert!(table.contains(&name), "{name} is not in the table");
        }
    }
}
