//! Which pods have Sotto's sidecar, as the API server says, remembered for a while.
//!
//! A pod's containers hardly change after its creation, and its sidecar asks with each refresh.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sotto_core::identity::{PodUid, WorkloadIdentity};
use sotto_handoff::message::Code;
use sotto_handoff::refusal::Refusal;
use sotto_kubernetes::client::Cluster;
use sotto_kubernetes::pods::{InjectionFault, Pods};
use sotto_volume::cluster::Answering;
use tokio::time::Instant;

/// How long one question may take: kubelet waits for it.
const DEADLINE: Duration = Duration::from_secs(5);
/// How long a pod that was as it should be is believed to be so.
const BELIEVED: Duration = Duration::from_secs(600);
/// Pods that are remembered.
const MOST_REMEMBERED: usize = 4_096;

/// Knows which pods have a sidecar.
pub trait PodCheck: Send + Sync {
    /// Whether the pod has a user namespace of its own, if it has Sotto's sidecar.
    fn check<'a>(&'a self, pod: &'a WorkloadIdentity) -> Answering<'a, Result<bool, Refusal>>;
}

/// Asks the API server.
pub struct SidecarPods {
    pods: Pods,
    images: Vec<String>,
    remembered: Mutex<HashMap<PodUid, (Instant, bool)>>,
}

impl SidecarPods {
    /// Sidecars may have these images, or any where there are none.
    #[must_use]
    pub fn new(cluster: &Cluster, images: Vec<String>) -> Self {
        Self { pods: Pods::new(cluster, DEADLINE), images, remembered: Mutex::default() }
    }

    fn remembered(&self, pod: &PodUid) -> Option<bool> {
        let remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        remembered.get(pod).filter(|(at, _)| at.elapsed() < BELIEVED).map(|(_, own)| *own)
    }

    fn remember(&self, pod: &PodUid, own_users: bool) {
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.len() >= MOST_REMEMBERED {
            remembered.clear();
        }
        remembered.insert(pod.clone(), (Instant::now(), own_users));
    }
}

impl PodCheck for SidecarPods {
    fn check<'a>(&'a self, pod: &'a WorkloadIdentity) -> Answering<'a, Result<bool, Refusal>> {
        Box::pin(async move {
            if let Some(own_users) = self.remembered(&pod.pod_uid) {
                return Ok(own_users);
            }
            let injection = self.pods.injection(pod, &self.images).await.map_err(|error| {
                let message = format!("whether the pod has Sotto's sidecar is not known: {error}");
                Refusal::new(Code::Unavailable, &message)
            })?;
            if !injection.faults.is_empty() {
                return Err(refusal(&injection.faults));
            }
            self.remember(&pod.pod_uid, injection.own_users);
            Ok(injection.own_users)
        })
    }
}

fn refusal(faults: &[InjectionFault]) -> Refusal {
    let faults: Vec<_> = faults.iter().take(5).map(ToString::to_string).collect();
    let message = format!("the pod may not have a sidecar's volume: {}", faults.join("; "));
    Refusal::new(Code::PermissionDenied, &message)
}
