//! The names of a generation without its values: what old inode numbers still mean.

use std::sync::Arc;

use sotto_core::snapshot::{Generation, Inode, Snapshot};

/// The paths of one generation's directories and files in the order of their inode numbers. Holds no
/// value; may be kept by a supervisor and restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    generation: Generation,
    paths: Vec<Arc<str>>,
}

impl Layout {
    /// The layout of `snapshot`.
    #[must_use]
    pub fn of(snapshot: &Snapshot) -> Self {
        let paths = snapshot.nodes().iter().map(|node| Arc::clone(&node.path)).collect();
        Self { generation: snapshot.generation(), paths }
    }

    /// What [`Self::generation`] and [`Self::paths`] said earlier.
    #[must_use]
    pub fn restore(generation: Generation, paths: Vec<String>) -> Self {
        Self { generation, paths: paths.into_iter().map(Arc::from).collect() }
    }

    /// Whose layout it is.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// All paths; the first is empty, the generation's directory.
    #[must_use]
    pub fn paths(&self) -> &[Arc<str>] {
        &self.paths
    }

    /// The inode number of `path` in this generation.
    pub(super) fn inode_of(&self, path: &str) -> Option<Inode> {
        // The order of snapshots: by components, so that "a/x" comes before "a-b".
        let order = |known: &Arc<str>| known.split('/').cmp(path.split('/'));
        let index = self.paths.binary_search_by(order).ok()?;
        Some(Inode::of_node(self.generation, index))
    }

    /// Every inode number of this generation.
    pub(super) fn inodes(&self) -> impl Iterator<Item = Inode> + '_ {
        (0..self.paths.len()).map(|index| Inode::of_node(self.generation, index))
    }
}
