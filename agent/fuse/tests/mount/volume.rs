//! A mounted volume, made as the driver makes it: a detached writable mount, a read-only view of it on
//! the target, INIT answered before any server comes.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
};
use sotto_core::audit::{Decision, Opener};
use sotto_core::fuse_init::{IdMapping, InitRequest, READ_BUFFER_BYTES};
use sotto_core::limits::Limits;
use sotto_core::names::ObjectPath;
use sotto_core::secret::SecretBytes;
use sotto_core::snapshot::{FileMode, Generation, HeapMemory, Object, Snapshot, SnapshotBuilder};
use sotto_fuse::{AuditSink, Negotiated, Server, Tree};

/// Long enough for a loaded machine; a test that waits so long has failed.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// One call of the audit sink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Opened {
    pub(crate) object: String,
    pub(crate) generation: u64,
    pub(crate) opener: Opener,
    pub(crate) decision: Decision,
}

/// Keeps what it is told.
#[derive(Default)]
pub(crate) struct Records {
    opened: Mutex<Vec<Opened>>,
    is_deaf: bool,
}

impl Records {
    pub(crate) fn take(&self) -> Vec<Opened> {
        std::mem::take(&mut self.opened.lock().unwrap())
    }
}

impl AuditSink for Records {
    fn is_interested(&self) -> bool {
        !self.is_deaf
    }

    fn opened(
        &self,
        object: &Arc<str>,
        generation: Generation,
        opener: Opener,
        decision: Decision,
    ) {
        self.opened.lock().unwrap().push(Opened {
            object: object.to_string(),
            generation: generation.get(),
            opener,
            decision,
        });
    }
}

/// A mount whose INIT is answered and that nobody serves.
pub(crate) struct Mount {
    pub(crate) fuse: OwnedFd,
    pub(crate) init: Negotiated,
    /// The detached writable mount.
    pub(crate) writable: OwnedFd,
    directory: tempfile::TempDir,
}

impl Mount {
    pub(crate) fn new() -> Self {
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let fuse = rustix::fs::open("/dev/fuse", flags, Mode::empty())
            .expect("these tests need /dev/fuse: run them by tests/tools/with-mounts");
        let writable = mount(fuse.as_fd());
        let directory = tempfile::tempdir().unwrap();
        show_read_only(writable.as_fd(), directory.path());
        let mut buffer = vec![0; READ_BUFFER_BYTES];
        let size = rustix::io::read(&fuse, &mut buffer).unwrap();
        let request = InitRequest::parse(&buffer[..size]).unwrap();
        let (reply, init) = request.answer(IdMapping::Off);
        assert_eq!(rustix::io::write(&fuse, &reply).unwrap(), reply.len());
        Self { fuse, init, writable, directory }
    }

    /// The read-only view, as a pod has it.
    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn serve(&self, tree: &Arc<Tree>, audit: &Arc<Records>, resend: bool) -> Server {
        let fuse = rustix::io::dup(&self.fuse).unwrap();
        let audit: Arc<dyn AuditSink> = Arc::clone(audit) as _;
        Server::start(Arc::clone(tree), fuse, &self.init, resend, audit, "test-volume").unwrap()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // Ends what waits for an answer; without it this process could not end.
            let _ = rustix::mount::unmount(self.path(), UnmountFlags::FORCE);
        }
        if let Err(error) = rustix::mount::unmount(self.path(), UnmountFlags::DETACH) {
            assert!(std::thread::panicking(), "the volume can't be unmounted: {error}");
        }
    }
}

fn mount(fuse: BorrowedFd<'_>) -> OwnedFd {
    let context = rustix::mount::fsopen("fuse", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
    let set = |key, value: &str| {
        rustix::mount::fsconfig_set_string(context.as_fd(), key, value).unwrap();
    };
    set("source", "sotto-test");
    set("fd", &fuse.as_raw_fd().to_string());
    set("rootmode", "40000");
    set("user_id", "0");
    set("group_id", "0");
    rustix::mount::fsconfig_set_flag(context.as_fd(), "allow_other").unwrap();
    rustix::mount::fsconfig_set_flag(context.as_fd(), "default_permissions").unwrap();
    rustix::mount::fsconfig_create(context.as_fd()).unwrap();
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes).unwrap()
}

fn show_read_only(writable: BorrowedFd<'_>, target: &Path) {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    let view = rustix::mount::open_tree(writable, "", flags).unwrap();
    // struct mount_attr: attr_set (RDONLY, NOSUID, NODEV, NOEXEC), attr_clr, propagation, userns_fd.
    let attributes: [u64; 4] = [0b1111, 0, 0, 0];
    // SAFETY: the path is an empty C string, and the attributes live across the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            view.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of_val(&attributes),
        )
    };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    rustix::mount::move_mount(view.as_fd(), "", CWD, target, flags).unwrap();
}

/// A generation of objects with mode 0444.
pub(crate) fn snapshot(number: u64, objects: &[(&str, &[u8])]) -> Arc<Snapshot> {
    let objects: Vec<_> = objects.iter().map(|(name, value)| (*name, *value, 0o444)).collect();
    snapshot_with_modes(number, &objects)
}

pub(crate) fn snapshot_with_modes(number: u64, objects: &[(&str, &[u8], u32)]) -> Arc<Snapshot> {
    let mut builder = SnapshotBuilder::new(Limits::default());
    for (name, value, mode) in objects {
        let (path, version) = (ObjectPath::parse(name).unwrap(), "1".to_owned());
        let (mode, value) = (FileMode::new(*mode), SecretBytes::new(value.to_vec()));
        builder.add(Object { path, mode, version, value }).unwrap();
    }
    let generation = Generation::new(number).unwrap();
    let created = UNIX_EPOCH + Duration::from_secs(1_700_000_000 + number);
    let memory = HeapMemory::default();
    Arc::new(builder.build(generation, created, Some(0), &memory).unwrap())
}

/// A mounted volume with its server in this process.
pub(crate) struct Volume {
    pub(crate) tree: Arc<Tree>,
    pub(crate) audit: Arc<Records>,
    pub(crate) server: Server,
    pub(crate) mount: Mount,
}

impl Volume {
    pub(crate) fn new(objects: &[(&str, &[u8])]) -> Self {
        Self::of(snapshot(1, objects))
    }

    pub(crate) fn of(first: Arc<Snapshot>) -> Self {
        Self::with(first, Records::default())
    }

    /// With nobody who wants to hear of opens.
    pub(crate) fn unaudited(objects: &[(&str, &[u8])]) -> Self {
        let records = Records { is_deaf: true, ..Records::default() };
        Self::with(snapshot(1, objects), records)
    }

    fn with(first: Arc<Snapshot>, records: Records) -> Self {
        let (mount, audit) = (Mount::new(), Arc::new(records));
        let tree = Arc::new(Tree::new(first));
        let server = mount.serve(&tree, &audit, false);
        Self { tree, audit, server, mount }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.mount.path().join(name)
    }

    pub(crate) fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        std::fs::read(self.path(name))
    }

    pub(crate) fn open(&self, name: &str) -> File {
        File::open(self.path(name)).unwrap()
    }

    /// Stages `next` and makes the driver's operations.
    pub(crate) fn rotate(&self, next: Arc<Snapshot>) {
        let directory = next.generation().directory_name();
        self.tree.stage(next).unwrap();
        turn(self.mount.writable.as_fd(), &directory);
    }

    /// Retires a generation and removes it as the driver does, files first.
    pub(crate) fn remove(&self, number: u64) {
        let generation = Generation::new(number).unwrap();
        assert!(self.tree.retire(generation));
        remove_directory(self.mount.writable.as_fd(), &generation.directory_name());
    }
}

/// mkdir, symlink, rename: what makes a generation the current one.
pub(crate) fn turn(root: BorrowedFd<'_>, directory: &str) {
    rustix::fs::mkdirat(root, directory, Mode::from_raw_mode(0o755)).unwrap();
    rustix::fs::symlinkat(directory, root, "..data_tmp").unwrap();
    rustix::fs::renameat(root, "..data_tmp", root, "..data").unwrap();
}

/// Removes a directory of plain files.
pub(crate) fn remove_directory(root: BorrowedFd<'_>, name: &str) {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::openat(root, name, flags, Mode::empty()).unwrap();
    let entries: Vec<_> = rustix::fs::Dir::read_from(&directory).unwrap().collect();
    for entry in entries {
        let entry = entry.unwrap();
        if ![c".", c".."].contains(&entry.file_name()) {
            rustix::fs::unlinkat(&directory, entry.file_name(), AtFlags::empty()).unwrap();
        }
    }
    rustix::fs::unlinkat(root, name, AtFlags::REMOVEDIR).unwrap();
}
