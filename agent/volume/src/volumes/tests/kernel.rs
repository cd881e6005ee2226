//! A socket in the place of a FUSE connection, and the test in that of the kernel.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use sotto_handoff::link::Handler;
use sotto_handoff::message::frame::Body;
use sotto_handoff::message::{Init, Serve};
use sotto_handoff::refusal::Refusal;

use super::fixture::Fixture;

const OPEN: u32 = 14;
const READ: u32 = 15;
const RELEASE: u32 = 18;
/// The first file of generation 1: after the generation's directory.
pub(super) const FIRST_FILE: u64 = file_of(1);

/// The first file of a generation.
pub(super) const fn file_of(generation: u64) -> u64 {
    generation << 16 | 1
}

/// The connection, and whose turn it is: an answer goes to who asked.
#[derive(Clone)]
pub(super) struct Kernel(Arc<OwnedFd>, Arc<Mutex<()>>);

impl Kernel {
    /// Sends Serve with one end of a new connection.
    pub(super) async fn serve(
        fixture: &Fixture,
        volume: &str,
        resend: bool,
    ) -> Result<Self, Refusal> {
        let (kernel, fuse) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        let init = Init { major: 7, minor: 40, max_readahead: 4096, flags: 0, max_write: 4096 };
        let serve = Serve { volume_id: volume.to_owned(), init: Some(init), resend };
        fixture.volumes.handle(Body::Serve(serve), Some(fuse)).await?;
        Ok(Self(Arc::new(kernel), Arc::default()))
    }

    /// Whether what is written to `fuse` arrives here.
    pub(super) fn is_the_other_end_of(&self, fuse: BorrowedFd<'_>) -> bool {
        rustix::net::send(fuse, b"a note of a test", SendFlags::NOSIGNAL).unwrap();
        let mut note = [0_u8; 256];
        let (_, size) = rustix::net::recv(&*self.0, &mut note[..], RecvFlags::DONTWAIT).unwrap();
        &note[..size] == b"a note of a test"
    }

    /// What an open of this inode is answered with: 0 or an errno.
    pub(super) async fn open(&self, inode: u64) -> i32 {
        let kernel = self.clone();
        // O_RDONLY; open flags, and what follows them.
        let answer = tokio::task::spawn_blocking(move || kernel.ask(OPEN, inode, 1000, &[0; 16]));
        answer.await.unwrap().err().unwrap_or(0)
    }

    /// Opens, reads and closes a file: what it holds, or an errno. Blocks for as long as that takes.
    pub(super) fn read(&self, inode: u64) -> Result<String, i32> {
        let opened = self.ask(OPEN, inode, 1000, &[0; 8])?;
        let mut body = opened[..8].to_vec();
        body.extend([0; 8]);
        body.extend(4096_u32.to_ne_bytes());
        body.extend([0; 20]);
        let read = self.ask(READ, inode, 1000, &body);
        let mut body = opened[..8].to_vec();
        body.extend([0; 16]);
        self.ask(RELEASE, inode, 1000, &body)?;
        Ok(String::from_utf8(read?).unwrap())
    }

    /// One request of a user and its answer: an errno, or what comes after the header.
    pub(super) fn ask(
        &self,
        operation: u32,
        inode: u64,
        uid: u32,
        body: &[u8],
    ) -> Result<Vec<u8>, i32> {
        const NUMBER: u64 = 9;
        let _turn = self.1.lock().unwrap();
        let mut request = Vec::new();
        for part in [u32::try_from(40 + body.len()).unwrap(), operation] {
            request.extend_from_slice(&part.to_ne_bytes());
        }
        for part in [NUMBER, inode] {
            request.extend_from_slice(&part.to_ne_bytes());
        }
        // uid, gid, pid, padding.
        for part in [uid, uid, 7, 0] {
            request.extend_from_slice(&part.to_ne_bytes());
        }
        request.extend_from_slice(body);
        rustix::net::send(&*self.0, &request, SendFlags::NOSIGNAL).unwrap();
        loop {
            let mut answer = [0_u8; 4096];
            let (_, size) =
                rustix::net::recv(&*self.0, &mut answer[..], RecvFlags::empty()).unwrap();
            assert!(size >= 16, "the server is gone");
            // Notifications have number 0.
            if answer[8..16] != [0; 8] {
                let error = i32::from_ne_bytes(answer[4..8].try_into().unwrap());
                return if error == 0 { Ok(answer[16..size].to_vec()) } else { Err(-error) };
            }
        }
    }
}
