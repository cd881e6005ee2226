//! Two things about a pod: whether it has a user namespace of its own, and whether it has Sotto's sidecar.
//!
//! Invariant: nothing else of the pod is kept, and nothing of it is logged: the rest of its spec isn't ours.

mod injection;

use std::time::Duration;

use http::{Method, Request, header};
use http_body_util::BodyExt as _;
use kube::client::Body;
use serde::Deserialize;
use sotto_core::identity::WorkloadIdentity;

use crate::api_error::ApiError;
use crate::calls::GET_POD;
use crate::client::Cluster;
pub use injection::{InjectionFault, SIDECAR};

use injection::Spec;

/// Far more than a pod may have (etcd takes 1.5 MiB).
const LARGEST_POD_BYTES: usize = 2 << 20;

/// Asks about pods; cheap to clone.
#[derive(Clone)]
pub struct Pods {
    client: kube::Client,
    deadline: Duration,
}

#[derive(Deserialize)]
struct Pod {
    metadata: Metadata,
    spec: Spec,
}

#[derive(Deserialize)]
struct Metadata {
    uid: String,
}

/// What an injected pod is like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Injection {
    /// Whether it has `hostUsers: false`.
    pub own_users: bool,
    /// Why it is no pod for a sidecar's volume, if it isn't.
    pub faults: Vec<InjectionFault>,
}

impl Pods {
    /// `deadline` bounds one question.
    #[must_use]
    pub fn new(cluster: &Cluster, deadline: Duration) -> Self {
        Self { client: cluster.client(), deadline }
    }

    /// Whether the pod has `hostUsers: false`. A pod of that name with another uid is another pod.
    ///
    /// # Errors
    /// It isn't there, or the API server gave no answer.
    pub async fn has_own_users(&self, pod: &WorkloadIdentity) -> Result<bool, ApiError> {
        Ok(self.spec(pod).await?.host_users == Some(false))
    }

    /// Whether the pod has Sotto's sidecar, with one of these images, or any where there are none.
    ///
    /// # Errors
    /// It isn't there, or the API server gave no answer.
    pub async fn injection(
        &self,
        pod: &WorkloadIdentity,
        images: &[String],
    ) -> Result<Injection, ApiError> {
        let spec = self.spec(pod).await?;
        let own_users = spec.host_users == Some(false);
        Ok(Injection { own_users, faults: spec.injection_faults(images) })
    }

    async fn spec(&self, pod: &WorkloadIdentity) -> Result<Spec, ApiError> {
        let asked = tokio::time::timeout(self.deadline, self.get(pod)).await;
        let found = asked.map_err(|_| ApiError::Deadline(self.deadline))??;
        if found.metadata.uid != pod.pod_uid.as_str() {
            return Err(ApiError::from_code(GET_POD, 404, "the name belongs to another pod now"));
        }
        Ok(found.spec)
    }

    /// By hand: kube's own calls log a body that they can't parse.
    async fn get(&self, pod: &WorkloadIdentity) -> Result<Pod, ApiError> {
        let malformed = |reason| ApiError::Malformed { call: GET_POD, reason };
        let path = format!("/api/v1/namespaces/{}/pods/{}", pod.namespace, pod.pod_name);
        let request = Request::builder()
            .method(Method::GET)
            .uri(path)
            .header(header::ACCEPT, "application/json")
            .body(Body::empty())
            .map_err(|_| malformed("the request can't be built"))?;
        let sent = self.client.send(request).await;
        let response = sent.map_err(|error| ApiError::from_kube(GET_POD, error))?;
        let status = response.status();
        if !status.is_success() {
            let reason = status.canonical_reason().unwrap_or("no reason given");
            return Err(ApiError::from_code(GET_POD, status.as_u16(), reason));
        }
        let body = http_body_util::Limited::new(response.into_body(), LARGEST_POD_BYTES);
        let text = body.collect().await.map_err(|_| malformed("it could not be read whole"))?;
        serde_json::from_slice(&text.to_bytes()).map_err(|_| malformed("it isn't a pod"))
    }
}
