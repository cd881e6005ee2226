//! What every Sotto process does before its own work: protect itself, log, end in order.
//!
//! No HTTP and no TLS here: the privileged driver links this crate.
//!
//! | module | owns |
//! |---|---|
//! | [`hardening`] | dumpability, core files, capabilities, open files, the allocator's thresholds |
//! | [`allocator`] | a global allocator that wipes what it frees |
//! | [`memory`] | locked memory for secret values |
//! | [`metrics`] | every metric, with its unit and stability |
//! | [`telemetry`] | JSON logs on standard error |
//! | [`tidy`] | memory that was freed, given back to the machine |
//! | [`drain`] | the end of a process, awaited with a deadline |

pub mod allocator;
pub mod drain;
pub mod hardening;
pub mod memory;
pub mod metrics;
pub mod telemetry;
pub mod tidy;

/// Exit status for a configuration that can't be used (`EX_USAGE` of sysexits).
pub const EXIT_CONFIGURATION: u8 = 64;
