//! When a volume is refreshed: on the beats of its store, and beside them where somebody asks for it or its store can't
//! answer.

use std::time::Duration;

use sotto_core::rotation::{Freshness, Jitter, LONGEST_RETRY};
use tokio::time::Instant;

use super::super::gate::{Pace, Wait};
use super::{Turning, jitter};

impl Turning {
    /// What the store's gate wants to know.
    pub(in super::super) fn pace(&self) -> Pace {
        let latest = match self.freshness() {
            Freshness::Closed => Some(self.since),
            Freshness::Fresh | Freshness::Stale => self.since.checked_add(self.rotation.stale_at()),
        };
        Pace { interval: self.rotation.interval(), latest }
    }

    /// Refreshes begin at this part of the interval.
    pub(in super::super) fn spread(&mut self, part: Jitter) {
        self.rotation.spread(self.since.elapsed(), part);
        self.begin_on_beat();
    }

    /// Refreshes begin on beats, counted from here.
    pub(in super::super) fn keep_to_beats(&mut self, from: Instant) {
        self.beats = Some(from);
        self.begin_on_beat();
    }

    /// Brings the next refresh forward to a beat. One that something else than the interval asks for comes when it is
    /// due.
    pub(super) fn begin_on_beat(&mut self) {
        let (Some(from), Some(next)) = (self.beats, self.rotation.attempt_by_interval()) else {
            return;
        };
        let beat = self.rotation.beat().as_nanos();
        let gone = (self.since + next).saturating_duration_since(from).as_nanos();
        // Less than a beat, which is a second at most.
        let beyond = gone.checked_rem(beat).and_then(|beyond| u64::try_from(beyond).ok());
        // The beat of what is due at once may have been before this volume was there.
        let beyond = Duration::from_nanos(beyond.unwrap_or_default());
        self.rotation.attempt_at(next.saturating_sub(beyond));
    }

    /// Whether a refresh is due.
    pub(in super::super) fn is_due(&self) -> bool {
        self.is_refreshed() && self.rotation.attempt_is_due(self.since.elapsed())
    }

    /// Somebody asks for a refresh now. False if a refresh would read nothing.
    pub(in super::super) fn refresh_now(&mut self) -> bool {
        let is_refreshed = self.is_refreshed();
        if is_refreshed {
            self.rotation.attempt_at(self.since.elapsed());
        }
        is_refreshed
    }

    /// Whether a refusal waits to be confirmed.
    pub(in super::super) fn is_suspicious(&self) -> bool {
        self.rotation.is_suspicious()
    }

    /// The store as a whole can't answer: what was not answered comes again at its turn. What ends can't
    /// wait as long as what is only looked at again.
    pub(in super::super) fn wait(&mut self, wait: Wait) {
        let age = |at: Instant| at.saturating_duration_since(self.since);
        self.rotation.wait_until(age(wait.turn));
        if !self.expiring.is_empty() {
            self.rotation.attempt_at(age(wait.until) + jitter().of(LONGEST_RETRY));
        }
    }
}
