//! What a generation looks like from outside: its number, its objects with their versions, and two fingerprints.
//!
//! Invariant: nothing here says anything of a value. A version is the store's own number, what a provider says, or a
//! digest under a key that never leaves the agents (see `sotto_store`), so whoever reads the driver's memory can
//! neither see nor guess one. Told to the driver, which keeps it for the next agent.

use sotto_core::fnv::Fnv1a;
use sotto_core::snapshot::{FileMode, Generation, NodeKind, ObjectVersion, Snapshot};
use sotto_handoff::message;

/// Most bytes of names and versions of one generation in a message: it has tokens or links beside, or those of another.
const MOST_BYTES: usize = 24 << 10;

/// One generation, told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Showing {
    pub(super) generation: Generation,
    pub(super) versions: Vec<ObjectVersion>,
    pub(super) content: u64,
}

impl Showing {
    pub(super) fn of(snapshot: &Snapshot) -> Self {
        let (generation, versions) = (snapshot.generation(), snapshot.versions().to_vec());
        Self { generation, versions, content: content(snapshot) }
    }

    pub(super) fn layout(&self) -> u64 {
        layout(self.versions.iter().map(|one| one.id.as_str()))
    }

    /// None where they would not fit.
    pub(super) fn objects(&self) -> Vec<message::ObjectVersion> {
        let object = |one: &ObjectVersion| message::ObjectVersion {
            id: one.id.clone(),
            version: one.version.clone(),
        };
        let bytes = self.versions.iter().map(|one| one.id.len() + one.version.len() + 16);
        let fits = bytes.sum::<usize>() <= MOST_BYTES;
        if fits { self.versions.iter().map(object).collect() } else { Vec::new() }
    }
}

/// Fingerprint of a generation's names, never 0.
pub(super) fn layout<'a>(names: impl Iterator<Item = &'a str>) -> u64 {
    let mut names: Vec<_> = names.collect();
    names.sort_unstable();
    names.into_iter().fold(Hash::new(), |hash, name| hash.with(name.bytes())).finish()
}

/// Fingerprint of names, modes and versions, never 0: it finds a difference and proves nothing to an adversary.
/// Who chooses a store's versions chooses its values.
pub(super) fn content(snapshot: &Snapshot) -> u64 {
    let objects = snapshot.versions().iter().fold(Hash::new(), |hash, one| {
        let mode = mode_of(snapshot, &one.id).map_or(0, FileMode::bits);
        hash.with(one.id.bytes()).with(mode.to_be_bytes()).with(one.version.bytes())
    });
    objects.with(snapshot.group().to_be_bytes()).finish()
}

/// The permission bits of an object's file.
pub(super) fn mode_of(snapshot: &Snapshot, path: &str) -> Option<FileMode> {
    let node = snapshot.nodes().iter().find(|node| *node.path == *path)?;
    match node.kind {
        NodeKind::File { mode, .. } => Some(mode),
        NodeKind::Directory(_) => None,
    }
}

/// Of several parts: where each ends counts. The same in every build, for the driver keeps it from one agent for the next.
struct Hash(Fnv1a);

impl Hash {
    fn new() -> Self {
        Self(Fnv1a::EMPTY)
    }

    /// No name and no version has a byte 0.
    fn with(self, bytes: impl IntoIterator<Item = u8>) -> Self {
        Self(self.0.with(bytes).with([0]))
    }

    fn finish(self) -> u64 {
        self.0.get().max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sotto_core::limits::Limits;
    use sotto_core::names::ObjectPath;
    use sotto_core::secret::SecretBytes;
    use sotto_core::snapshot::{HeapMemory, Object, SnapshotBuilder};
    use std::time::UNIX_EPOCH;

    fn snapshot(number: u64, mode: u32, version: &str, value: &str) -> Snapshot {
        let mut builder = SnapshotBuilder::new(Limits::default());
        for name in ["a", "b/c"] {
            let (path, mode) = (ObjectPath::parse(name).unwrap(), FileMode::new(mode));
            let value = SecretBytes::new(value.as_bytes().to_vec());
            builder.add(Object { path, mode, version: version.to_owned(), value }).unwrap();
        }
        let number = Generation::new(number).unwrap();
        builder.build(number, UNIX_EPOCH, None, &HeapMemory::default()).unwrap()
    }

    #[test]
    fn modes_and_versions_make_the_content_and_neither_numbers_nor_values_do() {
        let one = content(&snapshot(1, 0o444, "3@t", "x"));
        assert_eq!(one, content(&snapshot(2, 0o444, "3@t", "x")));
        assert_eq!(one, content(&snapshot(1, 0o444, "3@t", "never looked at")));
        assert_ne!(one, content(&snapshot(1, 0o440, "3@t", "x")));
        assert_ne!(one, content(&snapshot(1, 0o444, "4@t", "x")));
    }

    #[test]
    fn a_fingerprint_is_the_same_in_every_build() {
        assert_eq!(layout(["a", "b/c"].into_iter()), 0x19b1_eb14_eabc_4244);
    }

    #[test]
    fn a_layout_is_made_of_names_in_any_order() {
        assert_eq!(layout(["a", "b"].into_iter()), layout(["b", "a"].into_iter()));
        assert_ne!(layout(["a", "b"].into_iter()), layout(["ab"].into_iter()));
        assert_eq!(
            Showing::of(&snapshot(1, 0o444, "1", "x")).layout(),
            layout(["b/c", "a"].into_iter())
        );
    }
}
