//! Each request is one call to the tree and one reply, and none waits for anything.
//!
//! What the kernel may keep: names, attributes, links and pages for an hour, because they change only
//! by operations that the kernel makes itself (a rotation) or is told of (an invalidation). Each open
//! still comes here, which is what makes it auditable: unless nobody wants to hear of it ([`AuditSink`]).

mod errno;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{AccessFlags, Errno, FopenFlags, OpenAccMode, OpenFlags};
use sotto_core::audit::{Decision, Opener};
use sotto_core::secret::SecretBytes;
use sotto_core::snapshot::Inode;

use crate::audit::AuditSink;
use crate::tree::attributes::Attributes;
use crate::tree::operations::Caller;
use crate::tree::{OpenMode, Tree, TreeError};
use crate::wire::reply::Reply;
use crate::wire::request::{Modified, Operation, Request, SetAttributes};
use errno::errno;

/// Answers the requests of one volume.
pub(crate) struct Dispatcher {
    tree: Arc<Tree>,
    audit: Arc<dyn AuditSink>,
    id_mapped: bool,
    /// Given with each open: the release of an open that a former server granted has another one.
    handle: u64,
}

impl Dispatcher {
    /// `handle` tells this server from those before it.
    pub(crate) fn new(
        tree: Arc<Tree>,
        audit: Arc<dyn AuditSink>,
        id_mapped: bool,
        handle: u64,
    ) -> Self {
        Self { tree, audit, id_mapped, handle }
    }

    /// The reply to a request; `None` where the kernel expects none.
    pub(crate) fn answer(&self, request: &Request<'_>) -> Option<Reply> {
        let inode = request.inode;
        Some(match request.operation {
            Operation::Lookup { name } => {
                entry(name_of(name).and_then(|name| self.tree.lookup(inode, name)))
            }
            Operation::GetAttributes => attributes(self.tree.attributes(inode)),
            Operation::ReadLink => match self.tree.read_link(inode) {
                Ok(target) => Reply::Bytes(target.into_bytes()),
                Err(error) => failed(error),
            },
            Operation::Open { flags } => self.open(request, flags),
            Operation::Read { offset, size } => self.read(inode, offset, size),
            Operation::Release { handle } => self.release(inode, handle),
            // The kernel keeps listings all the same, and asks no more.
            Operation::OpenDirectory if !self.audit.is_interested() => Reply::Error(Errno::ENOSYS),
            Operation::OpenDirectory => {
                Reply::opened(0, FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_CACHE_DIR)
            }
            Operation::ReadDirectory { after, size } => match self.tree.list(inode, after) {
                Ok(entries) => Reply::directory(&entries, size),
                Err(error) => failed(error),
            },
            Operation::ReadDirectoryPlus { after, size } => match self.tree.list(inode, after) {
                Ok(entries) => Reply::directory_plus(&entries, size),
                Err(error) => failed(error),
            },
            Operation::FileSystemStatus => {
                let usage = self.tree.usage();
                Reply::file_system(usage.bytes, usage.files)
            }
            Operation::Access { mask } => {
                let to_write = AccessFlags::from_bits_retain(mask).contains(AccessFlags::W_OK);
                done(self.tree.access(inode, to_write))
            }
            Operation::ReleaseDirectory | Operation::Destroy => Reply::Done,
            Operation::Unanswered => return None,
            Operation::NotOffered => Reply::Error(Errno::ENOSYS),
            Operation::Malformed => Reply::Error(Errno::EIO),
            Operation::SetAttributes(_)
            | Operation::MakeLink { .. }
            | Operation::MakeDirectory { .. }
            | Operation::RemoveLink { .. }
            | Operation::RemoveDirectory { .. }
            | Operation::Rename { .. }
            | Operation::Change => self.change(request),
        })
    }

    /// What only the steps of a rotation may do.
    fn change(&self, request: &Request<'_>) -> Reply {
        let (tree, caller, inode) = (&self.tree, self.caller(request), request.inode);
        match request.operation {
            Operation::SetAttributes(change) => self.touch(caller, inode, change),
            Operation::MakeDirectory { name } => {
                entry(name_of(name).and_then(|name| tree.make_directory(caller, inode, name)))
            }
            Operation::MakeLink { name, target } => {
                // Not text: no target that was announced.
                let target = std::str::from_utf8(target).unwrap_or_default();
                entry(name_of(name).and_then(|name| tree.make_link(caller, inode, name, target)))
            }
            Operation::RemoveLink { name } => {
                done(name_of(name).and_then(|name| tree.remove_link(caller, inode, name)))
            }
            Operation::RemoveDirectory { name } => {
                done(name_of(name).and_then(|name| tree.remove_directory(caller, inode, name)))
            }
            Operation::Rename { name, new_parent, new_name, flags } => {
                let names = name_of(name).and_then(|name| Ok((name, name_of(new_name)?)));
                done(names.and_then(|(name, new_name)| match flags {
                    0 => tree.rename(caller, (inode, name), (new_parent, new_name)),
                    _ => Err(TreeError::ReadOnly),
                }))
            }
            _ => failed(TreeError::ReadOnly),
        }
    }

    fn touch(&self, caller: Caller, inode: Inode, change: SetAttributes) -> Reply {
        let modified = match change.modified.filter(|_| change.alone) {
            Some(Modified::At { seconds, nanoseconds }) => {
                UNIX_EPOCH.checked_add(Duration::new(seconds, nanoseconds.min(999_999_999)))
            }
            Some(Modified::Now) => Some(SystemTime::now()),
            None => None,
        };
        match modified {
            Some(modified) => attributes(self.tree.touch(caller, inode, modified)),
            None => failed(TreeError::ReadOnly),
        }
    }

    fn caller(&self, request: &Request<'_>) -> Caller {
        // Even on an id-mapped mount the operations that create something come with their ids.
        Caller { uid: (!self.id_mapped || request.uid != u32::MAX).then_some(request.uid) }
    }

    fn open(&self, request: &Request<'_>, flags: i32) -> Reply {
        if !self.audit.is_interested() {
            // Not an error to whoever opens: the kernel opens by itself from now on, and keeps its cache.
            return Reply::Error(Errno::ENOSYS);
        }
        let to_write = OpenFlags(flags).acc_mode() != OpenAccMode::O_RDONLY;
        let open = self.tree.open(request.inode, to_write);
        let decision = if open.result.is_ok() { Decision::Allowed } else { Decision::Denied };
        if let Some((path, generation)) = &open.object {
            let opener = Opener { uid: request.uid, gid: request.gid, pid: request.pid };
            self.audit.opened(path, *generation, opener, decision);
        }
        let flags = match open.result {
            Ok(OpenMode::Cached) => FopenFlags::FOPEN_KEEP_CACHE,
            Ok(OpenMode::Direct) => FopenFlags::FOPEN_DIRECT_IO,
            Err(error) => return failed(error),
        };
        Reply::opened(self.handle, flags | FopenFlags::FOPEN_NOFLUSH)
    }

    fn read(&self, inode: Inode, offset: u64, size: u32) -> Reply {
        // The kernel can't read the pages of memfd_secret (EFAULT, and the request would be lost): copy
        // to memory that is wiped once the reply is written.
        let copy = |content: &[u8]| SecretBytes::new(content.to_vec());
        match self.tree.read(inode, offset, size, copy) {
            Ok(content) => Reply::Secret(content),
            Err(error) => failed(error),
        }
    }

    fn release(&self, inode: Inode, handle: u64) -> Reply {
        if handle == self.handle {
            self.tree.release(inode);
        }
        Reply::Done
    }
}

/// Names in a volume are printable ASCII.
fn name_of(name: &[u8]) -> Result<&str, TreeError> {
    std::str::from_utf8(name).map_err(|_| TreeError::NotFound)
}

fn failed(error: TreeError) -> Reply {
    Reply::Error(errno(error))
}

fn entry(found: Result<Attributes, TreeError>) -> Reply {
    found.map_or_else(failed, |found| Reply::entry(&found))
}

fn attributes(found: Result<Attributes, TreeError>) -> Reply {
    found.map_or_else(failed, |found| Reply::attributes(&found))
}

fn done(done: Result<(), TreeError>) -> Reply {
    done.map_or_else(failed, |()| Reply::Done)
}

#[cfg(test)]
mod tests;
