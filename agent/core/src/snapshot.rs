//! One complete generation of a volume's secrets: immutable, packed in one piece of memory.
//!
//! Invariant: a snapshot exists only if every object of it was fetched; it never changes; the same set
//! of names and the same generation number always give the same inode numbers, so that an agent that
//! takes a mount over resolves what its predecessor handed out.
//!
//! Layout, as in every Kubernetes volume: `name -> ..data/name`, `..data -> ..<generation>`, and the
//! files beneath `..<generation>`. A snapshot holds the last; [`Snapshot::links`] names the first.

mod builder;
mod inode;
mod memory;

use std::num::NonZeroU64;
use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

pub use builder::{FileMode, Object, SnapshotBuilder, SnapshotError};
pub use inode::{HIDDEN_INODE, Inode, ROOT_INODE, STATUS_INODE};
pub use memory::{HeapMemory, SecretMemory, SecretMemorySource};

/// Name of the symbolic link that makes a rotation atomic.
pub const DATA_LINK: &str = "..data";

/// The number of a generation: 1 for the first, never used twice in a volume's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(NonZeroU64);

impl Generation {
    /// The first one of a volume.
    pub const FIRST: Self = Self(NonZeroU64::MIN);
    /// The last one whose inode numbers are unambiguous.
    pub const MAX: u64 = (1 << 40) - 1;

    /// `None` for 0 and for numbers above [`Self::MAX`].
    #[must_use]
    pub fn new(number: u64) -> Option<Self> {
        if number > Self::MAX { None } else { NonZeroU64::new(number).map(Self) }
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0.get()
    }

    /// Name of the directory that holds this generation's files, e.g. `..1`.
    #[must_use]
    pub fn directory_name(self) -> String {
        format!("..{}", self.0)
    }
}

/// What a node of a generation's tree is.
#[derive(Debug, PartialEq, Eq)]
pub enum NodeKind {
    /// A directory; its children as indexes into [`Snapshot::nodes`], sorted by name.
    Directory(Vec<usize>),
    /// A regular file.
    File {
        /// Permission bits.
        mode: FileMode,
        /// Where its content lies in the packed memory.
        content: Range<usize>,
    },
}

/// One directory or file of a generation.
#[derive(Debug, PartialEq, Eq)]
pub struct Node {
    /// Its inode number, unique in the volume's life.
    pub inode: Inode,
    /// Index of the parent; the generation's directory (index 0) is its own.
    pub parent: usize,
    /// Last component of its name; empty for index 0.
    pub name: String,
    /// Path relative to the generation's directory; empty for index 0.
    pub path: Arc<str>,
    /// Directory or file.
    pub kind: NodeKind,
}

/// A symbolic link in the volume's root, `name -> ..data/name`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its inode number, the same in every generation.
    pub inode: Inode,
    /// Its name: the first component of one or more objects' paths.
    pub name: String,
}

/// What was fetched for one object, for `SecretProviderClassPodStatus` and comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectVersion {
    /// The object's name.
    pub id: String,
    /// The store's version of it.
    pub version: String,
}

/// One generation.
pub struct Snapshot {
    generation: Generation,
    created: SystemTime,
    group: u32,
    nodes: Vec<Node>,
    links: Vec<Link>,
    versions: Vec<ObjectVersion>,
    memory: Box<dyn SecretMemory>,
}

impl Snapshot {
    /// Its number.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// When it was built: the mtime of all its files.
    #[must_use]
    pub fn created(&self) -> SystemTime {
        self.created
    }

    /// Group that owns its files: the pod's fsGroup, or 0.
    #[must_use]
    pub fn group(&self) -> u32 {
        self.group
    }

    /// The tree; index 0 is the generation's directory.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The root's symbolic links, sorted by name.
    #[must_use]
    pub fn links(&self) -> &[Link] {
        &self.links
    }

    /// The objects with their versions, sorted by id.
    #[must_use]
    pub fn versions(&self) -> &[ObjectVersion] {
        &self.versions
    }

    /// The node with this inode number, if this generation has it.
    #[must_use]
    pub fn node(&self, inode: Inode) -> Option<&Node> {
        let (generation, index) = inode.generation_and_index()?;
        (generation == self.generation).then(|| self.nodes.get(index)).flatten()
    }

    /// The child `name` of directory `parent`.
    #[must_use]
    pub fn child(&self, parent: &Node, name: &str) -> Option<&Node> {
        let NodeKind::Directory(children) = &parent.kind else { return None };
        let found =
            children.binary_search_by(|index| self.nodes[*index].name.as_str().cmp(name)).ok()?;
        self.nodes.get(children[found])
    }

    /// A file's content; `None` for a directory.
    #[must_use]
    pub fn expose_content(&self, node: &Node) -> Option<&[u8]> {
        match &node.kind {
            NodeKind::File { content, .. } => self.memory.expose().get(content.clone()),
            NodeKind::Directory(_) => None,
        }
    }

    /// Whether the values lie in memory that is never swapped out.
    #[must_use]
    pub fn is_locked(&self) -> bool {
        self.memory.is_locked()
    }
}
