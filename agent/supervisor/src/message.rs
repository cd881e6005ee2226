//! One SEQPACKET packet: a byte for the kind, a volume's name, at most one file descriptor.
//!
//! Both ends are the same binary, so there is no version. What can't be read is left out, and said.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};

/// Longest name of a volume; kubelet's are 71 bytes.
pub(crate) const LONGEST_KEY_BYTES: usize = 255;

/// What a packet is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A FUSE connection, with its fd: to be kept, or kept.
    Connection = 1,
    /// A memfd_secret, likewise.
    Values = 2,
    /// Nothing of this volume is to be kept any more.
    Forget = 3,
    /// From here on until [`Self::Restored`] a crash is this volume's fault.
    Restoring = 4,
    /// It was not.
    Restored = 5,
    /// The worker lives.
    Alive = 6,
    /// Everything that was kept has been said.
    Last = 7,
}

impl Kind {
    fn of(byte: u8) -> Option<Self> {
        [
            Self::Connection,
            Self::Values,
            Self::Forget,
            Self::Restoring,
            Self::Restored,
            Self::Alive,
            Self::Last,
        ]
        .into_iter()
        .find(|kind| *kind as u8 == byte)
    }
}

/// One packet, read.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) kind: Kind,
    pub(crate) key: String,
    pub(crate) fd: Option<OwnedFd>,
}

/// What a read brought.
#[derive(Debug)]
pub(crate) enum Received {
    Message(Message),
    /// A packet that is no message of ours.
    Strange,
    /// The other end is gone.
    End,
}

/// Sends one packet; with `DONTWAIT` in `flags` EAGAIN says that there is no room.
pub(crate) fn send(
    socket: impl AsFd,
    kind: Kind,
    key: &str,
    fd: Option<BorrowedFd<'_>>,
    flags: SendFlags,
) -> io::Result<()> {
    if key.len() > LONGEST_KEY_BYTES {
        let problem =
            format!("a volume's name of {} bytes: at most {LONGEST_KEY_BYTES}", key.len());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
    }
    let head = [kind as u8];
    let parts = [IoSlice::new(&head), IoSlice::new(key.as_bytes())];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let fds = fd.map(|fd| [fd]);
    if let Some(fds) = &fds {
        ancillary.push(SendAncillaryMessage::ScmRights(fds));
    }
    let flags = flags | SendFlags::NOSIGNAL;
    rustix::io::retry_on_intr(|| rustix::net::sendmsg(&socket, &parts, &mut ancillary, flags))?;
    Ok(())
}

/// Receives one packet; the fd that comes with it is owned before anything else is looked at.
pub(crate) fn receive(socket: impl AsFd, flags: RecvFlags) -> io::Result<Received> {
    let mut bytes = [0; 1 + LONGEST_KEY_BYTES + 1];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = flags | RecvFlags::CMSG_CLOEXEC;
    let received = rustix::io::retry_on_intr(|| {
        let mut parts = [IoSliceMut::new(&mut bytes)];
        rustix::net::recvmsg(&socket, &mut parts, &mut ancillary, flags)
    })?;
    let fd = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    let cut = ReturnFlags::TRUNC | ReturnFlags::CTRUNC;
    let read = match bytes[..received.bytes].split_first() {
        None => return Ok(Received::End),
        Some(_) if received.flags.intersects(cut) => None,
        Some((kind, key)) => Kind::of(*kind).zip(std::str::from_utf8(key).ok()),
    };
    Ok(match read {
        Some((kind, key)) => Received::Message(Message { kind, key: key.to_owned(), fd }),
        None => Received::Strange,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
    }

    #[test]
    fn a_message_arrives_with_its_fd() {
        let (one, two) = pair();
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        send(&one, Kind::Values, "csi-1", Some(writer.as_fd()), SendFlags::empty()).unwrap();
        drop(writer);
        let Received::Message(message) = receive(&two, RecvFlags::empty()).unwrap() else {
            panic!("no message")
        };
        assert_eq!((message.kind, message.key.as_str()), (Kind::Values, "csi-1"));
        rustix::io::write(message.fd.unwrap(), b"x").unwrap();
        let mut byte = [0];
        assert_eq!(rustix::io::read(&reader, &mut byte).unwrap(), 1);
    }

    #[test]
    fn an_end_and_a_strange_packet_are_told_apart() {
        let (one, two) = pair();
        for strange in [&b"\x63csi"[..], b"\x01\xff", &[1; 300]] {
            rustix::net::send(&one, strange, SendFlags::empty()).unwrap();
            let received = receive(&two, RecvFlags::empty()).unwrap();
            assert!(matches!(received, Received::Strange), "{received:?}");
        }
        drop(one);
        assert!(matches!(receive(&two, RecvFlags::empty()).unwrap(), Received::End));
    }

    #[test]
    fn a_name_too_long_is_refused_before_it_is_sent() {
        let (one, _two) = pair();
        let long = "x".repeat(LONGEST_KEY_BYTES + 1);
        assert!(send(&one, Kind::Forget, &long, None, SendFlags::empty()).is_err());
    }
}
