//! The same files without their values, to take the place of those that must not stay in memory.

use sotto_core::limits::Limits;
use sotto_core::names::ObjectPath;
use sotto_core::secret::SecretBytes;
use sotto_core::snapshot::{HeapMemory, NodeKind, Object, Snapshot, SnapshotBuilder};

/// `snapshot` with empty values: same generation, same names, same inodes.
pub(super) fn emptied(snapshot: &Snapshot) -> Option<Snapshot> {
    let unlimited = Limits { objects: usize::MAX, ..Limits::default() };
    let mut builder = SnapshotBuilder::new(unlimited).or_empty();
    for node in snapshot.nodes() {
        let NodeKind::File { mode, .. } = node.kind else { continue };
        let object = Object {
            path: ObjectPath::parse(&node.path).ok()?,
            mode: Some(mode),
            version: String::new(),
            value: SecretBytes::new(Vec::new()),
        };
        builder.add(object).ok()?;
    }
    let (generation, created) = (snapshot.generation(), snapshot.created());
    builder.build(generation, created, Some(snapshot.group()), &HeapMemory::default()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use sotto_core::snapshot::Generation;
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
}
