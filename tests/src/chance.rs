//! Chance that can be repeated: whoever uses it prints its seed.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A sequence of numbers (xorshift64*). Not for keys.
pub struct Chance(u64);

impl Chance {
    /// The sequence of this seed.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// The seed that `SEED` names, or a new one.
    #[must_use]
    pub fn seed() -> u64 {
        let named = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        named.unwrap_or_else(|| u64::from(now().subsec_nanos()))
    }

    /// A number below `end`.
    ///
    /// # Panics
    /// `end` is 0.
    pub fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(number).expect("31 bits fit") % end
    }

    /// A duration below `end`.
    pub fn within(&mut self, end: Duration) -> Duration {
        let micros = usize::try_from(end.as_micros()).unwrap_or(usize::MAX).max(1);
        Duration::from_micros(self.below(micros) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_and_reaches_everything() {
        let draw = |seed| {
            let mut chance = Chance::of(seed);
            (0..100).map(|_| chance.below(4)).collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        assert!((0..4).all(|number| draw(7).contains(&number)));
    }
}
