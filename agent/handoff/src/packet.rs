//! A connection that carries packets, each with at most one file descriptor.
//!
//! Invariant: every fd that arrives is owned at once, before anything else is checked, so that no
//! refusal leaks one; all are close-on-exec.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recv, recvmsg, sendmsg,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use zeroize::Zeroizing;

use crate::frame::{self, FrameError, MAX_PACKET_BYTES};
use crate::message::Frame;
use crate::reactor;

/// Most fds that a hostile packet may carry and we still receive in order to close them.
const FD_SPACE: usize = 4;

/// A connection that failed; it must be dropped.
#[derive(Debug, thiserror::Error)]
pub enum PacketError {
    /// The other end is gone.
    #[error("the connection was closed by the other side")]
    Closed,
    /// The kernel refused.
    #[error("the connection failed")]
    Io(#[from] std::io::Error),
    /// Not a frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The packet or its fds did not fit.
    #[error("a packet was truncated")]
    Truncated,
    /// More than one fd.
    #[error("a packet carries {0} file descriptors: at most 1")]
    TooManyFds(usize),
}

/// A frame with the fd that came along.
#[derive(Debug)]
pub struct Received {
    /// The frame.
    pub frame: Frame,
    /// Its fd, if any; close-on-exec.
    pub fd: Option<OwnedFd>,
}

/// One end of a SEQPACKET connection.
#[derive(Debug)]
pub struct Connection {
    socket: AsyncFd<OwnedFd>,
}

impl Connection {
    /// Takes a connected, non-blocking SEQPACKET socket.
    ///
    /// # Errors
    /// The reactor refused the socket.
    pub fn new(socket: OwnedFd) -> std::io::Result<Self> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        rustix::net::sockopt::set_socket_send_buffer_size(&socket, MAX_PACKET_BYTES * 2)?;
        let socket = reactor::register(socket, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Self { socket })
    }

    /// Two connected ends, for tests.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn pair() -> std::io::Result<(Self, Self)> {
        use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (one, two) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        Ok((Self::new(one)?, Self::new(two)?))
    }

    /// Sends one frame. Cancel-safe: a packet is sent whole or not at all.
    ///
    /// # Errors
    /// The frame is too large (the connection lives on), or the connection failed.
    pub async fn send(&self, frame: &Frame, fd: Option<BorrowedFd<'_>>) -> Result<(), PacketError> {
        let packet = frame::encode(frame)?;
        let sent = self.socket.async_io(Interest::WRITABLE, |socket| send_now(socket, &packet, fd));
        match sent.await {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {
                Err(PacketError::Closed)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Receives one frame. Cancel-safe.
    ///
    /// # Errors
    /// The connection ended or failed, or the peer sent what isn't a frame.
    pub async fn receive(&self) -> Result<Received, PacketError> {
        self.socket.async_io(Interest::READABLE, |socket| Ok(receive_now(socket)?)).await?
    }

    /// Waits until the other end has closed the connection.
    pub async fn closed(&self) {
        let _ = self.socket.ready(Interest::ERROR).await;
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn send_now(socket: &OwnedFd, packet: &[u8], fd: Option<BorrowedFd<'_>>) -> std::io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = fd.as_slice();
    if !fds.is_empty() {
        let fits = control.push(SendAncillaryMessage::ScmRights(fds));
        debug_assert!(fits, "space for one fd is reserved");
    }
    sendmsg(socket, &[IoSlice::new(packet)], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// The outer error is the kernel's (would-block included), the inner one the packet's.
fn receive_now(socket: &OwnedFd) -> rustix::io::Result<Result<Received, PacketError>> {
    // As large as what has come: the largest packet's room, made, wiped and paged in for each, cost a publish a
    // millisecond.
    let next = recv(socket, &mut [] as &mut [u8], RecvFlags::PEEK | RecvFlags::TRUNC);
    let size = match next {
        Ok((_, size)) => size.min(MAX_PACKET_BYTES),
        Err(rustix::io::Errno::CONNRESET) => return Ok(Err(PacketError::Closed)),
        Err(error) => return Err(error),
    };
    let mut packet = Zeroizing::new(vec![0; size]);
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FD_SPACE))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut buffers = [IoSliceMut::new(&mut packet)];
    let message = match recvmsg(socket, &mut buffers, &mut control, RecvFlags::CMSG_CLOEXEC) {
        Ok(message) => message,
        Err(rustix::io::Errno::CONNRESET) => return Ok(Err(PacketError::Closed)),
        Err(error) => return Err(error),
    };
    let mut fds: Vec<OwnedFd> = Vec::new();
    for ancillary in control.drain() {
        if let RecvAncillaryMessage::ScmRights(arrived) = ancillary {
            fds.extend(arrived);
        }
    }
    let truncated = ReturnFlags::TRUNC | ReturnFlags::CTRUNC;
    if message.flags.intersects(truncated) {
        return Ok(Err(PacketError::Truncated));
    }
    if message.bytes == 0 {
        return Ok(Err(PacketError::Closed));
    }
    if fds.len() > 1 {
        return Ok(Err(PacketError::TooManyFds(fds.len())));
    }
    let fd = fds.pop();
    Ok(frame::decode(&packet[..message.bytes])
        .map(|frame| Received { frame, fd })
        .map_err(Into::into))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::time::Duration;

    use super::*;
    use crate::message::{Serving, frame::Body};

    fn frame(request: u64) -> Frame {
        Frame { request, answer: false, body: Some(Body::Serving(Serving {})) }
    }

    #[tokio::test]
    async fn an_fd_arrives_usable_and_close_on_exec() {
        let (one, two) = Connection::pair().unwrap();
        let (mut reader, mut writer) = std::io::pipe().unwrap();
        one.send(&frame(3), Some(reader.as_fd())).await.unwrap();
        let received = two.receive().await.unwrap();
        assert_eq!(received.frame.request, 3);
        let fd = received.fd.unwrap();
        assert!(rustix::io::fcntl_getfd(&fd).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
        writer.write_all(b"x").unwrap();
        reader = fd.into();
        let mut byte = [0];
        reader.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"x");
    }

    #[tokio::test]
    async fn two_fds_in_one_packet_are_refused_and_closed() {
        let (one, two) = Connection::pair().unwrap();
        let (reader, mut writer) = std::io::pipe().unwrap();
        let packet = frame::encode(&frame(1)).unwrap();
        let fds = [reader.as_fd(), reader.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
        sendmsg(one.as_fd(), &[IoSlice::new(&packet)], &mut control, SendFlags::empty()).unwrap();
        assert!(matches!(two.receive().await, Err(PacketError::TooManyFds(2))));
        drop(reader);
        // A child that another test starts has them too, from its fork to its exec.
        let broken = async {
            loop {
                match writer.write_all(b"x") {
                    Ok(()) => tokio::time::sleep(Duration::from_millis(1)).await,
                    Err(error) => return error,
                }
            }
        };
        let broken = tokio::time::timeout(Duration::from_secs(30), broken).await.unwrap();
        assert_eq!(broken.kind(), std::io::ErrorKind::BrokenPipe, "the refused fds are closed");
    }

    #[tokio::test]
    async fn a_packet_over_the_limit_is_truncated_and_refused() {
        let (one, two) = Connection::pair().unwrap();
        let large = vec![b'x'; MAX_PACKET_BYTES + 1];
        let mut control = SendAncillaryBuffer::default();
        sendmsg(one.as_fd(), &[IoSlice::new(&large)], &mut control, SendFlags::empty()).unwrap();
        assert!(matches!(two.receive().await, Err(PacketError::Truncated)));
    }

    #[tokio::test]
    async fn a_closed_connection_is_told_from_a_failed_one() {
        let (one, two) = Connection::pair().unwrap();
        drop(one);
        assert!(matches!(two.receive().await, Err(PacketError::Closed)));
        assert!(matches!(two.send(&frame(1), None).await, Err(PacketError::Closed)));
    }
}
