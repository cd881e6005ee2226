//! What the owner does about leases and the store's token while the volume's values stay as they are.

use std::sync::Arc;

use super::super::leasing::{Prolonged, Steps};
use super::{Done, Owner, State};

impl Owner {
    /// Prolongs what is due, as the one thing that the volume is busy with.
    pub(super) fn prolong(&mut self, steps: Steps) {
        let State::Serving { held } = &mut self.state else { return };
        held.is_busy = true;
        let session = Arc::clone(&held.session);
        self.work
            .push(Box::pin(async move { Done::Prolonged(Box::new(steps.run(&session).await)) }));
    }

    pub(super) fn prolonged(&mut self, prolonged: Prolonged) {
        let Some(held) = self.state.held_mut() else { return };
        held.is_busy = false;
        for error in prolonged.errors() {
            tracing::warn!(volume = %self.spec.volume, %error, "a lease or its token was not prolonged");
        }
        self.shared.count_prolonged(&held.plan.store, &prolonged);
        held.turning.prolonged(prolonged);
    }
}
