//! What a node agent would tell the API server, which a sidecar doesn't reach: lines of the log.

use sotto_core::identity::{ClassName, WorkloadIdentity};
use sotto_core::snapshot::ObjectVersion;
use sotto_volume::reporter::{PodReporter, SECRET_REFUSED, Severity};

/// Logs.
#[derive(Debug, Clone, Copy, Default)]
pub struct LogReports;

impl PodReporter for LogReports {
    fn report(&self, pod: &WorkloadIdentity, _: Severity, reason: &'static str, message: String) {
        // The others are logged where they are noticed.
        if reason == SECRET_REFUSED {
            tracing::warn!(%pod, reason, "{message}");
        }
    }

    fn served(
        &self,
        pod: &WorkloadIdentity,
        class: &ClassName,
        _: &str,
        objects: &[ObjectVersion],
    ) {
        tracing::debug!(%pod, %class, objects = objects.len(), "served");
    }

    fn released(&self, pod: &WorkloadIdentity, class: &ClassName) {
        tracing::info!(%pod, %class, "released");
    }
}
