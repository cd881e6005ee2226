//! What the process gives up before it does anything: called first in `main`, while it has one thread.

use std::io;

use rustix::process::geteuid;
use rustix::thread::CapabilitySet;
use sotto_runtime::hardening;

use crate::config::Mode;

/// Why the process must not go on.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// Root could read every other process's memory and files.
    #[error(
        "sotto-node must not run as uid 0: run it as a user of its own (65532), or with \
         --development"
    )]
    Root,
    /// The kernel refused.
    #[error("the process can't be protected: {0}")]
    Kernel(#[from] io::Error),
}

/// Fixes the allocator's thresholds and makes the process unreadable. Before the first large allocation,
/// and whatever the process is going to do.
///
/// # Errors
/// The kernel refused.
pub fn protect() -> Result<(), ProcessError> {
    hardening::tune_allocator();
    Ok(hardening::protect_process()?)
}

/// Drops every capability, and raises the limit of open files: a volume costs some.
///
/// # Errors
/// The process runs as root in production, or the kernel refused.
pub fn confine(mode: Mode) -> Result<(), ProcessError> {
    refuse_root(geteuid().is_root(), mode)?;
    hardening::keep_only_capabilities(CapabilitySet::empty())?;
    let open_files = hardening::raise_open_files()?;
    tracing::debug!(?open_files, "the process is confined");
    Ok(())
}

fn refuse_root(is_root: bool, mode: Mode) -> Result<(), ProcessError> {
    if is_root && mode == Mode::Production { Err(ProcessError::Root) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_refused_but_in_development() {
        assert!(matches!(refuse_root(true, Mode::Production), Err(ProcessError::Root)));
        assert!(refuse_root(true, Mode::Development).is_ok());
        assert!(refuse_root(false, Mode::Production).is_ok());
    }

    #[test]
    fn a_confined_thread_has_no_capability() {
        let capabilities = std::thread::spawn(|| {
            confine(Mode::Development).unwrap();
            rustix::thread::capabilities(None).unwrap()
        });
        let capabilities = capabilities.join().unwrap();
        assert!(capabilities.effective.is_empty() && capabilities.permitted.is_empty());
    }
}
