//! The administrator's no: the pod may not have its secrets any more, and everything is given up.

use tokio::sync::watch;

/// Exit status of a worker that gave everything up, and that another one is to follow at once, which waits
/// (`EX_TEMPFAIL` of sysexits).
pub const EXIT_WITHDRAWN: u8 = 75;

/// Says it once; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Withdrawal(watch::Sender<bool>);

impl Withdrawal {
    /// The pod may not have its secrets any more.
    pub fn withdraw(&self, reason: &str) {
        if !self.0.send_replace(true) {
            tracing::error!(
                reason,
                "sotto-node withdraws the pod's secrets: the volume is given up"
            );
        }
    }

    /// Until that is so.
    pub async fn withdrawn(&self) {
        // Its sender is this value's own.
        let _ = self.0.subscribe().wait_for(|withdrawn| *withdrawn).await;
    }
}
