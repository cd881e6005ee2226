//! What watchers and readers notice of a rotation.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use rustix::fs::inotify::ReadFlags;
use rustix::fs::{AtFlags, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};
use rustix::mount::UnmountFlags;
use sotto_core::snapshot::{Generation, Inode};

use super::events::Watch;
use super::volume::{DEADLINE, Volume, remove_directory, snapshot};

/// What an AtomicWriter does in an ordinary directory.
fn ordinary_rotation() -> [Vec<(ReadFlags, String)>; 2] {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    fs::create_dir(path("..1")).unwrap();
    fs::write(path("..1/a"), "x").unwrap();
    symlink("..1", path("..data")).unwrap();
    symlink("..data/a", path("a")).unwrap();
    let watches = [Watch::on(directory.path()), Watch::on(&path("a"))];
    fs::create_dir(path("..2")).unwrap();
    fs::write(path("..2/a"), "y").unwrap();
    symlink("..2", path("..data_tmp")).unwrap();
    fs::rename(path("..data_tmp"), path("..data")).unwrap();
    remove_directory(File::open(directory.path()).unwrap().as_fd(), "..1");
    watches.map(|watch| watch.seen())
}

#[test]
fn watchers_see_what_an_ordinary_directory_would_show_them() {
    let volume = Volume::new(&[("a", b"x")]);
    let watches = [Watch::on(&volume.path("")), Watch::on(&volume.path("a"))];
    volume.rotate(snapshot(2, &[("a", b"y")]));
    assert_eq!(volume.read("a").unwrap(), b"y");
    volume.remove(1);
    let [directory, file] = watches.map(|watch| watch.seen());
    let [expected_directory, expected_file] = ordinary_rotation();
    assert_eq!(directory, expected_directory);
    assert_eq!(file, expected_file);
    assert!(file.iter().any(|(what, _)| what.contains(ReadFlags::DELETE_SELF)), "{file:?}");
}

#[test]
fn names_come_and_go_with_the_generation_that_has_them() {
    let volume = Volume::new(&[("a", b"1"), ("old", b"1")]);
    let root = volume.mount.writable.as_fd();
    assert_eq!(fs::read_dir(volume.path("")).unwrap().count(), 4);
    let watch = Watch::on(&volume.path(""));
    volume.rotate(snapshot(2, &[("a", b"2"), ("new", b"2")]));
    rustix::fs::symlinkat("..data/new", root, "new").unwrap();
    rustix::fs::unlinkat(root, "old", AtFlags::empty()).unwrap();
    assert_eq!(volume.read("new").unwrap(), b"2");
    assert!(!volume.path("old").is_symlink());
    let events = watch.seen();
    assert!(events.contains(&(ReadFlags::CREATE, "new".to_owned())), "{events:?}");
    assert!(events.contains(&(ReadFlags::DELETE, "old".to_owned())), "{events:?}");
    volume.remove(1);
    let names = fs::read_dir(volume.path("")).unwrap();
    let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["..2", "..data", "a", "new"]);
}

#[test]
fn an_open_file_and_directory_keep_their_generation() {
    let volume = Volume::new(&[("a", b"old"), ("b", b"old")]);
    let file = volume.open("a");
    let directory = File::open(volume.path("..data/")).unwrap();
    volume.rotate(snapshot(2, &[("a", b"new"), ("b", b"new")]));
    let mut buffer = [0; 3];
    file.read_exact_at(&mut buffer, 0).unwrap();
    assert_eq!(&buffer, b"old");
    let beside = format!("/proc/self/fd/{}/b", std::os::fd::AsRawFd::as_raw_fd(&directory));
    assert_eq!(fs::read(beside).unwrap(), b"old");
    assert_eq!(volume.read("a").unwrap(), b"new");
    let retired = Generation::FIRST;
    volume.tree.retire(retired);
    let root = volume.mount.writable.as_fd();
    rustix::fs::unlinkat(root, "..1", AtFlags::REMOVEDIR).unwrap();
    file.read_exact_at(&mut buffer, 0).unwrap();
    assert_eq!(&buffer, b"old", "until it is closed");
    assert!(volume.tree.generations().contains(&retired));
}

/// Tells the readers to stop, also when the test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Waits until each reader has begun and ended a round: none is left in an older generation.
fn grace(rounds: &[AtomicU64]) {
    let before: Vec<_> = rounds.iter().map(|round| round.load(Ordering::Relaxed)).collect();
    let start = Instant::now();
    for (round, before) in rounds.iter().zip(before) {
        while round.load(Ordering::Relaxed) < before + 2 {
            assert!(start.elapsed() < DEADLINE, "a reader hangs or failed");
            std::thread::yield_now();
        }
    }
}

#[test]
fn readers_see_whole_sets_through_any_number_of_rotations() {
    let value = |number: u64| format!("value-{number:06}").into_bytes();
    let set = |number| snapshot(number, &[("a", &value(number)), ("b", &value(number))]);
    let volume = Volume::of(set(1));
    let (done, rounds) = (AtomicBool::new(false), [const { AtomicU64::new(0) }; 4]);
    std::thread::scope(|scope| {
        let _stop = Stop(&done);
        for round in &rounds {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let resolved = fs::canonicalize(volume.path("..data")).unwrap();
                    let read = |name| fs::read(resolved.join(name)).unwrap();
                    assert_eq!(read("a"), read("b"));
                    assert!(volume.read("a").unwrap().starts_with(b"value-"));
                    round.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for number in 2..60 {
            volume.rotate(set(number));
            assert_eq!(volume.read("a").unwrap(), value(number));
            grace(&rounds);
            volume.remove(number - 1);
        }
    });
    assert_eq!(volume.read("b").unwrap(), value(59));
}

/// Ends a bind mount.
struct Bind<'a>(&'a Path);

impl Drop for Bind<'_> {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.0, UnmountFlags::DETACH);
    }
}

#[test]
fn a_subpath_bind_follows_and_its_watchers_are_told() {
    let volume = Volume::new(&[("a", b"one"), ("b", b"1")]);
    let target = tempfile::NamedTempFile::new().unwrap();
    rustix::mount::mount_bind(fs::canonicalize(volume.path("a")).unwrap(), target.path()).unwrap();
    let _bind = Bind(target.path());
    assert_eq!(fs::read(target.path()).unwrap(), b"one");
    let root = volume.mount.writable.as_fd();
    volume.rotate(snapshot(2, &[("a", b"the second"), ("b", b"2")]));
    assert!(volume.tree.retire(Generation::FIRST));
    rustix::fs::renameat(root, "..1", root, "..sotto/..1").unwrap();
    assert_eq!(fs::read(target.path()).unwrap(), b"one", "the grace time");

    let watch = Watch::on(target.path());
    for (number, value) in [(2, b"the second".as_slice()), (3, b"third")] {
        if number > 2 {
            volume.rotate(snapshot(number, &[("a", value)]));
        }
        for inode in volume.tree.follow(Generation::FIRST) {
            volume.server.invalidate(inode).unwrap();
        }
        let times = Timestamps {
            last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
            last_modification: Timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
        };
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::utimensat(root, "..sotto/..1/a", &times, flags).unwrap();
        assert!(watch.wait().iter().any(|(what, _)| what.contains(ReadFlags::MODIFY)));
        assert_eq!(fs::read(target.path()).unwrap(), value);
        assert_eq!(fs::metadata(target.path()).unwrap().len(), value.len() as u64);
    }
}

#[test]
fn an_inode_that_nobody_refers_to_is_told_apart() {
    let volume = Volume::new(&[("a", b"x")]);
    let _open = volume.open("a");
    let known = volume.tree.current().nodes()[1].inode;
    assert!(volume.server.invalidate(known).unwrap());
    assert!(!volume.server.invalidate(Inode(12_345)).unwrap());
}
