//! What the kernel is told.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{Errno, FopenFlags};
use sotto_core::secret::SecretBytes;

use crate::tree::attributes::{Attributes, Kind};
use crate::tree::listing::Entry;

/// How long the kernel may keep what is cacheable.
const KEPT_FOR: Duration = Duration::from_secs(3600);
/// What `statfs` and `stat` count in.
pub(crate) const BLOCK_BYTES: u32 = 4096;
const LONGEST_NAME: u32 = 255;
pub(crate) const HEADER_BYTES: usize = 16;

/// One reply, without its header.
pub(crate) enum Reply {
    Done,
    Error(Errno),
    /// `fuse_open_out`.
    Opened([u8; 16]),
    Bytes(Vec<u8>),
    /// Wiped once it is sent.
    Secret(SecretBytes),
}

impl Reply {
    /// The header that goes before it.
    pub(crate) fn header(&self, unique: u64) -> [u8; HEADER_BYTES] {
        let error = match self {
            Self::Error(errno) => -errno.code(),
            Self::Done | Self::Opened(_) | Self::Bytes(_) | Self::Secret(_) => 0,
        };
        let length = (HEADER_BYTES + self.body().len()) as u32;
        let mut header = [0; HEADER_BYTES];
        header[..4].copy_from_slice(&length.to_ne_bytes());
        header[4..8].copy_from_slice(&error.to_ne_bytes());
        header[8..].copy_from_slice(&unique.to_ne_bytes());
        header
    }

    pub(crate) fn body(&self) -> &[u8] {
        match self {
            Self::Done | Self::Error(_) => &[],
            Self::Opened(bytes) => bytes,
            Self::Bytes(bytes) => bytes,
            Self::Secret(bytes) => bytes.expose(),
        }
    }

    /// `fuse_entry_out`.
    pub(crate) fn entry(attributes: &Attributes) -> Self {
        let mut bytes = Vec::with_capacity(128);
        put_entry(&mut bytes, attributes);
        Self::Bytes(bytes)
    }

    /// `fuse_attr_out`.
    pub(crate) fn attributes(attributes: &Attributes) -> Self {
        let mut bytes = Vec::with_capacity(104);
        let kept = kept_for(attributes);
        put(&mut bytes, &[kept.as_secs()], &[kept.subsec_nanos(), 0]);
        put_attributes(&mut bytes, attributes);
        Self::Bytes(bytes)
    }

    /// `fuse_open_out`.
    pub(crate) fn opened(handle: u64, flags: FopenFlags) -> Self {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&handle.to_ne_bytes());
        bytes[8..12].copy_from_slice(&flags.bits().to_ne_bytes());
        Self::Opened(bytes)
    }

    /// `fuse_statfs_out`: nothing is free.
    pub(crate) fn file_system(value_bytes: u64, files: u64) -> Self {
        let mut bytes = Vec::with_capacity(80);
        let blocks = value_bytes.div_ceil(u64::from(BLOCK_BYTES));
        let sizes = [BLOCK_BYTES, LONGEST_NAME, BLOCK_BYTES];
        put(&mut bytes, &[blocks, 0, 0, files, 0], &sizes);
        bytes.resize(80, 0); // padding and spares
        Self::Bytes(bytes)
    }

    /// As many `fuse_dirent` as there is room for.
    pub(crate) fn directory(entries: &[Entry], room: u32) -> Self {
        Self::listed(entries, room, |_, _| {})
    }

    /// As many `fuse_direntplus` as there is room for.
    pub(crate) fn directory_plus(entries: &[Entry], room: u32) -> Self {
        Self::listed(entries, room, |bytes, entry| put_entry(bytes, &entry.attributes))
    }

    fn listed(entries: &[Entry], room: u32, before: impl Fn(&mut Vec<u8>, &Entry)) -> Self {
        let mut bytes = Vec::new();
        for entry in entries {
            let whole = bytes.len();
            before(&mut bytes, entry);
            let Attributes { inode, kind, .. } = entry.attributes;
            let name = entry.name.as_bytes();
            let numbers = [name.len() as u32, mode_bits(kind) >> 12];
            put(&mut bytes, &[inode.0, entry.cookie], &numbers);
            bytes.extend_from_slice(name);
            bytes.resize(bytes.len().next_multiple_of(8), 0);
            if bytes.len() > room as usize {
                bytes.truncate(whole);
                break;
            }
        }
        Self::Bytes(bytes)
    }
}

fn put_entry(bytes: &mut Vec<u8>, attributes: &Attributes) {
    let kept = kept_for(attributes);
    // Inode numbers are never used twice: their generation is always 0.
    let (seconds, rest) = (kept.as_secs(), kept.subsec_nanos());
    put(bytes, &[attributes.inode.0, 0, seconds, seconds], &[rest, rest]);
    put_attributes(bytes, attributes);
}

/// `fuse_attr`.
fn put_attributes(bytes: &mut Vec<u8>, attributes: &Attributes) {
    let (seconds, rest) = since_epoch(attributes.modified);
    let Attributes { inode, size, kind, mode, gid, .. } = *attributes;
    put(
        bytes,
        &[inode.0, size, size.div_ceil(512), seconds, seconds, seconds],
        // Owner 0, one link, no device, no flags.
        &[rest, rest, rest, mode_bits(kind) | u32::from(mode), 1, 0, gid, 0, BLOCK_BYTES, 0],
    );
}

fn kept_for(attributes: &Attributes) -> Duration {
    if attributes.cacheable { KEPT_FOR } else { Duration::ZERO }
}

fn mode_bits(kind: Kind) -> u32 {
    match kind {
        Kind::Directory => libc::S_IFDIR,
        Kind::File => libc::S_IFREG,
        Kind::Link => libc::S_IFLNK,
    }
}

/// Times before 1970 don't come up.
fn since_epoch(time: SystemTime) -> (u64, u32) {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    (since.as_secs(), since.subsec_nanos())
}

fn put(bytes: &mut Vec<u8>, longs: &[u64], words: &[u32]) {
    longs.iter().for_each(|long| bytes.extend_from_slice(&long.to_ne_bytes()));
    words.iter().for_each(|word| bytes.extend_from_slice(&word.to_ne_bytes()));
}
