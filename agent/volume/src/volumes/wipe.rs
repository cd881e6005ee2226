//! The same files without their values, or without some: what takes the place of a generation whose values
//! must not stay in memory.

use sotto_core::limits::Limits;
use sotto_core::names::ObjectPath;
use sotto_core::secret::SecretBytes;
use sotto_core::snapshot::{
    FileMode, Generation, HeapMemory, NodeKind, Object, SecretMemorySource, Snapshot,
    SnapshotBuilder,
};

/// No limit: what is copied was within the administrator's, whatever these are.
const UNLIMITED: Limits = Limits {
    object_bytes: usize::MAX,
    volume_bytes: usize::MAX,
    objects: usize::MAX,
    volumes: usize::MAX,
};

/// `snapshot` with empty values: same generation, same names, same inodes.
pub(super) fn emptied(snapshot: &Snapshot) -> Option<Snapshot> {
    without(snapshot, |_| true, &HeapMemory::default())
}

/// `snapshot` with the values of `gone` empty: same generation, same names, same inodes.
pub(super) fn without(
    snapshot: &Snapshot,
    gone: impl Fn(&str) -> bool,
    memory: &dyn SecretMemorySource,
) -> Option<Snapshot> {
    copy(snapshot, snapshot.generation(), gone, memory)
}

/// The same values under another number.
pub(super) fn renumbered(
    snapshot: &Snapshot,
    generation: Generation,
    memory: &dyn SecretMemorySource,
) -> Option<Snapshot> {
    copy(snapshot, generation, |_| false, memory)
}

fn copy(
    snapshot: &Snapshot,
    generation: Generation,
    gone: impl Fn(&str) -> bool,
    memory: &dyn SecretMemorySource,
) -> Option<Snapshot> {
    let mut builder = SnapshotBuilder::new(UNLIMITED).or_empty();
    for node in snapshot.nodes() {
        let NodeKind::File { mode, .. } = node.kind else { continue };
        let path = ObjectPath::parse(&node.path).ok()?;
        let object =
            if gone(&node.path) { empty(&path, Some(mode)) } else { copied(snapshot, &path)? };
        builder.add(object).ok()?;
    }
    builder.build(generation, snapshot.created(), Some(snapshot.group()), memory).ok()
}

/// An object without a value, for what is refused.
pub(super) fn empty(path: &ObjectPath, mode: Option<FileMode>) -> Object {
    Object { path: path.clone(), mode, version: String::new(), value: SecretBytes::new(Vec::new()) }
}

/// The object as a generation has it; `None` if it has not.
pub(super) fn copied(snapshot: &Snapshot, path: &ObjectPath) -> Option<Object> {
    let node = snapshot.nodes().iter().find(|node| *node.path == *path.as_str())?;
    let NodeKind::File { mode, .. } = node.kind else { return None };
    let value = SecretBytes::new(snapshot.expose_content(node)?.to_vec());
    let version = snapshot.versions().iter().find(|version| version.id == path.as_str());
    let version = version.map(|version| version.version.clone()).unwrap_or_default();
    Some(Object { path: path.clone(), mode: Some(mode), version, value })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::UNIX_EPOCH;

    #[test]
    fn names_and_inodes_stay_and_values_go() {
        let mut builder = SnapshotBuilder::new(Limits::default());
        for name in ["tls/key", "password", "tls/cert"] {
            let (path, value) = (ObjectPath::parse(name).unwrap(), b"canary".to_vec());
            let (mode, version) = (None, "1".to_owned());
            builder.add(Object { path, mode, version, value: SecretBytes::new(value) }).unwrap();
        }
        let memory = HeapMemory::default();
        let full = builder.build(Generation::FIRST, UNIX_EPOCH, Some(2000), &memory).unwrap();
        let emptied = emptied(&full).unwrap();
        let shape = |snapshot: &Snapshot| {
            let nodes = snapshot.nodes().iter().map(|node| (node.inode, node.path.clone()));
            nodes.collect::<Vec<_>>()
        };
        assert_eq!(shape(&emptied), shape(&full));
        let values = emptied.nodes().iter().filter_map(|node| emptied.expose_content(node));
        assert!(values.into_iter().all(<[u8]>::is_empty));
    }

    #[test]
    fn a_value_over_the_default_limits_can_be_wiped_beside_others() {
        let limits = Limits { object_bytes: 3 << 20, ..Limits::default() };
        let mut builder = SnapshotBuilder::new(limits);
        for name in ["large", "gone"] {
            let (path, value) = (ObjectPath::parse(name).unwrap(), vec![b'x'; 3 << 20]);
            let (mode, version) = (None, "7".to_owned());
            builder.add(Object { path, mode, version, value: SecretBytes::new(value) }).unwrap();
        }
        let memory = HeapMemory::default();
        let full = builder.build(Generation::FIRST, UNIX_EPOCH, None, &memory).unwrap();
        let rest = without(&full, |path| path == "gone", &memory).unwrap();
        let length = |name: &str| {
            let node = rest.nodes().iter().find(|node| *node.path == *name).unwrap();
            rest.expose_content(node).unwrap().len()
        };
        assert_eq!((length("large"), length("gone")), (3 << 20, 0));
        let kept = rest.versions().iter().find(|version| version.id == "large").unwrap();
        assert_eq!(kept.version, "7", "so that it is not taken for changed");
    }
}
