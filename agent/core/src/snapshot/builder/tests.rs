//! What a builder accepts and refuses, and that the tree holds what went in.

use super::super::{HIDDEN_INODE, HeapMemory, ROOT_INODE, STATUS_INODE};
use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::time::UNIX_EPOCH;

fn object(name: &str, value: &[u8]) -> Object {
    Object {
        path: ObjectPath::parse(name).unwrap(),
        mode: None,
        version: "1".to_owned(),
        value: SecretBytes::new(value.to_vec()),
    }
}

fn build(objects: Vec<Object>) -> Result<Snapshot, SnapshotError> {
    build_with(Limits::default(), objects)
}

fn build_with(limits: Limits, objects: Vec<Object>) -> Result<Snapshot, SnapshotError> {
    let mut builder = SnapshotBuilder::new(limits);
    for object in objects {
        builder.add(object)?;
    }
    builder.build(Generation::FIRST, UNIX_EPOCH, Some(2000), &HeapMemory::default())
}

fn content<'a>(snapshot: &'a Snapshot, path: &str) -> Option<&'a [u8]> {
    let mut node = &snapshot.nodes()[0];
    for name in path.split('/') {
        node = snapshot.child(node, name)?;
    }
    snapshot.expose_content(node)
}

#[test]
fn every_object_is_found_by_its_path() {
    let snapshot = build(vec![
        object("tls/key", b"K"),
        object("password", b"hunter2"),
        object("tls/crt", b""),
    ])
    .unwrap();
    assert_eq!(content(&snapshot, "password"), Some(b"hunter2".as_slice()));
    assert_eq!(content(&snapshot, "tls/key"), Some(b"K".as_slice()));
    assert_eq!(content(&snapshot, "tls/crt"), Some(b"".as_slice()));
    assert_eq!(content(&snapshot, "tls"), None);
    assert_eq!(content(&snapshot, "absent"), None);
    let links: Vec<_> = snapshot.links().iter().map(|link| link.name.as_str()).collect();
    assert_eq!(links, ["password", "tls"]);
    assert_eq!(snapshot.group(), 2000);
}

#[test]
fn inode_numbers_depend_on_names_and_generation_only() {
    let one = build(vec![object("b", b"1"), object("a/x", b"2")]).unwrap();
    let two = build(vec![object("a/x", b"other"), object("b", b"values")]).unwrap();
    let numbers = |s: &Snapshot| s.nodes().iter().map(|n| n.inode).collect::<Vec<_>>();
    assert_eq!(numbers(&one), numbers(&two));
    assert_eq!(one.links(), two.links());
    for node in one.nodes() {
        assert_eq!(one.node(node.inode), Some(node));
    }
    assert!([ROOT_INODE, HIDDEN_INODE, STATUS_INODE].iter().all(|at| one.node(*at).is_none()));
    let data = Inode::of_data_link(Generation::FIRST);
    assert!(one.node(data).is_none());
    assert_eq!(data.data_link_generation(), Some(Generation::FIRST));
    assert_eq!(one.nodes()[0].inode.data_link_generation(), None);
    assert!(one.node(one.links()[0].inode).is_none());
}

#[test]
fn a_mode_defaults_by_group_and_an_explicit_one_is_kept() {
    let mut explicit = object("b", b"");
    explicit.mode = FileMode::new(0o600);
    let snapshot = build(vec![object("a", b""), explicit]).unwrap();
    let modes: Vec<_> = snapshot
        .nodes()
        .iter()
        .filter_map(|node| match &node.kind {
            NodeKind::File { mode, .. } => Some(mode.bits()),
            NodeKind::Directory(_) => None,
        })
        .collect();
    assert_eq!(modes, [0o440, 0o600]);
    assert_eq!(FileMode::default_for(None).bits(), 0o444);
    assert_eq!(FileMode::new(0o4755), None);
}

#[test]
fn two_objects_of_one_name_are_refused_with_both_positions() {
    let error = build(vec![object("a", b""), object("b", b""), object("a", b"")]).err();
    assert_eq!(error, Some(SnapshotError::Duplicate { index: 2, first: 0, name: "a".to_owned() }));
}

#[test]
fn a_file_that_would_be_a_directory_too_is_refused() {
    for names in [["a", "a/b"], ["a/b", "a"]] {
        let error = build(names.map(|name| object(name, b"")).into()).err();
        assert!(matches!(
            error,
            Some(SnapshotError::FileIsDirectory { index: 1, conflict, .. }) if conflict == "a"
        ));
    }
}

#[test]
fn limits_hold_at_their_edge() {
    let limits = Limits { object_bytes: 4, volume_bytes: 6, objects: 2, volumes: 1 };
    assert!(build_with(limits, vec![object("a", b"1234"), object("b", b"12")]).is_ok());
    assert!(matches!(
        build_with(limits, vec![object("a", b"12345")]).err(),
        Some(SnapshotError::ObjectTooLarge { index: 0, bytes: 5, limit: 4, .. })
    ));
    assert!(matches!(
        build_with(limits, vec![object("a", b"1234"), object("b", b"123")]).err(),
        Some(SnapshotError::VolumeTooLarge { bytes: 7, limit: 6 })
    ));
    assert!(matches!(
        build_with(limits, vec![object("a", b""), object("b", b""), object("c", b"")]).err(),
        Some(SnapshotError::TooManyObjects { count: 3, limit: 2 })
    ));
    assert_eq!(build(Vec::new()).err(), Some(SnapshotError::Empty));
}

#[test]
fn a_volume_of_optional_objects_may_be_empty() {
    let builder = SnapshotBuilder::new(Limits::default()).or_empty();
    let memory = HeapMemory::default();
    let snapshot = builder.build(Generation::FIRST, UNIX_EPOCH, None, &memory).unwrap();
    assert_eq!((snapshot.nodes().len(), snapshot.links().len()), (1, 0));
}

proptest! {
    #[test]
    fn what_was_put_in_comes_out(
        entries in prop::collection::btree_map("[a-c]{1,2}(/[a-c]{1,2}){0,2}", prop::collection::vec(any::<u8>(), 0..20), 1..20)
    ) {
        let objects = entries.iter().map(|(name, value)| object(name, value)).collect();
        match build(objects) {
            Ok(snapshot) => {
                for (name, value) in &entries {
                    prop_assert_eq!(content(&snapshot, name), Some(value.as_slice()));
                }
                let inodes: BTreeSet<_> = snapshot.nodes().iter().map(|node| node.inode)
                    .chain(snapshot.links().iter().map(|link| link.inode)).collect();
                prop_assert_eq!(inodes.len(), snapshot.nodes().len() + snapshot.links().len());
            }
            Err(SnapshotError::FileIsDirectory { conflict, .. }) => {
                prop_assert!(entries.contains_key(&conflict));
            }
            Err(error) => prop_assert!(false, "{error}"),
        }
    }
}
