//! The file system as processes see it: real mounts, made as the driver makes them.
//!
//! Needs /dev/fuse and the right to mount: root, or `tests/tools/with-mounts`. Without them these tests
//! fail; none is skipped.
#![expect(clippy::unwrap_used, reason = "a test fails by it")]
#![expect(unsafe_code, reason = "mount_setattr, mappings, and ids of single threads")]

#[path = "mount/child.rs"]
mod child;
#[path = "mount/events.rs"]
mod events;
#[path = "mount/reading.rs"]
mod reading;
#[path = "mount/revocation.rs"]
mod revocation;
#[path = "mount/rotation.rs"]
mod rotation;
#[path = "mount/takeover.rs"]
mod takeover;
#[path = "mount/unaudited.rs"]
mod unaudited;
#[path = "mount/volume.rs"]
mod volume;
#[path = "mount/writing.rs"]
mod writing;
