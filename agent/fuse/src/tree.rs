//! The file system's logic over snapshots, without FUSE types, so that it is tested without a mount.
//!
//! ```text
//! /            name -> ..data/name     ..data -> ..<generation>     ..<generation>/name
//! /..sotto     not listed: status.json, and retired generations that a subPath bind still shows
//! ```
//!
//! Invariants: an inode number means the same for every server of the volume (it depends on generation,
//! position and name only); a file handle carries no state; what an inode shows changes only by
//! [`Tree::follow`], by a refusal, or when its generation goes. Nothing here waits for anything but its
//! own short lock. The dispatcher calls the reading half and the kernel's half of a rotation
//! ([`operations`]), the volume's owner the rest ([`rotation`], [`revocation`]).

pub mod attributes;
mod error;
mod layout;
pub mod listing;
pub mod operations;
pub mod revocation;
pub mod rotation;
mod state;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::SystemTime;

use sotto_core::snapshot::{DATA_LINK, Generation, Inode, Snapshot};

use attributes::Attributes;
pub use error::{StageError, TreeError};
pub use layout::Layout;
pub use revocation::Refusal;
use revocation::Refusals;
pub use state::{HIDDEN_NAME, NEW_DATA_LINK, STATUS_NAME};
use state::{Held, Place, Resolved, State, Status, Target, Values};

/// One volume: all its generations, and what is refused.
pub struct Tree {
    state: RwLock<State>,
}

/// What an open means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    /// Path and generation of the object; `None` for what is no object.
    pub object: Option<(Arc<str>, Generation)>,
    /// Whether it is granted, and how.
    pub result: Result<OpenMode, TreeError>,
}

/// How an opened file is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// Through the kernel's cache: the content changes only when the kernel is told.
    Cached,
    /// Past it.
    Direct,
}

/// Numbers for `statfs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Sum of the current generation's values.
    pub bytes: u64,
    /// Directories and files of the current generation.
    pub files: u64,
}

impl Tree {
    /// A volume with its first generation.
    #[must_use]
    pub fn new(first: Arc<Snapshot>) -> Self {
        let generation = first.generation();
        let links = rotation::links_of(&first);
        let status = Status { bytes: Arc::from([]), changed: first.created() };
        Self {
            state: RwLock::new(State {
                held: BTreeMap::from([(generation, Held::new(&first))]),
                current: first,
                staged: None,
                unsettled: None,
                has_linked: false,
                links,
                refusals: Refusals::default(),
                touched: BTreeMap::new(),
                unlinked: BTreeSet::new(),
                status,
                counts_opens: true,
            }),
        }
    }

    /// The generation that `..data` points to.
    #[must_use]
    pub fn current(&self) -> Arc<Snapshot> {
        Arc::clone(&self.read_state().current)
    }

    /// The content of `..sotto/status.json`.
    #[must_use]
    pub fn status(&self) -> Arc<[u8]> {
        Arc::clone(&self.read_state().status.bytes)
    }

    /// Replaces the content of `..sotto/status.json`, which must hold no value.
    pub fn set_status(&self, bytes: Vec<u8>, now: SystemTime) {
        self.write().status = Status { bytes: bytes.into(), changed: now };
    }

    /// The child `name` of directory `parent`.
    ///
    /// # Errors
    /// There is none.
    pub fn lookup(&self, parent: Inode, name: &str) -> Result<Attributes, TreeError> {
        let state = self.read_state();
        let target = state.lookup(parent, name)?;
        Ok(state.attributes(&target))
    }

    /// What `stat` says.
    ///
    /// # Errors
    /// The inode's generation is gone, or its object is refused as absent.
    pub fn attributes(&self, inode: Inode) -> Result<Attributes, TreeError> {
        let state = self.read_state();
        let target = state.resolve(inode)?;
        if let Target::Node(node) = &target
            && state.refusals.of(&node.node().path) == Some(Refusal::Gone)
        {
            return Err(TreeError::NotFound);
        }
        Ok(state.attributes(&target))
    }

    /// A symbolic link's target; it never changes for one inode.
    ///
    /// # Errors
    /// Not a link.
    pub fn read_link(&self, inode: Inode) -> Result<String, TreeError> {
        match self.read_state().resolve(inode)? {
            Target::DataLink(generation) => Ok(generation.directory_name()),
            Target::Link(name) => Ok(format!("{DATA_LINK}/{name}")),
            Target::Root | Target::Hidden | Target::Status | Target::Node(_) => {
                Err(TreeError::NotLink)
            }
        }
    }

    /// From now on the kernel opens files by itself: each generation may be open.
    pub fn expect_no_opens(&self) {
        let mut state = self.write();
        state.counts_opens = false;
        state.held.values_mut().for_each(|held| held.opens_known = false);
    }

    /// Opens a file. A granted open of an object must be ended by [`Self::release`].
    #[must_use]
    pub fn open(&self, inode: Inode, to_write: bool) -> Open {
        let mut state = self.write();
        let node = match state.resolve(inode) {
            Ok(Target::Node(node)) if !node.is_directory() => node,
            Ok(Target::Status) if !to_write => {
                return Open { object: None, result: Ok(OpenMode::Direct) };
            }
            Ok(Target::Status) => return Open { object: None, result: Err(TreeError::ReadOnly) },
            Ok(Target::Root | Target::Hidden | Target::Node(_)) => {
                return Open { object: None, result: Err(TreeError::IsDirectory) };
            }
            // The kernel follows links by itself.
            Ok(Target::DataLink(_) | Target::Link(_)) => {
                return Open { object: None, result: Err(TreeError::NotFound) };
            }
            Err(error) => return Open { object: None, result: Err(error) },
        };
        let object = Some((Arc::clone(&node.node().path), node.snapshot.generation()));
        if to_write {
            return Open { object, result: Err(TreeError::ReadOnly) };
        }
        if let Err(error) = state.check_readable(&node) {
            return Open { object, result: Err(error) };
        }
        state.count_open(inode, 1);
        Open { object, result: Ok(OpenMode::Cached) }
    }

    /// The end of an open that this tree granted. Frees the values of a removed generation with the last.
    pub fn release(&self, inode: Inode) {
        let mut state = self.write();
        state.count_open(inode, -1);
        if state.waits_for_its_readers(inode) {
            state.prune();
        }
    }

    /// Calls `take` with at most `size` bytes of a file's content from `offset` on: none at its end.
    ///
    /// # Errors
    /// The generation is gone, or the object is refused.
    pub fn read<R>(
        &self,
        inode: Inode,
        offset: u64,
        size: u32,
        take: impl FnOnce(&[u8]) -> R,
    ) -> Result<R, TreeError> {
        let (node, status) = {
            let state = self.read_state();
            match state.resolve(inode)? {
                Target::Node(node) => {
                    state.check_readable(&node)?;
                    (Some(node), Arc::from([]))
                }
                Target::Status => (None, Arc::clone(&state.status.bytes)),
                Target::Root | Target::Hidden => return Err(TreeError::IsDirectory),
                Target::DataLink(_) | Target::Link(_) => return Err(TreeError::NotFound),
            }
        };
        let content: &[u8] = match &node {
            Some(node) => {
                node.snapshot.expose_content(node.node()).ok_or(TreeError::IsDirectory)?
            }
            None => &status,
        };
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(content.len());
        let end = start.saturating_add(size as usize).min(content.len());
        Ok(take(&content[start..end]))
    }

    /// Whether `access(2)` with the intention to write, or without, is granted: modes are the kernel's.
    ///
    /// # Errors
    /// Nobody may write.
    pub fn access(&self, inode: Inode, to_write: bool) -> Result<(), TreeError> {
        self.attributes(inode)?;
        if to_write { Err(TreeError::ReadOnly) } else { Ok(()) }
    }

    /// How much there is.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let current = self.current();
        let contents = current.nodes().iter().filter_map(|node| current.expose_content(node));
        let bytes = contents.map(|content| content.len() as u64).sum();
        Usage { bytes, files: current.nodes().len() as u64 }
    }

    // A panic while the lock was held left the state as it was: each change is a plain insertion or
    // removal. Serving on is better than failing every read of the volume.
    fn read_state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn check_readable(&self, node: &Resolved) -> Result<(), TreeError> {
        match self.refusals.of(&node.node().path) {
            Some(refusal) => Err(refusal.error()),
            None => Ok(()),
        }
    }

    /// Whether the inode's generation goes with the last open file of it.
    fn waits_for_its_readers(&self, inode: Inode) -> bool {
        let generation = inode.generation_and_index().map(|(generation, _)| generation);
        let held = generation.and_then(|generation| self.held.get(&generation));
        held.is_some_and(|held| held.place == Place::Removed)
    }

    fn count_open(&mut self, inode: Inode, by: i64) {
        let Some((generation, _)) = inode.generation_and_index() else { return };
        if let Some(held) = self.held.get_mut(&generation)
            && matches!(held.values, Values::Own(_))
        {
            held.opens = held.opens.saturating_add_signed(by);
        }
    }
}

#[cfg(test)]
mod tests;
