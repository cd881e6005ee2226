//! The table of this node's volumes, and whose turn it is with each.
//!
//! Invariant: one call at a time works on a volume, so that any number of publishes gives one mount; those
//! that wait are bounded in number and in time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sotto_core::identity::VolumeId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::volume::Volume;

/// Calls that may wait for one volume.
const MAX_WAITING: usize = 64;

/// Another call works on the volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("another call for this volume is being worked on: try again")]
pub struct Busy;

/// Every volume mounted here.
#[derive(Debug, Default)]
pub struct Volumes {
    table: Mutex<HashMap<VolumeId, Arc<Volume>>>,
    turns: Mutex<HashMap<VolumeId, Arc<Semaphore>>>,
}

/// The right to work on one volume; ends when dropped.
#[derive(Debug)]
pub struct Turn<'a> {
    volumes: &'a Volumes,
    id: VolumeId,
    permit: Option<OwnedSemaphorePermit>,
}

impl Volumes {
    /// Waits for the volume's turn.
    ///
    /// # Errors
    /// It did not come within `patience`, or too many wait already.
    pub async fn turn(&self, id: &VolumeId, patience: Duration) -> Result<Turn<'_>, Busy> {
        // Made before the wait: its drop tidies up whatever becomes of the wait.
        let mut turn = Turn { volumes: self, id: id.clone(), permit: None };
        let semaphore = {
            let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            let semaphore = turns.entry(id.clone()).or_insert_with(|| Arc::new(Semaphore::new(1)));
            if Arc::strong_count(semaphore) > MAX_WAITING {
                return Err(Busy);
            }
            Arc::clone(semaphore)
        };
        let permit = tokio::time::timeout(patience, semaphore.acquire_owned()).await;
        turn.permit = Some(permit.map_err(|_| Busy)?.map_err(|_| Busy)?);
        Ok(turn)
    }

    /// The volume, if it is mounted here.
    #[must_use]
    pub fn get(&self, id: &VolumeId) -> Option<Arc<Volume>> {
        self.with_table(|table| table.get(id).cloned())
    }

    /// Adds a volume; returns the one that it replaces.
    pub fn insert(&self, volume: Volume) -> Arc<Volume> {
        let volume = Arc::new(volume);
        self.with_table(|table| table.insert(volume.id.clone(), Arc::clone(&volume)));
        volume
    }

    /// Forgets a volume; its connection is closed once nobody works with it.
    pub fn remove(&self, id: &VolumeId) -> Option<Arc<Volume>> {
        self.with_table(|table| table.remove(id))
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Volume>> {
        self.with_table(|table| table.values().cloned().collect())
    }

    /// How many.
    #[must_use]
    pub fn count(&self) -> usize {
        self.with_table(|table| table.len())
    }

    fn with_table<T>(&self, act: impl FnOnce(&mut HashMap<VolumeId, Arc<Volume>>) -> T) -> T {
        act(&mut self.table.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.permit = None;
        let mut turns = self.volumes.turns.lock().unwrap_or_else(PoisonError::into_inner);
        if turns.get(&self.id).is_some_and(|semaphore| Arc::strong_count(semaphore) == 1) {
            turns.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> VolumeId {
        VolumeId::parse("csi-1").unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn only_one_has_the_turn_and_the_next_follows() {
        let volumes = Volumes::default();
        let first = volumes.turn(&id(), Duration::from_secs(1)).await.unwrap();
        assert_eq!(volumes.turn(&id(), Duration::from_secs(1)).await.err(), Some(Busy));
        drop(first);
        assert!(volumes.turn(&id(), Duration::from_secs(1)).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn other_volumes_are_not_kept_waiting() {
        let volumes = Volumes::default();
        let _first = volumes.turn(&id(), Duration::from_secs(1)).await.unwrap();
        let other = VolumeId::parse("csi-2").unwrap();
        assert!(volumes.turn(&other, Duration::ZERO).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn those_that_wait_are_bounded_and_nothing_is_left_of_them() {
        let volumes = Arc::new(Volumes::default());
        let first = volumes.turn(&id(), Duration::from_secs(1)).await.unwrap();
        let mut waiting = tokio::task::JoinSet::new();
        for _ in 0..100 {
            let volumes = Arc::clone(&volumes);
            waiting
                .spawn(async move { volumes.turn(&id(), Duration::from_secs(60)).await.is_ok() });
        }
        let refused = waiting.join_next().await.unwrap().unwrap();
        assert!(!refused, "the 65th is refused at once");
        drop(first);
        let served = waiting.join_all().await.into_iter().filter(|ok| *ok).count();
        assert_eq!(served, MAX_WAITING - 1);
        assert!(volumes.turns.lock().unwrap().is_empty());
    }
}
