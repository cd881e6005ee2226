//! What is kept for the next worker.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd, OwnedFd};

use crate::message::{Kind, Packet};

/// By volume.
#[derive(Default)]
pub(super) struct Keep(BTreeMap<String, Volume>);

#[derive(Default)]
struct Volume {
    connection: Option<OwnedFd>,
    values: Option<OwnedFd>,
    /// When they were found to be good, in milliseconds since 1970.
    confirmed_ms: u64,
}

/// Something to be said to a new worker.
pub(super) struct Offer {
    pub(super) kind: Kind,
    pub(super) key: String,
}

impl Keep {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn connection(&mut self, key: String, fd: OwnedFd) {
        self.0.entry(key).or_default().connection = Some(fd);
    }

    pub(super) fn values(&mut self, key: String, fd: OwnedFd, confirmed_ms: u64) {
        let volume = self.0.entry(key).or_default();
        (volume.values, volume.confirmed_ms) = (Some(fd), confirmed_ms);
    }

    /// Other values were left and did not arrive: what was left before them is not to come back.
    pub(super) fn lose_values(&mut self, key: &str) {
        if let Some(volume) = self.0.get_mut(key) {
            volume.values = None;
        }
    }

    /// What is not kept can't be confirmed.
    pub(super) fn confirmed(&mut self, key: &str, at_ms: u64) {
        if let Some(volume) = self.0.get_mut(key) {
            volume.confirmed_ms = at_ms;
        }
    }

    pub(super) fn forget(&mut self, key: &str) {
        self.0.remove(key);
    }

    /// Everything, and that it was everything.
    pub(super) fn offers(&self) -> VecDeque<Offer> {
        let of_volume = |(key, volume): (&String, &Volume)| {
            let offer = |kind| Offer { kind, key: key.clone() };
            let connection = volume.connection.as_ref().map(|_| offer(Kind::Connection));
            connection.into_iter().chain(volume.values.as_ref().map(|_| offer(Kind::Values)))
        };
        let last = Offer { kind: Kind::Last, key: String::new() };
        self.0.iter().flat_map(of_volume).chain([last]).collect()
    }
}

impl Offer {
    /// What is said, unless it was let go meanwhile.
    pub(super) fn packet<'a>(&'a self, keep: &'a Keep) -> Option<Packet<'a>> {
        let packet = Packet::of(self.kind, &self.key);
        let volume = || keep.0.get(&self.key);
        let (fd, at_ms) = match self.kind {
            Kind::Connection => (volume()?.connection.as_ref()?, 0),
            Kind::Values => (volume()?.values.as_ref()?, volume()?.confirmed_ms),
            Kind::Last => return Some(packet),
            Kind::Forget | Kind::Restoring | Kind::Restored | Kind::Alive | Kind::Confirmed => {
                return None;
            }
        };
        Some(Packet { fd: Some(fd.as_fd()), at_ms, ..packet })
    }
}
