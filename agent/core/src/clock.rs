//! Wall time behind a trait, so that tests of `exp`, `nbf` and ages need not wait; and time in milliseconds, as messages carry it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A source of wall time. Durations are measured with tokio's `Instant`, never with this.
pub trait Clock: Send + Sync {
    /// Now.
    fn now(&self) -> SystemTime;

    /// Seconds since 1970, saturating at zero.
    fn unix_seconds(&self) -> u64 {
        self.now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_secs())
    }
}

/// Milliseconds, as many as fit into the number.
#[must_use]
pub fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Milliseconds since 1970, to the nearest: a time that was told before, and that was counted back from another clock
/// since, is told as the same one. `None` before 1970.
#[must_use]
pub fn nearest_millisecond(time: SystemTime) -> Option<u64> {
    const HALF: Duration = Duration::from_micros(500);
    Some(milliseconds(time.duration_since(UNIX_EPOCH).ok()? + HALF))
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }
}

/// A clock that stands still at the given second.
#[derive(Debug, Clone, Copy)]
pub struct FixedClock(pub u64);

impl Clock for FixedClock {
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_told_to_the_nearest_millisecond() {
        let told =
            |microseconds| nearest_millisecond(UNIX_EPOCH + Duration::from_micros(microseconds));
        assert_eq!(told(7_499), Some(7));
        assert_eq!(told(7_500), Some(8));
        assert_eq!(told(0), Some(0));
        assert_eq!(nearest_millisecond(UNIX_EPOCH - Duration::from_millis(1)), None);
    }

    #[test]
    fn what_does_not_fit_is_the_most_that_does() {
        assert_eq!(milliseconds(Duration::from_micros(1_999)), 1);
        assert_eq!(milliseconds(Duration::MAX), u64::MAX);
    }
}
