//! A FUSE connection whose INIT somebody else answered: requests in, replies and notifications out.
//!
//! Invariant: one owner reads; anybody may write. The connection's fd blocks: a read waits for a request.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::OFlags;
use rustix::io::Errno;
use sotto_core::fuse_init::{RESEND, notification};
use sotto_core::snapshot::Inode;

use crate::wire::reply::Reply;

const NOTIFY_INVAL_INODE: u32 = 2;
/// `fuse_out_header` and `fuse_notify_inval_inode_out`.
const INVAL_INODE_BYTES: usize = 40;
/// A reply with what is known of one file (`fuse_out_header`, `fuse_entry_out`), and any that is shorter.
const MESSAGE_BYTES: usize = 144;

/// The connection.
pub(crate) struct Device {
    fuse: OwnedFd,
}

impl Device {
    /// # Errors
    /// The fd is in non-blocking mode: reading would spin.
    pub(crate) fn new(fuse: OwnedFd) -> io::Result<Self> {
        if rustix::fs::fcntl_getfl(&fuse)?.contains(OFlags::NONBLOCK) {
            let problem =
                "the FUSE connection is in non-blocking mode: whoever set that must unset it";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
        }
        Ok(Self { fuse })
    }

    /// Another fd of the connection.
    pub(crate) fn duplicate(&self) -> io::Result<OwnedFd> {
        self.fuse.try_clone()
    }

    /// The next request's bytes; `None` once the connection is gone.
    pub(crate) fn receive<'a>(&self, buffer: &'a mut [u8]) -> io::Result<Option<&'a [u8]>> {
        loop {
            match rustix::io::read(&self.fuse, &mut *buffer) {
                Ok(size) => return Ok(Some(&buffer[..size])),
                // ENOENT: whoever asked was killed before the request was read.
                Err(Errno::NOENT | Errno::INTR | Errno::AGAIN) => {}
                Err(Errno::NODEV | Errno::CONNABORTED) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Answers a request. Nothing is wrong if nobody waits for it any more.
    pub(crate) fn reply(&self, unique: u64, reply: &Reply) -> io::Result<()> {
        let (header, body) = (reply.header(unique), reply.body());
        let length = header.len() + body.len();
        let written = if length <= MESSAGE_BYTES && !matches!(reply, Reply::Secret(_)) {
            // In one piece: the kernel looks up the page of each piece by itself, which costs more than a copy.
            let mut message = [0; MESSAGE_BYTES];
            message[..header.len()].copy_from_slice(&header);
            message[header.len()..length].copy_from_slice(body);
            rustix::io::write(&self.fuse, &message[..length])
        } else {
            rustix::io::writev(&self.fuse, &[IoSlice::new(&header), IoSlice::new(body)])
        };
        match written {
            // ENODEV: the next read tells.
            Ok(_) | Err(Errno::NOENT | Errno::NODEV) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Asks the kernel to send again what a former server read and left unanswered.
    pub(crate) fn resend(&self) -> io::Result<()> {
        rustix::io::write(&self.fuse, &RESEND)?;
        Ok(())
    }

    /// Drops what the kernel has cached of `inode`: pages and attributes. False if the kernel doesn't
    /// know the inode (any more).
    pub(crate) fn invalidate(&self, inode: Inode) -> io::Result<bool> {
        let mut bytes = [0; INVAL_INODE_BYTES];
        let header = notification(NOTIFY_INVAL_INODE, INVAL_INODE_BYTES as u32);
        bytes[..header.len()].copy_from_slice(&header);
        bytes[16..24].copy_from_slice(&inode.0.to_ne_bytes());
        // Offset 0 and length 0: everything.
        match rustix::io::write(&self.fuse, &bytes) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fuse.as_fd()
    }
}
