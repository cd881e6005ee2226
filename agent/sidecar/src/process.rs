//! What the process gives up before it does anything: called first in `main`, while it has one thread.

use std::io;

use rustix::process::geteuid;
use rustix::thread::CapabilitySet;
use sotto_runtime::hardening;

/// Why the process must not go on.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// Root in a container is more than a sidecar needs.
    #[error(
        "sotto-agent must not run as uid 0: run it as a user of its own (65532), or with --development"
    )]
    Root,
    /// The kernel refused.
    #[error("the process can't be protected: {0}")]
    Kernel(#[from] io::Error),
}

/// Fixes the allocator's thresholds and makes the process unreadable. Before the first large allocation.
///
/// # Errors
/// The kernel refused.
pub fn protect() -> Result<(), ProcessError> {
    hardening::tune_allocator();
    Ok(hardening::protect_process()?)
}

/// Drops every capability.
///
/// # Errors
/// The process runs as root in production, or the kernel refused.
pub fn confine(development: bool) -> Result<(), ProcessError> {
    refuse_root(geteuid().is_root(), development)?;
    Ok(hardening::keep_only_capabilities(CapabilitySet::empty())?)
}

fn refuse_root(is_root: bool, development: bool) -> Result<(), ProcessError> {
    if is_root && !development { Err(ProcessError::Root) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_refused_but_in_development() {
        assert!(matches!(refuse_root(true, false), Err(ProcessError::Root)));
        assert!(refuse_root(true, true).is_ok());
        assert!(refuse_root(false, false).is_ok());
    }

    #[test]
    fn a_confined_thread_has_no_capability() {
        let capabilities = std::thread::spawn(|| {
            confine(true).unwrap();
            rustix::thread::capabilities(None).unwrap()
        });
        let capabilities = capabilities.join().unwrap();
        assert!(capabilities.effective.is_empty() && capabilities.permitted.is_empty());
    }
}
