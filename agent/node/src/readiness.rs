//! Whether this agent does its work.
//!
//! Ready once the driver has agreed to work with it and it holds the volumes of an agent whose place it takes, and
//! until it drains. It stays ready while the driver is
//! away: volumes are served without it, and its absence is the driver's own to report.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use sotto_runtime::drain::Drain;

/// Shared between the link, which sets it, and the admin socket, which tells it.
#[derive(Debug, Clone)]
pub struct Readiness {
    linked: Arc<AtomicBool>,
    waits_for: Arc<Mutex<Option<String>>>,
    drain: Drain,
}

impl Readiness {
    /// Not ready yet.
    #[must_use]
    pub fn new(drain: Drain) -> Self {
        Self { linked: Arc::default(), waits_for: Arc::default(), drain }
    }

    /// The driver agreed to work with this agent.
    pub fn linked(&self) {
        self.linked.store(true, Ordering::Release);
    }

    /// What is still missing, in words for whoever looks at the probe.
    pub fn waits(&self, what: String) {
        *self.waits_for.lock().unwrap_or_else(PoisonError::into_inner) = Some(what);
    }

    /// Whether it is ready.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self) -> Result<(), String> {
        if self.drain.has_begun() {
            Err("shutting down".to_owned())
        } else if self.linked.load(Ordering::Acquire) {
            Ok(())
        } else {
            let waits_for = self.waits_for.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let unreached = || "the driver (sotto-csi) has not been reached yet".to_owned();
            Err(waits_for.unwrap_or_else(unreached))
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
        readiness.waits("3 volumes".to_owned());
        assert_eq!(readiness.check(), Err("3 volumes".to_owned()));
        readiness.linked();
        assert_eq!(readiness.check(), Ok(()));
        drain.begin();
        assert_eq!(readiness.check(), Err("shutting down".to_owned()));
    }
}
