//! A table of faults and promises as a program: each row is a scenario that is run and judged.
//!
//! Invariant: a row is held only if its scenario ran to its end and said so. An error, a panic and a scenario that
//! doesn't end are all `broken`; the unit tests show each.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::time::Duration;

use futures::FutureExt;

/// A scenario under way.
pub type Played = Pin<Box<dyn Future<Output = anyhow::Result<Outcome>>>>;

/// Starts a scenario.
pub type Scenario = fn() -> Played;

/// What a scenario that held has to say.
#[derive(Debug, Default, Clone)]
pub struct Outcome {
    /// The longest that a reader waited, where readers ran.
    pub stall: Option<Duration>,
    /// What was measured beside that.
    pub note: String,
    /// Why the scenario can't be played on this machine.
    pub not_here: Option<&'static str>,
}

impl Outcome {
    /// Without readers.
    #[must_use]
    pub fn held() -> Self {
        Self::default()
    }

    /// With readers, of which one waited for so long.
    #[must_use]
    pub fn read(stall: Duration) -> Self {
        Self { stall: Some(stall), ..Self::default() }
    }

    /// This machine lacks something.
    #[must_use]
    pub fn not_here(reason: &'static str) -> Self {
        Self { not_here: Some(reason), ..Self::default() }
    }

    /// With something that was measured.
    #[must_use]
    pub fn noting(mut self, note: impl fmt::Display) -> Self {
        self.note = note.to_string();
        self
    }
}

/// Who plays a row.
pub enum Player {
    /// This function, within this time.
    Here(Scenario, Duration),
    /// Nobody here, for this reason.
    Elsewhere(&'static str),
}

/// A row of the table.
pub struct Row {
    /// Its number.
    pub number: &'static str,
    /// What goes wrong.
    pub fault: &'static str,
    /// What is promised.
    pub promise: &'static str,
    /// Who plays it.
    pub player: Player,
    /// Whether `make test` plays it too.
    pub is_quick: bool,
}

/// What became of a row.
#[derive(Debug)]
pub enum Verdict {
    /// The promise was kept.
    Held(Outcome),
    /// It was not, or nobody knows.
    Broken(String),
    /// It was not played.
    NotHere(&'static str),
}

/// Plays a row and judges it.
#[must_use]
pub fn judge(player: &Player) -> Verdict {
    let (scenario, deadline) = match player {
        Player::Here(scenario, deadline) => (*scenario, *deadline),
        Player::Elsewhere(reason) => return Verdict::NotHere(reason),
    };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return Verdict::Broken(format!("no runtime: {error}")),
    };
    let played = runtime.block_on(async {
        tokio::time::timeout(deadline, AssertUnwindSafe(scenario()).catch_unwind()).await
    });
    // Not for what blocks: a reader of a volume that nobody serves.
    runtime.shutdown_background();
    match played {
        Err(_) => Verdict::Broken(format!("it did not end within {deadline:?}")),
        Ok(Err(panic)) => Verdict::Broken(format!("it panicked: {}", said(panic.as_ref()))),
        Ok(Ok(Err(error))) => Verdict::Broken(format!("{error:#}")),
        Ok(Ok(Ok(outcome))) => match outcome.not_here {
            Some(reason) => Verdict::NotHere(reason),
            None => Verdict::Held(outcome),
        },
    }
}

fn said(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "| {} | {} | {} |", self.number, self.fault, self.promise)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held(outcome) => {
                let stall = outcome.stall.map(Milliseconds).map(|it| it.to_string());
                write!(f, " held | {} | {} |", stall.unwrap_or_default(), outcome.note)
            }
            Self::Broken(_) => write!(f, " **broken** | | |"),
            Self::NotHere(reason) => write!(f, " not here | | {reason} |"),
        }
    }
}

/// A duration as tables show it.
pub struct Milliseconds(pub Duration);

impl fmt::Display for Milliseconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_millis() {
            0 => write!(f, "< 1 ms"),
            some @ 1..1_000 => write!(f, "{some} ms"),
            _ => write!(f, "{:.1} s", self.0.as_secs_f64()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(scenario: Scenario) -> String {
        match judge(&Player::Here(scenario, Duration::from_millis(300))) {
            Verdict::Broken(reason) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_scenario_that_ends_well_is_held() {
        let scenario: Scenario = || Box::pin(async { Ok(Outcome::read(Duration::from_millis(7))) });
        let verdict = judge(&Player::Here(scenario, Duration::from_secs(5)));
        assert_eq!(verdict.to_string(), " held | 7 ms |  |");
    }

    #[test]
    fn a_scenario_that_fails_panics_or_hangs_is_broken() {
        assert_eq!(
            broken(|| Box::pin(async { anyhow::bail!("one read failed") })),
            "one read failed"
        );
        let panics = broken(|| Box::pin(async { panic!("two values are torn") }));
        assert_eq!(panics, "it panicked: two values are torn");
        assert!(broken(|| Box::pin(std::future::pending())).contains("did not end"));
    }

    #[test]
    fn a_scenario_that_cannot_be_played_is_not_held() {
        let scenario: Scenario = || Box::pin(async { Ok(Outcome::not_here("no cgroup")) });
        let verdict = judge(&Player::Here(scenario, Duration::from_secs(5)));
        assert!(matches!(verdict, Verdict::NotHere("no cgroup")));
    }
}
