//! A clock that a test moves by hand, so that a token's refresh need not be waited for.

use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use sotto_core::clock::Clock;

/// Stands still until it is set.
pub struct HandClock(Mutex<SystemTime>);

impl HandClock {
    /// A clock at this moment.
    #[must_use]
    pub fn at(moment: SystemTime) -> Self {
        Self(Mutex::new(moment))
    }

    /// Sets it.
    pub fn set(&self, moment: SystemTime) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = moment;
    }
}

impl Clock for HandClock {
    fn now(&self) -> SystemTime {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
