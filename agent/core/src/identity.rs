//! Who a pod is. One newtype for every identifier, parsed once at the edge.
//!
//! Invariant: an identifier that exists here has passed its syntax check, so it can stand in a path, a
//! log line or a journal file's name without further escaping.

use std::fmt;

use serde::{Deserialize, Serialize};

/// An identifier that breaks the syntax of its kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} is not valid: {reason}")]
pub struct IdentifierError {
    /// What the identifier names, e.g. `pod namespace`.
    pub kind: &'static str,
    /// Which rule it breaks.
    pub reason: &'static str,
}

fn check(
    kind: &'static str,
    text: &str,
    longest: usize,
    allowed: fn(u8) -> bool,
) -> Result<(), IdentifierError> {
    let reason = if text.is_empty() {
        "it is empty"
    } else if text.len() > longest {
        "it is too long"
    } else if text.starts_with('.') {
        "it begins with a dot"
    } else if !text.bytes().all(allowed) {
        "it has a character that is not allowed"
    } else {
        return Ok(());
    };
    Err(IdentifierError { kind, reason })
}

fn dns(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.')
}

fn word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_')
}

fn printable(byte: u8) -> bool {
    (0x21..=0x7e).contains(&byte)
}

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $longest:literal, $allowed:path) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Parses and checks the identifier.
            ///
            /// # Errors
            /// Which rule of its kind it breaks.
            pub fn parse(text: impl Into<String>) -> Result<Self, IdentifierError> {
                let text = text.into();
                check($kind, &text, $longest, $allowed)?;
                Ok(Self(text))
            }

            /// The identifier as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdentifierError;

            fn try_from(text: String) -> Result<Self, IdentifierError> {
                Self::parse(text)
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.0
            }
        }
    };
}

identifier!(
    /// A Kubernetes namespace.
    Namespace, "pod namespace", 63, dns
);
identifier!(
    /// A pod's name.
    PodName, "pod name", 253, dns
);
identifier!(
    /// A pod's uid, which no other pod of the cluster ever has.
    PodUid, "pod uid", 128, word
);
identifier!(
    /// A service account's name, without its namespace.
    ServiceAccountName, "service account", 253, dns
);
identifier!(
    /// A node's name.
    NodeName, "node name", 253, dns
);
identifier!(
    /// A CSI volume id: `csi-<64 hex>` from kubelet; any plain word is accepted.
    VolumeId, "volume id", 128, word
);
identifier!(
    /// The name of a SecretProviderClass, within its namespace.
    ClassName, "secret provider class name", 253, dns
);
identifier!(
    /// The administrator's name for a configured store; a provider's may have capitals and `_`.
    StoreName, "store name", 63, word
);
identifier!(
    /// An audience that a token is meant for.
    Audience, "audience", 1024, printable
);

/// The pod that a volume belongs to, as kubelet says it; tokens are compared with it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct WorkloadIdentity {
    /// The pod's namespace.
    pub namespace: Namespace,
    /// The pod's name.
    pub pod_name: PodName,
    /// The pod's uid.
    pub pod_uid: PodUid,
    /// The service account the pod runs as.
    pub service_account: ServiceAccountName,
    /// The node the pod is bound to: this one.
    pub node: NodeName,
}

impl fmt::Display for WorkloadIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "pod {}/{} (service account {})",
            self.namespace, self.pod_name, self.service_account
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_that_could_become_paths_or_log_lines_are_refused() {
        assert!(PodUid::parse("../../etc").is_err());
        assert!(PodUid::parse("a/b").is_err());
        assert!(PodUid::parse("").is_err());
        assert!(VolumeId::parse("..").is_err());
        assert!(VolumeId::parse("a\nb").is_err());
        assert!(Namespace::parse("Payments").is_err());
        assert!(Namespace::parse("x".repeat(64)).is_err());
        assert!(Audience::parse("a b").is_err());
    }

    #[test]
    fn identifiers_of_a_real_cluster_are_accepted() {
        assert!(PodUid::parse("0a4b1c6e-5cbb-4f4f-9d13-3b1a2c4d5e6f").is_ok());
        assert!(VolumeId::parse(format!("csi-{}", "a".repeat(64))).is_ok());
        assert!(NodeName::parse("ip-10-0-0-1.eu-west-1.compute.internal").is_ok());
        assert!(Audience::parse("https://kubernetes.default.svc").is_ok());
    }

    #[test]
    fn deserializing_checks_the_syntax_too() {
        assert!(serde_json::from_str::<Namespace>("\"payments\"").is_ok());
        assert!(serde_json::from_str::<Namespace>("\"../payments\"").is_err());
    }
}
