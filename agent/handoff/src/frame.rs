//! One packet: an 8-byte header and a protobuf [`Frame`].
//!
//! ```text
//! 0      2         3          4                8
//! | "SH" | version | reserved | payload length | payload ...
//! ```
//!
//! Invariant: decoding never panics and never allocates more than the packet's own size. The header's
//! version is that of the framing itself, 1; what the frames mean is negotiated by the handshake.

use prost::Message;
use zeroize::Zeroizing;

use crate::message::Frame;

/// Largest packet, header included. A pod's tokens are some KiB each.
pub const MAX_PACKET_BYTES: usize = 192 << 10;

const MAGIC: [u8; 2] = *b"SH";
const FRAMING_VERSION: u8 = 1;
const HEADER_BYTES: usize = 8;

/// A packet that can't be a frame of ours.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// Over [`MAX_PACKET_BYTES`].
    #[error("a frame has {0} bytes: at most {MAX_PACKET_BYTES}")]
    TooLarge(usize),
    /// Not our magic number: somebody else is talking.
    #[error("a packet does not begin with a frame's header")]
    NotAFrame,
    /// Another framing.
    #[error("a frame has framing version {0}: this side speaks {FRAMING_VERSION}")]
    Version(u8),
    /// The header's length isn't the packet's.
    #[error("a frame says {said} bytes and has {has}")]
    Length {
        /// What the header says.
        said: usize,
        /// What came.
        has: usize,
    },
    /// The payload isn't the message.
    #[error("a frame can't be decoded")]
    Decode(#[source] prost::DecodeError),
}

/// Encodes a frame; the bytes are wiped on drop, for they may carry a token.
///
/// # Errors
/// The frame is too large to be sent.
pub fn encode(frame: &Frame) -> Result<Zeroizing<Vec<u8>>, FrameError> {
    let payload = frame.encoded_len();
    let total = HEADER_BYTES + payload;
    if total > MAX_PACKET_BYTES {
        return Err(FrameError::TooLarge(total));
    }
    let mut packet = Zeroizing::new(Vec::with_capacity(total));
    packet.extend_from_slice(&MAGIC);
    packet.extend_from_slice(&[FRAMING_VERSION, 0]);
    let length = u32::try_from(payload).map_err(|_| FrameError::TooLarge(total))?;
    packet.extend_from_slice(&length.to_le_bytes());
    frame.encode_raw(&mut *packet);
    Ok(packet)
}

/// Decodes a whole packet.
///
/// # Errors
/// What makes it not a frame.
pub fn decode(packet: &[u8]) -> Result<Frame, FrameError> {
    let (header, payload) =
        packet.split_first_chunk::<HEADER_BYTES>().ok_or(FrameError::NotAFrame)?;
    let [m0, m1, version, _, l0, l1, l2, l3] = *header;
    if [m0, m1] != MAGIC {
        return Err(FrameError::NotAFrame);
    }
    if version != FRAMING_VERSION {
        return Err(FrameError::Version(version));
    }
    let said = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
    if said != payload.len() {
        return Err(FrameError::Length { said, has: payload.len() });
    }
    Frame::decode(payload).map_err(FrameError::Decode)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Prepare, Release, frame::Body};
    use proptest::prelude::*;

    fn prepare(tokens: usize) -> Frame {
        let prepare = Prepare { service_account_tokens: vec![b'x'; tokens], ..Prepare::default() };
        Frame { request: 7, answer: false, body: Some(Body::Prepare(prepare)) }
    }

    #[test]
    fn a_frame_survives_the_wire() {
        let frame = prepare(5_000);
        assert!(decode(&encode(&frame).unwrap()).unwrap() == frame);
    }

    #[test]
    fn a_frame_that_is_too_large_is_refused_before_it_is_sent() {
        assert!(matches!(encode(&prepare(MAX_PACKET_BYTES)), Err(FrameError::TooLarge(_))));
    }

    #[test]
    fn foreign_truncated_and_other_versions_packets_are_told_apart() {
        let good = encode(&prepare(3)).unwrap();
        assert!(matches!(decode(b""), Err(FrameError::NotAFrame)));
        assert!(matches!(decode(b"GET / HTTP/1.1"), Err(FrameError::NotAFrame)));
        assert!(matches!(decode(&good[..good.len() - 1]), Err(FrameError::Length { .. })));
        let mut other = good.to_vec();
        other[2] = 9;
        assert!(matches!(decode(&other), Err(FrameError::Version(9))));
    }

    #[test]
    fn a_body_of_a_later_version_is_a_frame_without_body() {
        // Field 99, a message of two bytes: what version N+1 might send.
        let payload = [0x08, 5, 0x9a, 0x06, 2, 0x08, 1];
        let mut packet = vec![b'S', b'H', 1, 0, 7, 0, 0, 0];
        packet.extend_from_slice(&payload);
        let frame = decode(&packet).unwrap();
        assert_eq!(frame.request, 5);
        assert!(frame.body.is_none());
    }

    proptest! {
        #[test]
        fn any_bytes_decode_or_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
            let mut framed = vec![b'S', b'H', 1, 0];
            framed.extend_from_slice(&u32::try_from(bytes.len()).unwrap().to_le_bytes());
            framed.extend_from_slice(&bytes);
            let _ = decode(&framed);
        }

        #[test]
        fn any_release_survives(request in any::<u64>(), id in ".{0,40}") {
            let frame = Frame { request, answer: false, body: Some(Body::Release(Release { volume_id: id })) };
            prop_assert!(decode(&encode(&frame).unwrap()).unwrap() == frame);
        }
    }
}
