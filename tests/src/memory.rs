//! What is in another process's memory, as root sees it.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;

pub use sotto_dev::memory::{search, secret_mappings};

/// How often `needle` is in the readable memory of a process.
///
/// # Errors
/// The process is gone, or may not be looked into.
pub fn in_memory(pid: u32, needle: &[u8]) -> std::io::Result<usize> {
    Ok(search(pid, &[needle])?[0])
}

/// Each memfd_secret that a process holds the fd of, by its inode, with its bytes.
///
/// # Errors
/// The process is gone, or may not be looked into.
pub fn secret_files(pid: u32) -> std::io::Result<BTreeMap<u64, u64>> {
    let mut files = BTreeMap::new();
    for fd in std::fs::read_dir(format!("/proc/{pid}/fd"))? {
        let fd = fd?.path();
        // One that was closed meanwhile is none.
        let Ok(target) = std::fs::read_link(&fd) else { continue };
        if target.to_string_lossy().starts_with("/secretmem") {
            files.extend(std::fs::metadata(&fd).map(|it| (it.ino(), it.len())));
        }
    }
    Ok(files)
}
