//! Calls whose `:authority` is the path of a socket.
//!
//! kubelet names no host when it asks a plugin's registration socket who is there (seen with 1.36: its Go client then
//! sends the path, percent-encoded), and before 1.26 nowhere. The HTTP/2 library refuses such a name with
//! PROTOCOL_ERROR, as RFC 9113 lets it. Nobody here looks at the name: a socket is its own address. So what a literal
//! `:authority` says is overwritten in place, byte for byte, with a name that is a valid one.
//!
//! Invariant: nothing else is changed, no byte is added or removed, and what isn't understood passes as it is: the
//! library judges it. To a peer that uses Huffman's code only where it is shorter, as HPACK has it and Go does, the
//! replaced name is never longer than what it stands for, so that the peer's table of header fields forgets before ours.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const PREFACE: usize = 24;
const FRAME_HEADER: usize = 9;
/// The most that is let through as one frame as long as nobody asks for more.
const LARGEST_FRAME: usize = 16 << 10;
const CHUNK: usize = 4 << 10;

const HEADERS: u8 = 1;
const PADDED: u8 = 0x08;
const PRIORITY: u8 = 0x20;
const PRIORITY_BYTES: usize = 5;

/// `:authority` in the static table of RFC 7541.
const AUTHORITY: usize = 1;
const HUFFMAN: u8 = 0x80;
/// Any number of it is a valid host.
const NAME: u8 = b'x';

/// A connection on which any `:authority` is valid.
#[derive(Debug)]
pub struct AnyAuthority<S> {
    stream: S,
    rewriter: Rewriter,
    /// On the heap, which is wiped when it is freed: tokens come through here.
    chunk: Box<[u8; CHUNK]>,
}

impl<S> AnyAuthority<S> {
    /// From its first byte on.
    pub fn of(stream: S) -> Self {
        Self { stream, rewriter: Rewriter::default(), chunk: Box::new([0; CHUNK]) }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for AnyAuthority<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { stream, rewriter, chunk } = &mut *self;
        while rewriter.is_empty() {
            let mut read = ReadBuf::new(&mut chunk[..]);
            ready!(Pin::new(&mut *stream).poll_read(context, &mut read))?;
            if read.filled().is_empty() {
                // Half a frame is the library's to complain about.
                rewriter.end();
                break;
            }
            rewriter.take(read.filled());
        }
        rewriter.give(buffer);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for AnyAuthority<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// What has come in, frame by frame.
#[derive(Debug)]
struct Rewriter {
    /// May be given on.
    ready: Vec<u8>,
    given: usize,
    /// A frame that isn't whole yet.
    pending: Vec<u8>,
    /// Of what passes unread: the preface, or the rest of a frame.
    passing: usize,
}

impl Default for Rewriter {
    fn default() -> Self {
        Self { ready: Vec::new(), given: 0, pending: Vec::new(), passing: PREFACE }
    }
}

impl Rewriter {
    fn is_empty(&self) -> bool {
        self.given == self.ready.len()
    }

    fn give(&mut self, buffer: &mut ReadBuf<'_>) {
        let left = &self.ready[self.given..];
        let now = left.len().min(buffer.remaining());
        buffer.put_slice(&left[..now]);
        self.given += now;
        if self.is_empty() {
            self.ready.clear();
            self.given = 0;
        }
    }

    fn end(&mut self) {
        self.ready.append(&mut self.pending);
    }

    fn take(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let wanted = match self.passing {
                0 => self.wanted() - self.pending.len(),
                passing => passing,
            };
            let (now, later) = bytes.split_at(wanted.min(bytes.len()));
            bytes = later;
            if self.passing > 0 {
                self.ready.extend_from_slice(now);
                self.passing -= now.len();
                continue;
            }
            self.pending.extend_from_slice(now);
            if self.pending.len() == self.wanted() {
                self.give_frame_on();
            }
        }
    }

    /// Bytes until more can be said of the frame: its header, and of HEADERS all.
    fn wanted(&self) -> usize {
        match frame_header(&self.pending) {
            Some((length, HEADERS, _)) if length <= LARGEST_FRAME => FRAME_HEADER + length,
            _ => FRAME_HEADER,
        }
    }

    fn give_frame_on(&mut self) {
        let Some((length, kind, flags)) = frame_header(&self.pending) else { return };
        let (_, payload) = self.pending.split_at_mut(FRAME_HEADER);
        if kind == HEADERS && !payload.is_empty() {
            name(payload, flags);
        }
        self.passing = length - payload.len();
        self.ready.append(&mut self.pending);
    }
}

/// Length of the payload, type, flags.
fn frame_header(bytes: &[u8]) -> Option<(usize, u8, u8)> {
    let [high, middle, low, kind, flags, ..] = *bytes else { return None };
    let is_whole = bytes.len() >= FRAME_HEADER;
    is_whole.then(|| {
        (usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low), kind, flags)
    })
}

/// Overwrites the value of each literal `:authority`.
fn name(payload: &mut [u8], flags: u8) {
    let has = |flag| usize::from(flags & flag != 0);
    let mut fields = Fields { block: payload, at: has(PADDED) + has(PRIORITY) * PRIORITY_BYTES };
    while fields.name_one().is_some() {}
}

/// A block of header fields (RFC 7541, section 6).
struct Fields<'a> {
    block: &'a mut [u8],
    at: usize,
}

impl Fields<'_> {
    /// Passes one field; `None` at the end, or where the block isn't understood.
    fn name_one(&mut self) -> Option<()> {
        let bits = match *self.block.get(self.at)? {
            0x80.. => return self.number(7).map(drop),
            0x40.. => 6,
            0x20.. => return self.number(5).map(drop),
            _ => 4,
        };
        let field = self.number(bits)?;
        if field == 0 {
            self.text()?;
        }
        let (start, end) = self.text()?;
        if field == AUTHORITY {
            self.block[start] &= !HUFFMAN;
            self.block[end.0..end.1].fill(NAME);
        }
        Some(())
    }

    /// Passes a string: where its length begins, and where its bytes are.
    fn text(&mut self) -> Option<(usize, (usize, usize))> {
        let start = self.at;
        let length = self.number(7)?;
        let bytes = (self.at, self.at.checked_add(length)?);
        self.block.get(bytes.0..bytes.1)?;
        self.at = bytes.1;
        Some((start, bytes))
    }

    /// An integer in the last `bits` of a byte and what follows (section 5.1), of a size that a block can have.
    fn number(&mut self, bits: u32) -> Option<usize> {
        let most = (1_usize << bits) - 1;
        let first = usize::from(*self.block.get(self.at)?) & most;
        self.at += 1;
        if first < most {
            return Some(first);
        }
        let mut number = most;
        for shift in [0, 7, 14] {
            let byte = usize::from(*self.block.get(self.at)?);
            self.at += 1;
            number += (byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests;
