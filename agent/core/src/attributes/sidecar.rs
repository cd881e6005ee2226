//! The attributes of an injected pod's two volumes, both of the driver that kubelet sends no tokens to.
//!
//! Invariant: a handoff volume has kubelet's keys and its role, nothing else; what it leads to is decided by the
//! pod's uid, which kubelet wrote.

use std::collections::BTreeMap;

use super::{AttributeError, KUBELET_PREFIX, VolumeAttributes, identity, printable};
use crate::identity::{NodeName, WorkloadIdentity};

/// What a volume of an injected pod is for; absent for the secrets themselves.
pub const ROLE: &str = "sotto.dev/role";
/// The role of the volume with the pod's socket.
pub const HANDOFF: &str = "handoff";

/// One of an injected pod's volumes, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SidecarAttributes {
    /// What the application reads.
    Secrets(VolumeAttributes),
    /// What the sidecar mounts: the socket of this pod.
    Handoff(WorkloadIdentity),
}

impl SidecarAttributes {
    /// Checks kubelet's volume context on the node `node`.
    ///
    /// # Errors
    /// The first attribute that is missing, malformed or unknown.
    pub fn parse(
        context: &BTreeMap<String, String>,
        node: &NodeName,
    ) -> Result<Self, AttributeError> {
        match context.get(ROLE).map(String::as_str) {
            None => VolumeAttributes::parse(context, node).map(Self::Secrets),
            Some(HANDOFF) => {
                let known = |key: &&String| *key == ROLE || key.starts_with(KUBELET_PREFIX);
                if let Some(other) = context.keys().find(|key| !known(key)) {
                    return Err(AttributeError::NotForHandoff(printable(other)));
                }
                identity(context, node).map(Self::Handoff)
            }
            Some(other) => Err(AttributeError::NotARole(printable(other))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{
        EPHEMERAL, POD_NAME, POD_NAMESPACE, POD_UID, SECRET_PROVIDER_CLASS, SERVICE_ACCOUNT,
    };
    use super::*;

    fn parse(more: &[(&str, &str)]) -> Result<SidecarAttributes, AttributeError> {
        let of_kubelet = [
            (EPHEMERAL, "true"),
            (POD_NAME, "web-0"),
            (POD_NAMESPACE, "payments"),
            (POD_UID, "uid-1"),
            (SERVICE_ACCOUNT, "checkout"),
        ];
        let context = of_kubelet.iter().chain(more);
        let context = context.map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        SidecarAttributes::parse(&context.collect(), &NodeName::parse("node-1").unwrap())
    }

    #[test]
    fn both_volumes_of_an_injected_pod_are_told_apart() {
        let secrets = parse(&[(SECRET_PROVIDER_CLASS, "payments-db")]).unwrap();
        assert!(matches!(secrets, SidecarAttributes::Secrets(_)));
        let SidecarAttributes::Handoff(pod) = parse(&[(ROLE, HANDOFF)]).unwrap() else {
            panic!("it has a role");
        };
        assert_eq!(pod.pod_uid.as_str(), "uid-1");
    }

    #[test]
    fn a_handoff_volume_takes_nothing_but_its_role() {
        let error = parse(&[(ROLE, HANDOFF), (SECRET_PROVIDER_CLASS, "payments-db")]);
        assert!(matches!(error, Err(AttributeError::NotForHandoff(_))));
        let error = parse(&[(ROLE, "root")]);
        assert_eq!(error, Err(AttributeError::NotARole("root".to_owned())));
    }

    #[test]
    fn a_volume_without_a_role_needs_a_class() {
        let missing = AttributeError::Missing(
            SECRET_PROVIDER_CLASS,
            "name a SecretProviderClass of the pod's namespace",
        );
        assert_eq!(parse(&[]), Err(missing));
    }
}
