use super::*;
use crate::mount::{self, Fresh, Options};
use rustix::fs::{CWD, Mode};
use sotto_core::fuse_init::IdMapping;
use sotto_core::identity::VolumeId;
use std::os::fd::OwnedFd;

/// A mount that is seen nowhere, with the device that it would have in mountinfo.
fn fresh(id: &str) -> (Fresh, Mount) {
    let options = Options { id_mapping: IdMapping::Off, context: None, resend: true };
    let fresh = Fresh::create(&VolumeId::parse(id).unwrap(), &options).unwrap();
    let info = format!("/proc/self/fdinfo/{}", fresh.connection.as_raw_fd());
    let number = connection_of(&std::fs::read_to_string(info).unwrap()).unwrap_or_default();
    let mount = Mount {
        id: 1,
        parent: 0,
        device: format!("0:{number}"),
        root: "/".into(),
        mount_point: "/x".into(),
        fs_type: mount::FS_TYPE.to_owned(),
        source: format!("sotto:{id}").into(),
    };
    (fresh, mount)
}

fn opened(path: &str, flags: OFlags) -> OwnedFd {
    rustix::fs::openat(CWD, path, flags | OFlags::CLOEXEC, Mode::empty()).unwrap()
}

fn named_by_fdinfo() -> bool {
    let (fresh, _) = fresh("probe");
    let info = format!("/proc/self/fdinfo/{}", fresh.connection.as_raw_fd());
    connection_of(&std::fs::read_to_string(info).unwrap()).is_some()
}

#[test]
fn the_mounts_own_connection_is_taken_and_a_duplicate_too() {
    let (fresh, mount) = fresh("own");
    verify(&fresh.connection, &mount).unwrap();
    verify(fresh.connection.try_clone().unwrap(), &mount).unwrap();
}

#[test]
fn another_file_is_refused() {
    let (_fresh, mount) = fresh("other-file");
    for path in ["/dev/null", "/dev/zero", "/proc/self/status"] {
        let error = verify(opened(path, OFlags::RDONLY), &mount).unwrap_err();
        assert!(matches!(error, ConnectionError::NotADevice), "{path}: {error}");
    }
}

#[test]
fn a_device_on_no_connection_is_refused() {
    let (_fresh, mount) = fresh("unconnected");
    let error = verify(opened("/dev/fuse", OFlags::RDWR), &mount).unwrap_err();
    assert!(matches!(error, ConnectionError::Unconnected(_)), "{error}");
}

#[test]
fn a_device_that_would_not_wait_is_refused() {
    let (fresh, mount) = fresh("spinning");
    rustix::io::ioctl_fionbio(&fresh.connection, true).unwrap();
    let error = verify(&fresh.connection, &mount).unwrap_err();
    assert!(matches!(error, ConnectionError::Mode), "{error}");
    let error = verify(opened("/dev/fuse", OFlags::RDONLY), &mount).unwrap_err();
    assert!(matches!(error, ConnectionError::Mode), "{error}");
}

#[test]
fn another_mounts_connection_is_refused_where_the_kernel_names_it() {
    let (_own, mount) = fresh("victim");
    let (other, _) = fresh("other");
    match verify(&other.connection, &mount) {
        Err(ConnectionError::OtherMount { .. }) => {}
        Ok(()) => assert!(!named_by_fdinfo(), "the kernel names it, and it was taken"),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn numbers_are_read_as_the_kernel_writes_them() {
    assert_eq!(connection_of("pos:\t0\nflags:\t02\nfuse_connection:\t43\n"), Some(43));
    assert_eq!(connection_of("pos:\t0\nflags:\t02\n"), None);
    assert_eq!((number("0:43"), number("8:1")), (Some(43), Some(8 << 20 | 1)));
    for bad in ["", "43", "0:", "x:1", "0:99999999"] {
        assert_eq!(number(bad), None, "{bad:?}");
    }
}
