//! What is kept for the next worker.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::message::Kind;

/// By volume.
#[derive(Default)]
pub(super) struct Keep(BTreeMap<String, Volume>);

#[derive(Default)]
struct Volume {
    connection: Option<OwnedFd>,
    values: Option<OwnedFd>,
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

    pub(super) fn values(&mut self, key: String, fd: OwnedFd) {
        self.0.entry(key).or_default().values = Some(fd);
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
    /// Its fd, unless it was let go meanwhile.
    pub(super) fn fd<'a>(&self, keep: &'a Keep) -> Option<BorrowedFd<'a>> {
        let volume = keep.0.get(&self.key)?;
        match self.kind {
            Kind::Connection => volume.connection.as_ref().map(AsFd::as_fd),
            Kind::Values => volume.values.as_ref().map(AsFd::as_fd),
            Kind::Forget | Kind::Restoring | Kind::Restored | Kind::Alive | Kind::Last => None,
        }
    }
}
