//! The kernel's half of a rotation: real VFS operations, so that inotify reports what it would on tmpfs.
//!
//! Invariant: everything is refused as on a read-only file system, but what the owner announced
//! ([`super::rotation`]) and uid 0 does. Each operation may come again after a take-over (the kernel
//! resends it), so what is done already succeeds.

use std::time::SystemTime;

use sotto_core::snapshot::{DATA_LINK, Generation, HIDDEN_INODE, Inode, ROOT_INODE};

use super::Tree;
use super::attributes::{Attributes, Kind};
use super::error::TreeError;
use super::state::{NEW_DATA_LINK, Place, State, Target, Values, generation_of};

/// Who asks, as far as it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// `None` where the kernel doesn't tell: on an id-mapped mount most operations come without. The
    /// pod's view of the mount is read-only in any case.
    pub uid: Option<u32>,
}

impl Caller {
    fn may_rotate(self) -> Result<(), TreeError> {
        match self.uid {
            Some(0) | None => Ok(()),
            Some(_) => Err(TreeError::ReadOnly),
        }
    }
}

impl Tree {
    /// mkdir: the directory of the staged generation.
    ///
    /// # Errors
    /// Read-only for anything else.
    pub fn make_directory(
        &self,
        caller: Caller,
        parent: Inode,
        name: &str,
    ) -> Result<Attributes, TreeError> {
        let mut state = self.rotating(caller, parent)?;
        let generation = generation_of(name).ok_or(TreeError::ReadOnly)?;
        if let Some(staged) = &mut state.staged
            && staged.snapshot.generation() == generation
        {
            staged.directory = true;
        } else if generation != state.current.generation() {
            return Err(TreeError::ReadOnly);
        }
        let directory = state.lookup(ROOT_INODE, name)?;
        Ok(state.attributes(&directory))
    }

    /// symlink: `..data_tmp` to the staged generation, or a name that it has.
    ///
    /// # Errors
    /// Read-only for anything else.
    pub fn make_link(
        &self,
        caller: Caller,
        parent: Inode,
        name: &str,
        target: &str,
    ) -> Result<Attributes, TreeError> {
        let mut state = self.rotating(caller, parent)?;
        if name == NEW_DATA_LINK {
            let generation = generation_of(target).ok_or(TreeError::ReadOnly)?;
            return state.make_data_link(generation);
        }
        let current = &state.current;
        let link = current.links().iter().find(|link| link.name == name);
        let expected = format!("{DATA_LINK}/{name}");
        let link = link.filter(|_| target == expected).ok_or(TreeError::ReadOnly)?.clone();
        state.links.insert(link.name.clone(), link.inode);
        Ok(state.attributes(&Target::Link(link.name)))
    }

    /// rename: `..data_tmp` over `..data` commits the staged generation; `..N` into `..sotto` hides a
    /// retired one.
    ///
    /// # Errors
    /// Read-only for anything else.
    pub fn rename(
        &self,
        caller: Caller,
        from: (Inode, &str),
        to: (Inode, &str),
    ) -> Result<(), TreeError> {
        let mut state = self.rotating(caller, from.0)?;
        if (from.1, to) == (NEW_DATA_LINK, (ROOT_INODE, DATA_LINK)) {
            // Resent to a server that has nothing of the one that was killed: what the name leads to is gone.
            // The kernel then looks both names up again.
            if !state.has_linked {
                return Err(TreeError::NotFound);
            }
            // With nothing staged it is the resent request of a commit that is done.
            state.commit();
            return Ok(());
        }
        let generation = generation_of(from.1).ok_or(TreeError::ReadOnly)?;
        if to != (HIDDEN_INODE, from.1) {
            return Err(TreeError::ReadOnly);
        }
        let held = state.held.get_mut(&generation).ok_or(TreeError::NotFound)?;
        match held.place {
            Place::Leaving | Place::Hidden => held.place = Place::Hidden,
            Place::Shown => return Err(TreeError::ReadOnly),
            Place::Removed => return Err(TreeError::NotFound),
        }
        Ok(())
    }

    /// unlink: a name that the current generation doesn't have any more, or a file of a retired one.
    ///
    /// # Errors
    /// Read-only for anything else.
    pub fn remove_link(&self, caller: Caller, parent: Inode, name: &str) -> Result<(), TreeError> {
        if parent != ROOT_INODE {
            return self.remove_beneath(caller, parent, name, Kind::File);
        }
        let mut state = self.rotating(caller, parent)?;
        let is_current = state.current.links().iter().any(|link| link.name == name);
        if is_current || name.starts_with("..") {
            return Err(TreeError::ReadOnly);
        }
        state.links.remove(name);
        Ok(())
    }

    /// rmdir: the directory of a retired generation, or one beneath it. The generation's values go with
    /// its own directory, once nobody has a file of it open.
    ///
    /// # Errors
    /// Read-only for anything else.
    pub fn remove_directory(
        &self,
        caller: Caller,
        parent: Inode,
        name: &str,
    ) -> Result<(), TreeError> {
        if parent != ROOT_INODE {
            return self.remove_beneath(caller, parent, name, Kind::Directory);
        }
        let mut state = self.rotating(caller, parent)?;
        let generation = generation_of(name).ok_or(TreeError::ReadOnly)?;
        let current = state.current.generation();
        match state.held.get_mut(&generation) {
            Some(held) if held.place == Place::Shown => return Err(TreeError::ReadOnly),
            Some(held) if held.place == Place::Leaving => held.place = Place::Removed,
            // Hidden, removed, or older than anything remembered: done already.
            Some(_) => {}
            None if generation < current => {}
            None => return Err(TreeError::ReadOnly),
        }
        state.prune();
        Ok(())
    }

    /// utimensat with an mtime alone, on a file that follows a newer generation: its watchers are told.
    ///
    /// # Errors
    /// Read-only for anything else.
    pub fn touch(
        &self,
        caller: Caller,
        inode: Inode,
        modified: SystemTime,
    ) -> Result<Attributes, TreeError> {
        caller.may_rotate()?;
        let mut state = self.write();
        let generation = inode.generation_and_index().map(|(generation, _)| generation);
        let held = generation.and_then(|generation| state.held.get(&generation));
        if !held.is_some_and(|held| matches!(held.values, Values::Followed(_))) {
            return Err(TreeError::ReadOnly);
        }
        let target = state.resolve(inode)?;
        state.touched.insert(inode, modified);
        Ok(state.attributes(&target))
    }

    /// A name in a retired generation: without it, watchers of a file would not learn that it is gone.
    fn remove_beneath(
        &self,
        caller: Caller,
        parent: Inode,
        name: &str,
        kind: Kind,
    ) -> Result<(), TreeError> {
        caller.may_rotate()?;
        let mut state = self.write();
        let generation = parent.generation_and_index().map(|(generation, _)| generation);
        let held = generation.and_then(|generation| state.held.get(&generation));
        if !held.is_some_and(|held| matches!(held.place, Place::Leaving | Place::Removed)) {
            return Err(TreeError::ReadOnly);
        }
        match state.lookup(parent, name) {
            Ok(child) => {
                let child = state.attributes(&child);
                if child.kind != kind {
                    return Err(TreeError::ReadOnly);
                }
                state.unlinked.insert(child.inode);
                Ok(())
            }
            // Done already.
            Err(TreeError::NotFound | TreeError::Stale) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn rotating(
        &self,
        caller: Caller,
        parent: Inode,
    ) -> Result<std::sync::RwLockWriteGuard<'_, State>, TreeError> {
        caller.may_rotate()?;
        if parent == ROOT_INODE { Ok(self.write()) } else { Err(TreeError::ReadOnly) }
    }
}

impl State {
    fn make_data_link(&mut self, generation: Generation) -> Result<Attributes, TreeError> {
        if let Some(staged) = &mut self.staged
            && staged.snapshot.generation() == generation
        {
            staged.link = true;
        } else if generation != self.current.generation() {
            return Err(TreeError::ReadOnly);
        }
        self.has_linked = true;
        Ok(self.attributes(&Target::DataLink(generation)))
    }
}
