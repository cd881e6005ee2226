//! What is in another process's memory, as root sees it.

use std::os::unix::fs::FileExt;

/// How often `needle` is in the readable memory of a process.
///
/// # Errors
/// The process is gone, or may not be looked into.
pub fn in_memory(pid: u32, needle: &[u8]) -> std::io::Result<usize> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let memory = std::fs::File::open(format!("/proc/{pid}/mem"))?;
    let mut found = 0;
    for line in maps.lines().filter(|line| line.contains(" rw") || line.contains(" r-")) {
        let range = line.split(' ').next().and_then(|range| range.split_once('-'));
        let Some((Ok(start), Ok(end))) = range
            .map(|(start, end)| (u64::from_str_radix(start, 16), u64::from_str_radix(end, 16)))
        else {
            continue;
        };
        let mut bytes = vec![0; usize::try_from(end - start).unwrap_or(0).min(64 << 20)];
        // Some ranges can't be read ([vvar], memfd_secret): that is their point.
        if let Ok(read) = memory.read_at(&mut bytes, start) {
            found += bytes[..read].windows(needle.len()).filter(|at| *at == needle).count();
        }
    }
    Ok(found)
}

/// Bytes of each mapping of memfd_secret in a process: what it holds can't be seen, but that it is there.
///
/// # Errors
/// The process is gone, or may not be looked into.
pub fn secret_mappings(pid: u32) -> std::io::Result<Vec<u64>> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let size = |line: &str| {
        let (start, end) = line.split(' ').next()?.split_once('-')?;
        let address = |text| u64::from_str_radix(text, 16).ok();
        address(end)?.checked_sub(address(start)?)
    };
    Ok(maps.lines().filter(|line| line.contains("/secretmem")).filter_map(size).collect())
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
