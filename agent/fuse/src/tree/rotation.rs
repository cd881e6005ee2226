//! The owner's half of a rotation: which generations there are, and what becomes of old ones.
//!
//! | step | owner | kernel, by the driver's helper ([`super::operations`]) |
//! |---|---|---|
//! | turn | [`Tree::stage`] | mkdir `..N`, symlink `..data_tmp`, rename over `..data` commits |
//! | links | | symlink and unlink of names that came and went |
//! | grace time | [`Tree::follow`] again for what followed before | utimensat on its files |
//! | remove | [`Tree::retire`] | unlink and rmdir of `..N` and what is in it, or rename into `..sotto` if a subPath bind shows it |
//! | follow | [`Tree::follow`], then invalidate | utimensat on its files |
//!
//! Bounds: the values of at most [`MAX_GENERATIONS`] are kept, the oldest go early; the names of at most
//! [`MAX_REMEMBERED`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sotto_core::snapshot::{Generation, Inode, ROOT_INODE, Snapshot};

use super::Tree;
use super::error::StageError;
use super::layout::Layout;
use super::state::{Held, Place, Staged, State, Values};

/// Most generations whose values are kept, the current and the staged one included.
pub const MAX_GENERATIONS: usize = 8;
/// Most generations whose names are kept.
pub const MAX_REMEMBERED: usize = 64;

impl Tree {
    /// A volume that another agent served, and of which nothing is left but what it showed: opens that it granted
    /// are unknown, so these values stay until [`Self::wipe`] or until they are too many.
    #[must_use]
    pub fn over(shown: Arc<Snapshot>) -> Self {
        let tree = Self::new(shown);
        for held in tree.write().held.values_mut() {
            held.opens_known = false;
        }
        tree
    }

    /// A volume as a former server left it. `older` are generations whose values are still there; those
    /// of `followed` have names only and show `current`. Opens that the former server granted are
    /// unknown, so these values stay until [`Self::wipe`] or until they are too many.
    #[must_use]
    pub fn restore(
        current: Arc<Snapshot>,
        older: Vec<Arc<Snapshot>>,
        followed: Vec<Layout>,
    ) -> Self {
        let tree = Self::over(Arc::clone(&current));
        let mut state = tree.write();
        state.has_linked = true;
        for layout in followed {
            let (layout, values) = (Arc::new(layout), Values::Followed(Arc::clone(&current)));
            let (place, opens, opens_known) = (Place::Hidden, 0, false);
            let generation = layout.generation();
            let held = Held { layout, values, place, opens, opens_known };
            state.held.entry(generation).or_insert(held);
        }
        for snapshot in older {
            let held = Held { opens_known: false, ..Held::new(&snapshot) };
            state.held.entry(snapshot.generation()).or_insert(held);
        }
        drop(state);
        tree
    }

    /// The former server ended while the kernel turned from `before` to the current one: until the rename comes,
    /// once more or for the first time, or [`Self::settle`], whoever looks `..data` up is led to `before`.
    pub fn unsettle(&self, before: Generation) {
        self.write().unsettled = Some(before);
    }

    /// The kernel has turned to the current one for certain.
    pub fn settle(&self) {
        self.write().unsettled = None;
    }

    /// Layouts that [`Self::restore`] needs as `followed`.
    #[must_use]
    pub fn followed(&self) -> Vec<Arc<Layout>> {
        let state = self.read_state();
        let followed = state.held.values().filter(|it| matches!(it.values, Values::Followed(_)));
        followed.map(|held| Arc::clone(&held.layout)).collect()
    }

    /// Announces the next generation: from now on uid 0 may make its rotation. Staging the same
    /// generation again is fine. Returns what to invalidate because its values had to go early.
    ///
    /// # Errors
    /// It isn't newer, or another one is half turned to.
    pub fn stage(&self, next: Arc<Snapshot>) -> Result<Vec<Inode>, StageError> {
        let mut state = self.write();
        let generation = next.generation();
        if generation <= state.current.generation() {
            return Err(StageError::NotNewer(generation));
        }
        let (mut directory, mut link) = (false, false);
        if let Some(staged) = &state.staged {
            if staged.snapshot.generation() == generation {
                (directory, link) = (staged.directory, staged.link);
            } else if staged.link {
                return Err(StageError::Unfinished(staged.snapshot.generation()));
            }
        }
        state.staged = Some(Staged { snapshot: next, directory, link });
        Ok(state.make_room())
    }

    /// Announces that an old generation goes: from now on uid 0 may remove its directory or hide it.
    /// False if it is the current one or unknown.
    pub fn retire(&self, generation: Generation) -> bool {
        let mut state = self.write();
        if generation == state.current.generation() {
            return false;
        }
        let Some(held) = state.held.get_mut(&generation) else { return false };
        if held.place == Place::Shown {
            held.place = Place::Leaving;
        }
        true
    }

    /// Lets the inodes of a retired generation show the current one's files of the same paths, and wipes
    /// its own values. An open file then changes: call it after the grace time, and again after each
    /// later rotation's. Returns what to invalidate.
    pub fn follow(&self, generation: Generation) -> Vec<Inode> {
        let mut state = self.write();
        if generation == state.current.generation() {
            return Vec::new();
        }
        let current = Arc::clone(&state.current);
        let Some(held) = state.held.get_mut(&generation) else { return Vec::new() };
        held.values = Values::Followed(current);
        held.layout.inodes().collect()
    }

    /// Wipes the values of an old generation whether somebody has them open or not. Returns what to
    /// invalidate.
    pub fn wipe(&self, generation: Generation) -> Vec<Inode> {
        let mut state = self.write();
        if generation == state.current.generation() {
            return Vec::new();
        }
        let Some(held) = state.held.get_mut(&generation) else { return Vec::new() };
        let mut inodes: Vec<_> = held.layout.inodes().collect();
        if matches!(held.values, Values::Own(_)) {
            held.values = Values::Gone;
            if held.is_in_root() {
                // The kernel keeps its listing, in which the generation still is.
                inodes.push(ROOT_INODE);
            }
        }
        state.prune();
        inodes
    }

    /// Takes `snapshot` in place of the one with the same number and the same names: values that are
    /// refused were left out of it. The old one is wiped when its last user is done. False if there is
    /// no such generation, or its names differ.
    pub fn replace(&self, snapshot: &Arc<Snapshot>) -> bool {
        let mut state = self.write();
        let same = |old: &Snapshot| {
            old.generation() == snapshot.generation()
                && old
                    .nodes()
                    .iter()
                    .map(|it| &it.path)
                    .eq(snapshot.nodes().iter().map(|it| &it.path))
        };
        let mut replaced = false;
        for held in state.held.values_mut() {
            if let Values::Own(old) | Values::Followed(old) = &mut held.values
                && same(old)
            {
                *old = Arc::clone(snapshot);
                replaced = true;
            }
        }
        if same(&state.current) {
            state.current = Arc::clone(snapshot);
        }
        replaced
    }

    /// The generations that can be read by their own numbers, oldest first; the current one is the last.
    #[must_use]
    pub fn snapshots(&self) -> Vec<Arc<Snapshot>> {
        let state = self.read_state();
        let own = state.held.values().filter_map(|held| match &held.values {
            Values::Own(snapshot) => Some(Arc::clone(snapshot)),
            Values::Followed(_) | Values::Gone => None,
        });
        own.collect()
    }

    /// Generations whose values are in memory, oldest first.
    #[must_use]
    pub fn generations(&self) -> Vec<Generation> {
        self.read_state().numbers().into_iter().collect()
    }
}

impl State {
    /// The staged generation becomes the current one.
    pub(super) fn commit(&mut self) {
        self.unsettled = None;
        let Some(staged) = self.staged.take() else { return };
        let held = Held { opens_known: self.counts_opens, ..Held::new(&staged.snapshot) };
        self.held.insert(staged.snapshot.generation(), held);
        self.current = staged.snapshot;
        self.prune();
    }

    /// Drops what nobody can reach any more, and what is too much.
    pub(super) fn prune(&mut self) {
        let current = self.current.generation();
        self.held.retain(|generation, held| {
            let unused = match held.values {
                Values::Own(_) => held.opens == 0 && held.opens_known,
                Values::Followed(_) => false,
                Values::Gone => true,
            };
            *generation == current || held.place != Place::Removed || !unused
        });
        while self.held.len() > MAX_REMEMBERED {
            let Some(oldest) = self.held.keys().find(|it| **it != current).copied() else { break };
            self.held.remove(&oldest);
        }
        let held = &self.held;
        let is_known = |inode: &Inode| {
            let generation = inode.generation_and_index().map(|(generation, _)| generation);
            generation.is_some_and(|generation| held.contains_key(&generation))
        };
        self.touched.retain(|inode, _| is_known(inode));
        self.unlinked.retain(is_known);
    }

    /// Lets the oldest values go until there is room for a staged generation.
    fn make_room(&mut self) -> Vec<Inode> {
        let mut changed = Vec::new();
        loop {
            let numbers = self.numbers();
            let current = self.current.generation();
            let oldest = numbers.iter().find(|generation| **generation != current);
            let Some(oldest) = oldest.copied().filter(|_| numbers.len() >= MAX_GENERATIONS) else {
                break;
            };
            for held in self.held.values_mut() {
                let values = match &held.values {
                    Values::Own(snapshot) if snapshot.generation() == oldest => Values::Gone,
                    Values::Followed(to) if to.generation() == oldest => {
                        Values::Followed(Arc::clone(&self.current))
                    }
                    Values::Own(_) | Values::Followed(_) | Values::Gone => continue,
                };
                held.values = values;
                changed.extend(held.layout.inodes());
            }
        }
        self.prune();
        changed
    }

    fn numbers(&self) -> BTreeSet<Generation> {
        self.snapshots().iter().map(|snapshot| snapshot.generation()).collect()
    }
}

/// The links that a volume's root has when `snapshot` is current and nothing is half done.
pub(super) fn links_of(snapshot: &Snapshot) -> BTreeMap<String, Inode> {
    snapshot.links().iter().map(|link| (link.name.clone(), link.inode)).collect()
}
