//! A SecretProviderClass as its author wrote it, before any provider has read its parameters.

use std::collections::BTreeMap;

use crate::identity::{ClassName, Namespace};

/// The API group and version of a SecretProviderClass manifest.
pub const API_VERSION: &str = "secrets-store.csi.x-k8s.io/v1";
/// The kind of the manifest.
pub const KIND: &str = "SecretProviderClass";

/// `SecretProviderClass.secrets-store.csi.x-k8s.io/v1`; the parameters belong to the provider named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretProviderClass {
    /// The namespace it lives in: only pods of that namespace can name it.
    pub namespace: Namespace,
    /// Its name.
    pub name: ClassName,
    /// `spec.provider`: `openbao`, `vault`, ...
    pub provider: String,
    /// `spec.parameters`.
    pub parameters: BTreeMap<String, String>,
    /// Whether `spec.secretObjects` asks for copies in Kubernetes Secrets, which Sotto refuses to make.
    pub wants_secret_objects: bool,
}
