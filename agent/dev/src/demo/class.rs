//! The example manifest: the SecretProviderClass and the pod of `deploy/examples/payments.yaml`.

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The manifest itself, word for word.
pub(super) const MANIFEST: &str = include_str!("../../../../deploy/examples/payments.yaml");
/// Where it is in the repository.
pub(super) const MANIFEST_PATH: &str = "deploy/examples/payments.yaml";
/// The CSIDriver object of the cluster's manifests.
pub(super) const CSI_DRIVER: &str = include_str!("../../../../deploy/base/csidriver.yaml");

/// The class, as far as the demo shows it.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Class {
    /// The manifest's path in the repository.
    pub(super) manifest: &'static str,
    /// `<namespace>/<name>`.
    pub(super) name: String,
    /// `spec.provider`.
    pub(super) provider: String,
    /// `roleName`.
    pub(super) role: String,
    /// The objects.
    pub(super) objects: Vec<Object>,
}

/// An object of the class.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Object {
    /// The file.
    pub(super) object_name: String,
    /// The secret.
    pub(super) secret_path: String,
    /// The key in it.
    #[serde(default)]
    pub(super) secret_key: String,
}

impl Class {
    /// The class of the manifest.
    pub(super) fn of_manifest() -> anyhow::Result<Self> {
        let documents: Vec<Value> =
            serde_saphyr::from_multiple(MANIFEST).context("the manifest is not YAML")?;
        let class = documents
            .into_iter()
            .find(|document| document["kind"] == "SecretProviderClass")
            .context("the manifest has no SecretProviderClass")?;
        let text = |pointer: &str| {
            class.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let objects = serde_saphyr::from_str(&text("/spec/parameters/objects"))
            .context("the class's objects are not YAML")?;
        Ok(Self {
            manifest: MANIFEST_PATH,
            name: format!("{}/{}", text("/metadata/namespace"), text("/metadata/name")),
            provider: text("/spec/provider"),
            role: text("/spec/parameters/roleName"),
            objects,
        })
    }
}
