//! This agent's end of the link to the driver: as what it greets it, and who is told of the link.
//!
//! The link itself is [`sotto_volume::driver::link`].

use std::hash::{BuildHasher, Hasher};

use sotto_handoff::message::Role;
use sotto_volume::driver::link::{Endpoint, LinkObserver};

use crate::config::Driver;
use crate::readiness::Readiness;

/// The driver of the configuration, for this process.
#[must_use]
pub fn endpoint(driver: &Driver) -> Endpoint {
    Endpoint {
        socket: driver.socket.clone(),
        uid: driver.uid,
        role: Role::NodeAgent,
        // One a process.
        instance: random_name(),
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

fn random_name() -> String {
    // Seeded by the kernel's random numbers.
    let random = || std::collections::hash_map::RandomState::new().build_hasher().finish();
    format!("{:016x}{:016x}", random(), random())
}
