//! Pauses between tries: longer each time, by chance, never shorter than the server asked for.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// How many times the pause doubles at most.
const MOST_DOUBLINGS: u32 = 16;

/// The pauses of one loop.
#[derive(Debug)]
pub(crate) struct Backoff {
    least: Duration,
    most: Duration,
    failures: u32,
    chance: RandomState,
}

impl Backoff {
    pub(crate) fn new(least: Duration, most: Duration) -> Self {
        Self { least, most, failures: 0, chance: RandomState::new() }
    }

    /// The pause after one more failure: between half and the whole of a time that doubles; on top of
    /// what the server asked for, if it did.
    pub(crate) fn next(&mut self, retry_after: Option<Duration>) -> Duration {
        let doubled = self.least.saturating_mul(1 << self.failures.min(MOST_DOUBLINGS));
        self.failures = self.failures.saturating_add(1);
        let whole = doubled.min(self.most);
        match retry_after {
            Some(asked) => asked + self.part_of(self.least),
            None => whole / 2 + self.part_of(whole / 2),
        }
    }

    /// It works again.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    /// A part of `whole` by chance, so that many nodes don't act together.
    pub(crate) fn part_of(&self, whole: Duration) -> Duration {
        let bits = self.chance.hash_one((self.failures, std::time::Instant::now()));
        // The upper 32 bits: below 2^32, so the fraction is below one.
        let fraction = f64::from(u32::try_from(bits >> 32).unwrap_or(0)) / 4_294_967_296.0;
        whole.mul_f64(fraction)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: Duration = Duration::from_millis(500);
    const MOST: Duration = Duration::from_secs(60);

    #[test]
    fn pauses_double_up_to_the_longest() {
        let mut backoff = Backoff::new(LEAST, MOST);
        let first = backoff.next(None);
        assert!(first >= LEAST / 2 && first <= LEAST);
        for _ in 0..40 {
            assert!(backoff.next(None) <= MOST);
        }
        assert!(backoff.next(None) >= MOST / 2);
        backoff.reset();
        assert!(backoff.next(None) <= LEAST);
    }

    #[test]
    fn a_pause_is_never_shorter_than_the_server_asked_for() {
        let mut backoff = Backoff::new(LEAST, MOST);
        let asked = Duration::from_secs(7);
        let pause = backoff.next(Some(asked));
        assert!(pause >= asked && pause <= asked + LEAST);
    }
}
