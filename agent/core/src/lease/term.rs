//! One life that ends unless it is prolonged: a lease's or the token's.

use super::{Duration, FIRST_RETRY, Jitter, LONGEST_RETRY, Life};
use super::{PAUSE_WITHOUT_LIFE, SHORTEST_LIFE};

#[derive(Debug, Clone)]
pub(super) struct Term {
    /// Its first length: what is asked for.
    asked: Duration,
    end: Duration,
    /// When it must be prolonged or replaced; `None` while that is under way.
    pub(super) due: Option<Duration>,
    /// From here on it is too late to try to prolong it.
    last_call: Duration,
    is_renewable: bool,
    failures: u32,
}

impl Term {
    pub(super) fn new(life: Life, jitter: Jitter) -> Self {
        let is_real = life.duration >= SHORTEST_LIFE;
        let duration = if is_real { life.duration } else { PAUSE_WITHOUT_LIFE };
        let mut term = Self {
            asked: duration,
            end: Duration::ZERO,
            due: None,
            last_call: Duration::ZERO,
            is_renewable: life.renewable,
            failures: 0,
        };
        term.lives(Life { duration, ..life }, jitter);
        term
    }

    /// When to look at it next.
    pub(super) fn wake_at(&self) -> Option<Duration> {
        self.due.map(|due| due.min(self.end))
    }

    pub(super) fn has_ended(&self, now: Duration) -> bool {
        now >= self.end
    }

    /// `Some` once it is due: with the length to prolong it by, or `None` if it is to be replaced.
    pub(super) fn take_due(&mut self, now: Duration) -> Option<Option<Duration>> {
        self.due.take_if(|due| *due <= now).map(|_| self.is_renewable.then_some(self.asked))
    }

    pub(super) fn renewed(&mut self, life: Life, jitter: Jitter) {
        // Near its maximum a store gives what is left until there.
        let is_whole = life.duration >= self.asked.mul_f64(0.9);
        self.is_renewable = life.renewable && is_whole;
        self.failures = 0;
        self.lives(life, jitter);
    }

    pub(super) fn failed(&mut self, now: Duration, retry_after: Option<Duration>, jitter: Jitter) {
        let wait = match retry_after {
            // Everybody who was told the same pause comes back over what is left of their leases.
            Some(pause) => {
                let left = self.last_call.saturating_sub(now.saturating_add(pause));
                pause + jitter.of(left.max(FIRST_RETRY))
            }
            None => {
                let doubled = FIRST_RETRY.saturating_mul(1 << self.failures.min(16));
                let longest = doubled.min(LONGEST_RETRY);
                longest / 2 + jitter.of(longest / 2)
            }
        };
        self.failures = self.failures.saturating_add(1);
        let mut due = now.saturating_add(wait);
        if self.is_renewable && due >= self.last_call {
            self.is_renewable = false;
            if retry_after.is_none() {
                due = self.last_call.max(now);
            }
        }
        self.due = Some(due);
    }

    /// It is to be replaced now.
    pub(super) fn ends(&mut self, now: Duration) {
        (self.is_renewable, self.due) = (false, Some(now));
    }

    fn lives(&mut self, life: Life, jitter: Jitter) {
        let from = |share: Duration| life.since.saturating_add(share);
        self.end = from(life.duration);
        self.last_call = from(life.duration.mul_f64(5.0 / 6.0));
        // Leases that began together shall not stay together.
        self.due = Some(from(life.duration.mul_f64(2.0 / 3.0) + jitter.of(life.duration / 20)));
    }
}
