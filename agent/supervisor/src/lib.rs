//! An agent's PID 1: it starts the worker, starts it again within 50 ms, and keeps what the next one needs.
//!
//! ```text
//! supervisor (no runtime, one thread, parses nothing from outside)
//!    |  socket on the worker's standard input: names and file descriptors, never a value
//!    v
//! worker: the agent itself
//! ```
//!
//! Kept for each volume: a dup of its FUSE connection, and a memfd_secret with whatever the worker wrote there.
//! The supervisor maps neither. So a crash of the worker costs milliseconds and needs neither the store nor
//! kubelet; a crash of the supervisor takes the worker with it, and the driver's dups save the mounts.
//!
//! | module | owns |
//! |---|---|
//! | [`supervise()`] | the supervisor's process |
//! | [`worker`] | the worker's end: what was kept, and what is to be kept |
//! | `signals` | signals as something to poll |
//! | `message` | what they say to each other |

mod message;
mod signals;
pub mod supervise;
pub mod worker;

pub use supervise::{Pace, Program, supervise};
pub use worker::{Keeper, Kept, TakenUp, release_signals, take_up};

/// In a worker's environment: its supervisor's instance, the same for all workers of one supervisor.
pub const INSTANCE: &str = "SOTTO_SUPERVISED_AS";
/// In a worker's environment: how many workers its supervisor had before it.
pub const RESTARTS: &str = "SOTTO_WORKER_RESTARTS";
