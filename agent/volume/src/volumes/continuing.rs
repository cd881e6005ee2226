//! What an agent shows first on a mount that another one served, and what it turns to.
//!
//! | the store has | then |
//! |---|---|
//! | what the mount shows | the same generation: same inodes, and nobody notices |
//! | something newer, and what the mount shows as an earlier version | that generation once more, and an ordinary turn to the new one |
//! | what was being turned to when the agent died, too | both, as after a worker's death: the mount may show the one or the other until the turn is made once more |
//! | what it showed a moment ago, too | that as well, for its grace time |
//! | neither, or it isn't known what the mount shows | another number, so that no old inode ever shows a new value; then a turn to the same once more, for the watchers |
//!
//! Invariant: a number that was used is never used for other content. Files of one generation's directory belong
//! together, whoever served them.

use std::collections::{BTreeMap, BTreeSet};

use sotto_core::snapshot::{Generation, Object, ObjectVersion, Snapshot, SnapshotError};
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
    /// The mount may show this one still, and not the current one.
    pub(super) before: Option<Snapshot>,
    /// Those that it showed a moment ago, as far as they can be had.
    pub(super) older: Vec<Snapshot>,
    /// What the mount showed.
    pub(super) shown: Shown,
}

impl Beginning {
    fn with(current: Snapshot, shown: Shown) -> Self {
        Self { current, next: None, before: None, older: Vec::new(), shown }
    }
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
            return Ok(Beginning::with(current, shown));
        };
        let is_same_layout =
            layout(objects.iter().map(|object| object.path.as_str())) == shown.layout;
        if !is_same_layout {
            return self.apart(self.build(self.number(1)?, objects)?);
        }
        let now = self.build(generation, objects)?;
        let mut older = Vec::new();
        for of in shown.older.iter().filter(|older| older.layout == shown.layout) {
            let numbered = (of.generation, of.content);
            older.extend(self.again(plan, session, &now, numbered, &of.objects).await);
        }
        let (of_shown, is_same) = ((generation, shown.content), content(&now) == shown.content);
        if let Some(wanted) = &shown.wanted {
            let before = self.again(plan, session, &now, of_shown, &shown.objects).await;
            let of_wanted = (wanted.generation, wanted.content);
            let is_same_layout = wanted.layout == shown.layout;
            let current = self.again(plan, session, &now, of_wanted, &wanted.objects).await;
            return match (current, before) {
                (Some(current), Some(before)) if is_same_layout => {
                    let before = Some(before);
                    Ok(Beginning { before, older, ..Beginning::with(current, shown) })
                }
                _ => self.apart(self.renumbered(&now, 1)?),
            };
        }
        if is_same {
            return Ok(Beginning { older, ..Beginning::with(now, shown) });
        }
        match self.again(plan, session, &now, of_shown, &shown.objects).await {
            Some(current) => {
                let next = Some(self.renumbered(&now, 1)?);
                Ok(Beginning { next, older, ..Beginning::with(current, shown) })
            }
            None => self.apart(self.renumbered(&now, 1)?),
        }
    }

    /// A generation with this number and content: what the store has now, or the versions that it was made of.
    async fn again(
        &self,
        plan: &VolumePlan,
        session: &StoreSession,
        now: &Snapshot,
        (generation, wanted): (Generation, u64),
        objects: &[ObjectVersion],
    ) -> Option<Snapshot> {
        if content(now) == wanted {
            return renumbered(now, generation, &*self.shared.services.memory);
        }
        let earlier = self.earlier(plan, session, now, generation, objects).await?;
        (content(&earlier) == wanted).then_some(earlier)
    }

    /// Under a number of its own, which the kernel knows nothing of.
    fn apart(&self, current: Snapshot) -> Result<Beginning, VolumeError> {
        let (volume, generation) = (&self.spec.volume, current.generation().get());
        tracing::warn!(
            %volume, generation,
            "what its mount shows can't be had any more: files that are open from before end with ESTALE"
        );
        let next = Some(self.renumbered(&current, 2)?);
        Ok(Beginning { next, ..Beginning::with(current, self.shown.clone()) })
    }

    /// A generation of these versions.
    async fn earlier(
        &self,
        plan: &VolumePlan,
        session: &StoreSession,
        now: &Snapshot,
        generation: Generation,
        versions: &[ObjectVersion],
    ) -> Option<Snapshot> {
        let shown: BTreeMap<&str, &str> =
            versions.iter().map(|it| (it.id.as_str(), it.version.as_str())).collect();
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
        tracing::info!(volume = %self.spec.volume, generation = generation.get(), "earlier versions were read once more");
        self.build(generation, objects).ok()
    }

    fn number(&self, steps: u64) -> Result<Generation, SnapshotError> {
        self.shown.after(steps).ok_or(SnapshotError::Empty)
    }

    fn renumbered(&self, snapshot: &Snapshot, steps: u64) -> Result<Snapshot, SnapshotError> {
        let memory = &*self.shared.services.memory;
        renumbered(snapshot, self.number(steps)?, memory).ok_or(SnapshotError::Empty)
    }
}
