//! Volumes' reports as events on their pods and as SecretProviderClassPodStatus objects.

use sotto_core::identity::{ClassName, WorkloadIdentity};
use sotto_core::snapshot;
use sotto_kubernetes::events::{self, Events, PodEvent, PodReference};
use sotto_kubernetes::pod_status::{ObjectVersion, PodStatus, PodStatuses, StatusKey};
use sotto_volume::reporter::{PodReporter, Severity};

/// Tells the API server, through bounded queues.
pub(super) struct ClusterReporter {
    events: Events,
    statuses: PodStatuses,
}

impl ClusterReporter {
    pub(super) fn new(events: Events, statuses: PodStatuses) -> Self {
        Self { events, statuses }
    }
}

impl PodReporter for ClusterReporter {
    fn report(
        &self,
        pod: &WorkloadIdentity,
        severity: Severity,
        reason: &'static str,
        message: String,
    ) {
        let severity = match severity {
            Severity::Normal => events::Severity::Normal,
            Severity::Warning => events::Severity::Warning,
        };
        let pod = PodReference {
            namespace: pod.namespace.clone(),
            name: pod.pod_name.clone(),
            uid: pod.pod_uid.clone(),
        };
        self.events.report(PodEvent { pod, severity, reason, message });
    }

    fn served(
        &self,
        pod: &WorkloadIdentity,
        class: &ClassName,
        target_path: &str,
        objects: &[snapshot::ObjectVersion],
    ) {
        let object = |one: &snapshot::ObjectVersion| ObjectVersion {
            id: one.id.clone(),
            version: one.version.clone(),
        };
        self.statuses.write(PodStatus {
            key: key(pod, class),
            pod_uid: pod.pod_uid.clone(),
            mounted: true,
            target_path: target_path.to_owned(),
            objects: objects.iter().map(object).collect(),
        });
    }

    fn released(&self, pod: &WorkloadIdentity, class: &ClassName) {
        self.statuses.forget(&key(pod, class));
    }
}

fn key(pod: &WorkloadIdentity, class: &ClassName) -> StatusKey {
    StatusKey {
        namespace: pod.namespace.clone(),
        pod_name: pod.pod_name.clone(),
        class: class.clone(),
    }
}
