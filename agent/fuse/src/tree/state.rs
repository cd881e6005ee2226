//! The generations of one volume, and what an inode number stands for among them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::SystemTime;

use sotto_core::snapshot::{
    DATA_LINK, Generation, HIDDEN_INODE, Inode, Node, NodeKind, ROOT_INODE, STATUS_INODE, Snapshot,
};

use super::error::TreeError;
use super::layout::Layout;
use super::revocation::{Refusal, Refusals};

/// Name of the hidden directory: not listed, but found by name.
pub const HIDDEN_NAME: &str = "..sotto";
/// Name of the volume's state in the hidden directory.
pub const STATUS_NAME: &str = "status.json";
/// Name under which a rotation makes the new `..data` before it renames it.
pub const NEW_DATA_LINK: &str = "..data_tmp";
const LONGEST_NAME: usize = 255;

/// Where a generation's directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// In the root.
    Shown,
    /// In the root, and may be removed or hidden.
    Leaving,
    /// In `..sotto`.
    Hidden,
    /// Nowhere; only who has it open sees it.
    Removed,
}

/// What the inodes of a generation show.
pub(super) enum Values {
    /// Its own values.
    Own(Arc<Snapshot>),
    /// The values of a newer generation, by path: a subPath bind still shows its files.
    Followed(Arc<Snapshot>),
    /// Nothing.
    Gone,
}

/// A generation that was committed.
pub(super) struct Held {
    pub(super) layout: Arc<Layout>,
    pub(super) values: Values,
    pub(super) place: Place,
    pub(super) opens: u64,
    /// False if a former server may have granted opens that this one doesn't know.
    pub(super) opens_known: bool,
}

impl Held {
    pub(super) fn new(snapshot: &Arc<Snapshot>) -> Self {
        Self {
            layout: Arc::new(Layout::of(snapshot)),
            values: Values::Own(Arc::clone(snapshot)),
            place: Place::Shown,
            opens: 0,
            opens_known: true,
        }
    }

    pub(super) fn is_in_root(&self) -> bool {
        matches!(self.place, Place::Shown | Place::Leaving)
    }
}

/// A complete generation whose rotation isn't committed.
pub(super) struct Staged {
    pub(super) snapshot: Arc<Snapshot>,
    /// `..N` was made.
    pub(super) directory: bool,
    /// `..data_tmp` was made.
    pub(super) link: bool,
}

/// Content of `..sotto/status.json`.
pub(super) struct Status {
    pub(super) bytes: Arc<[u8]>,
    pub(super) changed: SystemTime,
}

/// Everything that the tree knows.
pub(super) struct State {
    pub(super) current: Arc<Snapshot>,
    /// Has the current one.
    pub(super) held: BTreeMap<Generation, Held>,
    pub(super) staged: Option<Staged>,
    /// What `..data` is looked up as while nobody knows whether the kernel has turned to the current one. A name
    /// that is its own target already is not renamed, and no watcher hears of it.
    pub(super) unsettled: Option<Generation>,
    /// Whether `..data_tmp` can lead to a generation of this server's, or of one that it goes on for.
    pub(super) has_linked: bool,
    /// Names in the root that are links into `..data`.
    pub(super) links: BTreeMap<String, Inode>,
    pub(super) refusals: Refusals,
    pub(super) touched: BTreeMap<Inode, SystemTime>,
    /// Removed from their directories; who has them open sees them still.
    pub(super) unlinked: BTreeSet<Inode>,
    pub(super) status: Status,
    /// False if the kernel opens files by itself: then nobody knows what is open.
    pub(super) counts_opens: bool,
}

/// A node of some snapshot under the inode number by which it was asked for.
pub(super) struct Resolved {
    pub(super) inode: Inode,
    pub(super) snapshot: Arc<Snapshot>,
    index: usize,
    /// Whose inode numbers stand for this node's children, if not its snapshot's.
    pub(super) layout: Option<Arc<Layout>>,
    /// The name that led here leads elsewhere after the next rotation.
    pub(super) fleeting: bool,
}

impl Resolved {
    pub(super) fn node(&self) -> &Node {
        &self.snapshot.nodes()[self.index]
    }

    pub(super) fn is_directory(&self) -> bool {
        matches!(self.node().kind, NodeKind::Directory(_))
    }
}

/// What an inode number stands for.
pub(super) enum Target {
    Root,
    Hidden,
    Status,
    DataLink(Generation),
    Link(String),
    Node(Resolved),
}

impl State {
    pub(super) fn resolve(&self, inode: Inode) -> Result<Target, TreeError> {
        if inode == ROOT_INODE {
            return Ok(Target::Root);
        }
        if inode == HIDDEN_INODE {
            return Ok(Target::Hidden);
        }
        if inode == STATUS_INODE {
            return Ok(Target::Status);
        }
        if let Some(generation) = inode.data_link_generation() {
            let known = self.held.contains_key(&generation)
                || self.staged_as(|staged| staged.link) == Some(generation);
            return known.then_some(Target::DataLink(generation)).ok_or(TreeError::Stale);
        }
        if let Some((generation, index)) = inode.generation_and_index() {
            return self.resolve_node(inode, generation, index).map(Target::Node);
        }
        let mut links = self.links.iter();
        let link = links.find(|(_, number)| **number == inode).map(|(name, _)| name.clone());
        link.map(Target::Link).ok_or(TreeError::Stale)
    }

    fn resolve_node(
        &self,
        inode: Inode,
        generation: Generation,
        index: usize,
    ) -> Result<Resolved, TreeError> {
        let own = |snapshot: &Arc<Snapshot>| {
            let snapshot = Arc::clone(snapshot);
            let known = index < snapshot.nodes().len();
            let resolved = Resolved { inode, snapshot, index, layout: None, fleeting: false };
            known.then_some(resolved).ok_or(TreeError::Stale)
        };
        let Some(held) = self.held.get(&generation) else {
            let staged = self.staged.as_ref().filter(|it| it.snapshot.generation() == generation);
            return staged.map_or(Err(TreeError::Stale), |staged| own(&staged.snapshot));
        };
        match &held.values {
            Values::Own(snapshot) => own(snapshot),
            Values::Gone => Err(TreeError::Stale),
            Values::Followed(to) => {
                let path = held.layout.paths().get(index).ok_or(TreeError::Stale)?;
                let index = find(to, path).ok_or(TreeError::NotFound)?;
                let (snapshot, layout) = (Arc::clone(to), Some(Arc::clone(&held.layout)));
                Ok(Resolved { inode, snapshot, index, layout, fleeting: false })
            }
        }
    }

    pub(super) fn lookup(&self, parent: Inode, name: &str) -> Result<Target, TreeError> {
        if name.len() > LONGEST_NAME {
            return Err(TreeError::NameTooLong);
        }
        match self.resolve(parent)? {
            Target::Root => self.lookup_in_root(name),
            Target::Hidden if name == STATUS_NAME => Ok(Target::Status),
            Target::Hidden => {
                let hidden = generation_of(name)
                    .filter(|it| self.held.get(it).is_some_and(|it| it.place == Place::Hidden));
                self.directory_of(hidden.ok_or(TreeError::NotFound)?)
            }
            Target::Node(parent) => self.child(&parent, name).map(Target::Node),
            Target::Status | Target::DataLink(_) | Target::Link(_) => Err(TreeError::NotDirectory),
        }
    }

    fn lookup_in_root(&self, name: &str) -> Result<Target, TreeError> {
        if name == DATA_LINK {
            return Ok(self.data_link());
        }
        if name == HIDDEN_NAME {
            return Ok(Target::Hidden);
        }
        if name == NEW_DATA_LINK {
            let staged = self.staged_as(|staged| staged.link);
            return staged.map(Target::DataLink).ok_or(TreeError::NotFound);
        }
        if let Some(generation) = generation_of(name) {
            if self.directories_in_root().any(|shown| shown == generation) {
                return self.directory_of(generation);
            }
            return Err(TreeError::NotFound);
        }
        let known = self.links.contains_key(name);
        known.then(|| Target::Link(name.to_owned())).ok_or(TreeError::NotFound)
    }

    /// What `..data` is for who asks anew.
    pub(super) fn data_link(&self) -> Target {
        let is_there = |before: &Generation| self.held.get(before).is_some_and(Held::is_in_root);
        let before = self.unsettled.filter(is_there);
        Target::DataLink(before.unwrap_or_else(|| self.current.generation()))
    }

    fn directory_of(&self, generation: Generation) -> Result<Target, TreeError> {
        let directory = self.resolve_node(Inode::of_node(generation, 0), generation, 0);
        // Not "stale": a name whose generation went early leads nowhere.
        directory.map(Target::Node).map_err(|_| TreeError::NotFound)
    }

    pub(super) fn child(&self, parent: &Resolved, name: &str) -> Result<Resolved, TreeError> {
        if !parent.is_directory() {
            return Err(TreeError::NotDirectory);
        }
        let child = parent.snapshot.child(parent.node(), name).ok_or(TreeError::NotFound)?;
        if self.refusals.of(&child.path) == Some(Refusal::Gone) {
            return Err(TreeError::NotFound);
        }
        if parent.layout.is_none() && self.unlinked.contains(&child.inode) {
            return Err(TreeError::NotFound);
        }
        let (_, index) = child.inode.generation_and_index().ok_or(TreeError::NotFound)?;
        let snapshot = Arc::clone(&parent.snapshot);
        let Some(layout) = &parent.layout else {
            let (inode, layout) = (child.inode, None);
            return Ok(Resolved { inode, snapshot, index, layout, fleeting: false });
        };
        match (layout.inode_of(&child.path), &child.kind) {
            (Some(inode), _) => {
                let layout = Some(Arc::clone(layout));
                Ok(Resolved { inode, snapshot, index, layout, fleeting: false })
            }
            (None, NodeKind::File { .. }) => {
                let inode = child.inode;
                Ok(Resolved { inode, snapshot, index, layout: None, fleeting: true })
            }
            // A directory may have one name only: the newer generation's own.
            (None, NodeKind::Directory(_)) => Err(TreeError::NotFound),
        }
    }

    /// Generations whose directories are in the root.
    pub(super) fn directories_in_root(&self) -> impl Iterator<Item = Generation> + '_ {
        let held = self.held.iter().filter(|(_, held)| held.is_in_root()).map(|(at, _)| *at);
        held.chain(self.staged_as(|staged| staged.directory))
    }

    pub(super) fn staged_as(&self, is: impl Fn(&Staged) -> bool) -> Option<Generation> {
        self.staged.as_ref().filter(|staged| is(staged)).map(|it| it.snapshot.generation())
    }

    /// Every snapshot whose values can be reached, each once.
    pub(super) fn snapshots(&self) -> Vec<Arc<Snapshot>> {
        let mut seen = BTreeSet::new();
        let of = |held: &Held| match &held.values {
            Values::Own(snapshot) | Values::Followed(snapshot) => Some(Arc::clone(snapshot)),
            Values::Gone => None,
        };
        let all = self.held.values().filter_map(of);
        all.filter(|snapshot| seen.insert(snapshot.generation())).collect()
    }
}

/// The generation whose directory has this name.
pub(super) fn generation_of(name: &str) -> Option<Generation> {
    let number = name.strip_prefix("..")?;
    let generation = Generation::new(number.parse().ok()?)?;
    // Neither "..+1" nor "..01".
    (generation.directory_name() == name).then_some(generation)
}

fn find(snapshot: &Snapshot, path: &str) -> Option<usize> {
    let mut node = snapshot.nodes().first()?;
    for name in path.split('/').filter(|name| !name.is_empty()) {
        node = snapshot.child(node, name)?;
    }
    node.inode.generation_and_index().map(|(_, index)| index)
}
