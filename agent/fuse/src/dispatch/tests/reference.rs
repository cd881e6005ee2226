//! The same file system under fuser's own session: what its replies are compared with.

mod convert;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags,
    INodeNo, LockOwner, OpenAccMode, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite,
    Request, TimeOrNow, WriteFlags,
};
use sotto_core::audit::{Decision, Opener};
use sotto_core::secret::SecretBytes;
use sotto_core::snapshot::Inode;

use crate::audit::AuditSink;
use crate::dispatch::errno::errno;
use crate::tree::operations::Caller;
use crate::tree::{OpenMode, Tree, TreeError};
use convert::{
    BLOCK_BYTES, NO_GENERATION, file_attr, file_type, kept_for, name_of, reply_attr, reply_empty,
    reply_entry,
};

const LONGEST_NAME: u32 = 255;

/// fuser's callbacks, each one call to the tree.
pub(super) struct Adapter {
    tree: Arc<Tree>,
    audit: Arc<dyn AuditSink>,
    id_mapped: bool,
    handle: FileHandle,
}

impl Adapter {
    pub(super) fn new(
        tree: Arc<Tree>,
        audit: Arc<dyn AuditSink>,
        id_mapped: bool,
        handle: u64,
    ) -> Self {
        Self { tree, audit, id_mapped, handle: FileHandle(handle) }
    }

    fn caller(&self, request: &Request) -> Caller {
        let uid = request.uid();
        Caller { uid: (!self.id_mapped || uid != u32::MAX).then_some(uid) }
    }

    fn report(&self, request: &Request, inode: Inode, to_write: bool) -> Result<OpenMode, Errno> {
        let open = self.tree.open(inode, to_write);
        let decision = if open.result.is_ok() { Decision::Allowed } else { Decision::Denied };
        if let Some((path, generation)) = &open.object {
            let opener = Opener { uid: request.uid(), gid: request.gid(), pid: request.pid() };
            self.audit.opened(path, *generation, opener, decision);
        }
        open.result.map_err(errno)
    }
}

impl Filesystem for Adapter {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = name_of(name).and_then(|name| self.tree.lookup(Inode(parent.0), name));
        reply_entry(found, reply);
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply_attr(self.tree.attributes(Inode(inode.0)), reply);
    }

    fn setattr(
        &self,
        request: &Request,
        inode: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let alone = (mode, uid, gid, size) == (None, None, None, None) && atime.is_none();
        let modified = match mtime.filter(|_| alone) {
            Some(TimeOrNow::SpecificTime(time)) => time,
            Some(TimeOrNow::Now) => SystemTime::now(),
            None => return reply.error(errno(TreeError::ReadOnly)),
        };
        reply_attr(self.tree.touch(self.caller(request), Inode(inode.0), modified), reply);
    }

    fn readlink(&self, _: &Request, inode: INodeNo, reply: ReplyData) {
        match self.tree.read_link(Inode(inode.0)) {
            Ok(target) => reply.data(target.as_bytes()),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn open(&self, request: &Request, inode: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let to_write = flags.acc_mode() != OpenAccMode::O_RDONLY;
        match self.report(request, Inode(inode.0), to_write) {
            Ok(OpenMode::Cached) => {
                let kept = FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_NOFLUSH;
                reply.opened(self.handle, kept);
            }
            Ok(OpenMode::Direct) => {
                let direct = FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_NOFLUSH;
                reply.opened(self.handle, direct);
            }
            Err(error) => reply.error(error),
        }
    }

    fn read(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let copy = |content: &[u8]| SecretBytes::new(content.to_vec());
        match self.tree.read(Inode(inode.0), offset, size, copy) {
            Ok(content) => reply.data(content.expose()),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn release(
        &self,
        _: &Request,
        inode: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        if handle == self.handle {
            self.tree.release(Inode(inode.0));
        }
        reply.ok();
    }

    fn opendir(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let kept = FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_CACHE_DIR;
        reply.opened(FileHandle(0), kept);
    }

    fn readdir(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let entries = match self.tree.list(Inode(inode.0), offset) {
            Ok(entries) => entries,
            Err(error) => return reply.error(errno(error)),
        };
        for entry in entries {
            let (number, kind) = (INodeNo(entry.attributes.inode.0), entry.attributes.kind);
            if reply.add(number, entry.cookie, file_type(kind), &entry.name) {
                break;
            }
        }
        reply.ok();
    }

    fn readdirplus(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let entries = match self.tree.list(Inode(inode.0), offset) {
            Ok(entries) => entries,
            Err(error) => return reply.error(errno(error)),
        };
        for entry in entries {
            let (number, attr) = (INodeNo(entry.attributes.inode.0), file_attr(&entry.attributes));
            let kept = kept_for(&entry.attributes);
            if reply.add(number, entry.cookie, &entry.name, &kept, &attr, NO_GENERATION) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let usage = self.tree.usage();
        let blocks = usage.bytes.div_ceil(u64::from(BLOCK_BYTES));
        reply.statfs(blocks, 0, 0, usage.files, 0, BLOCK_BYTES, LONGEST_NAME, BLOCK_BYTES);
    }

    fn access(&self, _: &Request, inode: INodeNo, mask: AccessFlags, reply: ReplyEmpty) {
        let to_write = mask.contains(AccessFlags::W_OK);
        reply_empty(self.tree.access(Inode(inode.0), to_write), reply);
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        let made = name_of(name)
            .and_then(|name| self.tree.make_directory(self.caller(request), Inode(parent.0), name));
        reply_entry(made, reply);
    }

    fn symlink(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let target = std::str::from_utf8(target.as_os_str().as_bytes()).unwrap_or_default();
        let made = name_of(name).and_then(|name| {
            self.tree.make_link(self.caller(request), Inode(parent.0), name, target)
        });
        reply_entry(made, reply);
    }

    fn rename(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let caller = self.caller(request);
        let renamed = name_of(name).and_then(|name| {
            let (from, to) = ((Inode(parent.0), name), (Inode(new_parent.0), name_of(new_name)?));
            if flags.is_empty() {
                self.tree.rename(caller, from, to)
            } else {
                Err(TreeError::ReadOnly)
            }
        });
        reply_empty(renamed, reply);
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let caller = self.caller(request);
        let removed =
            name_of(name).and_then(|name| self.tree.remove_link(caller, Inode(parent.0), name));
        reply_empty(removed, reply);
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let caller = self.caller(request);
        let removed = name_of(name)
            .and_then(|name| self.tree.remove_directory(caller, Inode(parent.0), name));
        reply_empty(removed, reply);
    }

    fn mknod(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, _: u32, _: u32, reply: ReplyEntry) {
        reply.error(errno(TreeError::ReadOnly));
    }

    fn link(&self, _: &Request, _: INodeNo, _: INodeNo, _: &OsStr, reply: ReplyEntry) {
        reply.error(errno(TreeError::ReadOnly));
    }

    fn create(
        &self,
        _: &Request,
        _: INodeNo,
        _: &OsStr,
        _: u32,
        _: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        reply.error(errno(TreeError::ReadOnly));
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        _: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        reply.error(errno(TreeError::ReadOnly));
    }

    fn fallocate(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        _: u64,
        _: i32,
        reply: ReplyEmpty,
    ) {
        reply.error(errno(TreeError::ReadOnly));
    }

    fn copy_file_range(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        _: u64,
        _: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        reply.error(errno(TreeError::ReadOnly));
    }

    fn setxattr(
        &self,
        _: &Request,
        _: INodeNo,
        _: &OsStr,
        _: &[u8],
        _: i32,
        _: u32,
        reply: ReplyEmpty,
    ) {
        reply.error(errno(TreeError::ReadOnly));
    }

    fn removexattr(&self, _: &Request, _: INodeNo, _: &OsStr, reply: ReplyEmpty) {
        reply.error(errno(TreeError::ReadOnly));
    }
}
