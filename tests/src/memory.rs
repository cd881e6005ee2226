//! What is in another process's memory, as root sees it.

pub use sotto_dev::memory::{search, secret_mappings};

/// How often `needle` is in the readable memory of a process.
///
/// # Errors
/// The process is gone, or may not be looked into.
pub fn in_memory(pid: u32, needle: &[u8]) -> std::io::Result<usize> {
    Ok(search(pid, &[needle])?[0])
}

/// Bytes of each memfd_secret that a process holds the fd of.
///
/// # Errors
/// The process is gone, or may not be looked into.
pub fn secret_files(pid: u32) -> std::io::Result<Vec<u64>> {
    let mut sizes = Vec::new();
    for fd in std::fs::read_dir(format!("/proc/{pid}/fd"))? {
        let fd = fd?.path();
        // One that was closed meanwhile is none.
        let Ok(target) = std::fs::read_link(&fd) else { continue };
        if target.to_string_lossy().starts_with("/secretmem") {
            sizes.extend(std::fs::metadata(&fd).map(|it| it.len()));
        }
    }
    Ok(sizes)
}
