//! Objects that must not be read any more, by path and in every generation.
//!
//! The owner's order is refuse, invalidate what is returned, wipe ([`Tree::replace`]): without the
//! invalidation an open file and a mapping still show what the kernel has cached.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sotto_core::names::ObjectPath;
use sotto_core::snapshot::{Inode, NodeKind, Snapshot};

use super::Tree;
use super::error::TreeError;
use super::state::State;

/// How a refused object looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It is there, and opening or reading it fails with EACCES.
    Denied,
    /// It isn't there: ENOENT.
    Gone,
}

impl Refusal {
    pub(super) fn error(self) -> TreeError {
        match self {
            Self::Denied => TreeError::Denied,
            Self::Gone => TreeError::NotFound,
        }
    }
}

/// What is refused now.
#[derive(Default)]
pub(super) struct Refusals {
    closed: bool,
    objects: BTreeMap<String, Refusal>,
    /// Sizes from before the values were wiped. With a size of 0 the kernel would answer reads of an open
    /// file with "end of file" by itself, instead of asking and getting the refusal.
    sizes: BTreeMap<Arc<str>, u64>,
}

impl Refusals {
    pub(super) fn of(&self, path: &str) -> Option<Refusal> {
        self.objects.get(path).copied().or(self.closed.then_some(Refusal::Denied))
    }

    pub(super) fn size(&self, path: &str, actual: u64) -> u64 {
        match self.of(path) {
            Some(_) => actual.max(self.sizes.get(path).copied().unwrap_or(0)).max(1),
            None => actual,
        }
    }

    fn remember_sizes(&mut self, snapshot: &Snapshot, which: impl Fn(&str) -> bool) {
        for node in snapshot.nodes().iter().filter(|node| which(&node.path)) {
            if let NodeKind::File { content, .. } = &node.kind {
                let size = self.sizes.entry(Arc::clone(&node.path)).or_default();
                *size = (*size).max(content.len() as u64);
            }
        }
    }

    fn forget_sizes(&mut self) {
        if !self.closed {
            let objects = &self.objects;
            self.sizes.retain(|path, _| objects.contains_key(&**path));
        }
    }
}

impl Tree {
    /// Refuses the object at `path` in all generations. Returns what to invalidate.
    pub fn refuse(&self, path: &ObjectPath, how: Refusal) -> Vec<Inode> {
        let mut state = self.write();
        for snapshot in state.snapshots() {
            state.refusals.remember_sizes(&snapshot, |known| known == path.as_str());
        }
        state.refusals.objects.insert(path.as_str().to_owned(), how);
        state.inodes_of(path.as_str())
    }

    /// The object at `path` is readable again. Returns what to invalidate.
    pub fn heal(&self, path: &ObjectPath) -> Vec<Inode> {
        let mut state = self.write();
        state.refusals.objects.remove(path.as_str());
        state.refusals.forget_sizes();
        state.inodes_of(path.as_str())
    }

    /// Refuses every object. Returns what to invalidate.
    pub fn close(&self) -> Vec<Inode> {
        let mut state = self.write();
        for snapshot in state.snapshots() {
            state.refusals.remember_sizes(&snapshot, |_| true);
        }
        state.refusals.closed = true;
        state.all_inodes()
    }

    /// Ends [`Self::close`]; what [`Self::refuse`] refused stays so. Returns what to invalidate.
    pub fn reopen(&self) -> Vec<Inode> {
        let mut state = self.write();
        state.refusals.closed = false;
        state.refusals.forget_sizes();
        state.all_inodes()
    }
}

impl State {
    fn inodes_of(&self, path: &str) -> Vec<Inode> {
        // The directory too: the kernel keeps listings.
        let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
        let of = |held: &super::state::Held| [parent, path].map(|path| held.layout.inode_of(path));
        let inodes: BTreeSet<Inode> = self.held.values().flat_map(of).flatten().collect();
        inodes.into_iter().collect()
    }

    fn all_inodes(&self) -> Vec<Inode> {
        self.held.values().flat_map(|held| held.layout.inodes()).collect()
    }
}
