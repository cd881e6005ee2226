//! One turn of a volume: refuse, invalidate, wipe; then the next generation; then what heals with it.
//!
//! Invariant: every step may be repeated, so a turn that failed half-way is run again whole. Nothing heals
//! before the generation that has its values is there.

use std::sync::Arc;
use std::time::Duration;

use sotto_core::identity::VolumeId;
use sotto_core::names::ObjectPath;
use sotto_core::snapshot::{Generation, Inode, SecretMemorySource, Snapshot};
use sotto_fuse::{Refusal, Server, StageError, Tree};
use sotto_handoff::message::{Retire, Rotate, Touch};

use super::showing::Showing;
use super::wipe::without;
use crate::driver::{DriverCallError, DriverCalls};

/// How long the kernel may take to forget files of a volume.
const INVALIDATION_DEADLINE: Duration = Duration::from_secs(5);

/// Why a turn was not completed.
#[derive(Debug, thiserror::Error)]
pub(super) enum TurnError {
    #[error(transparent)]
    Stage(#[from] StageError),
    #[error(transparent)]
    Driver(#[from] DriverCallError),
    #[error("the driver said that it turned, and the volume did not")]
    NotTurned,
}

/// What serves a volume, and who can turn it.
#[derive(Clone)]
pub(super) struct Mount {
    pub(super) volume: VolumeId,
    pub(super) tree: Arc<Tree>,
    pub(super) servers: Vec<Arc<Server>>,
    pub(super) driver: DriverCalls,
    pub(super) memory: Arc<dyn SecretMemorySource>,
}

/// The steps; see the module.
#[derive(Default)]
pub(super) struct Turn {
    pub(super) close: bool,
    pub(super) refuse: Vec<ObjectPath>,
    pub(super) next: Option<Arc<Snapshot>>,
    pub(super) heal: Vec<ObjectPath>,
    pub(super) open: bool,
    /// The generation that was current before, from the first try on.
    pub(super) left: Option<Generation>,
    /// A former worker ended between the first step and the last: the kernel may have turned or not, so
    /// all of it is done again, from this generation.
    pub(super) again_from: Option<Arc<Snapshot>>,
    /// It was tried before, and not completed.
    pub(super) has_failed: bool,
}

impl Turn {
    /// Returns the generation that was left, if it turned.
    pub(super) async fn run(&mut self, mount: &Mount) -> Result<Option<Generation>, TurnError> {
        self.withdraw(mount).await;
        let Some(next) = self.next.clone() else { return Ok(None) };
        let old = self.again_from.clone().unwrap_or_else(|| mount.tree.current());
        let left = *self.left.get_or_insert(old.generation());
        if self.again_from.is_some() {
            mount.driver.rotate(request(&mount.volume, &old, &next)).await?;
            mount.tree.settle();
            self.again_from = None;
        } else if old.generation() != next.generation() {
            let early = mount.tree.stage(Arc::clone(&next))?;
            mount.invalidate(early).await;
            mount.driver.rotate(request(&mount.volume, &old, &next)).await?;
            if mount.tree.current().generation() != next.generation() {
                return Err(TurnError::NotTurned);
            }
        }
        for path in &self.heal {
            mount.invalidate(mount.tree.heal(path)).await;
        }
        if self.open {
            mount.invalidate(mount.tree.reopen()).await;
        }
        Ok(Some(left))
    }

    /// Refuses, makes the kernel forget, wipes.
    async fn withdraw(&self, mount: &Mount) {
        if self.close {
            mount.invalidate(mount.tree.close()).await;
        }
        for path in &self.refuse {
            mount.invalidate(mount.tree.refuse(path, Refusal::Denied)).await;
        }
        if self.close || !self.refuse.is_empty() {
            let wiped = self.wiped(&mount.tree.current(), mount);
            if !wiped.is_some_and(|wiped| mount.tree.replace(&wiped)) {
                tracing::error!(volume = %mount.volume, "refused values stay in memory");
            }
            for generation in mount.tree.generations() {
                if generation != mount.tree.current().generation() {
                    mount.invalidate(mount.tree.wipe(generation)).await;
                }
            }
        }
    }

    fn wiped(&self, snapshot: &Snapshot, mount: &Mount) -> Option<Arc<Snapshot>> {
        let gone = |path: &str| self.close || self.refuse.iter().any(|it| it.as_str() == path);
        without(snapshot, gone, &*mount.memory).map(Arc::new)
    }

    /// Takes out of a turn that waits what `later` has refused meanwhile.
    pub(super) fn bereave(&mut self, later: &Self, mount: &Mount) {
        if let Some(next) = self.next.take() {
            self.next = later.wiped(&next, mount);
        }
        self.heal.retain(|path| !later.close && !later.refuse.contains(path));
        self.open &= !later.close;
    }
}

impl Mount {
    /// Makes the kernel forget; what it can't be made to within the deadline is said.
    pub(super) async fn invalidate(&self, inodes: Vec<Inode>) {
        let servers = self.servers.clone();
        let invalidated = tokio::task::spawn_blocking(move || {
            for server in servers.iter().filter(|server| !server.is_ended()) {
                // The first error is the end of the connection.
                let _ = inodes.iter().try_for_each(|inode| server.invalidate(*inode).map(drop));
            }
        });
        if tokio::time::timeout(INVALIDATION_DEADLINE, invalidated).await.is_err() {
            tracing::warn!(volume = %self.volume, "the kernel did not forget files in time");
        }
    }

    /// Takes an old generation away, and lets those that a subPath bind still shows follow the current one.
    /// `hidden` are those that were bound before; returns whether this one is.
    pub(super) async fn retire(
        &self,
        generation: Generation,
        hidden: &[Generation],
    ) -> Result<bool, DriverCallError> {
        self.tree.retire(generation);
        let volume_id = self.volume.as_str().to_owned();
        let request = Retire { volume_id, generation: generation.get() };
        let bound = self.driver.retire(request).await?;
        for generation in hidden.iter().copied().chain(bound.then_some(generation)) {
            self.invalidate(self.tree.follow(generation)).await;
            self.driver.touch(self.touch(generation)).await?;
        }
        Ok(bound)
    }

    fn touch(&self, generation: Generation) -> Touch {
        let current = self.tree.current();
        let paths = current.versions().iter().map(|version| version.id.clone()).collect();
        let volume_id = self.volume.as_str().to_owned();
        Touch { volume_id, generation: generation.get(), paths }
    }
}

/// The links of the root that come and go.
fn request(volume: &VolumeId, old: &Snapshot, next: &Snapshot) -> Rotate {
    let names = |snapshot: &Snapshot| -> Vec<String> {
        snapshot.links().iter().map(|link| link.name.clone()).collect()
    };
    let (before, after) = (names(old), names(next));
    let shown = Showing::of(next);
    Rotate {
        volume_id: volume.as_str().to_owned(),
        generation: next.generation().get(),
        layout: shown.layout(),
        content: shown.content,
        objects: shown.objects(),
        add_links: after.iter().filter(|name| !before.contains(name)).cloned().collect(),
        remove_links: before.into_iter().filter(|name| !after.contains(name)).collect(),
    }
}
