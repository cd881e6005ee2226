//! Refuse, invalidate, wipe: open files and mappings lose the value as well.

use std::io::ErrorKind;
use std::os::unix::process::ExitStatusExt;

use sotto_core::audit::Decision;
use sotto_core::names::ObjectPath;
use sotto_core::snapshot::{Generation, Inode};
use sotto_fuse::Refusal;

use super::child::{Part, read_open};
use super::volume::{Volume, snapshot};

fn object() -> ObjectPath {
    ObjectPath::parse("a").unwrap()
}

pub(crate) fn invalidate(volume: &Volume, inodes: Vec<Inode>) {
    for inode in inodes {
        volume.server.invalidate(inode).unwrap();
    }
}

#[test]
fn an_open_file_and_a_new_open_are_refused_and_healed() {
    let volume = Volume::new(&[("a", b"xyz"), ("b", b"other")]);
    let file = volume.open("a");
    assert_eq!(read_open(&file).unwrap(), b"xyz");
    volume.audit.take();

    invalidate(&volume, volume.tree.refuse(&object(), Refusal::Denied));
    // Wiped, too: the refusal must not turn into "end of file".
    assert!(volume.tree.replace(&snapshot(1, &[("a", b""), ("b", b"other")])));
    assert_eq!(read_open(&file).unwrap_err().kind(), ErrorKind::PermissionDenied);
    assert_eq!(volume.read("a").unwrap_err().kind(), ErrorKind::PermissionDenied);
    assert_eq!(volume.read("b").unwrap(), b"other");
    let records = volume.audit.take();
    let decisions: Vec<_> =
        records.iter().map(|record| (record.object.as_str(), record.decision)).collect();
    assert_eq!(decisions, [("a", Decision::Denied), ("b", Decision::Allowed)]);

    assert!(volume.tree.replace(&snapshot(1, &[("a", b"xyz"), ("b", b"other")])));
    invalidate(&volume, volume.tree.heal(&object()));
    assert_eq!(read_open(&file).unwrap(), b"xyz");
    assert_eq!(volume.read("a").unwrap(), b"xyz");
}

#[test]
fn without_the_invalidation_the_kernel_still_shows_what_it_has() {
    let volume = Volume::new(&[("a", b"xyz")]);
    let file = volume.open("a");
    assert_eq!(read_open(&file).unwrap(), b"xyz");
    let inodes = volume.tree.refuse(&object(), Refusal::Denied);
    assert_eq!(read_open(&file).unwrap(), b"xyz", "or the order of steps needs no care");
    invalidate(&volume, inodes);
    assert!(read_open(&file).is_err());
}

#[test]
fn an_object_that_is_gone_is_absent() {
    let volume = Volume::new(&[("a", b"xyz"), ("b", b"other")]);
    volume.read("a").unwrap();
    assert_eq!(std::fs::read_dir(volume.path("..data/")).unwrap().count(), 2);
    invalidate(&volume, volume.tree.refuse(&object(), Refusal::Gone));
    assert_eq!(volume.read("a").unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(std::fs::read_dir(volume.path("..data/")).unwrap().count(), 1);
}

#[test]
fn a_mapping_ends_in_sigbus() {
    let volume = Volume::new(&[("a", b"xyz")]);
    let mut child = Part::mapping(volume.path("a").to_str().unwrap());
    child.ready();
    invalidate(&volume, volume.tree.refuse(&object(), Refusal::Denied));
    let status = child.go_on();
    assert_eq!(status.signal(), Some(libc::SIGBUS), "{status}");
}

#[test]
fn a_mapping_of_what_is_not_refused_stays() {
    let volume = Volume::new(&[("a", b"xyz"), ("b", b"x")]);
    let mut child = Part::mapping(volume.path("b").to_str().unwrap());
    child.ready();
    invalidate(&volume, volume.tree.refuse(&object(), Refusal::Denied));
    assert!(child.go_on().success());
}

#[test]
fn a_generation_whose_values_went_is_no_longer_listed() {
    let volume = Volume::new(&[("a", b"xyz")]);
    volume.rotate(snapshot(2, &[("a", b"new")]));
    let names = || {
        let entries = std::fs::read_dir(volume.path("")).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names(), ["..1", "..2", "..data", "a"]);
    invalidate(&volume, volume.tree.wipe(Generation::FIRST));
    assert_eq!(names(), ["..2", "..data", "a"]);
}

#[test]
fn a_closed_volume_denies_all_and_opens_again() {
    let volume = Volume::new(&[("a", b"xyz"), ("d/b", b"other")]);
    let file = volume.open("d/b");
    invalidate(&volume, volume.tree.close());
    assert_eq!(volume.read("a").unwrap_err().kind(), ErrorKind::PermissionDenied);
    assert_eq!(read_open(&file).unwrap_err().kind(), ErrorKind::PermissionDenied);
    assert!(volume.read("..sotto/status.json").is_ok());
    invalidate(&volume, volume.tree.reopen());
    assert_eq!(read_open(&file).unwrap(), b"other");
}
