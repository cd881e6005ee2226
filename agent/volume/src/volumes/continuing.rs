//! What an agent shows first on a mount that another one served, and what it turns to.
//!
//! | the store has | then |
//! |---|---|
//! | what the mount shows | the same generation: same inodes, and nobody notices |
//! | something newer, and what the mount shows as an earlier version | that generation once more, and an ordinary turn to the new one |
//! | neither, or it isn't known what the mount shows | another number, so that no old inode ever shows a new value; then a turn to the same once more, for the watchers |
//!
//! Invariant: a number that was used is never used for other content. Files of one generation's directory belong
//! together, whoever served them.

use std::collections::{BTreeMap, BTreeSet};

use sotto_core::snapshot::{Generation, Object, Snapshot, SnapshotError};
use sotto_store::{StoreSession, VolumePlan};

use super::error::VolumeError;
use super::prepare::Preparation;
use super::request::Shown;
use super::showing::{content, layout};
use super::wipe::{copied, renumbered};

/// A volume's first generation here.
pub(super) struct Beginning {
    pub(super) current: Snapshot,
    /// What is turned to as soon as it is served.
    pub(super) next: Option<Snapshot>,
    /// What the mount showed.
    pub(super) shown: Shown,
}

impl Preparation {
    /// `objects` are what the store has now.
    pub(super) async fn beginning(
        &self,
        plan: &VolumePlan,
        session: &StoreSession,
        objects: Vec<Object>,
    ) -> Result<Beginning, VolumeError> {
        let shown = self.shown.clone();
        let Some(generation) = shown.generation else {
            let current = self.build(Generation::FIRST, objects)?;
            return Ok(Beginning { current, next: None, shown });
        };
        let is_same_layout =
            layout(objects.iter().map(|object| object.path.as_str())) == shown.layout;
        if !is_same_layout {
            return self.apart(self.build(self.number(1)?, objects)?);
        }
        let now = self.build(generation, objects)?;
        if content(&now) == shown.content {
            return Ok(Beginning { current: now, next: None, shown });
        }
        match self.earlier(plan, session, &now).await {
            Some(current) => {
                tracing::info!(volume = %self.spec.volume, "what its mount shows was read once more");
                let next = Some(self.renumbered(&now, 1)?);
                Ok(Beginning { current, next, shown })
            }
            None => self.apart(self.renumbered(&now, 1)?),
        }
    }

    /// Under a number of its own, which the kernel knows nothing of.
    fn apart(&self, current: Snapshot) -> Result<Beginning, VolumeError> {
        let (volume, generation) = (&self.spec.volume, current.generation().get());
        tracing::warn!(
            %volume, generation,
            "what its mount shows can't be had any more: files that are open from before end with ESTALE"
        );
        let next = Some(self.renumbered(&current, 2)?);
        Ok(Beginning { current, next, shown: self.shown.clone() })
    }

    /// The generation that the mount shows, of the versions that it was made of.
    async fn earlier(
        &self,
        plan: &VolumePlan,
        session: &StoreSession,
        now: &Snapshot,
    ) -> Option<Snapshot> {
        let generation = self.shown.generation?;
        let shown: BTreeMap<&str, &str> =
            self.shown.objects.iter().map(|it| (it.id.as_str(), it.version.as_str())).collect();
        let newer: BTreeMap<&str, &str> =
            now.versions().iter().map(|it| (it.id.as_str(), it.version.as_str())).collect();
        let paths = plan.objects.iter().map(|object| object.path.as_str());
        let changed: BTreeSet<usize> = paths
            .enumerate()
            .filter(|(_, path)| shown.get(path) != newer.get(path))
            .map(|(index, _)| index)
            .collect();
        let earlier = plan.only(&changed).at_versions(|path| shown.get(path).copied())?;
        let fetch = session.fetch(&earlier);
        let fetched = self.until("earlier versions were not fetched", fetch).await.ok()?;
        let objects: Result<Vec<Object>, _> = fetched.objects.into_iter().collect();
        let mut objects = objects
            .inspect_err(
                |error| tracing::info!(volume = %self.spec.volume, %error, "an earlier version"),
            )
            .ok()?;
        for (index, planned) in plan.objects.iter().enumerate() {
            if !changed.contains(&index) && shown.contains_key(planned.path.as_str()) {
                objects.push(copied(now, &planned.path)?);
            }
        }
        let current = self.build(generation, objects).ok()?;
        (content(&current) == self.shown.content).then_some(current)
    }

    fn number(&self, steps: u64) -> Result<Generation, SnapshotError> {
        self.shown.after(steps).ok_or(SnapshotError::Empty)
    }

    fn renumbered(&self, snapshot: &Snapshot, steps: u64) -> Result<Snapshot, SnapshotError> {
        let memory = &*self.shared.services.memory;
        renumbered(snapshot, self.number(steps)?, memory).ok_or(SnapshotError::Empty)
    }
}
