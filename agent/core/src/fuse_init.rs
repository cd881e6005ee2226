//! The first message on a FUSE connection, FUSE_INIT: read, answered, and repeated for later servers.
//!
//! The driver answers the kernel's INIT, once, by [`InitRequest::parse`] and [`InitRequest::answer`], and
//! keeps the [`Negotiated`]. Every server, first or later, is then given the [`Negotiated`] and plays the
//! INIT to itself by [`Negotiated::synthetic_request`]. Whoever attaches after another server writes
//! [`RESEND`] to the device first.
//!
//! ```text
//! let size = read(fuse, &mut buffer)?;              // buffer: at least READ_BUFFER_BYTES
//! let request = InitRequest::parse(&buffer[..size])?;
//! let (reply, negotiated) = request.answer(IdMapping::Off);
//! write(fuse, &reply)?;                             // one write; then Serve{init: negotiated}
//! ```
//!
//! Invariant: what is agreed upon is a subset of what the kernel offers, and the same for all servers of a
//! connection. Layouts are those of `include/uapi/linux/fuse.h`, in the machine's byte order.

use std::ops::BitOr;

/// Smallest buffer that the kernel accepts for a read from the device, given [`MAX_WRITE`]
/// (FUSE_MIN_READ_BUFFER).
pub const READ_BUFFER_BYTES: usize = 8192;
/// Largest write request. Nobody may write, so it is the smallest that the kernel takes.
pub const MAX_WRITE: u32 = 4096;

/// The protocol's major version.
pub const MAJOR: u32 = 7;
/// The newest minor version that our servers read; a newer kernel speaks down to it.
pub const NEWEST_MINOR: u32 = 40;
/// The oldest minor version that we serve: Linux 5.15.
pub const OLDEST_MINOR: u32 = 34;

/// FUSE_NOTIFY_RESEND as written to the device: the kernel sends again each request that was read and not
/// answered, with bit 63 set in its number. Linux >= 6.9, see [`Negotiated::can_resend`]; EINVAL before.
pub const RESEND: [u8; 16] = notification(7, 16);

const OPCODE_INIT: u32 = 26;
const IN_HEADER_BYTES: usize = 40;
const REQUEST_BYTES: usize = 104;
/// Of kernels before 7.36, which know no second word of flags.
const SHORT_REQUEST_BYTES: usize = 56;
const REPLY_BYTES: usize = 80;
/// Default readahead of Linux; the kernel offers no more either.
const MAX_READAHEAD: u32 = 128 << 10;

/// A set of INIT flags: `flags` in the low, `flags2` in the high 32 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InitFlags(pub u64);

impl InitFlags {
    /// Reads of one file may be in flight together.
    pub const ASYNC_READ: Self = Self(1 << 0);
    /// A file whose time of the last change is another one is read anew: `..sotto/status.json`, where no open says
    /// that it isn't to be cached.
    pub const AUTO_INVAL_DATA: Self = Self(1 << 12);
    /// Directory entries may come with their attributes.
    pub const DO_READDIRPLUS: Self = Self(1 << 13);
    /// The kernel decides when they do.
    pub const READDIRPLUS_AUTO: Self = Self(1 << 14);
    /// Lookups in one directory may be in flight together.
    pub const PARALLEL_DIROPS: Self = Self(1 << 18);
    /// Targets of symbolic links are cached. A link's inode must then never change its target.
    pub const CACHE_SYMLINKS: Self = Self(1 << 23);
    /// There is a second word of flags.
    pub const INIT_EXT: Self = Self(1 << 30);
    /// The kernel knows [`RESEND`].
    pub const HAS_RESEND: Self = Self(1 << 39);
    /// The mount may be id-mapped; requests that create nothing then come with uid and gid -1.
    pub const ALLOW_IDMAP: Self = Self(1 << 40);

    /// What we ask for always. Left out on purpose: write-back, splice, locks and KILLPRIV (nobody
    /// writes or locks), MAX_PAGES (a reply of at most 128 KiB bounds the bounce buffer), passthrough
    /// (such an fd can't be revoked), io_uring, REQUEST_TIMEOUT (it aborts the connection), ABORT_ERROR
    /// (a server's end is ENODEV).
    pub const WANTED: Self = Self(
        Self::ASYNC_READ.0
            | Self::AUTO_INVAL_DATA.0
            | Self::DO_READDIRPLUS.0
            | Self::READDIRPLUS_AUTO.0
            | Self::PARALLEL_DIROPS.0
            | Self::CACHE_SYMLINKS.0
            | Self::INIT_EXT.0
            | Self::HAS_RESEND.0,
    );

    /// Whether all of `other` is in it.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl BitOr for InitFlags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Whether the mount is to be id-mapped, as for pods with `hostUsers: false`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdMapping {
    /// Requests carry the caller's ids.
    Off,
    /// Asked for; in force if [`Negotiated::flags`] has [`InitFlags::ALLOW_IDMAP`].
    Allowed,
}

/// The kernel's FUSE_INIT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InitRequest {
    unique: u64,
    minor: u32,
    max_readahead: u32,
    offered: InitFlags,
}

/// Why bytes from the device are no INIT that we can answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InitError {
    /// Shorter than an INIT, or than its own header says.
    #[error("{0} bytes are no whole FUSE_INIT request")]
    Truncated(usize),
    /// The first request isn't INIT: somebody else answered it already.
    #[error("the first request on the FUSE connection has opcode {0}, not INIT: use a fresh one")]
    NotInit(u32),
    /// A protocol that we don't speak.
    #[error(
        "the kernel speaks FUSE {major}.{minor}: {MAJOR}.{OLDEST_MINOR} (Linux 5.15) or a later \
         {MAJOR}.x is needed"
    )]
    Version {
        /// The kernel's.
        major: u32,
        /// The kernel's.
        minor: u32,
    },
}

impl InitRequest {
    /// Reads what the first read from a fresh connection returned.
    ///
    /// # Errors
    /// It isn't an INIT of a version that we speak; the connection can't be used.
    pub fn parse(bytes: &[u8]) -> Result<Self, InitError> {
        let short = InitError::Truncated(bytes.len());
        if bytes.len() < IN_HEADER_BYTES {
            return Err(short);
        }
        let word = |at: usize| word(bytes, at).ok_or(short);
        let opcode = word(4)?;
        if opcode != OPCODE_INIT {
            return Err(InitError::NotInit(opcode));
        }
        if bytes.len() < SHORT_REQUEST_BYTES || word(0)? as usize != bytes.len() {
            return Err(short);
        }
        let (major, minor) = (word(40)?, word(44)?);
        if major != MAJOR || minor < OLDEST_MINOR {
            return Err(InitError::Version { major, minor });
        }
        let low = InitFlags(u64::from(word(52)?));
        let offered = if low.contains(InitFlags::INIT_EXT) {
            InitFlags(low.0 | u64::from(word(56)?) << 32)
        } else {
            low
        };
        let unique = u64::from_ne_bytes(array(bytes, 8).ok_or(short)?);
        Ok(Self { unique, minor, max_readahead: word(48)?, offered })
    }

    /// The bytes to write to the device, at once, and what they agree upon.
    #[must_use]
    pub fn answer(&self, mapping: IdMapping) -> ([u8; 80], Negotiated) {
        let wanted = match mapping {
            IdMapping::Off => InitFlags::WANTED,
            IdMapping::Allowed => InitFlags::WANTED | InitFlags::ALLOW_IDMAP,
        };
        let negotiated = Negotiated {
            major: MAJOR,
            minor: self.minor.min(NEWEST_MINOR),
            max_readahead: self.max_readahead.min(MAX_READAHEAD),
            flags: wanted.0 & self.offered.0,
            max_write: MAX_WRITE,
        };
        (negotiated.reply(self.unique), negotiated)
    }
}

/// What the driver and the kernel agreed upon; the handoff's `Init` carries the same fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Negotiated {
    /// The protocol's major version.
    pub major: u32,
    /// The lower of the kernel's and our minor version.
    pub minor: u32,
    /// Bytes.
    pub max_readahead: u32,
    /// See [`InitFlags`].
    pub flags: u64,
    /// Bytes.
    pub max_write: u32,
}

impl Negotiated {
    /// Whether the kernel knows [`RESEND`].
    #[must_use]
    pub fn can_resend(&self) -> bool {
        InitFlags(self.flags).contains(InitFlags::HAS_RESEND)
    }

    /// Whether requests come without the caller's ids.
    #[must_use]
    pub fn is_id_mapped(&self) -> bool {
        InitFlags(self.flags).contains(InitFlags::ALLOW_IDMAP)
    }

    /// An INIT request as the kernel would have sent it: a server library that insists on the handshake
    /// reads it from a socket, and its reply is thrown away.
    #[must_use]
    pub fn synthetic_request(&self) -> [u8; 104] {
        let mut bytes = [0; REQUEST_BYTES];
        put(&mut bytes, 0, REQUEST_BYTES as u32);
        put(&mut bytes, 4, OPCODE_INIT);
        put(&mut bytes, 8, 1); // unique, not 0; its other half and all ids stay 0
        put(&mut bytes, 40, self.major);
        put(&mut bytes, 44, self.minor);
        put(&mut bytes, 48, self.max_readahead);
        put(&mut bytes, 52, self.flags as u32);
        put(&mut bytes, 56, (self.flags >> 32) as u32);
        bytes
    }

    /// `fuse_out_header` and `fuse_init_out`. Background limits of 0 are the kernel's defaults.
    fn reply(&self, unique: u64) -> [u8; 80] {
        let mut bytes = [0; REPLY_BYTES];
        put(&mut bytes, 0, REPLY_BYTES as u32);
        bytes[8..16].copy_from_slice(&unique.to_ne_bytes());
        put(&mut bytes, 16, self.major);
        put(&mut bytes, 20, self.minor);
        put(&mut bytes, 24, self.max_readahead);
        put(&mut bytes, 28, self.flags as u32);
        put(&mut bytes, 36, self.max_write);
        put(&mut bytes, 40, 1); // time_gran in ns
        put(&mut bytes, 48, (self.flags >> 32) as u32);
        bytes
    }
}

/// A `fuse_out_header` of a notification: its code where a reply has its error, its number 0.
#[must_use]
pub const fn notification(code: u32, len: u32) -> [u8; 16] {
    let (len, code) = (len.to_ne_bytes(), code.to_ne_bytes());
    [len[0], len[1], len[2], len[3], code[0], code[1], code[2], code[3], 0, 0, 0, 0, 0, 0, 0, 0]
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    array(bytes, at).map(u32::from_ne_bytes)
}

fn put(bytes: &mut [u8], at: usize, word: u32) {
    bytes[at..at + 4].copy_from_slice(&word.to_ne_bytes());
}

#[cfg(test)]
mod tests;
