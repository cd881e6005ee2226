//! What a pod reads: names, links, attributes, content, and the records of its opens.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::SystemTime;

use rustix::mm::{MapFlags, ProtFlags};
use sotto_core::audit::Decision;
use sotto_fuse::End;

use super::volume::{DEADLINE, Volume, snapshot_with_modes};

fn listed(directory: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn a_pod_sees_the_layout_of_every_kubernetes_volume() {
    let volume = Volume::new(&[("password", b"hunter2"), ("tls/key", b"K"), ("tls/crt", b"")]);
    let root = volume.path("");
    assert_eq!(listed(&root), set(&["..1", "..data", "password", "tls"]));
    assert_eq!(listed(&volume.path("tls")), set(&["crt", "key"]));
    let link = |name| fs::read_link(volume.path(name)).unwrap().display().to_string();
    assert_eq!(link("password"), "..data/password");
    assert_eq!(link("..data"), "..1");
    assert_eq!(volume.read("password").unwrap(), b"hunter2");
    assert_eq!(volume.read("tls/key").unwrap(), b"K");
    assert_eq!(volume.read("tls/crt").unwrap(), b"");
    assert_eq!(volume.read("absent").unwrap_err().kind(), io::ErrorKind::NotFound);
    // Again, now from the kernel's caches.
    assert_eq!(listed(&root), set(&["..1", "..data", "password", "tls"]));
    assert_eq!(volume.read("password").unwrap(), b"hunter2");
}

#[test]
fn attributes_agree_however_they_are_asked_for() {
    let volume = Volume::new(&[("a", b"12345")]);
    let through_link = fs::metadata(volume.path("a")).unwrap();
    let of_open_file = volume.open("a").metadata().unwrap();
    let entry = fs::read_dir(volume.path("..data/")).unwrap().next().unwrap().unwrap();
    for metadata in [&through_link, &of_open_file, &entry.metadata().unwrap()] {
        assert_eq!((metadata.mode(), metadata.size(), metadata.nlink()), (0o100_444, 5, 1));
        assert_eq!((metadata.uid(), metadata.gid()), (0, 0));
        assert_eq!(metadata.ino(), through_link.ino());
        assert_eq!(metadata.mtime(), 1_700_000_001);
    }
    let statfs = rustix::fs::statvfs(volume.path("")).unwrap();
    assert_eq!((statfs.f_bavail, statfs.f_namemax), (0, 255));
    assert!(statfs.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY));
}

#[test]
fn a_large_value_is_the_same_by_reads_of_any_size_and_by_mapping() {
    let value: Vec<u8> = (0..1_000_003_u32).map(|at| (at % 251) as u8).collect();
    let volume = Volume::new(&[("large", &value)]);
    let file = volume.open("large");
    let mut part = vec![0; 5000];
    file.read_exact_at(&mut part, 777_777).unwrap();
    assert_eq!(part, value[777_777..782_777]);
    // SAFETY: a fresh read-only mapping of a file that doesn't change, unmapped before it goes.
    unsafe {
        let (protection, flags) = (ProtFlags::READ, MapFlags::SHARED);
        let start =
            rustix::mm::mmap(std::ptr::null_mut(), value.len(), protection, flags, &file, 0);
        let start = start.unwrap();
        let mapped = std::slice::from_raw_parts(start.cast::<u8>(), value.len());
        assert!(mapped == value, "the mapping differs");
        rustix::mm::munmap(start, value.len()).unwrap();
    }
    assert!(volume.read("large").unwrap() == value, "the read differs");
}

#[test]
fn a_thousand_names_are_listed_once_each() {
    let names: Vec<String> = (0..1000).map(|number| format!("object-{number}")).collect();
    let objects: Vec<_> = names.iter().map(|name| (name.as_str(), b"v".as_slice())).collect();
    let volume = Volume::new(&objects);
    for directory in ["", "..data/"] {
        let entries: Vec<_> = fs::read_dir(volume.path(directory)).unwrap().collect();
        let found = listed(&volume.path(directory));
        assert!(names.iter().all(|name| found.contains(name)));
        assert_eq!(entries.len(), found.len());
    }
}

#[test]
fn the_mode_keeps_others_out() {
    let objects: [(&str, &[u8], u32); 3] =
        [("open", b"o", 0o444), ("owners", b"s", 0o400), ("nobodys", b"s", 0o000)];
    let volume = Volume::of(snapshot_with_modes(1, &objects));
    let paths = ["open", "owners", "nobodys"].map(|name| volume.path(name));
    let results = std::thread::spawn(move || {
        become_somebody_else();
        paths.map(|path| fs::read(path).map_err(|error| error.kind()))
    });
    let [open, owners, nobodys] = results.join().unwrap();
    assert_eq!(open, Ok(b"o".to_vec()));
    assert_eq!(nobodys, Err(io::ErrorKind::PermissionDenied));
    // In a user namespace with a single uid there is nobody else: only the mode 000 tells.
    if other_uids_exist() {
        assert_eq!(owners, Err(io::ErrorKind::PermissionDenied));
    }
}

fn other_uids_exist() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap();
    let count = map.split_whitespace().nth(2).unwrap().parse::<u64>().unwrap();
    count > 1000
}

/// This thread alone loses its capabilities and, where there are others, its uid.
fn become_somebody_else() {
    if other_uids_exist() {
        // SAFETY: the raw system call changes the ids of the calling thread only.
        let result = unsafe { libc::syscall(libc::SYS_setresuid, 1000, 1000, 1000) };
        assert_eq!(result, 0, "{}", io::Error::last_os_error());
    } else {
        let none = rustix::thread::CapabilitySet::empty();
        let (effective, permitted, inheritable) = (none, none, none);
        let sets = rustix::thread::CapabilitySets { effective, permitted, inheritable };
        rustix::thread::set_capabilities(None, sets).unwrap();
    }
}

#[test]
fn each_open_is_recorded_with_its_opener() {
    let volume = Volume::new(&[("a", b"x"), ("d/b", b"y")]);
    volume.audit.take();
    for name in ["a", "a", "d/b"] {
        volume.read(name).unwrap();
    }
    fs::metadata(volume.path("a")).unwrap();
    let records = volume.audit.take();
    let objects: Vec<_> = records.iter().map(|record| record.object.as_str()).collect();
    assert_eq!(objects, ["a", "a", "d/b"]);
    for record in records {
        assert_eq!((record.generation, record.decision), (1, Decision::Allowed));
        assert_eq!((record.opener.uid, record.opener.gid), (0, 0));
        assert_eq!(record.opener.pid, rustix::thread::gettid().as_raw_nonzero().get() as u32);
    }
}

#[test]
fn the_state_is_read_fresh_each_time_and_not_listed() {
    let volume = Volume::new(&[("a", b"x")]);
    for state in ["first", "then something longer", "short"] {
        volume.tree.set_status(state.as_bytes().to_vec(), SystemTime::now());
        assert_eq!(volume.read("..sotto/status.json").unwrap(), state.as_bytes());
        let size = fs::metadata(volume.path("..sotto/status.json")).unwrap().len();
        assert_eq!(size, state.len() as u64);
    }
    assert!(!listed(&volume.path("")).contains("..sotto"));
    assert!(volume.audit.take().is_empty(), "it is no secret");
}

#[test]
fn a_server_ends_when_the_volume_is_unmounted() {
    let Volume { server, mount, .. } = Volume::new(&[("a", b"x")]);
    assert!(!server.is_ended());
    drop(mount);
    assert_eq!(server.wait_ended(DEADLINE), Some(End::Disconnected));
    assert!(server.is_ended());
}
