//! Every call that this crate makes. A request can't be sent without naming its entry here, and a
//! test compares the table with the ClusterRole in `deploy/base`, in both directions.
//!
//! There is no verb on secrets, none that creates tokens, and none that reads a status back; of pods, one is
//! read at a time.

/// One verb on one resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Call {
    /// The API group; empty for core.
    pub group: &'static str,
    /// The plural of the resource.
    pub resource: &'static str,
    /// The verb, as RBAC knows it.
    pub verb: &'static str,
}

const CLASSES: &str = "secrets-store.csi.x-k8s.io";

pub(crate) const LIST_CLASSES: Call = call(CLASSES, "secretproviderclasses", "list");
pub(crate) const WATCH_CLASSES: Call = call(CLASSES, "secretproviderclasses", "watch");
/// Server-side apply needs both `create` and `patch`.
pub(crate) const CREATE_STATUS: Call = call(CLASSES, "secretproviderclasspodstatuses", "create");
pub(crate) const APPLY_STATUS: Call = call(CLASSES, "secretproviderclasspodstatuses", "patch");
pub(crate) const CREATE_EVENT: Call = call("", "events", "create");
pub(crate) const PATCH_EVENT: Call = call("", "events", "patch");
pub(crate) const REVIEW_TOKEN: Call = call("authentication.k8s.io", "tokenreviews", "create");
/// For `spec.hostUsers`, and for the shape of a pod that has a sidecar's volume.
pub(crate) const GET_POD: Call = call("", "pods", "get");
pub(crate) const GET_DRIVER: Call = call("storage.k8s.io", "csidrivers", "get");

const ALL: &[Call] = &[
    LIST_CLASSES,
    WATCH_CLASSES,
    CREATE_STATUS,
    APPLY_STATUS,
    CREATE_EVENT,
    PATCH_EVENT,
    REVIEW_TOKEN,
    GET_POD,
    GET_DRIVER,
];

/// The whole table.
#[must_use]
pub const fn calls() -> &'static [Call] {
    ALL
}

const fn call(group: &'static str, resource: &'static str, verb: &'static str) -> Call {
    Call { group, resource, verb }
}

impl std::fmt::Display for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.verb, self.resource)?;
        if self.group.is_empty() { Ok(()) } else { write!(f, ".{}", self.group) }
    }
}
