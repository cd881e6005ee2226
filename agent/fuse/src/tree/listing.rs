//! What a directory lists, in an order that a rotation between two requests doesn't disturb.
//!
//! The cookie of an entry depends on the entry alone; a listing goes on at the first cookie above the
//! last one, so an entry that neither came nor went is listed exactly once.

use sotto_core::snapshot::{DATA_LINK, HIDDEN_INODE, Inode, NodeKind, ROOT_INODE};

use super::Tree;
use super::attributes::Attributes;
use super::error::TreeError;
use super::state::{NEW_DATA_LINK, Place, Resolved, STATUS_NAME, State, Target};

/// One entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where the next request goes on: above 0, growing, below 2^63.
    pub cookie: u64,
    /// Its name.
    pub name: String,
    /// What it is.
    pub attributes: Attributes,
}

const SELF_COOKIE: u64 = 1;
const PARENT_COOKIE: u64 = 2;
const FIRST_COOKIE: u64 = 3;
/// Above every generation's directory (56 bits).
const LINK_COOKIE: u64 = 1 << 62;
/// Above every index of a generation's nodes (16 bits).
const NEWER_COOKIE: u64 = 1 << 20;

impl Tree {
    /// The entries of directory `inode` whose cookies are above `after`; `.` and `..` are the first two.
    ///
    /// # Errors
    /// Not a directory, or one that is gone.
    pub fn list(&self, inode: Inode, after: u64) -> Result<Vec<Entry>, TreeError> {
        let state = self.read_state();
        let directory = state.resolve(inode)?;
        let parent = state.parent_of(&directory);
        let mut entries = match &directory {
            Target::Root => state.list_root(),
            Target::Hidden => vec![state.entry(FIRST_COOKIE, STATUS_NAME, &Target::Status)],
            Target::Node(node) if node.is_directory() => state.list_node(node),
            Target::Node(_) | Target::Status | Target::DataLink(_) | Target::Link(_) => {
                return Err(TreeError::NotDirectory);
            }
        };
        entries.push(state.entry(SELF_COOKIE, ".", &directory));
        let parent = state.resolve(parent).unwrap_or(Target::Root);
        entries.push(state.entry(PARENT_COOKIE, "..", &parent));
        entries.retain(|entry| entry.cookie > after);
        entries.sort_by_key(|entry| entry.cookie);
        Ok(entries)
    }
}

impl State {
    fn entry(&self, cookie: u64, name: &str, target: &Target) -> Entry {
        Entry { cookie, name: name.to_owned(), attributes: self.attributes(target) }
    }

    fn list_root(&self) -> Vec<Entry> {
        let mut entries = vec![self.entry(FIRST_COOKIE, DATA_LINK, &self.data_link())];
        if let Some(generation) = self.staged_as(|staged| staged.link) {
            let target = Target::DataLink(generation);
            entries.push(self.entry(FIRST_COOKIE + 1, NEW_DATA_LINK, &target));
        }
        for generation in self.directories_in_root() {
            let inode = Inode::of_node(generation, 0);
            // A directory whose values went early can't be opened any more.
            if let Ok(directory) = self.resolve(inode) {
                entries.push(self.entry(inode.0, &generation.directory_name(), &directory));
            }
        }
        for (name, inode) in &self.links {
            let cookie = LINK_COOKIE | (inode.0 & !(1 << 63)) >> 2;
            entries.push(self.entry(cookie, name, &Target::Link(name.clone())));
        }
        entries
    }

    fn list_node(&self, directory: &Resolved) -> Vec<Entry> {
        let NodeKind::Directory(children) = &directory.node().kind else { return Vec::new() };
        let nodes = directory.snapshot.nodes();
        let child = |index: &usize| {
            let name = &nodes.get(*index)?.name;
            // What is refused as absent isn't listed either.
            let child = self.child(directory, name).ok()?;
            let (_, position) = child.inode.generation_and_index()?;
            let newer = if child.fleeting { NEWER_COOKIE } else { 0 };
            let cookie = FIRST_COOKIE + newer + position as u64;
            Some(self.entry(cookie, name, &Target::Node(child)))
        };
        children.iter().filter_map(child).collect()
    }

    fn parent_of(&self, directory: &Target) -> Inode {
        let Target::Node(node) = directory else { return ROOT_INODE };
        let Some((generation, index)) = node.inode.generation_and_index() else {
            return ROOT_INODE;
        };
        if index == 0 {
            let held = self.held.get(&generation);
            let is_hidden = held.is_some_and(|held| held.place == Place::Hidden);
            return if is_hidden { HIDDEN_INODE } else { ROOT_INODE };
        }
        let parent = &node.snapshot.nodes()[node.node().parent];
        let inode = match &node.layout {
            Some(layout) => layout.inode_of(&parent.path),
            None => Some(parent.inode),
        };
        inode.unwrap_or(ROOT_INODE)
    }
}
