//! The groups of rows, each in a file of its own, and what they share.

pub(crate) mod files;
pub(crate) mod fill;
pub(crate) mod memory;
pub(crate) mod proxy;
pub(crate) mod publish;
pub(crate) mod readers;
pub(crate) mod rotation;
pub(crate) mod scaling;
pub(crate) mod sidecar;
pub(crate) mod sizes;
pub(crate) mod takeover;

use std::fmt::Display;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use futures::FutureExt;
use futures::future::LocalBoxFuture;

use crate::machine::{Processors, page_in_binaries};
use crate::plan::{PASSES, Plan};
use crate::report::{Row, add};

/// What a group measures with.
pub(crate) struct Bench {
    pub(crate) plan: Plan,
    pub(crate) processors: Processors,
    /// Where ours are.
    pub(crate) binaries: PathBuf,
    pub(crate) began: Instant,
    /// What is measured now.
    pub(crate) now: Mutex<Now>,
    /// Rows of groups that were measured while another one waited.
    pub(crate) meanwhile: Mutex<Vec<Row>>,
}

/// What is measured now.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    pub(crate) group: &'static str,
    /// Counted from 0.
    pub(crate) pass: usize,
    /// Of so many.
    pub(crate) passes: usize,
}

impl Bench {
    /// Says on standard error what goes on.
    #[expect(clippy::print_stderr, reason = "the progress of a bench")]
    pub(crate) fn progress(&self, what: impl Display) {
        let seconds = self.began.elapsed().as_secs();
        let Now { group, pass, passes } = self.now();
        eprintln!("[{seconds:4} s] {group}, pass {} of {passes}: {what}", pass + 1);
    }

    /// Which pass it is, counted from 0.
    pub(crate) fn pass(&self) -> usize {
        self.now().pass
    }

    pub(crate) fn keep_meanwhile(&self, rows: Vec<Row>) {
        self.meanwhile.lock().unwrap_or_else(PoisonError::into_inner).extend(rows);
    }

    pub(crate) fn take_meanwhile(&self) -> Vec<Row> {
        std::mem::take(&mut *self.meanwhile.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn now(&self) -> Now {
        *self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, now: Now) {
        *self.now.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }
}

type Measure = for<'a> fn(&'a Bench) -> LocalBoxFuture<'a, anyhow::Result<Vec<Row>>>;

/// Some groups are measured once, half way: what takes minutes, what counts for itself, and what is always the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    EachPass,
    Once,
}

/// After which pass the groups come that are measured once.
const HALF_WAY: usize = PASSES / 2 - 1;

const GROUPS: [(&str, When, Measure); 12] = [
    (publish::GROUP, When::EachPass, |bench| publish::measure(bench).boxed_local()),
    (sidecar::GROUP, When::EachPass, |bench| sidecar::measure(bench).boxed_local()),
    (proxy::GROUP, When::EachPass, |bench| proxy::measure(bench).boxed_local()),
    (files::GROUP, When::EachPass, |bench| files::audited(bench).boxed_local()),
    (files::GROUP, When::EachPass, |bench| files::unaudited(bench).boxed_local()),
    (readers::GROUP, When::EachPass, |bench| readers::measure(bench).boxed_local()),
    (rotation::GROUP, When::EachPass, |bench| rotation::measure(bench).boxed_local()),
    (takeover::GROUP, When::EachPass, |bench| takeover::measure(bench).boxed_local()),
    (fill::GROUP, When::Once, |bench| fill::measure(bench).boxed_local()),
    (memory::GROUP, When::Once, |bench| memory::measured(bench).boxed_local()),
    (sizes::GROUP, When::Once, |bench| sizes::measure(bench).boxed_local()),
    (scaling::GROUP, When::Once, |bench| scaling::measure(bench).boxed_local()),
];

/// Measures what the plan has; a group that fails is a row that isn't met, and the rest goes on.
pub(crate) async fn measure(bench: &Bench) -> Vec<Row> {
    let mut rows = Vec::new();
    for pass in 0..PASSES {
        for (group, when, measure) in GROUPS {
            if !bench.plan.has(group) || (when == When::Once && pass != HALF_WAY) {
                continue;
            }
            let passes = if when == When::EachPass { PASSES } else { 1 };
            bench.enter(Now { group, pass: if passes == 1 { 0 } else { pass }, passes });
            bench.progress("begins");
            let measured = match page_in_binaries(&[&bench.binaries]) {
                Ok(()) => measure(bench).await,
                Err(error) => Err(error),
            };
            add(&mut rows, group, measured);
        }
    }
    rows
}

/// Names that `--row=` takes.
pub(crate) fn names() -> Vec<&'static str> {
    let mut names: Vec<_> = GROUPS.iter().map(|(name, ..)| *name).collect();
    names.dedup();
    names
}
