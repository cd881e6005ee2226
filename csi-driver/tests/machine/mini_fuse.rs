//! The least FUSE server that can be told apart: a root with one file, `who`, that says who serves.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const OPEN: u32 = 14;
const READ: u32 = 15;
const RELEASE: u32 = 18;
const OPENDIR: u32 = 27;
const READDIR: u32 = 28;
const RELEASEDIR: u32 = 29;
const INTERRUPT: u32 = 36;
const BATCH_FORGET: u32 = 42;
const READDIRPLUS: u32 = 44;
const DIRECT_IO: u32 = 1;
const ROOT: u64 = 1;
const WHO: u64 = 2;
const ENOENT: i32 = 2;
const ENOSYS: i32 = 38;

/// What makes a server read requests and never answer them.
#[derive(Debug, Default)]
pub(crate) struct Mute {
    pub(crate) is_on: AtomicBool,
    /// How many it has read so.
    pub(crate) swallowed: AtomicUsize,
}

/// Serves until the connection ends or the other end of `stop` is closed.
pub(crate) fn serve(connection: &OwnedFd, stop: &OwnedFd, who: &str, mute: &Mute) {
    let mut bytes = vec![0; 64 << 10];
    loop {
        let mut ready = [
            PollFd::new(connection, PollFlags::IN),
            PollFd::from_borrowed_fd(stop.as_fd(), PollFlags::IN),
        ];
        poll(&mut ready, None).unwrap();
        if !ready[1].revents().is_empty() {
            return;
        }
        let size = match rustix::io::read(connection, &mut bytes) {
            Ok(size) => size,
            Err(Errno::INTR | Errno::AGAIN | Errno::NOENT) => continue,
            Err(_) => return, // ENODEV: unmounted
        };
        if mute.is_on.load(Ordering::SeqCst) {
            mute.swallowed.fetch_add(1, Ordering::SeqCst);
            continue;
        }
        if let Some(reply) = answer(&bytes[..size], who) {
            // ENOENT: the caller was interrupted.
            let _ = rustix::io::write(connection, &reply);
        }
    }
}

fn answer(request: &[u8], who: &str) -> Option<Vec<u8>> {
    let opcode = u32::from_ne_bytes(request[4..8].try_into().unwrap());
    let unique = u64::from_ne_bytes(request[8..16].try_into().unwrap());
    let node = u64::from_ne_bytes(request[16..24].try_into().unwrap());
    let result = match opcode {
        FORGET | BATCH_FORGET | INTERRUPT => return None,
        LOOKUP if &request[40..] == b"who\0" => {
            let mut entry = WHO.to_ne_bytes().to_vec();
            entry.extend([0; 32]);
            entry.extend(attributes(WHO, who));
            Ok(entry)
        }
        LOOKUP => Err(ENOENT),
        GETATTR => {
            let mut reply = vec![0; 16];
            if node == ROOT {
                // For an hour the kernel asks the root's mode no more, so that a path leads to LOOKUP.
                reply[..8].copy_from_slice(&3_600_u64.to_ne_bytes());
            }
            reply.extend(attributes(node, who));
            Ok(reply)
        }
        OPEN | OPENDIR => {
            let mut reply = vec![0; 16];
            reply[8..12].copy_from_slice(&DIRECT_IO.to_ne_bytes());
            Ok(reply)
        }
        READ => {
            let offset = u64::from_ne_bytes(request[48..56].try_into().unwrap());
            Ok(if offset == 0 { who.as_bytes().to_vec() } else { Vec::new() })
        }
        READDIR | READDIRPLUS | RELEASE | RELEASEDIR => Ok(Vec::new()),
        _ => Err(ENOSYS),
    };
    let (error, body) = match result {
        Ok(body) => (0, body),
        Err(error) => (-error, Vec::new()),
    };
    let mut reply = u32::try_from(16 + body.len()).unwrap().to_ne_bytes().to_vec();
    reply.extend(error.to_ne_bytes());
    reply.extend(unique.to_ne_bytes());
    reply.extend(body);
    Some(reply)
}

/// `struct fuse_attr`.
fn attributes(node: u64, who: &str) -> Vec<u8> {
    let (mode, size) =
        if node == ROOT { (0o040_755_u32, 0) } else { (0o100_444, who.len() as u64) };
    let mut bytes = node.to_ne_bytes().to_vec();
    bytes.extend(size.to_ne_bytes());
    bytes.extend([0; 8 * 4 + 4 * 3]);
    bytes.extend(mode.to_ne_bytes());
    bytes.extend(1_u32.to_ne_bytes());
    bytes.extend([0; 4 * 5]);
    bytes
}
