//! The judgement: our figure, the peer's, their ratio, the goal, and whether it is met.
//!
//! Invariant: a goal is met only by numbers that were measured: too few samples, or a peer that used nothing, meet
//! none. [`sees_each_fault`] tries that on made-up figures before anything is measured.

use std::fmt;

use anyhow::ensure;

/// Numbers of secrets at which it is measured.
pub(crate) const SECRETS: [usize; 2] = [1, 50];
/// Rotations timed on each side with each number of secrets.
pub(crate) const SAMPLES: usize = 20;
/// A new value is readable within this, s, in the median, with 1 and with 50 secrets.
const ROTATION_GOAL: f64 = 0.6;
/// With 50 secrets the CPU used is at most this, percent of a core, ...
const CPU_GOAL: f64 = 2.0;
/// ... and at most this part of the peer's.
const CPU_PART: f64 = 0.1;

/// What one side took with one number of secrets.
#[derive(Debug, Clone, Default)]
pub(crate) struct Figures {
    /// From a write to its readable content, s.
    pub(crate) rotations: Vec<f64>,
    /// Percent of a core while nothing changes.
    pub(crate) cpu_at_rest: f64,
    /// Percent of a core while one secret changes every second.
    pub(crate) cpu_rotating: f64,
    /// Resident memory, MiB.
    pub(crate) rss: f64,
    /// With shared pages counted by their share; `None` where the kernel doesn't tell.
    pub(crate) pss: Option<f64>,
}

/// Both sides, with one number of secrets.
#[derive(Debug, Clone)]
pub(crate) struct Measured {
    pub(crate) secrets: usize,
    pub(crate) ours: Figures,
    pub(crate) peers: Figures,
}

#[derive(Clone, Copy)]
struct Goal {
    most: Option<f64>,
    part: Option<f64>,
}

/// A line of the table.
struct Row {
    secrets: usize,
    what: &'static str,
    unit: &'static str,
    ours: f64,
    peers: f64,
    /// How far the samples lie apart, of each side.
    spread: Option<[(f64, f64); 2]>,
    goal: Option<Goal>,
}

/// The whole table.
pub(crate) struct Judged(Vec<Row>);

impl Judged {
    pub(crate) fn of(measured: &[Measured]) -> Self {
        Self(measured.iter().flat_map(rows).collect())
    }

    /// What is not met, in words.
    pub(crate) fn missed(&self) -> Vec<String> {
        let missed = self.0.iter().filter(|row| row.is_met() == Some(false));
        missed.map(|row| format!("{} with {} secrets", row.what, row.secrets)).collect()
    }
}

fn rows(of: &Measured) -> [Row; 5] {
    let Measured { secrets, ours, peers } = of;
    let cpu = Goal { most: Some(CPU_GOAL), part: Some(CPU_PART) };
    let cpu = (*secrets == SECRETS[1]).then_some(cpu);
    let row = |what, unit, value: fn(&Figures) -> f64, goal| {
        let (ours, peers) = (value(ours), value(peers));
        Row { secrets: *secrets, what, unit, ours, peers, spread: None, goal }
    };
    let rotation = Goal { most: Some(ROTATION_GOAL), part: None };
    let mut rotation =
        row("write to readable, median", "s", |it| median(&it.rotations), Some(rotation));
    rotation.spread = Some([spread(&ours.rotations), spread(&peers.rotations)]);
    [
        rotation,
        row("CPU at rest", "%", |it| it.cpu_at_rest, cpu),
        row("CPU, one secret changing a second", "%", |it| it.cpu_rotating, cpu),
        row("RSS", "MiB", |it| it.rss, None),
        row("PSS", "MiB", |it| it.pss.unwrap_or(f64::NAN), None),
    ]
}

/// Not a number if samples are missing.
fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        SAMPLES.. => f64::midpoint(sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]),
        _ => f64::NAN,
    }
}

fn spread(samples: &[f64]) -> (f64, f64) {
    let least = samples.iter().copied().fold(f64::NAN, f64::min);
    (least, samples.iter().copied().fold(f64::NAN, f64::max))
}

impl Row {
    /// `None` without a goal. Written so that what is not a number meets nothing.
    fn is_met(&self) -> Option<bool> {
        let goal = self.goal?;
        let is_little = goal.most.is_none_or(|most| self.ours <= most);
        let is_less =
            goal.part.is_none_or(|part| self.peers > 0.0 && self.ours <= part * self.peers);
        Some(is_little && is_less && self.ours.is_finite())
    }

    fn figure(&self, value: f64, side: usize) -> String {
        let spread = self.spread.map(|it| it[side]);
        let spread = spread.map(|(least, most)| format!(" ({least:.2} to {most:.2})"));
        let text = match self.unit {
            "MiB" => format!("{value:.1}"),
            _ => format!("{value:.2}"),
        };
        if value.is_nan() {
            "-".to_owned()
        } else {
            format!("{text} {}{}", self.unit, spread.unwrap_or_default())
        }
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let most = self.most.map(|most| format!("<= {most}"));
        let part = self.part.map(|part| format!("ratio <= {part}"));
        f.write_str(&most.into_iter().chain(part).collect::<Vec<_>>().join(", "))
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (ours, peers) = (self.figure(self.ours, 0), self.figure(self.peers, 1));
        let ratio = self.ours / self.peers;
        let ratio = if ratio.is_finite() { format!("{ratio:.3}") } else { "-".to_owned() };
        let goal = self.goal.map(|goal| goal.to_string()).unwrap_or_default();
        let verdict = match self.is_met() {
            None => "",
            Some(true) => "met",
            Some(false) => "**NOT MET**",
        };
        let Self { secrets, what, .. } = self;
        write!(f, "| {secrets} | {what} | {ours} | {peers} | {ratio} | {goal} | {verdict} |")
    }
}

impl fmt::Display for Judged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| secrets | | Sotto | `bao agent` | ratio | goal | |")?;
        writeln!(f, "|---|---|---|---|---|---|---|")?;
        self.0.iter().try_for_each(|row| writeln!(f, "{row}"))
    }
}

/// Breaks sound figures in each way that must be told.
pub(crate) fn sees_each_fault() -> anyhow::Result<()> {
    let side = |seconds: f64, cpu: f64| Figures {
        rotations: vec![seconds; SAMPLES],
        cpu_at_rest: cpu,
        cpu_rotating: cpu,
        rss: 30.0,
        pss: Some(20.0),
    };
    let sound =
        SECRETS.map(|secrets| Measured { secrets, ours: side(0.5, 1.5), peers: side(1.1, 27.0) });
    let missed = |measured: &[Measured]| Judged::of(measured).missed();
    ensure!(missed(&sound).is_empty(), "sound figures are refused: {:?}", missed(&sound));
    type Fault = (&'static str, usize, fn(&mut Measured));
    let faults: [Fault; 9] = [
        ("a slow rotation of one secret", 0, |it| it.ours.rotations = vec![0.61; SAMPLES]),
        ("a slow rotation of fifty", 1, |it| it.ours.rotations = vec![0.61; SAMPLES]),
        ("half of the rotations slow", 1, |it| it.ours.rotations[SAMPLES / 2 - 1..].fill(0.8)),
        ("a sample that is missing", 0, |it| it.ours.rotations.truncate(SAMPLES - 1)),
        ("much CPU at rest", 1, |it| (it.ours.cpu_at_rest, it.peers.cpu_at_rest) = (2.1, 90.0)),
        ("much CPU", 1, |it| (it.ours.cpu_rotating, it.peers.cpu_rotating) = (2.1, 90.0)),
        ("a peer that needs little at rest", 1, |it| it.peers.cpu_at_rest = 14.0),
        ("a peer that needs little", 1, |it| it.peers.cpu_rotating = 14.0),
        ("a peer that does nothing", 1, |it| {
            (it.ours.cpu_rotating, it.peers.cpu_rotating) = (0.0, 0.0)
        }),
    ];
    for (what, at, fault) in faults {
        let mut broken = sound.clone();
        fault(&mut broken[at]);
        ensure!(missed(&broken).len() == 1, "{what} is not told: {:?}", missed(&broken));
    }
    Ok(())
}
