//! What a mount shows, as its agents say: kept for the next agent, which has to know whether it fetched the same.
//!
//! Invariant: nothing here says anything of a value (the agents see to that), it is never written down, and its size
//! is bounded by a packet's. Told by Prepared, Rotate and Returned; sent with Prepare.

use sotto_handoff::message::{ObjectVersion, Prepared, Returned, Rotate, Wanted};

/// What a mount shows.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Shown {
    /// Its generation; 0 while unknown.
    pub generation: u64,
    /// Fingerprint of its names; 0 while unknown.
    pub layout: u64,
    /// Fingerprint of names, modes and versions; 0 while unknown.
    pub content: u64,
    /// The objects; empty where the agent left them out.
    pub objects: Vec<ObjectVersion>,
}

impl From<Shown> for Wanted {
    fn from(shown: Shown) -> Self {
        let Shown { generation, layout, content, objects } = shown;
        Self { generation, layout, content, objects }
    }
}

impl From<Prepared> for Shown {
    fn from(prepared: Prepared) -> Self {
        let Prepared { generation, layout, content, objects, .. } = prepared;
        Self { generation, layout, content, objects }
    }
}

impl From<Returned> for Shown {
    fn from(returned: Returned) -> Self {
        let Returned { generation, layout, content, objects, .. } = returned;
        Self { generation, layout, content, objects }
    }
}

impl From<Rotate> for Shown {
    fn from(rotate: Rotate) -> Self {
        let Rotate { generation, layout, content, objects, .. } = rotate;
        Self { generation, layout, content, objects }
    }
}
