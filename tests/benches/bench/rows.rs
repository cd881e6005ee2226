//! The groups of rows, each in a file of its own, and what they share.

pub(crate) mod files;
pub(crate) mod fill;
pub(crate) mod proxy;
pub(crate) mod publish;
pub(crate) mod readers;
pub(crate) mod rotation;
pub(crate) mod scaling;
pub(crate) mod sidecar;
pub(crate) mod sizes;
pub(crate) mod takeover;

use std::fmt::Display;
use std::sync::Mutex;
use std::time::Instant;

use futures::FutureExt;
use futures::future::LocalBoxFuture;

use crate::machine::Processors;
use crate::plan::Plan;
use crate::report::Row;

/// What a group measures with.
pub(crate) struct Bench {
    pub(crate) plan: Plan,
    pub(crate) processors: Processors,
    pub(crate) began: Instant,
    /// The group that measures now.
    pub(crate) group: Mutex<&'static str>,
}

impl Bench {
    /// Says on standard error what goes on.
    #[expect(clippy::print_stderr, reason = "the progress of a bench")]
    pub(crate) fn progress(&self, what: impl Display) {
        let seconds = self.began.elapsed().as_secs();
        let group = self.group.lock().map(|group| *group).unwrap_or_default();
        eprintln!("[{seconds:4} s] {group}: {what}");
    }

    fn enter(&self, group: &'static str) {
        if let Ok(mut now) = self.group.lock() {
            *now = group;
        }
    }
}

type Group = (&'static str, for<'a> fn(&'a Bench) -> LocalBoxFuture<'a, anyhow::Result<Vec<Row>>>);

const GROUPS: [Group; 11] = [
    (publish::GROUP, |bench| publish::measure(bench).boxed_local()),
    (sidecar::GROUP, |bench| sidecar::measure(bench).boxed_local()),
    (proxy::GROUP, |bench| proxy::measure(bench).boxed_local()),
    (files::GROUP, |bench| files::audited(bench).boxed_local()),
    (files::GROUP, |bench| files::unaudited(bench).boxed_local()),
    (readers::GROUP, |bench| readers::measure(bench).boxed_local()),
    (fill::GROUP, |bench| fill::measure(bench).boxed_local()),
    (rotation::GROUP, |bench| rotation::measure(bench).boxed_local()),
    (takeover::GROUP, |bench| takeover::measure(bench).boxed_local()),
    (sizes::GROUP, |bench| sizes::measure(bench).boxed_local()),
    (scaling::GROUP, |bench| scaling::measure(bench).boxed_local()),
];

/// Measures what the plan has; a group that fails is a row that isn't met, and the rest goes on.
pub(crate) async fn measure(bench: &Bench) -> Vec<Row> {
    let mut rows = Vec::new();
    for (name, group) in GROUPS {
        if !bench.plan.has(name) {
            continue;
        }
        bench.enter(name);
        bench.progress("begins");
        match group(bench).await {
            Ok(measured) => rows.extend(measured),
            Err(error) => rows.push(Row::failed(name, &error)),
        }
    }
    rows
}

/// Names that `--row=` takes.
pub(crate) fn names() -> Vec<&'static str> {
    let mut names: Vec<_> = GROUPS.iter().map(|(name, _)| *name).collect();
    names.dedup();
    names
}
