//! The contract of a volume's attributes: every key that a pod's author or kubelet may write.
//!
//! Invariant: an attribute picks, it never decides. None can name an address, a trust root or a path, and
//! an attribute that nobody reads is refused instead of being ignored in silence.

mod sidecar;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::identity::{
    ClassName, IdentifierError, Namespace, NodeName, PodName, PodUid, ServiceAccountName,
    WorkloadIdentity,
};

pub use sidecar::{HANDOFF, ROLE, SidecarAttributes};

/// Names the class; written by the pod's author.
pub const SECRET_PROVIDER_CLASS: &str = "secretProviderClass";
/// Prefix of the keys that kubelet writes.
pub const KUBELET_PREFIX: &str = "csi.storage.k8s.io/";
/// Prefix of Sotto's own keys.
pub const SOTTO_PREFIX: &str = "sotto.dev/";
/// `"true"` for an inline volume.
pub const EPHEMERAL: &str = "csi.storage.k8s.io/ephemeral";
/// The pod's name.
pub const POD_NAME: &str = "csi.storage.k8s.io/pod.name";
/// The pod's namespace.
pub const POD_NAMESPACE: &str = "csi.storage.k8s.io/pod.namespace";
/// The pod's uid.
pub const POD_UID: &str = "csi.storage.k8s.io/pod.uid";
/// The service account's name.
pub const SERVICE_ACCOUNT: &str = "csi.storage.k8s.io/serviceAccount.name";
/// The pod's tokens, a JSON map by audience. In `secrets` or in `volume_context`.
pub const SERVICE_ACCOUNT_TOKENS: &str = "csi.storage.k8s.io/serviceAccount.tokens";

/// How often the store is asked again, e.g. `30s`.
pub const REFRESH: &str = "sotto.dev/refresh";
/// How old the last good value may become while the store can't be reached, e.g. `1h`.
pub const MAX_STALE: &str = "sotto.dev/max-stale";
/// `"true"`: objects that the store doesn't have are left out instead of failing the volume.
pub const OPTIONAL: &str = "sotto.dev/optional";
/// Shortest refresh interval.
pub const MIN_REFRESH: Duration = Duration::from_secs(1);

/// What is wrong with a volume's attributes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AttributeError {
    /// A key that must be there is not.
    #[error("volume attribute {0} is missing: {1}")]
    Missing(&'static str, &'static str),
    /// A value breaks the syntax of its kind.
    #[error("volume attribute {key}: {source}")]
    Invalid {
        /// The attribute's key.
        key: &'static str,
        /// Which rule it breaks.
        source: IdentifierError,
    },
    /// Not an inline volume.
    #[error("volume attribute {EPHEMERAL} is {0:?}: only inline (ephemeral) volumes are served")]
    NotEphemeral(String),
    /// A key that nobody reads.
    #[error(
        "volume attribute {0:?} is not known: write {SECRET_PROVIDER_CLASS}; a provider's parameters \
         belong in the SecretProviderClass and can't be overridden by a pod"
    )]
    Unknown(String),
    /// A key of ours that this version doesn't serve.
    #[error(
        "volume attribute {0:?} is not served by this version: remove it, or write one of \
         {REFRESH}, {MAX_STALE}, {OPTIONAL}"
    )]
    NotServed(String),
    /// Not a duration.
    #[error("volume attribute {key} is {value:?}: write a duration such as 30s, 5m or 1h")]
    NotADuration {
        /// The attribute's key.
        key: &'static str,
        /// What was written.
        value: String,
    },
    /// Under [`MIN_REFRESH`].
    #[error("volume attribute {REFRESH} is {0:?}: at least 1s")]
    RefreshTooShort(String),
    /// Another role than a handoff volume's.
    #[error(
        "volume attribute {ROLE} is {0:?}: the webhook writes \"{HANDOFF}\", and a volume of secrets has none"
    )]
    NotARole(String),
    /// A handoff volume is of one kind only.
    #[error("a handoff volume takes no volume attribute {0:?}: the webhook writes none")]
    NotForHandoff(String),
    /// Neither `true` nor `false`.
    #[error("volume attribute {OPTIONAL} is {0:?}: write \"true\" or \"false\"")]
    NotABoolean(String),
}

/// A volume's attributes, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeAttributes {
    /// The pod the volume belongs to, from kubelet's keys only.
    pub identity: WorkloadIdentity,
    /// The class named by the pod's author.
    pub class: ClassName,
    /// How often the store is asked again; the administrator's default where absent.
    pub refresh: Option<Duration>,
    /// How old the last good value may become; the administrator's default where absent.
    pub max_stale: Option<Duration>,
    /// Whether objects that the store doesn't have are left out.
    pub optional: bool,
}

impl VolumeAttributes {
    /// Checks kubelet's volume context on the node `node`.
    ///
    /// # Errors
    /// The first attribute that is missing, malformed or unknown.
    pub fn parse(
        context: &BTreeMap<String, String>,
        node: &NodeName,
    ) -> Result<Self, AttributeError> {
        context.keys().try_for_each(|key| check_known(key))?;
        let identity = identity(context, node)?;
        let hint = "name a SecretProviderClass of the pod's namespace";
        let class = field(context, SECRET_PROVIDER_CLASS, hint, ClassName::parse)?;
        let refresh = duration(context, REFRESH)?;
        if refresh.is_some_and(|refresh| refresh < MIN_REFRESH) {
            return Err(AttributeError::RefreshTooShort(printable(&context[REFRESH])));
        }
        let max_stale = duration(context, MAX_STALE)?;
        Ok(Self { identity, class, refresh, max_stale, optional: optional(context)? })
    }
}

/// The pod, by kubelet's keys of an inline volume.
fn identity(
    context: &BTreeMap<String, String>,
    node: &NodeName,
) -> Result<WorkloadIdentity, AttributeError> {
    if let Some(other) = context.get(EPHEMERAL).filter(|value| *value != "true") {
        return Err(AttributeError::NotEphemeral(printable(other)));
    }
    let podinfo = "the CSIDriver object needs podInfoOnMount: true";
    Ok(WorkloadIdentity {
        namespace: field(context, POD_NAMESPACE, podinfo, Namespace::parse)?,
        pod_name: field(context, POD_NAME, podinfo, PodName::parse)?,
        pod_uid: field(context, POD_UID, podinfo, PodUid::parse)?,
        service_account: field(context, SERVICE_ACCOUNT, podinfo, ServiceAccountName::parse)?,
        node: node.clone(),
    })
}

fn duration(
    context: &BTreeMap<String, String>,
    key: &'static str,
) -> Result<Option<Duration>, AttributeError> {
    let parse = |text: &String| {
        humantime::parse_duration(text)
            .map_err(|_| AttributeError::NotADuration { key, value: printable(text) })
    };
    context.get(key).map(parse).transpose()
}

fn optional(context: &BTreeMap<String, String>) -> Result<bool, AttributeError> {
    match context.get(OPTIONAL).map(String::as_str) {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(other) => Err(AttributeError::NotABoolean(printable(other))),
    }
}

fn check_known(key: &str) -> Result<(), AttributeError> {
    if [REFRESH, MAX_STALE, OPTIONAL].contains(&key) {
        Ok(())
    } else if key.starts_with(SOTTO_PREFIX) {
        Err(AttributeError::NotServed(printable(key)))
    } else if key == SECRET_PROVIDER_CLASS || key.starts_with(KUBELET_PREFIX) {
        Ok(())
    } else {
        Err(AttributeError::Unknown(printable(key)))
    }
}

/// At most 80 characters of a tenant's text, for a message; `{:?}` escapes the rest.
fn printable(text: &str) -> String {
    text.chars().take(80).collect()
}

fn field<T>(
    context: &BTreeMap<String, String>,
    key: &'static str,
    hint: &'static str,
    parse: fn(String) -> Result<T, IdentifierError>,
) -> Result<T, AttributeError> {
    let text = context.get(key).ok_or(AttributeError::Missing(key, hint))?;
    parse(text.clone()).map_err(|source| AttributeError::Invalid { key, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context() -> BTreeMap<String, String> {
        [
            (EPHEMERAL, "true"),
            (POD_NAME, "web-0"),
            (POD_NAMESPACE, "payments"),
            (POD_UID, "uid-1"),
            (SERVICE_ACCOUNT, "checkout"),
            (SECRET_PROVIDER_CLASS, "payments-db"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
    }

    fn parse(context: &BTreeMap<String, String>) -> Result<VolumeAttributes, AttributeError> {
        VolumeAttributes::parse(context, &NodeName::parse("node-1").unwrap())
    }

    #[test]
    fn what_a_real_kubelet_sends_is_accepted() {
        let attributes = parse(&context()).unwrap();
        assert_eq!(attributes.class.as_str(), "payments-db");
        assert_eq!(attributes.identity.service_account.as_str(), "checkout");
        assert_eq!(attributes.identity.node.as_str(), "node-1");
    }

    #[test]
    fn each_missing_attribute_is_named() {
        for key in [POD_NAME, POD_NAMESPACE, POD_UID, SERVICE_ACCOUNT, SECRET_PROVIDER_CLASS] {
            let mut context = context();
            context.remove(key);
            let error = parse(&context).unwrap_err();
            assert!(matches!(error, AttributeError::Missing(missing, _) if missing == key));
        }
    }

    #[test]
    fn a_pod_cannot_override_a_parameter_of_the_class() {
        let mut context = context();
        context.insert("vaultAddress".to_owned(), "https://evil.example".to_owned());
        assert!(
            matches!(parse(&context), Err(AttributeError::Unknown(key)) if key == "vaultAddress")
        );
    }

    #[test]
    fn an_attribute_of_a_later_version_is_refused_not_ignored() {
        let mut context = context();
        context.insert("sotto.dev/teleport".to_owned(), "now".to_owned());
        assert!(matches!(parse(&context), Err(AttributeError::NotServed(_))));
    }

    #[test]
    fn refresh_max_stale_and_optional_are_read() {
        let mut context = context();
        for (key, value) in [(REFRESH, "30s"), (MAX_STALE, "1h"), (OPTIONAL, "true")] {
            context.insert(key.to_owned(), value.to_owned());
        }
        let attributes = parse(&context).unwrap();
        assert_eq!(attributes.refresh, Some(Duration::from_secs(30)));
        assert_eq!(attributes.max_stale, Some(Duration::from_secs(3_600)));
        assert!(attributes.optional);
    }

    #[test]
    fn durations_and_booleans_that_are_not_are_refused() {
        for (key, value) in
            [(REFRESH, "soon"), (REFRESH, "10ms"), (MAX_STALE, "-1h"), (OPTIONAL, "yes")]
        {
            let mut context = context();
            context.insert(key.to_owned(), value.to_owned());
            let error = parse(&context).unwrap_err().to_string();
            assert!(error.contains(key) && error.contains(value), "{error}");
        }
    }

    #[test]
    fn a_pod_uid_that_climbs_is_refused() {
        let mut context = context();
        context.insert(POD_UID.to_owned(), "../x".to_owned());
        assert!(matches!(parse(&context), Err(AttributeError::Invalid { key: POD_UID, .. })));
    }

    #[test]
    fn a_persistent_volume_is_refused() {
        let mut context = context();
        context.insert(EPHEMERAL.to_owned(), "false".to_owned());
        assert_eq!(parse(&context), Err(AttributeError::NotEphemeral("false".to_owned())));
    }
}
