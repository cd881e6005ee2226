//! The table: our figure, the peer's or floor's, the ratio, the goal, and whether it is met.
//!
//! Invariant: a goal is met only by numbers that were measured: a row that failed, one without samples and one of
//! something that isn't built meet none. [`sees_each_fault`] tries that before anything is measured.

use std::fmt;

use anyhow::ensure;

use crate::stats::{Samples, Spread};

/// What is compared with a bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Figure {
    /// The median of our samples.
    Ours,
    /// The largest of our samples.
    OursAtWorst,
    /// The median of ours by the other's, pair by pair.
    Ratio,
    /// The median of ours less the other's, pair by pair.
    Difference,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

/// A goal, or a part of one.
pub(crate) type Goal = (Figure, Bound);

/// Between the notes of different passes.
const LATER: &str = "; a later pass: ";

/// Whom we are compared with.
#[derive(Debug, Clone)]
pub(crate) struct Other {
    pub(crate) name: &'static str,
    pub(crate) samples: Samples,
}

/// Whether a row was measured.
#[derive(Debug, Clone)]
pub(crate) enum State {
    Measured,
    /// What isn't there yet.
    NotBuilt(&'static str),
    Failed(String),
}

/// A line of the table.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    /// Of the group that measured it.
    pub(crate) group: &'static str,
    pub(crate) what: String,
    pub(crate) unit: &'static str,
    pub(crate) ours: Samples,
    pub(crate) other: Option<Other>,
    pub(crate) goals: Vec<Goal>,
    pub(crate) note: String,
    /// What the note counts, in all passes.
    pub(crate) count: u64,
    /// Where the note has figures of the row: what it says of more samples.
    note_of: Option<fn(&Self) -> String>,
    pub(crate) state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Met,
    NotMet,
    NotBuilt,
    NoGoal,
}

impl Row {
    pub(crate) fn new(
        group: &'static str,
        what: impl Into<String>,
        unit: &'static str,
        ours: Samples,
    ) -> Self {
        Self {
            group,
            what: what.into(),
            unit,
            ours,
            other: None,
            goals: Vec::new(),
            note: String::new(),
            count: 0,
            note_of: None,
            state: State::Measured,
        }
    }

    pub(crate) fn beside(self, name: &'static str, samples: Samples) -> Self {
        Self { other: Some(Other { name, samples }), ..self }
    }

    pub(crate) fn goal(mut self, figure: Figure, bound: Bound) -> Self {
        self.goals.push((figure, bound));
        self
    }

    pub(crate) fn note(self, note: impl Into<String>) -> Self {
        Self { note: note.into(), ..self }
    }

    /// Something that [`Self::note_of`] tells, and that adds up over the passes.
    pub(crate) fn counting(self, count: u64) -> Self {
        Self { count, ..self }
    }

    /// A note with figures of this row.
    pub(crate) fn note_of(self, of: fn(&Self) -> String) -> Self {
        Self { note: of(&self), note_of: Some(of), ..self }
    }

    /// Takes the samples of a later pass along: its pairs stay pairs.
    fn join(&mut self, later: Self) {
        self.ours.0.extend(later.ours.0);
        self.count += later.count;
        if let (Some(other), Some(its)) = (&mut self.other, later.other) {
            other.samples.0.extend(its.samples.0);
        }
        match (&mut self.state, later.state) {
            (State::Failed(before), State::Failed(after)) => {
                before.push_str("; then: ");
                before.push_str(&after);
            }
            (State::Measured, after) => self.state = after,
            _ => {}
        }
        if let Some(of) = self.note_of {
            self.note = of(self);
        } else if !self.note.split(LATER).any(|note| note == later.note) {
            self.note = format!("{}{LATER}{}", self.note, later.note);
        }
    }

    pub(crate) fn failed(group: &'static str, error: &anyhow::Error) -> Self {
        let row = Self::new(group, format!("the rows of `{group}`"), "", Samples::default());
        Self { state: State::Failed(format!("{error:#}")), ..row }
    }

    pub(crate) fn ratio(&self) -> Option<Samples> {
        self.other.as_ref().map(|other| self.ours.with(&other.samples, |ours, its| ours / its))
    }

    /// The figure that a goal is about; not a number if there is none.
    pub(crate) fn figure(&self, figure: Figure) -> f64 {
        let less = |other: &Other| self.ours.with(&other.samples, |ours, its| ours - its);
        match figure {
            Figure::Ours => self.ours.median(),
            Figure::OursAtWorst => self.ours.most(),
            Figure::Ratio => self.ratio().map_or(f64::NAN, |ratio| ratio.median()),
            Figure::Difference => self.other.as_ref().map_or(f64::NAN, |it| less(it).median()),
        }
    }

    /// Written so that what is not a number meets nothing, and what is compared with nothing neither.
    pub(crate) fn meets(&self, (figure, bound): Goal) -> bool {
        let value = self.figure(figure);
        let is_met = match bound {
            Bound::AtMost(most) => value <= most,
            Bound::AtLeast(least) => value >= least,
        };
        is_met && value.is_finite()
    }

    pub(crate) fn verdict(&self) -> Verdict {
        match self.state {
            State::NotBuilt(_) => Verdict::NotBuilt,
            State::Failed(_) => Verdict::NotMet,
            State::Measured if self.goals.is_empty() => Verdict::NoGoal,
            State::Measured if self.goals.iter().all(|goal| self.meets(*goal)) => Verdict::Met,
            State::Measured => Verdict::NotMet,
        }
    }
}

/// Adds what a group measured, to its rows of an earlier pass where there are some. That a pass failed is a row beside
/// them: another pass doesn't make it good.
pub(crate) fn add(rows: &mut Vec<Row>, group: &'static str, measured: anyhow::Result<Vec<Row>>) {
    for row in measured.unwrap_or_else(|error| vec![Row::failed(group, &error)]) {
        match rows.iter_mut().find(|it| it.group == row.group && it.what == row.what) {
            Some(before) => before.join(row),
            None => rows.push(row),
        }
    }
}

/// Two digits that tell, and no more than three behind the point.
fn digits(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        100.0.. => format!("{value:.0}"),
        10.0..100.0 => format!("{value:.1}"),
        1.0..10.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

fn shown(samples: &Samples, unit: &str) -> String {
    let Spread { low, median, high } = samples.spread();
    match samples.0.len() {
        0 => "-".to_owned(),
        1 => format!("{} {unit}", digits(median)),
        _ => format!("{} {unit} ({} to {})", digits(median), digits(low), digits(high)),
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Met => "met",
            Self::NotMet => "**NOT MET**",
            Self::NotBuilt => "not built yet",
            Self::NoGoal => "",
        })
    }
}

pub(crate) fn in_words(goal: Goal, unit: &str) -> String {
    let what = match goal.0 {
        Figure::Ours => "",
        Figure::OursAtWorst => "worst ",
        Figure::Ratio => "ratio ",
        Figure::Difference => "+ ",
    };
    let unit = if goal.0 == Figure::Ratio { "" } else { unit };
    let bound = match goal.1 {
        Bound::AtMost(most) => format!("<= {most} {unit}"),
        Bound::AtLeast(least) => format!(">= {least} {unit}"),
    };
    format!("{what}{}", bound.trim_end())
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let other = self.other.as_ref();
        let other = other.map(|it| format!("{}: {}", it.name, shown(&it.samples, self.unit)));
        let ratio = self.ratio().filter(|it| it.median().is_finite());
        let ratio = ratio.map(|it| shown(&it, "").replace(" ( ", " (").replace("  ", " "));
        let goals: Vec<_> = self.goals.iter().map(|goal| in_words(*goal, self.unit)).collect();
        let ours = match &self.state {
            State::Measured => shown(&self.ours, self.unit),
            State::NotBuilt(what) => format!("{what} is not built yet"),
            State::Failed(_) => "failed".to_owned(),
        };
        write!(
            f,
            "| {} | {ours} | {} | {} | {} | {} |",
            self.what,
            other.unwrap_or_default(),
            ratio.unwrap_or_default().trim(),
            goals.join(", "),
            self.verdict()
        )
    }
}

/// The whole table.
pub(crate) fn table(rows: &[Row]) -> String {
    let mut text = "| what | Sotto | peer or floor | ratio | goal | |\n".to_owned();
    text.push_str("|---|---|---|---|---|---|\n");
    rows.iter().for_each(|row| text.push_str(&format!("{row}\n")));
    text
}

/// What is said below the table: first of what isn't met.
pub(crate) fn notes(rows: &[Row]) -> String {
    let mut text = String::new();
    let of = |verdict: Verdict| rows.iter().filter(move |row| row.verdict() == verdict);
    for row in of(Verdict::NotMet) {
        let why = match &row.state {
            State::Failed(error) => error,
            State::Measured | State::NotBuilt(_) => &row.note,
        };
        text.push_str(&format!("NOT MET: {}. {why}\n", row.what));
    }
    let rest = rows.iter().filter(|row| row.verdict() != Verdict::NotMet && !row.note.is_empty());
    rest.for_each(|row| text.push_str(&format!("- {}: {}\n", row.what, row.note)));
    text
}

/// Breaks a sound row in each way that must be told.
pub(crate) fn sees_each_fault() -> anyhow::Result<()> {
    let sound = Row::new("x", "x", "ms", Samples(vec![1.0, 1.1, 1.2]))
        .beside("floor", Samples(vec![0.9, 1.0, 1.1]))
        .goal(Figure::Ours, Bound::AtMost(1.1))
        .goal(Figure::OursAtWorst, Bound::AtMost(1.2))
        .goal(Figure::Ratio, Bound::AtMost(1.2))
        .goal(Figure::Difference, Bound::AtLeast(0.09));
    ensure!(sound.verdict() == Verdict::Met, "a sound row is refused: {sound}");
    type Fault = (&'static str, fn(&mut Row));
    let faults: [Fault; 8] = [
        ("a slow median", |row| row.ours = Samples(vec![1.0, 1.11, 1.2])),
        ("one slow sample", |row| row.ours.0[2] = 1.21),
        ("a fast floor", |row| row.other = Some(other(vec![0.5, 0.6, 0.7]))),
        ("a slow floor", |row| row.other = Some(other(vec![1.0, 1.1, 1.2]))),
        ("a floor of nothing", |row| row.other = Some(other(vec![0.0; 3]))),
        ("no samples", |row| row.ours = Samples::default()),
        ("nothing to compare with", |row| row.other = None),
        ("a failure", |row| row.state = State::Failed("x".to_owned())),
    ];
    for (what, fault) in faults {
        let mut broken = sound.clone();
        fault(&mut broken);
        ensure!(broken.verdict() == Verdict::NotMet, "{what} is not told: {broken}");
    }
    let pairs = Samples(vec![2.0, 30.0]).with(&Samples(vec![1.0, 10.0]), |one, other| one / other);
    ensure!(pairs.median() == 2.5, "ratios are not taken pair by pair: {pairs:?}");
    sees_each_pass()
}

/// Several passes: pairs stay pairs, the worst of both counts, and a pass that failed is not made good.
fn sees_each_pass() -> anyhow::Result<()> {
    let pass = |ours: [f64; 2], its: [f64; 2]| {
        let row = Row::new("x", "x", "ms", Samples(ours.to_vec()));
        let row = row.beside("floor", Samples(its.to_vec()));
        let row = row.goal(Figure::OursAtWorst, Bound::AtMost(40.0));
        Ok(vec![row.counting(3).note_of(|row| format!("{} {}", row.ours.0.len(), row.count))])
    };
    let both = |later| {
        let mut rows = Vec::new();
        add(&mut rows, "x", pass([1.0, 20.0], [1.0, 10.0]));
        add(&mut rows, "x", later);
        rows
    };
    for (worst, verdict) in [(40.0, Verdict::Met), (41.0, Verdict::NotMet)] {
        let rows = both(pass([6.0, worst], [2.0, 10.0]));
        let ratios = rows[0].ratio().unwrap_or_default().0;
        let is_sound = rows.len() == 1 && rows[0].verdict() == verdict && rows[0].note == "4 6";
        ensure!(is_sound, "a later pass is not counted: {}", table(&rows));
        ensure!(ratios == [1.0, 2.0, 3.0, worst / 10.0], "pairs are torn apart: {ratios:?}");
    }
    let mut rows = Vec::new();
    for note in ["one other", "other", "one other", "other"] {
        let row = Row::new("x", "x", "ms", Samples::one(1.0));
        add(&mut rows, "x", Ok(vec![row.note(note)]));
    }
    let said = &rows[0].note;
    ensure!(
        said == "one other; a later pass: other",
        "a pass's note is lost, or said twice: {said}"
    );
    let rows = both(Err(anyhow::anyhow!("x")));
    let missed = rows.iter().filter(|row| row.verdict() == Verdict::NotMet).count();
    ensure!(rows.len() == 2 && missed == 1, "a pass that failed is passed over: {}", table(&rows));
    let mut rows = Vec::new();
    for why in ["why", "and why"] {
        add(&mut rows, "x", Err(anyhow::anyhow!(why)));
    }
    let (said, count) = (notes(&rows), rows.len());
    ensure!(count == 1 && said.contains("why; then: and why"), "a failure is passed over: {said}");
    Ok(())
}

fn other(samples: Vec<f64>) -> Other {
    Other { name: "floor", samples: Samples(samples) }
}
