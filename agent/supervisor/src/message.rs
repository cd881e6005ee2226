//! One SEQPACKET packet: a byte for the kind, a time, a volume's name, at most one file descriptor.
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
const TIME_BYTES: usize = size_of::<u64>();

/// What a packet is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A FUSE connection, with its fd: to be kept, or kept.
    Connection = 1,
    /// A memfd_secret with values, likewise, and when they were found to be good.
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
    /// What was left of a volume was found to be good again.
    Confirmed = 8,
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
            Self::Confirmed,
        ]
        .into_iter()
        .find(|kind| *kind as u8 == byte)
    }
}

/// One packet, read.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) kind: Kind,
    /// Milliseconds since 1970, where the kind has any.
    pub(crate) at_ms: u64,
    pub(crate) key: String,
    pub(crate) fd: Option<OwnedFd>,
}

/// One packet, to be sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Packet<'a> {
    pub(crate) kind: Kind,
    pub(crate) at_ms: u64,
    pub(crate) key: &'a str,
    pub(crate) fd: Option<BorrowedFd<'a>>,
}

impl<'a> Packet<'a> {
    /// Without a time and a file descriptor.
    pub(crate) fn of(kind: Kind, key: &'a str) -> Self {
        Self { kind, at_ms: 0, key, fd: None }
    }
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
pub(crate) fn send(socket: impl AsFd, packet: Packet<'_>, flags: SendFlags) -> io::Result<()> {
    let Packet { kind, at_ms, key, fd } = packet;
    if key.len() > LONGEST_KEY_BYTES {
        let problem =
            format!("a volume's name of {} bytes: at most {LONGEST_KEY_BYTES}", key.len());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
    }
    let (head, at) = ([kind as u8], at_ms.to_ne_bytes());
    let parts = [IoSlice::new(&head), IoSlice::new(&at), IoSlice::new(key.as_bytes())];
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

/// Receives one packet; the fd that comes with it is owned before anything else is looked at. Where there was no room for
/// an fd in this process, the message is without.
pub(crate) fn receive(socket: impl AsFd, flags: RecvFlags) -> io::Result<Received> {
    let mut bytes = [0; 1 + TIME_BYTES + LONGEST_KEY_BYTES + 1];
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
    let read = match bytes[..received.bytes].split_first() {
        None => return Ok(Received::End),
        Some(_) if received.flags.contains(ReturnFlags::TRUNC) => None,
        Some((kind, rest)) => Kind::of(*kind).zip(parsed(rest)),
    };
    Ok(match read {
        Some((kind, (at_ms, key))) => {
            Received::Message(Message { kind, at_ms, key: key.to_owned(), fd })
        }
        None => Received::Strange,
    })
}

/// What comes after the kind.
fn parsed(bytes: &[u8]) -> Option<(u64, &str)> {
    let (at, key) = bytes.split_first_chunk::<TIME_BYTES>()?;
    Some((u64::from_ne_bytes(*at), std::str::from_utf8(key).ok()?))
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
        let fd = Some(writer.as_fd());
        let packet = Packet { fd, at_ms: 5, ..Packet::of(Kind::Values, "csi-1") };
        send(&one, packet, SendFlags::empty()).unwrap();
        drop(writer);
        let Received::Message(message) = receive(&two, RecvFlags::empty()).unwrap() else {
            panic!("no message")
        };
        assert_eq!((message.kind, message.at_ms), (Kind::Values, 5));
        assert_eq!(message.key, "csi-1");
        rustix::io::write(message.fd.unwrap(), b"x").unwrap();
        let mut byte = [0];
        assert_eq!(rustix::io::read(&reader, &mut byte).unwrap(), 1);
    }

    #[test]
    fn an_end_and_a_strange_packet_are_told_apart() {
        let (one, two) = pair();
        for strange in
            [&b"\x63\0\0\0\0\0\0\0\0csi"[..], b"\x01csi", b"\x01\0\0\0\0\0\0\0\0\xff", &[1; 300]]
        {
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
        assert!(send(&one, Packet::of(Kind::Forget, &long), SendFlags::empty()).is_err());
    }
}
