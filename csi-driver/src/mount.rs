//! FUSE mounts by the new mount API: made detached, attached by file descriptor, ended by force.
//!
//! Invariant: a mount becomes visible only by [`Fresh::attach`], after its agent serves it; what is visible
//! is read-only, nosuid, nodev, noexec. Nothing here asks a mounted file system anything: a server that
//! doesn't answer would keep us waiting for ever.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, unmount,
};
use sotto_core::fuse_init::{
    IdMapping, InitError, InitFlags, InitRequest, Negotiated, READ_BUFFER_BYTES,
};
use sotto_core::identity::VolumeId;

use crate::mountinfo::Mount;
use crate::target::Parent;

/// The type of our mounts in mountinfo.
pub const FS_TYPE: &str = "fuse.sotto";
/// Their source is this and the volume's id, so that a mount names its volume even without a journal.
const SOURCE_PREFIX: &str = "sotto:";
/// The kernel queues FUSE_INIT when it makes the file system; later it never comes.
const INIT_DEADLINE: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };
/// Mounts stacked on one target that an unpublish takes away.
const MAX_STACKED: usize = 16;

/// A step of making a mount that failed.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// No device.
    #[error("/dev/fuse can't be opened: load the fuse module on this node (modprobe fuse)")]
    Device(#[source] io::Error),
    /// The kernel refused to make the file system.
    #[error("the kernel refuses a FUSE file system: {0}")]
    Create(#[source] io::Error),
    /// FUSE_INIT did not come or can't be answered.
    #[error("the kernel's FUSE_INIT can't be answered: {0}")]
    Init(#[source] io::Error),
    /// A kernel that we don't serve.
    #[error(transparent)]
    Kernel(#[from] InitError),
}

impl From<io::Error> for MountError {
    fn from(error: io::Error) -> Self {
        Self::Create(error)
    }
}

/// What an administrator or kubelet chooses about a mount.
#[derive(Debug, Clone)]
pub struct Options {
    /// Whether the mount is to be id-mapped.
    pub id_mapping: IdMapping,
    /// The SELinux context of all its files.
    pub context: Option<String>,
    /// False: as on a kernel before 6.9, whatever this one can.
    pub resend: bool,
}

/// A mount that nobody can see yet. Dropped, it is gone.
#[derive(Debug)]
pub struct Fresh {
    /// The connection, INIT answered.
    pub connection: OwnedFd,
    /// What INIT agreed upon.
    pub negotiated: Negotiated,
    mount: OwnedFd,
}

impl Fresh {
    /// Makes a FUSE file system for a volume and answers its INIT.
    ///
    /// # Errors
    /// Which step the kernel refused; nothing is left then.
    pub fn create(volume: &VolumeId, options: &Options) -> Result<Self, MountError> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let connection = rustix::fs::openat(CWD, "/dev/fuse", flags, Mode::empty())
            .map_err(|error| MountError::Device(error.into()))?;
        let mount = detached(&connection, volume, options)
            .map_err(|error| MountError::Create(error.into()))?;
        let mut negotiated = answer_init(&connection, options.id_mapping)?;
        if !options.resend {
            // The kernel itself makes nothing of this flag.
            negotiated.flags &= !InitFlags::HAS_RESEND.0;
        }
        Ok(Self { connection, negotiated, mount })
    }

    /// Makes the mount visible at `target`, an open directory, and returns the connection.
    ///
    /// # Errors
    /// The kernel's; nothing is mounted then.
    pub fn attach(self, target: &OwnedFd) -> io::Result<OwnedFd> {
        let flags =
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        move_mount(&self.mount, "", target, "", flags)?;
        Ok(self.connection)
    }
}

fn detached(
    connection: &OwnedFd,
    volume: &VolumeId,
    options: &Options,
) -> rustix::io::Result<OwnedFd> {
    let context = fsopen("fuse", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let set = |key: &str, value: &str| fsconfig_set_string(&context, key, value);
    set("source", &format!("{SOURCE_PREFIX}{volume}"))?;
    set("subtype", "sotto")?;
    set("fd", &connection.as_raw_fd().to_string())?;
    set("rootmode", "40000")?;
    set("user_id", "0")?;
    set("group_id", "0")?;
    // The kernel checks modes, for all users; the server needs no code for it.
    fsconfig_set_flag(&context, "allow_other")?;
    fsconfig_set_flag(&context, "default_permissions")?;
    if let Some(label) = &options.context {
        set("context", label)?;
    }
    fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

fn answer_init(connection: &OwnedFd, mapping: IdMapping) -> Result<Negotiated, MountError> {
    let mut bytes = vec![0; READ_BUFFER_BYTES];
    let size = read_request(connection, &mut bytes).map_err(MountError::Init)?;
    let (reply, negotiated) = InitRequest::parse(&bytes[..size])?.answer(mapping);
    let written =
        rustix::io::write(connection, &reply).map_err(|error| MountError::Init(error.into()))?;
    if written == reply.len() {
        Ok(negotiated)
    } else {
        Err(MountError::Init(io::ErrorKind::WriteZero.into()))
    }
}

fn read_request(connection: &OwnedFd, bytes: &mut [u8]) -> io::Result<usize> {
    let mut ready = [PollFd::new(connection, PollFlags::IN)];
    if poll(&mut ready, Some(&INIT_DEADLINE))? == 0 {
        return Err(io::ErrorKind::TimedOut.into());
    }
    Ok(rustix::io::read(connection, bytes)?)
}

/// The volume whose mount this is, if it is one of ours.
#[must_use]
pub fn volume_of(mount: &Mount) -> Option<VolumeId> {
    if mount.fs_type != FS_TYPE {
        return None;
    }
    let id = mount.source_after(SOURCE_PREFIX).and_then(OsStr::to_str)?;
    VolumeId::parse(id).ok()
}

/// How a mount is taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Ours. The pod's containers have ended when kubelet unpublishes; whoever still has a file open (a
    /// leaked mount namespace, a process stuck on a server that doesn't answer) gets an error now and is
    /// not waited for.
    Forced,
    /// Ours, whose own unpublish is still to come: whoever waits gets an error now, and what is in use stays mounted.
    Connection,
    /// Somebody else's: its open files stay usable.
    Lazy,
}

/// Unmounts what lies on a target, and what lies beneath that; nothing there is fine.
///
/// # Errors
/// The kernel's.
pub fn end(parent: &Parent, how: End) -> io::Result<()> {
    let (directory, name) = parent.target();
    let path = format!("/proc/self/fd/{}/{name}", directory.as_raw_fd());
    let flags = match how {
        End::Forced => UnmountFlags::FORCE | UnmountFlags::DETACH | UnmountFlags::NOFOLLOW,
        End::Connection => UnmountFlags::FORCE | UnmountFlags::NOFOLLOW,
        End::Lazy => UnmountFlags::DETACH | UnmountFlags::NOFOLLOW,
    };
    for _ in 0..MAX_STACKED {
        match unmount(path.as_str(), flags) {
            Ok(()) => {}
            // Its connection has ended all the same.
            Err(rustix::io::Errno::BUSY) if how == End::Connection => return Ok(()),
            // Not a mount point (any more), or not there at all.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
    Err(io::Error::other("more mounts are stacked on the target than are taken away at once"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn mount(fs_type: &str, source: &str) -> Mount {
        Mount {
            id: 1,
            parent: 0,
            device: "0:1".to_owned(),
            root: PathBuf::from("/"),
            mount_point: PathBuf::from("/x"),
            fs_type: fs_type.to_owned(),
            source: source.into(),
        }
    }

    #[test]
    fn only_our_mounts_name_a_volume() {
        assert_eq!(volume_of(&mount(FS_TYPE, "sotto:csi-1")).unwrap().as_str(), "csi-1");
        for (fs_type, source) in
            [("tmpfs", "sotto:csi-1"), (FS_TYPE, "tmpfs"), (FS_TYPE, "sotto:../x"), (FS_TYPE, "")]
        {
            assert_eq!(volume_of(&mount(fs_type, source)), None);
        }
    }

    #[test]
    fn a_mount_that_is_dropped_leaves_nothing() {
        let id = VolumeId::parse("dropped-unseen").unwrap();
        let options = Options { id_mapping: IdMapping::Off, context: None, resend: true };
        let fresh = Fresh::create(&id, &options).unwrap();
        assert_eq!(fresh.negotiated.major, 7);
        drop(fresh);
        let left = crate::mountinfo::read().unwrap();
        assert!(!left.iter().any(|mount| volume_of(mount).as_ref() == Some(&id)));
    }

    #[test]
    fn whether_something_is_mounted_is_told_though_nobody_serves_it() {
        let directory = tempfile::tempdir().unwrap();
        let kubelet = crate::target::KubeletDir::open(directory.path()).unwrap();
        let relative = "pods/uid-1/volumes/kubernetes.io~csi/secrets";
        std::fs::create_dir_all(directory.path().join(relative)).unwrap();
        let path = directory.path().join(relative).join("mount");
        let parent = kubelet.open_parent(&kubelet.target(path.to_str().unwrap()).unwrap()).unwrap();
        assert_eq!(parent.is_mounted().unwrap(), Some(false), "there is no target");
        let target = parent.make_target().unwrap();
        assert_eq!(parent.is_mounted().unwrap(), Some(false));
        let id = VolumeId::parse("unserved").unwrap();
        let options = Options { id_mapping: IdMapping::Off, context: None, resend: true };
        let connection = Fresh::create(&id, &options).unwrap().attach(&target).unwrap();
        // Hangs if the kernel asks whoever should serve it.
        let (told, tells) = std::sync::mpsc::channel();
        let asking = std::thread::spawn(move || {
            let _ = told.send(parent.is_mounted().map_err(|error| error.to_string()));
            parent
        });
        let deadline = std::time::Duration::from_secs(10);
        assert_eq!(tells.recv_timeout(deadline).unwrap(), Ok(Some(true)));
        let parent = asking.join().unwrap();
        drop(connection);
        assert_eq!(parent.is_mounted().unwrap(), Some(true), "dead, and mounted");
        end(&parent, End::Forced).unwrap();
        assert_eq!(parent.is_mounted().unwrap(), Some(false));
    }
}
