//! What the tree shows through rotations and refusals; `model` compares it with a naive one.

mod model;
mod rotation;

use super::*;
use attributes::Kind;
use operations::Caller;
use sotto_core::limits::Limits;
use sotto_core::names::ObjectPath;
use sotto_core::secret::SecretBytes;
use sotto_core::snapshot::{
    FileMode, HIDDEN_INODE, HeapMemory, Object, ROOT_INODE, SnapshotBuilder,
};
use std::time::{Duration, UNIX_EPOCH};

pub(super) const ROOT_USER: Caller = Caller { uid: Some(0) };

pub(super) fn generation(number: u64) -> Generation {
    Generation::new(number).unwrap()
}

pub(super) fn path(name: &str) -> ObjectPath {
    ObjectPath::parse(name).unwrap()
}

pub(super) fn snapshot(number: u64, objects: &[(&str, &str)]) -> Arc<Snapshot> {
    let mut builder = SnapshotBuilder::new(Limits::default());
    for (name, value) in objects {
        let value = SecretBytes::new(value.as_bytes().to_vec());
        let (path, mode) = (path(name), FileMode::new(0o440));
        builder.add(Object { path, mode, version: "1".to_owned(), value }).unwrap();
    }
    let created = UNIX_EPOCH + Duration::from_secs(number);
    let memory = HeapMemory::default();
    Arc::new(builder.build(generation(number), created, Some(2000), &memory).unwrap())
}

/// Follows `names` from the root by lookups alone; links are not followed.
pub(super) fn walk(tree: &Tree, names: &str) -> Result<Attributes, TreeError> {
    let mut at = tree.attributes(ROOT_INODE)?;
    for name in names.split('/') {
        at = tree.lookup(at.inode, name)?;
    }
    Ok(at)
}

pub(super) fn content(tree: &Tree, names: &str) -> Result<String, TreeError> {
    let file = walk(tree, names)?.inode;
    tree.read(file, 0, u32::MAX, |bytes| String::from_utf8(bytes.to_vec()).unwrap())
}

pub(super) fn names(tree: &Tree, directory: Inode) -> Vec<String> {
    let entries = tree.list(directory, 0).unwrap();
    let names = entries.into_iter().map(|entry| entry.name);
    names.filter(|name| name != "." && name != "..").collect()
}

#[test]
fn the_layout_is_that_of_a_kubernetes_volume() {
    let tree = Tree::new(snapshot(1, &[("db", "D"), ("tls/key", "K")]));
    let link = |name: &str| tree.read_link(walk(&tree, name).unwrap().inode).unwrap();
    assert_eq!(link("db"), "..data/db");
    assert_eq!(link("tls"), "..data/tls");
    assert_eq!(link("..data"), "..1");
    assert_eq!(content(&tree, "..1/tls/key").unwrap(), "K");
    let mut listed = names(&tree, ROOT_INODE);
    listed.sort();
    assert_eq!(listed, ["..1", "..data", "db", "tls"]);
    assert_eq!(names(&tree, walk(&tree, "..1").unwrap().inode), ["db", "tls"]);
}

#[test]
fn attributes_carry_owner_mode_size_and_time() {
    let tree = Tree::new(snapshot(7, &[("a/b", "value")]));
    let file = walk(&tree, "..7/a/b").unwrap();
    assert_eq!((file.kind, file.size, file.mode, file.gid), (Kind::File, 5, 0o440, 2000));
    assert_eq!(file.modified, UNIX_EPOCH + Duration::from_secs(7));
    assert_eq!(walk(&tree, "..data").unwrap().size, 3);
    assert_eq!(walk(&tree, "a").unwrap().size, 8);
    assert_eq!(walk(&tree, "..7/a").unwrap().mode, 0o755);
}

#[test]
fn reads_are_cut_at_the_end_of_the_file() {
    let tree = Tree::new(snapshot(1, &[("a", "0123456789")]));
    let file = walk(&tree, "..1/a").unwrap().inode;
    let read = |offset, size| tree.read(file, offset, size, <[u8]>::to_vec).unwrap();
    assert_eq!(read(0, 4), b"0123");
    assert_eq!(read(8, 4), b"89");
    assert_eq!(read(10, 4), b"");
    assert_eq!(read(u64::MAX, u32::MAX), b"");
}

#[test]
fn names_that_are_not_there_are_told_apart_from_wrong_parents() {
    let tree = Tree::new(snapshot(1, &[("a", "x")]));
    let file = walk(&tree, "..1/a").unwrap().inode;
    for name in ["b", "..2", "..01", "..+1", "..data_tmp", ".", "..", ""] {
        assert_eq!(tree.lookup(ROOT_INODE, name), Err(TreeError::NotFound), "{name:?}");
    }
    assert_eq!(tree.lookup(file, "b"), Err(TreeError::NotDirectory));
    assert_eq!(tree.lookup(ROOT_INODE, &"x".repeat(256)), Err(TreeError::NameTooLong));
    assert_eq!(tree.attributes(Inode(99)), Err(TreeError::Stale));
    assert_eq!(tree.read_link(file), Err(TreeError::NotLink));
    assert_eq!(tree.read(ROOT_INODE, 0, 1, |_| ()), Err(TreeError::IsDirectory));
}

#[test]
fn the_state_is_found_by_name_and_not_listed() {
    let tree = Tree::new(snapshot(1, &[("a", "x")]));
    tree.set_status(br#"{"state":"fresh"}"#.to_vec(), UNIX_EPOCH + Duration::from_secs(9));
    assert!(!names(&tree, ROOT_INODE).contains(&"..sotto".to_owned()));
    assert_eq!(content(&tree, "..sotto/status.json").unwrap(), r#"{"state":"fresh"}"#);
    let status = walk(&tree, "..sotto/status.json").unwrap();
    assert!(!status.cacheable);
    let open = tree.open(status.inode, false);
    assert_eq!(open, Open { object: None, result: Ok(OpenMode::Direct) });
    assert_eq!(names(&tree, HIDDEN_INODE), ["status.json"]);
}

#[test]
fn an_open_names_its_object_and_generation_whether_granted_or_not() {
    let tree = Tree::new(snapshot(3, &[("a/b", "x")]));
    let file = walk(&tree, "..3/a/b").unwrap().inode;
    let object = Some((Arc::from("a/b"), generation(3)));
    let granted = tree.open(file, false);
    assert_eq!(granted, Open { object: object.clone(), result: Ok(OpenMode::Cached) });
    assert_eq!(tree.open(file, true).result, Err(TreeError::ReadOnly));
    tree.refuse(&path("a/b"), Refusal::Denied);
    assert_eq!(tree.open(file, false), Open { object, result: Err(TreeError::Denied) });
}

#[test]
fn a_refused_object_keeps_its_size_and_loses_its_content() {
    let tree = Tree::new(snapshot(1, &[("a", "12345"), ("b", "y")]));
    let file = walk(&tree, "..1/a").unwrap().inode;
    assert!(tree.refuse(&path("a"), Refusal::Denied).contains(&file));
    // Wiped: the same generation without the value.
    assert!(tree.replace(&snapshot(1, &[("a", ""), ("b", "y")])));
    assert_eq!(content(&tree, "..1/a"), Err(TreeError::Denied));
    assert_eq!(walk(&tree, "..1/a").unwrap().size, 5);
    assert_eq!(content(&tree, "..1/b").unwrap(), "y");
    assert!(tree.heal(&path("a")).contains(&file));
    assert_eq!(walk(&tree, "..1/a").unwrap().size, 0);
}

#[test]
fn an_object_that_is_gone_is_neither_found_nor_listed() {
    let tree = Tree::new(snapshot(1, &[("d/a", "1"), ("d/b", "2")]));
    let (directory, file) = (walk(&tree, "..1/d").unwrap(), walk(&tree, "..1/d/a").unwrap());
    let changed = tree.refuse(&path("d/a"), Refusal::Gone);
    assert_eq!(changed, [directory.inode, file.inode]);
    assert_eq!(walk(&tree, "..1/d/a"), Err(TreeError::NotFound));
    assert_eq!(tree.attributes(file.inode), Err(TreeError::NotFound));
    assert_eq!(names(&tree, directory.inode), ["b"]);
}

#[test]
fn a_closed_volume_denies_everything_but_its_state() {
    let tree = Tree::new(snapshot(1, &[("a", "1"), ("b", "2")]));
    tree.refuse(&path("b"), Refusal::Denied);
    assert_eq!(tree.close().len(), 3);
    assert_eq!(content(&tree, "..1/a"), Err(TreeError::Denied));
    assert_eq!(content(&tree, "..sotto/status.json"), Ok(String::new()));
    tree.reopen();
    assert_eq!(content(&tree, "..1/a"), Ok("1".to_owned()));
    assert_eq!(content(&tree, "..1/b"), Err(TreeError::Denied), "refused on its own account");
}

#[test]
fn a_listing_goes_on_where_it_stopped() {
    let objects: Vec<_> = (0..50).map(|number| (format!("name-{number}"), "v")).collect();
    let objects: Vec<_> = objects.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    let tree = Tree::new(snapshot(1, &objects));
    let all = tree.list(ROOT_INODE, 0).unwrap();
    assert_eq!(all.len(), 2 + 2 + 50);
    for (at, entry) in all.iter().enumerate() {
        assert_eq!(tree.list(ROOT_INODE, entry.cookie).unwrap(), all[at + 1..]);
        assert!(entry.cookie < 1 << 63);
    }
}
