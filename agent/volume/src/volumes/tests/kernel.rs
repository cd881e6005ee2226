//! A socket in the place of a FUSE connection, and the test in that of the kernel.

use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use sotto_handoff::link::Handler;
use sotto_handoff::message::frame::Body;
use sotto_handoff::message::{Init, Serve};
use sotto_handoff::refusal::Refusal;

use super::fixture::Fixture;

const OPEN: u32 = 14;
/// The first file of generation 1: after the generation's directory.
pub(super) const FIRST_FILE: u64 = (1 << 16) | 1;

pub(super) struct Kernel(OwnedFd);

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
        Ok(Self(kernel))
    }

    /// Whether what is written to `fuse` arrives here.
    pub(super) fn is_the_other_end_of(&self, fuse: BorrowedFd<'_>) -> bool {
        rustix::net::send(fuse, b"a note of a test", SendFlags::NOSIGNAL).unwrap();
        let mut note = [0_u8; 256];
        let (_, size) = rustix::net::recv(&self.0, &mut note[..], RecvFlags::DONTWAIT).unwrap();
        &note[..size] == b"a note of a test"
    }

    /// What an open of this inode is answered with: 0 or an errno.
    pub(super) async fn open(&self, inode: u64) -> i32 {
        let mut request = Vec::new();
        for part in [56_u32, OPEN] {
            request.extend_from_slice(&part.to_ne_bytes());
        }
        for part in [9_u64, inode] {
            request.extend_from_slice(&part.to_ne_bytes());
        }
        // uid, gid, pid, padding; then flags (O_RDONLY) and open flags, and what follows them.
        for part in [1000_u32, 1000, 7, 0, 0, 0, 0, 0] {
            request.extend_from_slice(&part.to_ne_bytes());
        }
        request.truncate(56);
        let kernel = self.0.try_clone().unwrap();
        let answer = tokio::task::spawn_blocking(move || {
            rustix::net::send(&kernel, &request, SendFlags::NOSIGNAL).unwrap();
            loop {
                let mut answer = [0_u8; 256];
                let (_, size) =
                    rustix::net::recv(&kernel, &mut answer[..], RecvFlags::empty()).unwrap();
                assert!(size >= 16, "the server is gone");
                // Notifications have number 0.
                if answer[8..16] != [0; 8] {
                    return i32::from_ne_bytes(answer[4..8].try_into().unwrap());
                }
            }
        });
        -answer.await.unwrap()
    }
}
