//! Locked memory for snapshots: never swapped out, never in a core dump, not inherited by a fork.
//!
//! One mapping a generation, read-only once filled. First choice is `memfd_secret`, whose pages leave
//! even the kernel's direct map; then anonymous memory with mlock; then, where RLIMIT_MEMLOCK is used
//! up, the same memory unlocked: counted, and logged once, because a node that serves nothing helps nobody.
#![expect(unsafe_code, reason = "mmap and memfd_secret")]

pub mod handover;

use std::ffi::c_void;
use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::mm::{Advice, MapFlags, MprotectFlags, ProtFlags};
use sotto_core::snapshot::{SecretMemory, SecretMemorySource};
use zeroize::Zeroize;

/// How a mapping came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protection {
    /// `memfd_secret`: locked, and out of the kernel's direct map.
    MemfdSecret,
    /// Anonymous memory with mlock.
    Locked,
    /// Anonymous memory that may be swapped out: RLIMIT_MEMLOCK is used up.
    Unlocked,
}

/// Mappings alive, by protection: a metric.
#[derive(Debug, Default)]
pub struct MemoryCounts {
    memfd_secret: AtomicUsize,
    locked: AtomicUsize,
    unlocked: AtomicUsize,
}

impl MemoryCounts {
    /// Mappings alive with this protection.
    #[must_use]
    pub fn alive(&self, protection: Protection) -> usize {
        self.of(protection).load(Ordering::Relaxed)
    }

    fn of(&self, protection: Protection) -> &AtomicUsize {
        match protection {
            Protection::MemfdSecret => &self.memfd_secret,
            Protection::Locked => &self.locked,
            Protection::Unlocked => &self.unlocked,
        }
    }
}

/// Gives snapshots the best memory that the machine has left.
#[derive(Debug, Default)]
pub struct LockedMemory {
    counts: Arc<MemoryCounts>,
    no_memfd_secret: bool,
}

impl LockedMemory {
    /// A source with counts of its own.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A source that does as on a kernel without memfd_secret.
    #[must_use]
    pub fn without_memfd_secret() -> Self {
        Self { no_memfd_secret: true, ..Self::default() }
    }

    /// The counts, shared with the mappings.
    #[must_use]
    pub fn counts(&self) -> Arc<MemoryCounts> {
        Arc::clone(&self.counts)
    }

    fn map(&self, len: usize) -> io::Result<Mapping> {
        let (start, protection) = match self.no_memfd_secret {
            true => map_anonymous(len)?,
            false => map_memfd_secret(len).or_else(|_| map_anonymous(len))?,
        };
        if protection == Protection::Unlocked && self.counts.alive(Protection::Unlocked) == 0 {
            tracing::warn!(
                "RLIMIT_MEMLOCK is used up: secret values may be swapped out; raise the limit or \
                 serve fewer volumes on this node"
            );
        }
        self.counts.of(protection).fetch_add(1, Ordering::Relaxed);
        Ok(Mapping { start, len, protection, counts: self.counts() })
    }
}

impl SecretMemorySource for LockedMemory {
    fn allocate(&self, len: usize, fill: &mut dyn FnMut(&mut [u8])) -> Box<dyn SecretMemory> {
        // mmap refuses a length of 0: a volume whose values are all empty.
        let mut mapping = match self.map(len.max(1)) {
            Ok(mapping) => mapping,
            Err(_) => std::alloc::handle_alloc_error(
                std::alloc::Layout::array::<u8>(len).expect("a volume's limit is below isize::MAX"),
            ),
        };
        fill(&mut mapping.bytes_mut()[..len]);
        mapping.seal();
        Box::new(Filled { mapping, len })
    }
}

fn memfd_secret(len: usize) -> io::Result<OwnedFd> {
    // SAFETY: the system call takes only flags; a non-negative result is a new fd that we own.
    let fd = unsafe {
        let fd = libc::syscall(libc::SYS_memfd_secret, libc::O_CLOEXEC);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        OwnedFd::from_raw_fd(fd as i32)
    };
    rustix::fs::ftruncate(&fd, len as u64)?;
    Ok(fd)
}

fn map_memfd_secret(len: usize) -> io::Result<(NonNull<c_void>, Protection)> {
    let fd = memfd_secret(len)?;
    let access = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a fresh shared mapping at an address of the kernel's choice aliases nothing; the fd may
    // be closed afterwards, the mapping keeps the memory.
    let start = unsafe {
        rustix::mm::mmap(std::ptr::null_mut(), len, access, MapFlags::SHARED, fd.as_fd(), 0)?
    };
    let start = NonNull::new(start).ok_or(io::ErrorKind::OutOfMemory)?;
    Ok((start, Protection::MemfdSecret))
}

fn map_anonymous(len: usize) -> io::Result<(NonNull<c_void>, Protection)> {
    let access = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a fresh anonymous mapping aliases nothing; the advice is about exactly that range.
    unsafe {
        let start =
            rustix::mm::mmap_anonymous(std::ptr::null_mut(), len, access, MapFlags::PRIVATE)?;
        rustix::mm::madvise(start, len, Advice::LinuxDontDump)?;
        rustix::mm::madvise(start, len, Advice::LinuxWipeOnFork)?;
        let protection = match rustix::mm::mlock(start, len) {
            Ok(()) => Protection::Locked,
            Err(_) => Protection::Unlocked,
        };
        let start = NonNull::new(start).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok((start, protection))
    }
}

struct Mapping {
    start: NonNull<c_void>,
    len: usize,
    protection: Protection,
    counts: Arc<MemoryCounts>,
}

// SAFETY: the mapping is owned by this value alone; shared access is read-only.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn bytes(&self) -> &[u8] {
        // SAFETY: `start` maps `len` initialised (zeroed or filled) bytes until drop.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), self.len) }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as `bytes`, and `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr().cast(), self.len) }
    }

    fn protect(&self, flags: MprotectFlags) -> bool {
        // SAFETY: the range is ours, and no reference into it is alive across the call.
        unsafe { rustix::mm::mprotect(self.start.as_ptr(), self.len, flags).is_ok() }
    }

    fn seal(&mut self) {
        if !self.protect(MprotectFlags::READ) {
            tracing::debug!("secret memory stays writable: mprotect was refused");
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.protect(MprotectFlags::READ | MprotectFlags::WRITE) {
            self.bytes_mut().zeroize();
        }
        // SAFETY: nobody else knows the range, and it isn't used after this.
        if let Err(error) = unsafe { rustix::mm::munmap(self.start.as_ptr(), self.len) } {
            tracing::error!(%error, "secret memory could not be unmapped");
        }
        self.counts.of(self.protection).fetch_sub(1, Ordering::Relaxed);
    }
}

struct Filled {
    mapping: Mapping,
    len: usize,
}

impl SecretMemory for Filled {
    fn expose(&self) -> &[u8] {
        &self.mapping.bytes()[..self.len]
    }

    fn is_locked(&self) -> bool {
        self.mapping.protection != Protection::Unlocked
    }
}

#[cfg(test)]
mod tests;
