//! Builds a snapshot from fetched objects, or says which object can't be in it.

use std::collections::{BTreeMap, btree_map::Entry};
use std::time::SystemTime;

use super::{Generation, Inode, Link, Node, NodeKind, ObjectVersion, SecretMemorySource, Snapshot};
use crate::limits::Limits;
use crate::names::ObjectPath;
use crate::secret::SecretBytes;

/// Permission bits of a file, without set-id and sticky bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileMode(u16);

impl FileMode {
    /// `None` if bits other than `0o777` are set.
    #[must_use]
    pub fn new(bits: u32) -> Option<Self> {
        u16::try_from(bits).ok().filter(|bits| *bits <= 0o777).map(Self)
    }

    /// What a file gets whose object names no mode: 0440 where an fsGroup owns it, else 0444.
    #[must_use]
    pub fn default_for(fs_group: Option<u32>) -> Self {
        Self(if fs_group.is_some() { 0o440 } else { 0o444 })
    }

    /// The bits.
    #[must_use]
    pub fn bits(self) -> u16 {
        self.0
    }
}

/// One fetched object.
pub struct Object {
    /// Its file.
    pub path: ObjectPath,
    /// Its permission bits, where the class names them.
    pub mode: Option<FileMode>,
    /// The store's version of it.
    pub version: String,
    /// Its value.
    pub value: SecretBytes,
}

/// Why objects can't be a volume. Indexes count from 0, as in the class's `objects`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// No objects.
    #[error("the volume has no objects: list at least one")]
    Empty,
    /// Over [`Limits::objects`].
    #[error("the volume has {count} objects: at most {limit}")]
    TooManyObjects {
        /// How many there are.
        count: usize,
        /// How many there may be.
        limit: usize,
    },
    /// Two objects with one name.
    #[error("object {index} ({name}) has the same name as object {first}: give each its own")]
    Duplicate {
        /// The later object.
        index: usize,
        /// The earlier one.
        first: usize,
        /// The name.
        name: String,
    },
    /// A name that is a file for one object and a directory for another.
    #[error(
        "object {index} ({name}) needs {conflict:?} both as a file and as a directory: rename one"
    )]
    FileIsDirectory {
        /// The later object.
        index: usize,
        /// Its name.
        name: String,
        /// The path in conflict.
        conflict: String,
    },
    /// Over [`Limits::object_bytes`].
    #[error("object {index} ({name}) has {bytes} bytes: at most {limit}")]
    ObjectTooLarge {
        /// Which object.
        index: usize,
        /// Its name.
        name: String,
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// Over [`Limits::volume_bytes`].
    #[error("the volume's objects have {bytes} bytes in all: at most {limit}")]
    VolumeTooLarge {
        /// The sum.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// Two names in the root with one inode number.
    #[error("object names {0:?} and {1:?} can't be in one volume: rename one")]
    InodeCollision(String, String),
    /// More directories and files than a generation can number.
    #[error(
        "the volume needs {0} files and directories: at most 65536; nest the names less deeply"
    )]
    TooManyNodes(usize),
}

/// Collects objects in the class's order and checks them against the limits.
pub struct SnapshotBuilder {
    limits: Limits,
    objects: Vec<Object>,
    bytes: usize,
    may_be_empty: bool,
}

impl SnapshotBuilder {
    /// An empty builder.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, objects: Vec::new(), bytes: 0, may_be_empty: false }
    }

    /// Accepts a volume without objects: all of them are optional, and none is there.
    #[must_use]
    pub fn or_empty(self) -> Self {
        Self { may_be_empty: true, ..self }
    }

    /// Adds the next object.
    ///
    /// # Errors
    /// A limit that it breaks; the builder must then be dropped.
    pub fn add(&mut self, object: Object) -> Result<(), SnapshotError> {
        let index = self.objects.len();
        if index >= self.limits.objects {
            let limit = self.limits.objects;
            return Err(SnapshotError::TooManyObjects { count: index + 1, limit });
        }
        let bytes = object.value.len();
        if bytes > self.limits.object_bytes {
            let (name, limit) = (object.path.to_string(), self.limits.object_bytes);
            return Err(SnapshotError::ObjectTooLarge { index, name, bytes, limit });
        }
        self.bytes += bytes;
        if self.bytes > self.limits.volume_bytes {
            let limit = self.limits.volume_bytes;
            return Err(SnapshotError::VolumeTooLarge { bytes: self.bytes, limit });
        }
        self.objects.push(object);
        Ok(())
    }

    /// Packs the values into one piece of memory; files belong to `fs_group`, or to group 0.
    ///
    /// # Errors
    /// Names that can't stand beside each other, or no objects at all.
    pub fn build(
        self,
        generation: Generation,
        created: SystemTime,
        fs_group: Option<u32>,
        memory: &dyn SecretMemorySource,
    ) -> Result<Snapshot, SnapshotError> {
        if self.objects.is_empty() && !self.may_be_empty {
            return Err(SnapshotError::Empty);
        }
        let mut paths = Paths::default();
        let mut offset = 0;
        for (index, object) in self.objects.iter().enumerate() {
            let content = offset..offset + object.value.len();
            offset = content.end;
            let mode = object.mode.unwrap_or(FileMode::default_for(fs_group));
            paths.add(index, &object.path, NodeKind::File { mode, content })?;
        }
        let links = links(&self.objects)?;
        let nodes = paths.into_nodes(generation)?;
        let memory = memory.allocate(offset, &mut |bytes| pack(&self.objects, bytes));
        let versions = versions(&self.objects);
        let group = fs_group.unwrap_or(0);
        Ok(Snapshot { generation, created, group, nodes, links, versions, memory })
    }
}

fn pack(objects: &[Object], mut bytes: &mut [u8]) {
    for object in objects {
        let (head, tail) = bytes.split_at_mut(object.value.len());
        head.copy_from_slice(object.value.expose());
        bytes = tail;
    }
}

fn versions(objects: &[Object]) -> Vec<ObjectVersion> {
    let mut versions: Vec<_> = objects
        .iter()
        .map(|object| ObjectVersion {
            id: object.path.to_string(),
            version: object.version.clone(),
        })
        .collect();
    versions.sort_by(|a, b| a.id.cmp(&b.id));
    versions
}

fn links(objects: &[Object]) -> Result<Vec<Link>, SnapshotError> {
    let mut by_inode: BTreeMap<Inode, String> = BTreeMap::new();
    for object in objects {
        let Some(name) = object.path.components().next() else { continue };
        match by_inode.entry(Inode::of_link(name)) {
            Entry::Vacant(vacant) => {
                vacant.insert(name.to_owned());
            }
            Entry::Occupied(same) if same.get() == name => {}
            Entry::Occupied(other) => {
                return Err(SnapshotError::InodeCollision(other.get().clone(), name.to_owned()));
            }
        }
    }
    let mut links: Vec<_> =
        by_inode.into_iter().map(|(inode, name)| Link { inode, name }).collect();
    links.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(links)
}

/// Every path of the tree in sorted order, the generation's directory (the empty path) first; this
/// order is what makes inode numbers deterministic.
struct Paths(BTreeMap<Vec<String>, (usize, NodeKind)>);

impl Default for Paths {
    fn default() -> Self {
        Self(BTreeMap::from([(Vec::new(), (usize::MAX, NodeKind::Directory(Vec::new())))]))
    }
}

impl Paths {
    fn add(
        &mut self,
        index: usize,
        path: &ObjectPath,
        file: NodeKind,
    ) -> Result<(), SnapshotError> {
        let components: Vec<String> = path.components().map(str::to_owned).collect();
        let conflict = |at: &[String]| SnapshotError::FileIsDirectory {
            index,
            name: path.to_string(),
            conflict: at.join("/"),
        };
        for depth in 1..components.len() {
            let directory = &components[..depth];
            match self.0.entry(directory.to_vec()) {
                Entry::Vacant(vacant) => {
                    vacant.insert((index, NodeKind::Directory(Vec::new())));
                }
                Entry::Occupied(known) => match known.get().1 {
                    NodeKind::Directory(_) => {}
                    NodeKind::File { .. } => return Err(conflict(directory)),
                },
            }
        }
        match self.0.entry(components.clone()) {
            Entry::Vacant(vacant) => {
                vacant.insert((index, file));
                Ok(())
            }
            Entry::Occupied(known) => match known.get() {
                (_, NodeKind::Directory(_)) => Err(conflict(&components)),
                (first, NodeKind::File { .. }) => {
                    Err(SnapshotError::Duplicate { index, first: *first, name: path.to_string() })
                }
            },
        }
    }

    fn into_nodes(self, generation: Generation) -> Result<Vec<Node>, SnapshotError> {
        if self.0.len() > Inode::MAX_NODES {
            return Err(SnapshotError::TooManyNodes(self.0.len()));
        }
        let positions: BTreeMap<Vec<String>, usize> =
            self.0.keys().enumerate().map(|(at, path)| (path.clone(), at)).collect();
        let mut nodes: Vec<Node> = Vec::with_capacity(self.0.len());
        for (at, (components, (_, kind))) in self.0.into_iter().enumerate() {
            let above = &components[..components.len().saturating_sub(1)];
            let parent = positions.get(above).copied().unwrap_or(0);
            if at != 0
                && let NodeKind::Directory(children) = &mut nodes[parent].kind
            {
                children.push(at);
            }
            nodes.push(Node {
                inode: Inode::of_node(generation, at),
                parent,
                name: components.last().cloned().unwrap_or_default(),
                path: components.join("/").into(),
                kind,
            });
        }
        Ok(nodes)
    }
}

#[cfg(test)]
mod tests;
