//! Inode numbers that depend on nothing but generation, position and name.
//!
//! | number | what |
//! |---|---|
//! | 1 | the volume's root |
//! | 2, 3 | `..sotto`, `..sotto/status.json` |
//! | `generation << 16 \| index` | a directory or file of a generation |
//! | bit 62 + generation | the `..data` that points to that generation |
//! | bit 63 + hash of the name | a symbolic link in the root, the same in every generation |
//!
//! `..data` has another number in each generation, because the kernel caches a link's target by its inode.

use super::Generation;
use crate::fnv::fnv1a;

/// An inode number as the kernel sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Inode(pub u64);

/// The volume's root directory (FUSE_ROOT_ID).
pub const ROOT_INODE: Inode = Inode(1);
/// The hidden directory `..sotto`.
pub const HIDDEN_INODE: Inode = Inode(2);
/// The state of the volume, `..sotto/status.json`.
pub const STATUS_INODE: Inode = Inode(3);

const INDEX_BITS: u32 = 16;
const DATA_LINK_BIT: u64 = 1 << 62;
const LINK_BIT: u64 = 1 << 63;

impl Inode {
    /// Most nodes of one generation.
    pub(super) const MAX_NODES: usize = 1 << INDEX_BITS;

    /// The node at `index` of [`super::Snapshot::nodes`].
    #[must_use]
    pub fn of_node(generation: Generation, index: usize) -> Self {
        debug_assert!(index < Self::MAX_NODES, "the builder bounds the number of nodes");
        Self((generation.get() << INDEX_BITS) | index as u64)
    }

    /// The `..data` that points to `generation`.
    #[must_use]
    pub fn of_data_link(generation: Generation) -> Self {
        Self(DATA_LINK_BIT | generation.get())
    }

    /// The link `name` in the root, the same in every build. The builder refuses a volume whose names collide.
    #[must_use]
    pub fn of_link(name: &str) -> Self {
        Self(LINK_BIT | fnv1a(name.bytes()))
    }

    /// Which generation a `..data` of this number points to; `None` for everything else.
    #[must_use]
    pub fn data_link_generation(self) -> Option<Generation> {
        let is_data_link = self.0 & (LINK_BIT | DATA_LINK_BIT) == DATA_LINK_BIT;
        is_data_link.then(|| Generation::new(self.0 & !DATA_LINK_BIT)).flatten()
    }

    /// Which generation and position a node's number stands for; `None` for root and links.
    #[must_use]
    pub fn generation_and_index(self) -> Option<(Generation, usize)> {
        if self.0 & LINK_BIT != 0 {
            return None;
        }
        let index = usize::try_from(self.0 & (Self::MAX_NODES as u64 - 1)).ok()?;
        Generation::new(self.0 >> INDEX_BITS).map(|generation| (generation, index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_has_the_same_number_in_every_build() {
        // The kernel keeps it while the next agent takes over.
        assert_eq!(Inode::of_link("s0").0, 0x88d8_fe07_b578_cf96);
    }
}
