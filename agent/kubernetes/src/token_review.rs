//! What the API server says about a pod's token: the one check that sees that a pod was deleted.
//!
//! Invariant: the token is in the request's body and in the server's echo of it, and nowhere else;
//! both buffers are wiped. kube's own calls log a body that they can't parse, so none of them is used
//! here. An answer that isn't a plain yes for this audience and a pod is a no.

mod wire;

use std::sync::Arc;
use std::time::Duration;

use sotto_core::identity::{
    Audience, Namespace, NodeName, PodName, PodUid, ServiceAccountName, WorkloadIdentity,
};
use sotto_core::secret::SecretString;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::api_error::ApiError;
use crate::calls::REVIEW_TOKEN;
use crate::client::Cluster;
use wire::Answer;

/// Reviews that may be under way at once; others wait, within their deadline.
const MOST_AT_ONCE: usize = 16;
/// The prefix of a service account's user name.
const SERVICE_ACCOUNT: &str = "system:serviceaccount:";

/// Who a token belongs to, as the API server says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authenticated {
    /// The service account's namespace.
    pub namespace: Namespace,
    /// The service account.
    pub service_account: ServiceAccountName,
    /// The pod that the token is bound to.
    pub pod_name: PodName,
    /// That pod's uid.
    pub pod_uid: PodUid,
    /// The node that the pod is bound to.
    pub node: NodeName,
    /// The token's own id (`jti`), for the audit.
    pub credential_id: Option<String>,
}

impl Authenticated {
    /// Compares with the volume's pod.
    ///
    /// # Errors
    /// The first thing that differs.
    pub fn require(&self, pod: &WorkloadIdentity) -> Result<(), ReviewError> {
        let same = [
            ("namespace", self.namespace == pod.namespace),
            ("service account", self.service_account == pod.service_account),
            ("pod name", self.pod_name == pod.pod_name),
            ("pod uid", self.pod_uid == pod.pod_uid),
            ("node", self.node == pod.node),
        ];
        match same.into_iter().find(|(_, same)| !same) {
            Some((what, _)) => Err(ReviewError::AnotherPod { what }),
            None => Ok(()),
        }
    }
}

/// Why a token is not accepted, or not known to be good.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReviewError {
    /// Expired, forged, revoked, or its pod was deleted.
    #[error("the API server refuses the token: {reason}")]
    Unauthenticated {
        /// What it said.
        reason: String,
    },
    /// A good token, for somebody else.
    #[error("the token is not for the audience {wanted}: {reason}")]
    AudienceMismatch {
        /// The store's audience.
        wanted: Audience,
        /// What the API server said.
        reason: String,
    },
    /// A user's token, or one of a service account without a pod or a node.
    #[error("the token is not bound to a pod on a node: {missing} is missing")]
    NotBound {
        /// What is missing.
        missing: &'static str,
    },
    /// It belongs to another pod than the volume.
    #[error("the token belongs to another pod than the volume: its {what} differs")]
    AnotherPod {
        /// What differs.
        what: &'static str,
    },
    /// Nothing is known about the token.
    #[error("the token could not be reviewed: {0}")]
    Api(#[from] ApiError),
}

impl ReviewError {
    /// Whether nothing was said about the token, so that it may be tried again.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        match self {
            Self::Api(error) => error.is_outage(),
            Self::Unauthenticated { .. }
            | Self::AudienceMismatch { .. }
            | Self::NotBound { .. }
            | Self::AnotherPod { .. } => false,
        }
    }
}

/// Asks for reviews; cheap to clone. No answer is kept: it would outlive the pod it speaks of.
#[derive(Clone)]
pub struct TokenReviewer {
    client: kube::Client,
    deadline: Duration,
    permits: Arc<Semaphore>,
}

impl TokenReviewer {
    /// `deadline` bounds one review, with its wait for a turn.
    #[must_use]
    pub fn new(cluster: &Cluster, deadline: Duration) -> Self {
        let permits = Arc::new(Semaphore::new(MOST_AT_ONCE));
        Self { client: cluster.client(), deadline, permits }
    }

    /// Has the token reviewed for this audience.
    ///
    /// # Errors
    /// A refusal, told apart from an API server that gave no answer ([`ReviewError::is_outage`]).
    pub async fn review(
        &self,
        token: &SecretString,
        audience: &Audience,
    ) -> Result<Authenticated, ReviewError> {
        let end = Instant::now() + self.deadline;
        let late = |_| ApiError::Deadline(self.deadline);
        let permit = tokio::time::timeout_at(end, self.permits.acquire()).await.map_err(late)?;
        let answer = tokio::time::timeout_at(end, wire::ask(&self.client, token, audience)).await;
        drop(permit);
        judge(answer.map_err(late)??, token, audience)
    }
}

fn judge(
    answer: Answer,
    token: &SecretString,
    audience: &Audience,
) -> Result<Authenticated, ReviewError> {
    let reason = answer.reason(token);
    let wanted = || audience.clone();
    if !answer.authenticated {
        // The wording of the service account authenticator; only which refusal it is depends on it.
        return Err(if reason.contains("token audiences") {
            ReviewError::AudienceMismatch { wanted: wanted(), reason }
        } else {
            ReviewError::Unauthenticated { reason }
        });
    }
    // An authenticator that knows no audiences says yes to a token for the API server itself.
    if !answer.audiences.iter().any(|one| one == audience.as_str()) {
        let reason = "the API server did not confirm it".to_owned();
        return Err(ReviewError::AudienceMismatch { wanted: wanted(), reason });
    }
    let account = answer.user.username.strip_prefix(SERVICE_ACCOUNT);
    let (namespace, account) = account
        .and_then(|rest| rest.split_once(':'))
        .ok_or(ReviewError::NotBound { missing: "a service account" })?;
    Ok(Authenticated {
        namespace: parse(Namespace::parse(namespace))?,
        service_account: parse(ServiceAccountName::parse(account))?,
        pod_name: parse(PodName::parse(answer.extra("pod-name", "the pod's name")?))?,
        pod_uid: parse(PodUid::parse(answer.extra("pod-uid", "the pod's uid")?))?,
        node: parse(NodeName::parse(answer.extra("node-name", "the node's name")?))?,
        credential_id: answer.credential_id(),
    })
}

fn parse<T>(parsed: Result<T, sotto_core::identity::IdentifierError>) -> Result<T, ReviewError> {
    parsed.map_err(|_| {
        ApiError::Malformed { call: REVIEW_TOKEN, reason: "an identifier in it isn't valid" }.into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const TOKEN: &str = "eyJhbGciOi.eyJzdWIiOi.c2lnbmF0dXJl";

    fn judged(status: Value) -> Result<Authenticated, ReviewError> {
        let answer: Answer = serde_json::from_value(status).unwrap();
        judge(answer, &SecretString::new(TOKEN.to_owned()), &Audience::parse("bao").unwrap())
    }

    fn good() -> Value {
        json!({"authenticated": true, "audiences": ["bao"], "user": {
            "username": "system:serviceaccount:shop:web", "uid": "u", "extra": {
                "authentication.kubernetes.io/pod-name": ["web-0"],
                "authentication.kubernetes.io/pod-uid": ["uid-0"],
                "authentication.kubernetes.io/node-name": ["node-1"],
                "authentication.kubernetes.io/credential-id": ["JTI=1"]}}})
    }

    fn without(key: &str) -> Value {
        let mut status = good();
        let key = format!("authentication.kubernetes.io/{key}");
        status["user"]["extra"].as_object_mut().unwrap().remove(&key);
        status
    }

    #[test]
    fn a_pods_token_is_told_with_pod_and_node() {
        let who = judged(good()).unwrap();
        assert_eq!((who.namespace.as_str(), who.service_account.as_str()), ("shop", "web"));
        assert_eq!((who.pod_name.as_str(), who.pod_uid.as_str()), ("web-0", "uid-0"));
        assert_eq!(who.node.as_str(), "node-1");
        assert_eq!(who.credential_id.as_deref(), Some("JTI=1"));
    }

    #[test]
    fn a_yes_without_our_audience_is_a_no() {
        for audiences in [json!([]), json!(null), json!(["api"])] {
            let mut status = good();
            status["audiences"] = audiences;
            assert!(matches!(judged(status), Err(ReviewError::AudienceMismatch { .. })));
        }
    }

    #[test]
    fn a_token_that_is_bound_to_no_pod_or_node_is_refused() {
        for key in ["pod-name", "pod-uid", "node-name"] {
            assert!(matches!(judged(without(key)), Err(ReviewError::NotBound { .. })), "{key}");
        }
        let mut status = good();
        status["user"]["username"] = json!("admin");
        assert!(matches!(judged(status), Err(ReviewError::NotBound { .. })));
        let mut twice = good();
        twice["user"]["extra"]["authentication.kubernetes.io/pod-uid"] = json!(["a", "b"]);
        assert!(matches!(judged(twice), Err(ReviewError::NotBound { .. })));
        assert!(judged(without("credential-id")).is_ok(), "it is only for the audit");
    }

    #[test]
    fn refusals_are_told_apart() {
        let error = judged(json!({"authenticated": false, "error":
            "[invalid bearer token, service account token has expired]"}))
        .unwrap_err();
        assert!(
            matches!(&error, ReviewError::Unauthenticated { reason } if reason.contains("expired"))
        );
        let error = judged(json!({"error": "[invalid bearer token, token audiences [\"api\"] is \
            invalid for the target audiences [\"bao\"]]"}))
        .unwrap_err();
        assert!(matches!(error, ReviewError::AudienceMismatch { .. }));
        assert!(!error.is_outage());
    }

    #[test]
    fn a_reason_that_repeats_the_token_is_not_shown() {
        let error = judged(json!({"error": format!("bad token {TOKEN}")})).unwrap_err();
        assert!(!error.to_string().contains("eyJ"), "{error}");
    }

    #[test]
    fn another_pods_token_is_refused_and_says_what_differs() {
        let who = judged(good()).unwrap();
        let pod = WorkloadIdentity {
            namespace: who.namespace.clone(),
            pod_name: who.pod_name.clone(),
            pod_uid: who.pod_uid.clone(),
            service_account: who.service_account.clone(),
            node: who.node.clone(),
        };
        assert_eq!(who.require(&pod), Ok(()));
        let uid = WorkloadIdentity { pod_uid: PodUid::parse("other").unwrap(), ..pod.clone() };
        assert_eq!(who.require(&uid), Err(ReviewError::AnotherPod { what: "pod uid" }));
        let node = WorkloadIdentity { node: NodeName::parse("other").unwrap(), ..pod };
        assert_eq!(who.require(&node), Err(ReviewError::AnotherPod { what: "node" }));
    }
}
