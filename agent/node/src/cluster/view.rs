//! What volumes ask the API server about their pods.

use std::time::Duration;

use sotto_core::identity::{Audience, WorkloadIdentity};
use sotto_core::secret::SecretString;
use sotto_kubernetes::client::Cluster;
use sotto_kubernetes::pods::Pods;
use sotto_kubernetes::token_review::TokenReviewer;
use sotto_volume::cluster::{Answering, ClusterView, ReviewFault};

/// How long a review may take: kubelet waits for it.
const REVIEW_DEADLINE: Duration = Duration::from_secs(10);
/// How long the question about a pod's users may take: it goes on beside the login, and a mount comes about
/// without its answer too.
const POD_DEADLINE: Duration = Duration::from_secs(2);

/// The API server's answers.
pub(super) struct View {
    reviewer: TokenReviewer,
    pods: Pods,
}

impl View {
    pub(super) fn new(cluster: &Cluster) -> Self {
        Self {
            reviewer: TokenReviewer::new(cluster, REVIEW_DEADLINE),
            pods: Pods::new(cluster, POD_DEADLINE),
        }
    }
}

impl ClusterView for View {
    fn review<'a>(
        &'a self,
        token: &'a SecretString,
        audience: &'a Audience,
        pod: &'a WorkloadIdentity,
    ) -> Answering<'a, Result<(), ReviewFault>> {
        Box::pin(async move {
            let reviewed = self.reviewer.review(token, audience).await;
            reviewed.and_then(|who| who.require(pod)).map_err(|error| {
                let text = error.to_string();
                if error.is_outage() {
                    ReviewFault::Unavailable(text)
                } else {
                    ReviewFault::Refused(text)
                }
            })
        })
    }

    fn has_own_users<'a>(&'a self, pod: &'a WorkloadIdentity) -> Answering<'a, bool> {
        Box::pin(async move {
            match self.pods.has_own_users(pod).await {
                Ok(own) => own,
                Err(error) => {
                    tracing::warn!(
                        %pod, %error,
                        "whether the pod has hostUsers: false is not known: it is served as if not"
                    );
                    false
                }
            }
        })
    }
}
