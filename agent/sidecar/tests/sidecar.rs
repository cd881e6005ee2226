//! The real binary, with a driver, a kernel and a store of the test's own.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "sidecar/driver.rs"]
mod driver;
#[path = "sidecar/ends.rs"]
mod ends;
#[path = "sidecar/kernel.rs"]
mod kernel;
#[path = "sidecar/probes.rs"]
mod probes;
#[path = "sidecar/scene.rs"]
mod scene;
#[path = "sidecar/serves.rs"]
mod serves;
#[path = "sidecar/tokens.rs"]
mod tokens;
#[path = "sidecar/workers.rs"]
mod workers;
