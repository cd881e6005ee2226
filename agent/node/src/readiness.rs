//! Whether this agent does its work.
//!
//! Ready once the driver has agreed to work with it, and until it drains. It stays ready while the driver is
//! away: volumes are served without it, and its absence is the driver's own to report.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sotto_runtime::drain::Drain;

/// Shared between the link, which sets it, and the admin socket, which tells it.
#[derive(Debug, Clone)]
pub struct Readiness {
    linked: Arc<AtomicBool>,
    drain: Drain,
}

impl Readiness {
    /// Not ready yet.
    #[must_use]
    pub fn new(drain: Drain) -> Self {
        Self { linked: Arc::default(), drain }
    }

    /// The driver agreed to work with this agent.
    pub fn linked(&self) {
        self.linked.store(true, Ordering::Release);
    }

    /// Whether it is ready.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self) -> Result<(), &'static str> {
        if self.drain.has_begun() {
            Err("shutting down")
        } else if self.linked.load(Ordering::Acquire) {
            Ok(())
        } else {
            Err("the driver (sotto-csi) has not been reached yet")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_ready_from_the_first_link_until_the_drain() {
        let drain = Drain::new();
        let readiness = Readiness::new(drain.clone());
        assert!(readiness.check().unwrap_err().contains("driver"));
        readiness.linked();
        assert_eq!(readiness.check(), Ok(()));
        drain.begin();
        assert_eq!(readiness.check(), Err("shutting down"));
    }
}
