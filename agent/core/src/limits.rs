//! How large objects and volumes may be. Defaults follow DESIGN.md; the administrator may lower them.

use std::ops::RangeInclusive;

/// Bounds on what one volume may hold, enforced before anything is mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Largest value of one object, in bytes.
    pub object_bytes: usize,
    /// Largest sum of all values of a volume, in bytes.
    pub volume_bytes: usize,
    /// Most objects in a volume.
    pub objects: usize,
    /// Most volumes that one node agent serves.
    pub volumes: usize,
}

impl Limits {
    /// What the administrator may write for `object_bytes`.
    pub const OBJECT_BYTES: RangeInclusive<usize> = 1..=64 << 20;
    /// What the administrator may write for `volume_bytes`.
    pub const VOLUME_BYTES: RangeInclusive<usize> = 1..=256 << 20;
    /// What the administrator may write for `objects`.
    pub const OBJECTS: RangeInclusive<usize> = 1..=10_000;
}

impl Default for Limits {
    fn default() -> Self {
        Self { object_bytes: 1 << 20, volume_bytes: 8 << 20, objects: 1_000, volumes: 1_000 }
    }
}
