//! Which volumes there are, each with the mailbox of its owner.
//!
//! Invariant: an entry lives as long as its owner's [`Registered`], whatever way the owner ends.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as MapEntry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sotto_core::identity::{Namespace, PodName, VolumeId};
use tokio::sync::mpsc;

use super::VolumeLimit;
use super::error::VolumeError;
use super::owner::Command;
use super::request::VolumeSpec;

/// Requests that wait for one owner.
const MAILBOX: usize = 64;

/// A mailbox has room for 32 of these from the beginning: boxed, that is 256 B a volume and not 3.8 KiB.
pub(super) type Letter = Box<Command>;

#[derive(Clone, Default)]
pub(super) struct Registry(Arc<Mutex<BTreeMap<VolumeId, Entry>>>);

struct Entry {
    spec: Arc<VolumeSpec>,
    mailbox: mpsc::Sender<Letter>,
}

/// What [`Registry::find_or_add`] found.
pub(super) enum Found {
    /// The volume's owner.
    Known(mpsc::Sender<Letter>),
    /// Nobody: the caller starts the owner with this.
    Added(Registered, mpsc::Receiver<Letter>),
}

/// An owner's place in the registry; given up on drop.
pub(super) struct Registered {
    registry: Registry,
    volume: VolumeId,
    mailbox: mpsc::Sender<Letter>,
}

impl Registry {
    pub(super) fn count(&self) -> usize {
        self.lock().len()
    }

    pub(super) fn ids(&self) -> Vec<VolumeId> {
        self.lock().keys().cloned().collect()
    }

    pub(super) fn mailbox(&self, volume: &VolumeId) -> Option<mpsc::Sender<Letter>> {
        self.lock().get(volume).map(|entry| entry.mailbox.clone())
    }

    pub(super) fn spec(&self, volume: &VolumeId) -> Option<Arc<VolumeSpec>> {
        self.lock().get(volume).map(|entry| Arc::clone(&entry.spec))
    }

    /// The volumes of every pod of this name: there may be an old one beside the new.
    pub(super) fn of_pod(&self, namespace: &Namespace, pod: &PodName) -> Vec<Arc<VolumeSpec>> {
        let volumes = self.lock();
        let specs = volumes.values().map(|entry| &entry.spec);
        let of_pod = |spec: &&Arc<VolumeSpec>| {
            spec.identity.namespace == *namespace && spec.identity.pod_name == *pod
        };
        specs.filter(of_pod).cloned().collect()
    }

    pub(super) fn find_or_add(
        &self,
        spec: &Arc<VolumeSpec>,
        limit: VolumeLimit,
    ) -> Result<Found, VolumeError> {
        let mut volumes = self.lock();
        let count = volumes.len();
        match volumes.entry(spec.volume.clone()) {
            MapEntry::Occupied(known) if known.get().spec != *spec => {
                Err(VolumeError::KnownOtherwise(spec.volume.clone()))
            }
            MapEntry::Occupied(known) => Ok(Found::Known(known.get().mailbox.clone())),
            MapEntry::Vacant(_) if count >= limit.count => {
                Err(VolumeError::TooManyVolumes { limit: limit.count, remedy: limit.remedy })
            }
            MapEntry::Vacant(vacant) => {
                let (mailbox, commands) = mpsc::channel(MAILBOX);
                vacant.insert(Entry { spec: Arc::clone(spec), mailbox: mailbox.clone() });
                let (registry, volume) = (self.clone(), spec.volume.clone());
                Ok(Found::Added(Registered { registry, volume, mailbox }, commands))
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<VolumeId, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut volumes = self.registry.lock();
        // The place may be a successor's by now.
        if volumes.get(&self.volume).is_some_and(|entry| entry.mailbox.same_channel(&self.mailbox))
        {
            volumes.remove(&self.volume);
        }
    }
}
