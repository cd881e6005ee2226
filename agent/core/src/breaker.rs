//! When a store that can't answer is asked again, by all volumes that use it: a pure state machine.
//!
//! | state | a refresh | until |
//! |---|---|---|
//! | closed | goes | [`THRESHOLD`] outages in a row, or one with which the store says how long to wait |
//! | open | waits | that pause is over, or a pause of ours that grows |
//! | probing | one goes, the others wait | anything is answered, or the probe is too old |
//!
//! Whoever waits lines up for a turn of its own, a little further behind the one before than steady refreshes
//! would be: what was held back comes beside those that are due anyway, together at most twice as often as ever. Values that would grow too old in that line, or are closed already, use a shorter one.
//!
//! Invariant: times only come in as arguments (a monotonic age), chance only as a [`Jitter`]. Nobody goes
//! before the pause that the store asked for is over. Called by each store's gate.

use std::time::Duration;

use crate::rotation::{Jitter, LONGEST_RETRY};

/// Outages in a row after which refreshes wait.
pub const THRESHOLD: u32 = 5;
/// First pause; it doubles up to [`LONGEST_RETRY`].
pub const FIRST_PAUSE: Duration = Duration::from_secs(4);
/// Longest that one probe keeps the others waiting; longer than a fetch may take.
pub const PROBE_DEADLINE: Duration = Duration::from_secs(60);
/// Between two turns of volumes whose values are too old, or would be.
pub const URGENT_GAP: Duration = Duration::from_secs(5);
/// From a turn that came while somebody else was the probe to the next.
const PROBE_PAUSE: Duration = Duration::from_secs(1);
/// Agents of other nodes were told the same pause: not all probes come at its very end.
const SPREAD: Duration = Duration::from_secs(5);

/// Who asks, as far as it matters here.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Time between two refreshes of this volume.
    pub interval: Duration,
    /// Volumes that use this store.
    pub volumes: usize,
    /// When this volume's values are too old; in the past for one that is closed.
    pub latest: Duration,
}

impl Pace {
    /// Between two turns: somewhat more than between two refreshes of any volumes, if all were like this
    /// one, since those are not perfectly even.
    fn gap(self) -> Duration {
        let steady = self.interval / u32::try_from(self.volumes.max(1)).unwrap_or(u32::MAX);
        steady + steady / 4
    }
}

/// A refresh has to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wait {
    /// Nobody goes before this.
    pub until: Duration,
    /// The asker's own turn, not before `until`.
    pub turn: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed,
    Open { until: Duration },
    Probing { end: Duration },
}

/// One store's state. All times are ages on one monotonic clock.
#[derive(Debug, Clone)]
pub struct Breaker {
    state: State,
    /// In a row, while closed.
    outages: u32,
    /// Pauses in a row that were ours.
    pauses: u32,
    /// The last turns that were given, of each line.
    calm: Option<Duration>,
    urgent: Option<Duration>,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { state: State::Closed, outages: 0, pauses: 0, calm: None, urgent: None }
    }
}

impl Breaker {
    /// Whether refreshes wait.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.state != State::Closed
    }

    /// Whether a refresh may go now.
    ///
    /// # Errors
    /// It has to wait, and until when.
    pub fn admit(&mut self, now: Duration, pace: Pace) -> Result<(), Wait> {
        match self.state {
            State::Closed => Ok(()),
            State::Open { until: end } | State::Probing { end } if now >= end => {
                self.state = State::Probing { end: now + PROBE_DEADLINE };
                Ok(())
            }
            State::Open { until } => Err(self.line_up(now, until, pace)),
            State::Probing { .. } => Err(self.line_up(now, now + PROBE_PAUSE, pace)),
        }
    }

    /// A turn for one that went and was not answered; `None`: its own pace counts.
    pub fn wait(&mut self, now: Duration, pace: Pace) -> Option<Wait> {
        match self.state {
            State::Closed => None,
            State::Open { until } => Some(self.line_up(now, until.max(now), pace)),
            State::Probing { .. } => Some(self.line_up(now, now + PROBE_PAUSE, pace)),
        }
    }

    /// The store answered somebody, whatever it said.
    pub fn answered(&mut self) {
        (self.state, self.outages, self.pauses) = (State::Closed, 0, 0);
    }

    /// The store as a whole did not answer somebody. `retry_after` is the pause that it asked for.
    pub fn failed(&mut self, now: Duration, retry_after: Option<Duration>, jitter: Jitter) {
        let asked_for = retry_after.map(|pause| now + pause + jitter.of(SPREAD));
        self.outages = self.outages.saturating_add(1);
        let end = match (self.state, asked_for) {
            (State::Closed, None) if self.outages < THRESHOLD => return,
            (_, Some(end)) => end,
            // It was asked before this pause began, or by one that needn't wait.
            (State::Open { .. }, None) => return,
            (State::Closed | State::Probing { .. }, None) => now + self.next_pause(jitter),
        };
        let before = match self.state {
            State::Open { until } => until,
            State::Closed | State::Probing { .. } => Duration::ZERO,
        };
        self.state = State::Open { until: end.max(before) };
    }

    fn next_pause(&mut self, jitter: Jitter) -> Duration {
        let pause = FIRST_PAUSE.saturating_mul(1 << self.pauses.min(8)).min(LONGEST_RETRY);
        self.pauses = self.pauses.saturating_add(1);
        pause / 2 + jitter.of(pause / 2)
    }

    fn line_up(&mut self, now: Duration, until: Duration, pace: Pace) -> Wait {
        // A turn in the past was used, or its volume is gone.
        let behind = |last: Option<Duration>, gap: Duration| match last {
            Some(last) if last > now => until.max(last + gap),
            Some(_) | None => until,
        };
        // Others in the line may be asked less often by far.
        let turn = behind(self.calm, pace.gap()).min(until + 2 * pace.interval);
        if turn < pace.latest {
            self.calm = self.calm.max(Some(turn));
            return Wait { until, turn };
        }
        let turn = behind(self.urgent, pace.gap().min(URGENT_GAP));
        self.urgent = Some(turn);
        Wait { until, turn }
    }
}

#[cfg(test)]
mod tests;
