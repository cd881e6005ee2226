//! What is in another process's memory, as root sees it: the search that shows what a process never has.
//!
//! Invariant: a search that found nothing because it could see nothing is an error, never a zero: whoever calls it
//! plants something to be found.
#![expect(
    unsafe_code,
    reason = "memmem(3): tens of megabytes are searched, in development builds too"
)]

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

/// Read at a time.
const CHUNK: usize = 4 << 20;

/// How often each needle is in the readable memory of a process.
///
/// # Errors
/// The process is gone, or may not be looked into.
pub fn search(pid: u32, needles: &[&[u8]]) -> io::Result<Vec<usize>> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let memory = File::open(format!("/proc/{pid}/mem"))?;
    let overlap = needles.iter().map(|needle| needle.len()).max().unwrap_or(1).saturating_sub(1);
    let mut found = vec![0; needles.len()];
    let mut buffer = vec![0; CHUNK];
    for (start, end) in maps.lines().filter_map(readable) {
        let mut at = start;
        while at < end {
            let size = usize::try_from(end - at).unwrap_or(CHUNK).min(CHUNK);
            // Some ranges can't be read ([vvar], memfd_secret): that is their point.
            let Ok(read) = memory.read_at(&mut buffer[..size], at) else { break };
            for (count, needle) in found.iter_mut().zip(needles) {
                *count += occurrences(&buffer[..read], needle);
            }
            if read <= overlap {
                break;
            }
            // What lies across two chunks is found in the second; what lies in both would count twice.
            at += (read - if at + (read as u64) < end { overlap } else { 0 }) as u64;
        }
    }
    Ok(found)
}

/// Bytes of each mapping of memfd_secret in a process: what it holds can't be seen, but that it is there.
///
/// # Errors
/// The process is gone, or may not be looked into.
pub fn secret_mappings(pid: u32) -> io::Result<Vec<u64>> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let secret = maps.lines().filter(|line| line.contains("/secretmem"));
    Ok(secret.filter_map(range).map(|(start, end)| end - start).collect())
}

fn readable(line: &str) -> Option<(u64, u64)> {
    let is_readable =
        line.split(' ').nth(1).is_some_and(|permissions| permissions.starts_with('r'));
    is_readable.then(|| range(line)).flatten()
}

fn range(line: &str) -> Option<(u64, u64)> {
    let (start, end) = line.split(' ').next()?.split_once('-')?;
    let address = |text| u64::from_str_radix(text, 16).ok();
    address(start).zip(address(end)).filter(|(start, end)| start < end)
}

fn occurrences(mut haystack: &[u8], needle: &[u8]) -> usize {
    let mut count = 0;
    while !needle.is_empty() && haystack.len() >= needle.len() {
        // SAFETY: both are valid for their lengths, and memmem writes nothing.
        let at = unsafe {
            libc::memmem(
                haystack.as_ptr().cast(),
                haystack.len(),
                needle.as_ptr().cast(),
                needle.len(),
            )
        };
        if at.is_null() {
            break;
        }
        count += 1;
        let offset = at as usize - haystack.as_ptr() as usize;
        haystack = &haystack[offset + 1..];
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_found_and_what_is_not_is_not() {
        // Put together here, so that only the heap has it whole.
        let there = ["planted", "4711", "here"].join("-");
        assert!(search(std::process::id(), &[there.as_bytes()]).unwrap()[0] > 0);
        assert!(search(u32::MAX, &[b"x"]).is_err(), "a process that is gone is no zero");
        let mut other = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        assert_eq!(search(other.id(), &[there.as_bytes()]).unwrap(), [0]);
        other.kill().unwrap();
        other.wait().unwrap();
    }

    #[test]
    fn a_needle_across_two_chunks_is_found_once() {
        let mut bytes = vec![b'.'; 2 * CHUNK];
        let needle = ["across", "two", "chunks"].join("+");
        let at = CHUNK - 5;
        bytes[at..at + needle.len()].copy_from_slice(needle.as_bytes());
        assert_eq!(occurrences(&bytes, needle.as_bytes()), 1);
        assert!(search(std::process::id(), &[needle.as_bytes()]).unwrap()[0] >= 2);
        drop(bytes);
    }
}
