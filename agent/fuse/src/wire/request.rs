//! What the kernel asks.

use sotto_core::snapshot::Inode;

use super::cursor::Cursor;

const HEADER_BYTES: usize = 40;

const FATTR_MODE: u32 = 1 << 0;
const FATTR_UID: u32 = 1 << 1;
const FATTR_GID: u32 = 1 << 2;
const FATTR_SIZE: u32 = 1 << 3;
const FATTR_ATIME: u32 = 1 << 4;
const FATTR_MTIME: u32 = 1 << 5;
const FATTR_MTIME_NOW: u32 = 1 << 8;
/// What [`SetAttributes::alone`] allows beside the time of the last change: a handle, a lock's owner, the
/// time of the change of attributes, which nobody chooses.
const FATTR_OTHERS: u32 = FATTR_MODE | FATTR_UID | FATTR_GID | FATTR_SIZE | FATTR_ATIME;

/// One request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Request<'a> {
    /// Its number; a request that the kernel sent again has bit 63 set.
    pub(crate) unique: u64,
    pub(crate) inode: Inode,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) pid: u32,
    pub(crate) operation: Operation<'a>,
}

/// What is asked, with what of it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation<'a> {
    Lookup {
        name: &'a [u8],
    },
    GetAttributes,
    SetAttributes(SetAttributes),
    ReadLink,
    MakeLink {
        name: &'a [u8],
        target: &'a [u8],
    },
    MakeDirectory {
        name: &'a [u8],
    },
    RemoveLink {
        name: &'a [u8],
    },
    RemoveDirectory {
        name: &'a [u8],
    },
    Rename {
        name: &'a [u8],
        new_parent: Inode,
        new_name: &'a [u8],
        flags: u32,
    },
    Open {
        flags: i32,
    },
    Read {
        offset: u64,
        size: u32,
    },
    Release {
        handle: u64,
    },
    OpenDirectory,
    ReadDirectory {
        after: u64,
        size: u32,
    },
    ReadDirectoryPlus {
        after: u64,
        size: u32,
    },
    ReleaseDirectory,
    FileSystemStatus,
    Access {
        mask: i32,
    },
    /// Anything that would change a file system that could be written to.
    Change,
    /// The kernel expects no answer.
    Unanswered,
    /// The connection ends.
    Destroy,
    /// Not offered; the kernel asks this once for each connection.
    NotOffered,
    /// Its body isn't what its number says.
    Malformed,
}

/// A change of attributes, of which only that of the last change's time can be granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SetAttributes {
    /// Whether nothing else is to change.
    pub(crate) alone: bool,
    pub(crate) modified: Option<Modified>,
}

/// A new time of the last change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Modified {
    Now,
    At { seconds: u64, nanoseconds: u32 },
}

/// No request: shorter than its header, or of another length than the header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} bytes from the FUSE device are no whole request")]
pub(crate) struct NoRequest(pub(crate) usize);

impl<'a> Request<'a> {
    /// Reads what one read from the device returned.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, NoRequest> {
        let broken = NoRequest(bytes.len());
        let mut header = Cursor::new(bytes.get(..HEADER_BYTES).ok_or(broken)?);
        let mut fields = || {
            let (length, opcode, unique) = (header.u32()?, header.u32()?, header.u64()?);
            let (inode, uid, gid, pid) =
                (header.u64()?, header.u32()?, header.u32()?, header.u32()?);
            let _extensions = header.u16()?;
            Some((length, opcode, unique, Inode(inode), uid, gid, pid))
        };
        let (length, opcode, unique, inode, uid, gid, pid) = fields().ok_or(broken)?;
        if length as usize != bytes.len() {
            return Err(broken);
        }
        let body = Cursor::new(&bytes[HEADER_BYTES..]);
        let operation = Operation::parse(opcode, body).unwrap_or(Operation::Malformed);
        Ok(Self { unique, inode, uid, gid, pid, operation })
    }
}

impl<'a> Operation<'a> {
    fn parse(opcode: u32, mut body: Cursor<'a>) -> Option<Self> {
        Some(match opcode {
            1 => Self::Lookup { name: body.name()? },
            3 => Self::GetAttributes,
            4 => Self::SetAttributes(SetAttributes::parse(&mut body)?),
            5 => Self::ReadLink,
            6 => Self::MakeLink { name: body.name()?, target: body.name()? },
            9 => {
                body.skip(8)?; // mode, umask
                Self::MakeDirectory { name: body.name()? }
            }
            10 => Self::RemoveLink { name: body.name()? },
            11 => Self::RemoveDirectory { name: body.name()? },
            12 => {
                let new_parent = Inode(body.u64()?);
                Self::Rename { new_parent, flags: 0, name: body.name()?, new_name: body.name()? }
            }
            14 => Self::Open { flags: body.u32()?.cast_signed() },
            15 => {
                let (offset, size) = span(&mut body)?;
                Self::Read { offset, size }
            }
            17 => Self::FileSystemStatus,
            18 => Self::Release { handle: body.u64()? },
            27 => Self::OpenDirectory,
            28 => {
                let (after, size) = span(&mut body)?;
                Self::ReadDirectory { after, size }
            }
            29 => Self::ReleaseDirectory,
            34 => Self::Access { mask: body.u32()?.cast_signed() },
            38 => Self::Destroy,
            44 => {
                let (after, size) = span(&mut body)?;
                Self::ReadDirectoryPlus { after, size }
            }
            45 => {
                let (new_parent, flags) = (Inode(body.u64()?), body.u32()?);
                body.skip(4)?; // padding
                Self::Rename { new_parent, flags, name: body.name()?, new_name: body.name()? }
            }
            // FORGET, NOTIFY_REPLY, BATCH_FORGET.
            2 | 41 | 42 => Self::Unanswered,
            // MKNOD, LINK, WRITE, SETXATTR, REMOVEXATTR, CREATE, FALLOCATE, COPY_FILE_RANGE.
            8 | 13 | 16 | 21 | 24 | 35 | 43 | 47 => Self::Change,
            // Among them FLUSH: a close then doesn't wait for a server, even by a kernel that doesn't know
            // FOPEN_NOFLUSH; and INTERRUPT: no request here lasts.
            _ => Self::NotOffered,
        })
    }
}

/// Offset and size of READ, READDIR and READDIRPLUS.
fn span(body: &mut Cursor<'_>) -> Option<(u64, u32)> {
    body.skip(8)?; // handle
    Some((body.u64()?, body.u32()?))
}

impl SetAttributes {
    fn parse(body: &mut Cursor<'_>) -> Option<Self> {
        let valid = body.u32()?;
        body.skip(4 + 8 + 8 + 8 + 8)?; // padding, handle, size, lock's owner, time of the last access
        let seconds = body.u64()?;
        body.skip(8 + 4)?; // seconds of the attributes' change, nanoseconds of the last access
        let nanoseconds = body.u32()?;
        let modified = (valid & FATTR_MTIME != 0).then_some(if valid & FATTR_MTIME_NOW == 0 {
            Modified::At { seconds, nanoseconds }
        } else {
            Modified::Now
        });
        Some(Self { alone: valid & FATTR_OTHERS == 0, modified })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Request::parse(&bytes);
        }

        #[test]
        fn no_body_makes_it_panic(
            opcode in 0_u32..60, body in proptest::collection::vec(any::<u8>(), 0..120),
        ) {
            let mut bytes = vec![0; HEADER_BYTES];
            bytes[..4].copy_from_slice(&((HEADER_BYTES + body.len()) as u32).to_ne_bytes());
            bytes[4..8].copy_from_slice(&opcode.to_ne_bytes());
            bytes.extend(body);
            prop_assert!(Request::parse(&bytes).is_ok());
        }
    }

    #[test]
    fn a_length_that_is_not_the_messages_is_no_request() {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0] = 41;
        assert_eq!(Request::parse(&bytes), Err(NoRequest(HEADER_BYTES)));
        assert_eq!(Request::parse(&bytes[..39]), Err(NoRequest(39)));
        bytes[0] = 40;
        bytes[4] = 1;
        // A LOOKUP without a name.
        assert_eq!(Request::parse(&bytes).unwrap().operation, Operation::Malformed);
    }
}
