//! Where nobody wants to hear of opens the kernel opens files by itself, and everything else holds: rotation, what is
//! open, the state, revocation.

use std::fs;
use std::io::ErrorKind;
use std::time::{Duration, SystemTime};

use sotto_core::names::ObjectPath;
use sotto_core::snapshot::Generation;
use sotto_fuse::Refusal;

use super::child::read_open;
use super::revocation::invalidate;
use super::volume::{Volume, snapshot};

#[test]
fn only_the_first_open_asks_and_none_is_told() {
    let volume = Volume::unaudited(&[("a", b"x"), ("b", b"y")]);
    for _ in 0..3 {
        assert_eq!(volume.read("a").unwrap(), b"x");
        assert_eq!(volume.read("b").unwrap(), b"y");
        assert_eq!(fs::read_dir(volume.path("")).unwrap().count(), 4);
    }
    assert!(volume.audit.take().is_empty());
    let written = fs::OpenOptions::new().write(true).open(volume.path("a"));
    assert_eq!(written.unwrap_err().kind(), ErrorKind::ReadOnlyFilesystem);
}

#[test]
fn a_rotation_shows_and_an_open_file_keeps_its_generation_after_the_removal() {
    let volume = Volume::unaudited(&[("a", b"one")]);
    let file = volume.open("a");
    volume.rotate(snapshot(2, &[("a", b"two"), ("b", b"new")]));
    assert_eq!(volume.read("a").unwrap(), b"two");
    volume.remove(1);
    // Never read before: the kernel has nothing of it.
    assert_eq!(read_open(&file).unwrap(), b"one");
    volume.rotate(snapshot(3, &[("a", b"three")]));
    assert_eq!(volume.read("a").unwrap(), b"three");
    let gone = volume.tree.wipe(Generation::FIRST);
    invalidate(&volume, gone);
    assert!(read_open(&file).is_err());
}

#[test]
fn the_state_is_read_fresh_though_its_size_stays() {
    let volume = Volume::unaudited(&[("a", b"x")]);
    assert_eq!(volume.read("a").unwrap(), b"x");
    for (seconds, state) in ["first", "other", "third", "first"].into_iter().enumerate() {
        let now = SystemTime::now() + Duration::from_secs(seconds as u64);
        volume.tree.set_status(state.as_bytes().to_vec(), now);
        assert_eq!(volume.read("..sotto/status.json").unwrap(), state.as_bytes());
    }
}

#[test]
fn what_is_refused_can_be_opened_and_not_read() {
    let volume = Volume::unaudited(&[("a", b"xyz")]);
    let file = volume.open("a");
    assert_eq!(read_open(&file).unwrap(), b"xyz");
    let path = ObjectPath::parse("a").unwrap();
    let inodes = volume.tree.refuse(&path, Refusal::Denied);
    invalidate(&volume, inodes);
    assert_eq!(read_open(&file).unwrap_err().kind(), ErrorKind::PermissionDenied);
    let anew = volume.open("a");
    assert_eq!(read_open(&anew).unwrap_err().kind(), ErrorKind::PermissionDenied);
}
