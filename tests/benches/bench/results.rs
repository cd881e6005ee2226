//! `target/bench/results.json`: everything that was measured, every sample. `tests/benches/README.md` has the schema.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::{Value, json};

use crate::machine;
use crate::plan::{PASSES, Plan};
use crate::report::{Bound, Figure, Row, State, in_words};
use crate::stats::Samples;

/// Raised with each change that a reader of the file would notice.
const SCHEMA: &str = "sotto-bench/1";

/// The run as a whole.
pub(crate) struct Run {
    began: SystemTime,
    pub(crate) load_before: String,
    /// Before the bench confines itself to one processor.
    machine: Value,
}

impl Run {
    pub(crate) fn begins() -> Self {
        let (began, load_before) = (SystemTime::now(), machine::load());
        Self { began, load_before, machine: machine::description() }
    }

    /// Writes the file; returns its path.
    pub(crate) fn write(&self, plan: &Plan, rows: &[Row]) -> anyhow::Result<PathBuf> {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bench");
        std::fs::create_dir_all(&directory)?;
        let path = directory.canonicalize()?.join("results.json");
        let seconds = self.began.elapsed().unwrap_or_default().as_secs();
        let whole = json!({
            "schema": SCHEMA,
            "began": humantime_of(self.began),
            "seconds": seconds,
            "quick": plan.is_quick,
            "build": build(),
            "passes": PASSES,
            "machine": self.machine,
            "load": { "before": self.load_before, "after": machine::load() },
            "rows": rows.iter().map(row).collect::<Vec<_>>(),
        });
        std::fs::write(&path, serde_json::to_string_pretty(&whole)?)?;
        Ok(path)
    }
}

/// Seconds since 1970: no clock library is worth a date.
fn humantime_of(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

pub(crate) fn build() -> &'static str {
    if cfg!(debug_assertions) { "development" } else { "release" }
}

fn row(row: &Row) -> Value {
    let (state, reason) = match &row.state {
        State::Measured => ("measured", None),
        State::NotBuilt(what) => ("not-built", Some((*what).to_owned())),
        State::Failed(error) => ("failed", Some(error.clone())),
    };
    let goals = row.goals.iter().map(|goal| {
        let (figure, (bound, value)) = (name(goal.0), bound(goal.1));
        json!({
            "figure": figure, "bound": bound, "value": value, "words": in_words(*goal, row.unit),
            "measured": row.figure(goal.0), "met": row.meets(*goal),
        })
    });
    let other = row.other.as_ref();
    json!({
        "group": row.group, "what": row.what, "unit": row.unit, "state": state, "reason": reason,
        "ours": samples(&row.ours),
        "other": other.map(|it| json!({ "name": it.name, "samples": samples(&it.samples) })),
        "ratio": row.ratio().map(|it| samples(&it)),
        "goals": goals.collect::<Vec<_>>(),
        "verdict": row.verdict().to_string().trim_matches('*'),
        "note": row.note,
    })
}

fn samples(of: &Samples) -> Value {
    let spread = of.spread();
    json!({ "median": spread.median, "q1": spread.low, "q3": spread.high, "all": of.0 })
}

fn name(figure: Figure) -> &'static str {
    match figure {
        Figure::Ours => "ours",
        Figure::OursAtWorst => "ours-at-worst",
        Figure::Ratio => "ratio",
        Figure::Difference => "difference",
    }
}

fn bound(bound: Bound) -> (&'static str, f64) {
    match bound {
        Bound::AtMost(most) => ("at-most", most),
        Bound::AtLeast(least) => ("at-least", least),
    }
}
