//! What a prepared volume holds.

use std::collections::VecDeque;
use std::sync::Arc;

use serde_json::json;
use sotto_core::clock::Clock;
use sotto_core::rotation::{Freshness, RefreshPolicy};
use sotto_core::snapshot::{Generation, ObjectVersion, Snapshot};
use sotto_fuse::{Server, Tree};
use sotto_store::{Lease, StoreSession, VolumePlan};
use tokio::time::Instant;

use super::turn::Turn;
use super::turning::Turning;

/// A volume's secrets and the login that they were fetched with.
pub(super) struct Held {
    pub(super) plan: Arc<VolumePlan>,
    pub(super) session: Arc<StoreSession>,
    pub(super) tree: Arc<Tree>,
    /// Those that serve it now: more than one only while a connection is handed over.
    pub(super) servers: Vec<Arc<Server>>,
    pub(super) turning: Turning,
    /// A refresh, a turn or the end of an old generation is under way.
    pub(super) is_busy: bool,
    /// A turn that was not completed, and when it is tried again.
    pub(super) pending: Option<(Instant, Turn)>,
    /// Old generations, and when they go; oldest first.
    pub(super) old: VecDeque<(Instant, Generation)>,
    /// Generations that a subPath bind still shows.
    pub(super) hidden: Vec<Generation>,
}

impl Held {
    pub(super) fn new(
        plan: VolumePlan,
        session: StoreSession,
        snapshot: Snapshot,
        leases: Vec<Lease>,
        policy: RefreshPolicy,
        clock: &dyn Clock,
    ) -> Self {
        let token = session.token_life();
        let turning = Turning::new(policy, &plan, leases, snapshot.generation(), token);
        let tree = Arc::new(Tree::new(Arc::new(snapshot)));
        let (plan, session) = (Arc::new(plan), Arc::new(session));
        let held = Self {
            plan,
            session,
            tree,
            servers: Vec::new(),
            turning,
            is_busy: false,
            pending: None,
            old: VecDeque::new(),
            hidden: Vec::new(),
        };
        held.show_status(clock);
        held
    }

    /// The current generation with its objects.
    pub(super) fn shown(&self) -> (Generation, Vec<ObjectVersion>) {
        let current = self.tree.current();
        (current.generation(), current.versions().to_vec())
    }

    /// Forgets the servers that have ended. Whether some still serve.
    pub(super) fn is_served(&mut self) -> bool {
        self.servers.retain(|server| !server.is_ended());
        !self.servers.is_empty()
    }

    /// Renews what `..sotto/status.json` shows.
    pub(super) fn show_status(&self, clock: &dyn Clock) {
        let (snapshot, now) = (self.tree.current(), clock.now());
        let state = match self.turning.freshness() {
            Freshness::Fresh => "fresh",
            Freshness::Stale => "stale",
            Freshness::Closed => "closed",
        };
        let mut status = json!({
            "state": state,
            "generation": snapshot.generation().get(),
            "fetched": humantime::format_rfc3339_millis(snapshot.created()).to_string(),
            "checked": humantime::format_rfc3339_millis(now).to_string(),
        })
        .to_string();
        status.push('\n');
        self.tree.set_status(status.into_bytes(), now);
    }
}
