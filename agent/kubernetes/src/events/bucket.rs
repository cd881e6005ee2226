//! A token bucket: a burst, then one more after each interval.

use std::time::Duration;

use tokio::time::Instant;

use super::Rate;

#[derive(Debug)]
pub(super) struct Bucket {
    rate: Rate,
    /// When the bucket is full again; each token taken moves it one interval on.
    full_at: Instant,
}

impl Bucket {
    pub(super) fn full(rate: Rate, now: Instant) -> Self {
        Self { rate, full_at: now }
    }

    pub(super) fn has_one(&self, now: Instant) -> bool {
        self.full_at.max(now) + self.rate.every <= now + self.capacity()
    }

    pub(super) fn take(&mut self, now: Instant) {
        self.full_at = self.full_at.max(now) + self.rate.every;
    }

    pub(super) fn is_full(&self, now: Instant) -> bool {
        self.full_at <= now
    }

    fn capacity(&self) -> Duration {
        self.rate.every * self.rate.burst
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_passes_then_one_an_interval() {
        let every = Duration::from_secs(10);
        let mut bucket = Bucket::full(Rate { burst: 3, every }, Instant::now());
        let mut taken = || {
            let mut taken = 0;
            while bucket.has_one(Instant::now()) {
                bucket.take(Instant::now());
                taken += 1;
            }
            taken
        };
        assert_eq!(taken(), 3);
        tokio::time::advance(every).await;
        assert_eq!(taken(), 1);
        tokio::time::advance(every * 100).await;
        assert_eq!(taken(), 3, "it never holds more than its burst");
    }
}
