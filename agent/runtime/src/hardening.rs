//! What a process gives up before it does anything else.
//!
//! Call these first in `main`, while the process has one thread: capabilities and securebits belong to
//! threads, and the allocator's thresholds must be set before the first large block is freed.
#![expect(unsafe_code, reason = "prctl, capset, mallopt and malloc_trim")]

use std::io;

use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CapabilitySet, CapabilitySets};

/// Makes the process unreadable for its own uid (no ptrace, no /proc/PID/mem, no core dump) and
/// unable to gain privileges by exec. Holds for all threads; repeat after an exec.
///
/// # Errors
/// The kernel refused; the caller must not go on.
pub fn protect_process() -> io::Result<()> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    rustix::thread::set_no_new_privs(true)?;
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    Ok(())
}

/// Raises the soft limit of open files to the hard one: a volume costs fds. Returns the new limit,
/// `None` if there is none.
///
/// # Errors
/// The kernel refused.
pub fn raise_open_files() -> io::Result<Option<u64>> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    Ok(limit.maximum)
}

/// Fixes glibc's thresholds, which otherwise grow after the first large free: from then on each FUSE
/// session's 16 MiB buffer would come from the heap and be resident (6.8 MB a mount, measured).
/// Two arenas suffice for two cores and keep fragmentation low. Does nothing on another libc.
pub fn tune_allocator() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt takes two integers and has no memory preconditions.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 128 << 10);
        libc::mallopt(libc::M_ARENA_MAX, 2);
    }
}

/// Gives the pages that the allocator keeps free back to the machine. Takes milliseconds: not for a thread that must
/// not block. Does nothing on another libc.
pub fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim takes an integer and has no memory preconditions.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Drops every capability but `kept` from this thread, and so from all threads it starts: effective,
/// permitted, inheritable, ambient and bounding. What the process doesn't have can't be kept.
///
/// # Errors
/// The kernel refused; the caller must not go on.
pub fn keep_only_capabilities(kept: CapabilitySet) -> io::Result<()> {
    rustix::thread::clear_ambient_capability_set()?;
    let have = rustix::thread::capabilities(None)?;
    if have.effective.contains(CapabilitySet::SETPCAP) {
        drop_from_bounding_set(kept)?;
    }
    let rest = have.permitted & kept;
    let sets =
        CapabilitySets { effective: rest, permitted: rest, inheritable: CapabilitySet::empty() };
    rustix::thread::set_capabilities(None, sets)?;
    Ok(())
}

fn drop_from_bounding_set(kept: CapabilitySet) -> io::Result<()> {
    for capability in CapabilitySet::all().iter() {
        if kept.contains(capability) {
            continue;
        }
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            // A capability that this kernel doesn't know.
            Ok(()) | Err(rustix::io::Errno::INVAL) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_keeps_only_what_it_names() {
        let after = std::thread::spawn(|| {
            keep_only_capabilities(CapabilitySet::SYS_ADMIN).unwrap();
            rustix::thread::capabilities(None).unwrap()
        })
        .join()
        .unwrap();
        assert_eq!(after.effective - CapabilitySet::SYS_ADMIN, CapabilitySet::empty());
        assert_eq!(after.permitted, after.effective);
        assert_eq!(after.inheritable, CapabilitySet::empty());
    }

    #[test]
    fn open_files_rise_to_the_hard_limit() {
        let limit = raise_open_files().unwrap();
        assert_eq!(getrlimit(Resource::Nofile).current, limit);
    }

    #[test]
    fn a_protected_process_is_not_dumpable() {
        protect_process().unwrap();
        assert_eq!(rustix::process::dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
        assert_eq!(getrlimit(Resource::Core).maximum, Some(0));
    }
}
