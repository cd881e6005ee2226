//! This agent's end of the link to the driver: as what it greets it, and who is told of the link.
//!
//! The link itself is [`sotto_volume::driver::link`].

use sotto_handoff::message::Role;
use sotto_volume::driver::link::{Endpoint, LinkObserver};

use crate::config::Driver;
use crate::readiness::Readiness;

/// The driver of the configuration, for this process.
#[must_use]
pub fn endpoint(driver: &Driver, instance: String) -> Endpoint {
    Endpoint {
        socket: driver.socket.clone(),
        uid: driver.uid,
        role: Role::NodeAgent,
        // That of the supervisor, the same for all of its workers.
        instance,
    }
}

impl LinkObserver for Readiness {
    fn linked(&self) {
        Self::linked(self);
    }

    fn waits(&self, what: String) {
        Self::waits(self, what);
    }
}
