//! The claims of a pod's token: typed, complete, and compared with the volume's pod.
//!
//! Invariant: a [`Claims`] has every claim that a decision needs, each of its own type. jsonwebtoken's own
//! checks are lenient (an absent `aud` passes, a numeric one too, `iss` may be a list), so none of them is
//! relied upon. Called after the signature was verified, where that is done here.

use std::time::Duration;

use serde_json::Value;
use sotto_core::identity::{Audience, WorkloadIdentity};

use super::VerifyError;

/// Kubernetes' own claims lie beneath this one.
const KUBERNETES: &str = "kubernetes.io";

/// What a pod-bound token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Claims {
    issuer: String,
    subject: String,
    audiences: Vec<String>,
    pub(super) expires: u64,
    not_before: u64,
    namespace: String,
    pod_name: String,
    pod_uid: String,
    service_account: String,
    node: String,
}

impl Claims {
    /// Reads the claims.
    ///
    /// # Errors
    /// The first claim that is missing or of another type.
    pub(super) fn read(claims: &Value) -> Result<Self, VerifyError> {
        let bound = claims.get(KUBERNETES);
        Ok(Self {
            issuer: text(claims.get("iss"), "iss")?,
            subject: text(claims.get("sub"), "sub")?,
            audiences: audiences(claims.get("aud"))?,
            expires: seconds(claims.get("exp"), "exp")?,
            not_before: seconds(claims.get("nbf"), "nbf")?,
            namespace: text(within(bound, "namespace"), "kubernetes.io.namespace")?,
            pod_name: text(within(within(bound, "pod"), "name"), "kubernetes.io.pod.name")?,
            pod_uid: text(within(within(bound, "pod"), "uid"), "kubernetes.io.pod.uid")?,
            service_account: text(
                within(within(bound, "serviceaccount"), "name"),
                "kubernetes.io.serviceaccount.name",
            )?,
            node: text(within(within(bound, "node"), "name"), "kubernetes.io.node.name")?,
        })
    }

    /// Compares the issuer.
    ///
    /// # Errors
    /// It is another one.
    pub(super) fn require_issuer(&self, issuer: &str) -> Result<(), VerifyError> {
        if self.issuer == issuer {
            Ok(())
        } else {
            Err(VerifyError::Issuer { wanted: issuer.to_owned() })
        }
    }

    /// Compares audience and times. `leeway` is how far clocks may differ.
    ///
    /// # Errors
    /// The first that is wrong.
    pub(super) fn require_current(
        &self,
        audience: &Audience,
        now: u64,
        leeway: Duration,
    ) -> Result<(), VerifyError> {
        if !self.audiences.iter().any(|one| one == audience.as_str()) {
            return Err(VerifyError::Audience { wanted: audience.clone() });
        }
        let leeway = leeway.as_secs();
        if self.expires.saturating_add(leeway) <= now {
            return Err(VerifyError::Expired { seconds: now - self.expires });
        }
        if self.not_before > now.saturating_add(leeway) {
            return Err(VerifyError::NotYetValid { seconds: self.not_before - now });
        }
        Ok(())
    }

    /// Compares with the volume's pod.
    ///
    /// # Errors
    /// The first claim that differs.
    pub(super) fn require_pod(&self, pod: &WorkloadIdentity) -> Result<(), VerifyError> {
        let same = [
            (self.namespace == pod.namespace.as_str(), VerifyError::Namespace),
            (self.service_account == pod.service_account.as_str(), VerifyError::ServiceAccount),
            (self.pod_name == pod.pod_name.as_str(), VerifyError::PodName),
            (self.pod_uid == pod.pod_uid.as_str(), VerifyError::PodUid),
            (self.node == pod.node.as_str(), VerifyError::Node),
            (self.is_subject_of(pod), VerifyError::Subject),
        ];
        match same.into_iter().find(|(same, _)| !same) {
            Some((_, error)) => Err(error),
            None => Ok(()),
        }
    }

    fn is_subject_of(&self, pod: &WorkloadIdentity) -> bool {
        let account = self
            .subject
            .strip_prefix("system:serviceaccount:")
            .and_then(|account| account.split_once(':'));
        account == Some((pod.namespace.as_str(), pod.service_account.as_str()))
    }
}

fn within<'a>(value: Option<&'a Value>, name: &str) -> Option<&'a Value> {
    value?.get(name)
}

fn text(value: Option<&Value>, name: &'static str) -> Result<String, VerifyError> {
    match value {
        None | Some(Value::Null) => Err(VerifyError::MissingClaim(name)),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(_) => Err(VerifyError::MalformedClaim(name)),
    }
}

fn seconds(value: Option<&Value>, name: &'static str) -> Result<u64, VerifyError> {
    match value {
        None | Some(Value::Null) => Err(VerifyError::MissingClaim(name)),
        Some(value) => value.as_u64().ok_or(VerifyError::MalformedClaim(name)),
    }
}

/// RFC 7519, section 4.1.3: a text, or a list of texts.
fn audiences(value: Option<&Value>) -> Result<Vec<String>, VerifyError> {
    match value {
        None | Some(Value::Null) => Err(VerifyError::MissingClaim("aud")),
        Some(Value::String(one)) => Ok(vec![one.clone()]),
        Some(Value::Array(list)) if list.is_empty() => Err(VerifyError::MissingClaim("aud")),
        Some(Value::Array(list)) => list.iter().map(|one| text(Some(one), "aud")).collect(),
        Some(_) => Err(VerifyError::MalformedClaim("aud")),
    }
}
