//! Secret bytes as something to pass on: in a memfd_secret that outlives its writer for as long as somebody
//! holds its fd.
//!
//! Such a file can't be read or written, only mapped: whoever holds the fd and doesn't map it never has the
//! content in reach. It is locked memory, and counts for RLIMIT_MEMLOCK only while it is mapped.

use std::ffi::c_void;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;

use rustix::mm::{MapFlags, ProtFlags};
use sotto_core::secret::SecretBytes;
use zeroize::Zeroize;

use super::memfd_secret;

/// Largest content that is read back.
const LARGEST_BYTES: u64 = 256 << 20;

/// Writes the bytes to a new memfd_secret.
///
/// # Errors
/// The kernel has none (secretmem.enable), or RLIMIT_MEMLOCK is used up.
pub fn deposit(bytes: &[u8]) -> io::Result<OwnedFd> {
    let fd = memfd_secret(bytes.len().max(1))?;
    map(fd.as_fd(), bytes.len().max(1))?.bytes_mut()[..bytes.len()].copy_from_slice(bytes);
    Ok(fd)
}

/// Reads what [`deposit`] wrote, at its full length.
///
/// # Errors
/// It isn't a file that can be mapped, or larger than 256 MiB.
pub fn withdraw(fd: impl AsFd) -> io::Result<SecretBytes> {
    let bytes = u64::try_from(rustix::fs::fstat(&fd)?.st_size).unwrap_or_default();
    if bytes == 0 || bytes > LARGEST_BYTES {
        let problem = format!("a deposit of {bytes} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
    }
    let len = usize::try_from(bytes).map_err(io::Error::other)?;
    Ok(SecretBytes::new(map(fd.as_fd(), len)?.bytes_mut().to_vec()))
}

/// Wipes a deposit that nobody shall read any more, whoever still holds its fd.
///
/// # Errors
/// It can't be mapped.
pub fn wipe(fd: impl AsFd) -> io::Result<()> {
    let len = usize::try_from(rustix::fs::fstat(&fd)?.st_size).map_err(io::Error::other)?;
    if len > 0 {
        map(fd.as_fd(), len)?.bytes_mut().zeroize();
    }
    Ok(())
}

/// Unmaps without wiping: the content belongs to the file.
struct View(NonNull<c_void>, usize);

impl View {
    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: a mapping of that length which nobody else in this process knows; the file can't shrink,
        // its size is fixed by the first ftruncate.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_ptr().cast(), self.1) }
    }
}

impl Drop for View {
    fn drop(&mut self) {
        // SAFETY: the range is ours, and no reference into it is alive.
        if let Err(error) = unsafe { rustix::mm::munmap(self.0.as_ptr(), self.1) } {
            tracing::error!(%error, "secret memory could not be unmapped");
        }
    }
}

fn map(fd: BorrowedFd<'_>, len: usize) -> io::Result<View> {
    let access = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a fresh shared mapping at an address of the kernel's choice aliases nothing.
    let start =
        unsafe { rustix::mm::mmap(std::ptr::null_mut(), len, access, MapFlags::SHARED, fd, 0)? };
    Ok(View(NonNull::new(start).ok_or(io::ErrorKind::OutOfMemory)?, len))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Kernels without secretmem have another way, which is tested where it is chosen.
    fn deposited(bytes: &[u8]) -> Option<OwnedFd> {
        deposit(bytes).inspect_err(|_| assert!(memfd_secret(1).is_err())).ok()
    }

    #[test]
    fn what_was_deposited_can_be_withdrawn_again_and_again_and_not_read() {
        let Some(fd) = deposited(b"value") else { return };
        for _ in 0..2 {
            assert_eq!(withdraw(&fd).unwrap().expose(), b"value");
        }
        assert!(
            rustix::io::pread(&fd, &mut [0; 8], 0).is_err(),
            "it can be read without a mapping"
        );
    }

    #[test]
    fn a_wiped_deposit_is_wiped_for_everybody() {
        let Some(fd) = deposited(b"value") else { return };
        let other = fd.try_clone().unwrap();
        wipe(&fd).unwrap();
        assert_eq!(withdraw(&other).unwrap().expose(), [0; 5]);
    }

    #[test]
    fn what_is_no_deposit_is_refused() {
        let (reader, _writer) = io::pipe().unwrap();
        assert!(withdraw(&reader).is_err());
    }
}
