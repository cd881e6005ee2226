//! Nobody writes: not through the pod's view, and not through the driver's.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{PermissionsExt, symlink};

use rustix::fs::{AtFlags, Mode, OFlags, Timespec, Timestamps, UTIME_NOW};
use rustix::io::Errno;

use super::volume::{Volume, snapshot};

#[test]
fn every_write_through_the_pods_view_is_refused_as_read_only() {
    let volume = Volume::new(&[("a", b"x")]);
    let (file, new) = (volume.path("a"), volume.path("new"));
    let attempts: [(&str, io::Result<()>); 9] = [
        ("create", fs::write(&new, "y")),
        ("overwrite", fs::write(&file, "y")),
        ("append", fs::OpenOptions::new().append(true).open(&file).map(drop)),
        ("mkdir", fs::create_dir(&new)),
        ("symlink", symlink("..1", &new)),
        ("unlink", fs::remove_file(&file)),
        ("rmdir", fs::remove_dir(volume.path("..1"))),
        ("rename", fs::rename(volume.path("..data"), &new)),
        ("chmod", fs::set_permissions(&file, fs::Permissions::from_mode(0o777))),
    ];
    for (what, result) in attempts {
        let error = result.expect_err(what);
        assert_eq!(error.raw_os_error(), Some(libc::EROFS), "{what}: {error}");
    }
    assert_eq!(volume.read("a").unwrap(), b"x");
}

#[test]
fn root_writes_nothing_through_the_drivers_view_but_an_announced_rotation() {
    let volume = Volume::new(&[("a", b"x")]);
    let root = volume.mount.writable.as_fd();
    let mode = Mode::from_raw_mode(0o644);
    let write = OFlags::WRONLY | OFlags::CLOEXEC;
    let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
    let times = Timestamps { last_access: now, last_modification: now };
    let refused = [
        ("create", rustix::fs::openat(root, "new", write | OFlags::CREATE, mode).map(drop)),
        ("write", rustix::fs::openat(root, "..1/a", write, mode).map(drop)),
        ("truncate", rustix::fs::openat(root, "..1/a", write | OFlags::TRUNC, mode).map(drop)),
        ("mkdir", rustix::fs::mkdirat(root, "..2", mode)),
        ("symlink", rustix::fs::symlinkat("..2", root, "..data_tmp")),
        ("unlink", rustix::fs::unlinkat(root, "a", AtFlags::empty())),
        ("unlink of a file", rustix::fs::unlinkat(root, "..1/a", AtFlags::empty())),
        ("rmdir", rustix::fs::unlinkat(root, "..1", AtFlags::REMOVEDIR)),
        ("rename", rustix::fs::renameat(root, "..1", root, "..sotto/..1")),
        ("link", rustix::fs::linkat(root, "..1/a", root, "new", AtFlags::empty())),
        ("chmod", rustix::fs::chmodat(root, "..1/a", mode, AtFlags::empty())),
        ("utimensat", rustix::fs::utimensat(root, "..1/a", &times, AtFlags::empty())),
    ];
    for (what, result) in refused {
        assert_eq!(result, Err(Errno::ROFS), "{what}");
    }
    volume.rotate(snapshot(2, &[("a", b"y")]));
    assert_eq!(volume.read("a").unwrap(), b"y");
}
