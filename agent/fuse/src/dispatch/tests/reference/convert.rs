//! From what the tree says to what fuser sends.

use std::ffi::OsStr;
use std::time::Duration;

use fuser::{FileAttr, FileType, Generation, INodeNo, ReplyAttr, ReplyEmpty, ReplyEntry};

use crate::dispatch::errno::errno;
use crate::tree::TreeError;
use crate::tree::attributes::{Attributes, Kind};

/// How long the kernel may keep what is cacheable.
const KEPT_FOR: Duration = Duration::from_secs(3600);
/// What `statfs` counts in.
pub(super) const BLOCK_BYTES: u32 = 4096;
/// Inode numbers are never used twice.
pub(super) const NO_GENERATION: Generation = Generation(0);

pub(super) fn name_of(name: &OsStr) -> Result<&str, TreeError> {
    // Names in a volume are printable ASCII.
    name.to_str().ok_or(TreeError::NotFound)
}

pub(super) fn kept_for(attributes: &Attributes) -> Duration {
    if attributes.cacheable { KEPT_FOR } else { Duration::ZERO }
}

pub(super) fn file_type(kind: Kind) -> FileType {
    match kind {
        Kind::Directory => FileType::Directory,
        Kind::File => FileType::RegularFile,
        Kind::Link => FileType::Symlink,
    }
}

pub(super) fn file_attr(attributes: &Attributes) -> FileAttr {
    FileAttr {
        ino: INodeNo(attributes.inode.0),
        size: attributes.size,
        blocks: attributes.size.div_ceil(512),
        atime: attributes.modified,
        mtime: attributes.modified,
        ctime: attributes.modified,
        crtime: attributes.modified,
        kind: file_type(attributes.kind),
        perm: attributes.mode,
        nlink: 1,
        uid: 0,
        gid: attributes.gid,
        rdev: 0,
        blksize: BLOCK_BYTES,
        flags: 0,
    }
}

pub(super) fn reply_entry(found: Result<Attributes, TreeError>, reply: ReplyEntry) {
    match found {
        Ok(attributes) => {
            reply.entry(&kept_for(&attributes), &file_attr(&attributes), NO_GENERATION);
        }
        Err(error) => reply.error(errno(error)),
    }
}

pub(super) fn reply_attr(found: Result<Attributes, TreeError>, reply: ReplyAttr) {
    match found {
        Ok(attributes) => reply.attr(&kept_for(&attributes), &file_attr(&attributes)),
        Err(error) => reply.error(errno(error)),
    }
}

pub(super) fn reply_empty(done: Result<(), TreeError>, reply: ReplyEmpty) {
    match done {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(errno(error)),
    }
}
