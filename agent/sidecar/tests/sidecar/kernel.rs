//! A socket in the place of a FUSE connection, and the test in that of the kernel.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, socketpair};

const OPEN: u32 = 14;
const READ: u32 = 15;
const RELEASE: u32 = 18;
/// The first file of generation 1: after the generation's directory.
const FIRST_FILE: u64 = 1 << 16 | 1;
const NUMBER: u64 = 9;

/// One connection, seen from the kernel.
#[derive(Clone)]
pub(crate) struct Kernel(Arc<OwnedFd>);

impl Kernel {
    /// A new connection, and the end that is handed out.
    pub(crate) fn new() -> (Self, OwnedFd) {
        let (kernel, fuse) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .unwrap();
        (Self(Arc::new(kernel)), fuse)
    }

    /// What the volume's first file holds, or an errno.
    pub(crate) async fn read(&self) -> Result<String, i32> {
        let kernel = self.clone();
        tokio::task::spawn_blocking(move || kernel.read_first()).await.unwrap()
    }

    fn read_first(&self) -> Result<String, i32> {
        let opened = self.ask(OPEN, &[0; 8])?;
        let mut body = opened[..8].to_vec();
        body.extend([0; 8]);
        body.extend(4096_u32.to_ne_bytes());
        body.extend([0; 20]);
        let read = self.ask(READ, &body);
        let mut body = opened[..8].to_vec();
        body.extend([0; 16]);
        self.ask(RELEASE, &body)?;
        Ok(String::from_utf8(read?).unwrap())
    }

    fn ask(&self, operation: u32, body: &[u8]) -> Result<Vec<u8>, i32> {
        let mut request = Vec::new();
        for part in [u32::try_from(40 + body.len()).unwrap(), operation] {
            request.extend_from_slice(&part.to_ne_bytes());
        }
        for part in [NUMBER, FIRST_FILE] {
            request.extend_from_slice(&part.to_ne_bytes());
        }
        // uid, gid, pid, padding.
        for part in [1000_u32, 1000, 7, 0] {
            request.extend_from_slice(&part.to_ne_bytes());
        }
        request.extend_from_slice(body);
        rustix::net::send(&*self.0, &request, SendFlags::NOSIGNAL).unwrap();
        loop {
            let mut answer = [0_u8; 4096];
            let (_, size) =
                rustix::net::recv(&*self.0, &mut answer[..], RecvFlags::empty()).unwrap();
            assert!(size >= 16, "the server is gone");
            // Notifications, and a server's request to send again, have other numbers.
            if answer[8..16] == NUMBER.to_ne_bytes() {
                let error = i32::from_ne_bytes(answer[4..8].try_into().unwrap());
                return if error == 0 { Ok(answer[16..size].to_vec()) } else { Err(-error) };
            }
        }
    }
}
