//! Who is told of each open.

use std::sync::Arc;

use sotto_core::audit::{Decision, Opener};
use sotto_core::snapshot::Generation;

/// Receives one call for each OPEN that reaches the file system, granted or refused. A process that the
/// kernel itself refuses by the file's mode never gets so far.
///
/// Called on the thread that serves the volume: it must not block. A request that the kernel sent again
/// after a take-over is reported again.
pub trait AuditSink: Send + Sync {
    /// Whether it wants to hear of opens. If not, the kernel is told at the first one to ask no more (ENOSYS), which
    /// holds for the connection's whole life: an open then costs no message, and nobody learns of it. A refused object
    /// can then be opened; to read it fails.
    fn is_interested(&self) -> bool {
        true
    }

    /// `object` is the path of the object's file, relative to the volume's root. On an id-mapped mount
    /// the kernel tells no ids: uid and gid are `u32::MAX` there.
    fn opened(&self, object: &Arc<str>, generation: Generation, opener: Opener, decision: Decision);
}
