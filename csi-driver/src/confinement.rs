//! What the only privileged process gives up before it reads a byte from outside.
//!
//! It keeps CAP_SYS_ADMIN, which every mount call needs, and no other capability:
//!
//! | what it does | why no capability is needed |
//! |---|---|
//! | open, mkdir, rmdir beneath kubelet's 0750 directories | they belong to uid 0, which this process is |
//! | open `/dev/fuse` (0600 root on some nodes) | as above |
//! | give `node.sock` to the agent's group | an owner may give a file to a group it is a member of, so it becomes a member first (this needs CAP_SETGID, dropped afterwards) |
//! | raise the soft limit of open files | up to the hard limit anybody may |
//! | end a rotation helper | it has the same uid |
//! | make a rotation's operations on the mount | the mount's root belongs to uid 0 |

use std::io;

use rustix::fs::Mode;
use rustix::process::{Gid, getegid, umask};
use rustix::thread::{CapabilitySet, set_thread_groups};
use sotto_runtime::hardening;

/// All that is kept.
pub const KEPT: CapabilitySet = CapabilitySet::SYS_ADMIN;
/// New files are their owner's only, until they are given away on purpose.
const UMASK: Mode = Mode::from_raw_mode(0o077);

/// A step that the kernel refused; the process must not go on.
#[derive(Debug, thiserror::Error)]
#[error("the process can't confine itself: {step}")]
pub struct ConfinementError {
    step: &'static str,
    #[source]
    source: io::Error,
}

/// Confines the process; call it while it has one thread. Groups are `agent_gid` only, if it isn't the
/// process's own.
///
/// # Errors
/// What the kernel refused.
pub fn confine(agent_gid: u32) -> Result<(), ConfinementError> {
    let failed = |step| move |source| ConfinementError { step, source };
    hardening::tune_allocator();
    umask(UMASK);
    hardening::protect_process().map_err(failed("core dumps and ptrace can't be turned off"))?;
    join_group(agent_gid).map_err(failed(
        "it can't join the agent's group (--agent-gid); in a user namespace use a mapped one",
    ))?;
    hardening::keep_only_capabilities(KEPT).map_err(failed("capabilities can't be dropped"))?;
    Ok(())
}

/// Confines a helper, which inherited the rest.
///
/// # Errors
/// What the kernel refused.
pub fn confine_helper() -> Result<(), ConfinementError> {
    let failed = |step| move |source| ConfinementError { step, source };
    hardening::protect_process().map_err(failed("core dumps and ptrace can't be turned off"))?;
    hardening::keep_only_capabilities(KEPT).map_err(failed("capabilities can't be dropped"))
}

fn join_group(gid: u32) -> io::Result<()> {
    if gid == getegid().as_raw() {
        return Ok(());
    }
    Ok(set_thread_groups(&[Gid::from_raw(gid)])?)
}
