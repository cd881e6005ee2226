//! What a prepared volume holds.

use std::sync::Arc;

use serde_json::json;
use sotto_core::clock::Clock;
use sotto_core::snapshot::Snapshot;
use sotto_fuse::{Server, Tree};
use sotto_store::{StoreSession, VolumePlan};

/// A volume's secrets and the login that they were fetched with.
pub(super) struct Held {
    pub(super) plan: Arc<VolumePlan>,
    pub(super) session: Arc<StoreSession>,
    pub(super) tree: Arc<Tree>,
    /// Those that serve it now: more than one only while a connection is handed over.
    pub(super) servers: Vec<Server>,
}

impl Held {
    pub(super) fn new(
        plan: VolumePlan,
        session: StoreSession,
        snapshot: Snapshot,
        clock: &dyn Clock,
    ) -> Self {
        let snapshot = Arc::new(snapshot);
        let tree = Arc::new(Tree::new(Arc::clone(&snapshot)));
        tree.set_status(status(&snapshot), clock.now());
        let (plan, session) = (Arc::new(plan), Arc::new(session));
        Self { plan, session, tree, servers: Vec::new() }
    }

    /// Forgets the servers that have ended. Whether some still serve.
    pub(super) fn is_served(&mut self) -> bool {
        self.servers.retain(|server| !server.is_ended());
        !self.servers.is_empty()
    }
}

/// What `..sotto/status.json` shows.
fn status(snapshot: &Snapshot) -> Vec<u8> {
    let fetched = humantime::format_rfc3339_millis(snapshot.created()).to_string();
    let generation = snapshot.generation().get();
    let mut status =
        json!({ "state": "fresh", "generation": generation, "fetched": fetched }).to_string();
    status.push('\n');
    status.into_bytes()
}
