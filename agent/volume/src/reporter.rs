//! What is told about a pod's volume to those who look at the cluster: events and the volume's status.
//!
//! Invariant: telling never blocks and never fails; no volume depends on it. What kubelet shows itself, the
//! refusal of a mount, is not told twice.

use sotto_core::identity::{ClassName, WorkloadIdentity};
use sotto_core::snapshot::ObjectVersion;

/// How serious it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Severity {
    /// For information.
    Normal,
    /// Somebody should act.
    Warning,
}

/// `secretObjects` asks for what Sotto doesn't do.
pub const SECRET_OBJECTS_IGNORED: &str = "SecretObjectsIgnored";
/// Parts of a class that have no effect.
pub const CLASS_PARTLY_IGNORED: &str = "ClassPartlyIgnored";
/// An edit of a class can't be followed.
pub const CLASS_EDIT_FAILED: &str = "ClassEditFailed";
/// A republish brought a token that can't be used.
pub const TOKEN_REFRESH_FAILED: &str = "TokenRefreshFailed";

/// The store refuses an object that the volume had.
pub const SECRET_REFUSED: &str = "SecretRefused";
/// The store can't be reached: the last good values are served.
pub const SECRETS_STALE: &str = "SecretsStale";
/// The last good values became too old: nothing is readable.
pub const SECRETS_CLOSED: &str = "SecretsClosed";
/// The values are those of the store again.
pub const SECRETS_FRESH: &str = "SecretsFresh";

/// Something else than our mount is on a volume's target.
pub const FOREIGN_MOUNT: &str = "ForeignMount";
/// Both who held a volume's connection were lost: containers that had it must be restarted.
pub const MOUNTED_ANEW: &str = "MountedAnew";
/// Somebody who may not asked for a pod's connection at its handoff socket.
pub const HANDOFF_REFUSED: &str = "HandoffRefused";

/// The reason of one of the driver's notices, if it is known.
#[must_use]
pub fn from_driver(reason: &str) -> Option<&'static str> {
    [FOREIGN_MOUNT, MOUNTED_ANEW, HANDOFF_REFUSED].into_iter().find(|known| *known == reason)
}

/// Is told about pods and their volumes; must not block.
pub trait PodReporter: Send + Sync {
    /// Something that the pod's author should know. `reason` is a word in CamelCase that machines match;
    /// `message` says what and what to do, never a value or a token. May be said again and again.
    fn report(
        &self,
        pod: &WorkloadIdentity,
        severity: Severity,
        reason: &'static str,
        message: String,
    );

    /// The volume is served with these objects: after a Serve, and whenever they change. `target_path` is where
    /// kubelet wants it, for display.
    fn served(
        &self,
        pod: &WorkloadIdentity,
        class: &ClassName,
        target_path: &str,
        objects: &[ObjectVersion],
    );

    /// The volume is gone.
    fn released(&self, pod: &WorkloadIdentity, class: &ClassName);
}

/// Tells nobody: without an API server.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoReports;

impl PodReporter for NoReports {
    fn report(&self, _: &WorkloadIdentity, _: Severity, _: &'static str, _: String) {}

    fn served(&self, _: &WorkloadIdentity, _: &ClassName, _: &str, _: &[ObjectVersion]) {}

    fn released(&self, _: &WorkloadIdentity, _: &ClassName) {}
}
