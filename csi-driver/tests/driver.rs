//! The driver over its real services, with real mounts; an agent's part is played by the tests. Where it
//! must be killed or confined the binary itself is started.
//! Needs root, or a user namespace: `tests/tools/with-mounts`.
#![expect(clippy::unwrap_used, reason = "in a test a failed step ends it")]

#[allow(dead_code, reason = "tests/killed.rs uses the rest")]
#[path = "machine/agent.rs"]
mod agent;
#[allow(dead_code, reason = "tests/killed.rs uses the rest")]
#[path = "machine/behaviour.rs"]
mod behaviour;
#[allow(dead_code, reason = "tests/killed.rs uses the rest")]
#[path = "machine/driver_process.rs"]
mod driver_process;
#[path = "machine/machine.rs"]
mod machine;
#[path = "machine/mini_fuse.rs"]
mod mini_fuse;
#[path = "machine/readers.rs"]
mod readers;

#[path = "process/confined.rs"]
mod confined;
#[path = "process/leaving.rs"]
mod leaving;
#[path = "volumes/publish.rs"]
mod publish;
#[path = "volumes/republish.rs"]
mod republish;
#[path = "process/restart.rs"]
mod restart;
#[path = "process/returns.rs"]
mod returns;
#[path = "volumes/services.rs"]
mod services;
#[path = "volumes/sidecar.rs"]
mod sidecar;
#[path = "volumes/sidecar_peers.rs"]
mod sidecar_peers;
#[path = "process/sidecar_restart.rs"]
mod sidecar_restart;
#[path = "volumes/takeover.rs"]
mod takeover;
#[path = "process/unanswered_rename.rs"]
mod unanswered_rename;
#[path = "volumes/unpublish.rs"]
mod unpublish;
#[path = "volumes/unserved.rs"]
mod unserved;
#[path = "volumes/unserved_old_kernel.rs"]
mod unserved_old_kernel;
