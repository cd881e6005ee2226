//! What the kernel says about processes and FUSE connections.

use std::path::Path;

/// A process's state letter, e.g. `S`, `D`, `T`; `None` once it is gone.
#[must_use]
pub fn state(pid: u32) -> Option<char> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    status.rsplit_once(')')?.1.trim_start().chars().next()
}

/// The children of a process, of all its threads.
#[must_use]
pub fn children(pid: u32) -> Vec<u32> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let of_thread =
        |thread: std::fs::DirEntry| std::fs::read_to_string(thread.path().join("children")).ok();
    let lists: Vec<String> = threads.filter_map(of_thread).collect();
    lists
        .iter()
        .flat_map(|list| list.split_whitespace())
        .filter_map(|pid| pid.parse().ok())
        .collect()
}

/// A process's command line, its arguments joined by spaces.
#[must_use]
pub fn command_line(pid: u32) -> String {
    let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ")
}

/// The process and everything below it.
#[must_use]
pub fn tree(pid: u32) -> Vec<u32> {
    let mut found = vec![pid];
    let mut at = 0;
    while let Some(pid) = found.get(at).copied() {
        found.extend(children(pid));
        at += 1;
    }
    found
}

/// Those of the processes, and of what they started, that the kernel holds: in D state.
#[must_use]
pub fn stuck(pids: &[u32]) -> Vec<u32> {
    let all = pids.iter().flat_map(|pid| tree(*pid));
    all.filter(|pid| state(*pid) == Some('D')).collect()
}

/// Open file descriptors.
#[must_use]
pub fn fds(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// Threads.
#[must_use]
pub fn threads(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count)
}

/// Resident memory in KiB.
#[must_use]
pub fn resident_kib(pid: u32) -> u64 {
    field(pid, "status", "VmRSS:").unwrap_or(0)
}

fn field(pid: u32, file: &str, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/{file}")).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    line[name.len()..].split_whitespace().next()?.parse().ok()
}

/// The soft limit of a process, as `/proc/PID/limits` names it; `None` for unlimited.
#[must_use]
pub fn limit(pid: u32, name: &str) -> Option<u64> {
    field(pid, "limits", name)
}

/// Requests of a mount's FUSE connection that wait for an answer; `None` where fusectl isn't mounted.
#[must_use]
pub fn waiting(target: &Path) -> Option<u64> {
    let line = crate::files::mount_line(target).ok()?;
    let device = line.split(' ').nth(2)?.split(':').nth(1)?;
    let file = format!("/sys/fs/fuse/connections/{device}/waiting");
    std::fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// Sends a signal to a process by its number.
///
/// # Errors
/// It is gone.
pub fn signal(pid: u32, signal: rustix::process::Signal) -> std::io::Result<()> {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    let pid = pid.ok_or(std::io::ErrorKind::InvalidInput)?;
    Ok(rustix::process::kill_process(pid, signal)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_seen() {
        let own = std::process::id();
        assert!(matches!(state(own), Some('R' | 'S')));
        assert!(fds(own) > 2 && threads(own) > 0 && resident_kib(own) > 500);
        assert!(command_line(own).contains("sotto_tests"));
        assert!(limit(own, "Max open files").is_some_and(|limit| limit > 10));
        assert_eq!(state(u32::MAX), None);
    }
}
