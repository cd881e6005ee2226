//! The example manifests: the SecretProviderClass and the pod of `deploy/examples/payments.yaml`, and those of
//! `deploy/examples/sidecar.yaml`.

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Mode;

/// The CSIDriver object of the cluster's manifests.
pub(super) const CSI_DRIVER: &str = include_str!("../../../../deploy/base/csidriver.yaml");
/// That of pods with a sidecar.
pub(super) const SIDECAR_DRIVER: &str =
    include_str!("../../../../deploy/components/injection/csidriver.yaml");

/// A manifest, word for word, and where it is in the repository.
pub(super) struct Example {
    pub(super) text: &'static str,
    pub(super) path: &'static str,
}

impl Example {
    pub(super) fn of(mode: Mode) -> Self {
        match mode {
            Mode::Node => Self {
                text: include_str!("../../../../deploy/examples/payments.yaml"),
                path: "deploy/examples/payments.yaml",
            },
            Mode::Sidecar => Self {
                text: include_str!("../../../../deploy/examples/sidecar.yaml"),
                path: "deploy/examples/sidecar.yaml",
            },
        }
    }
}

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
    /// The class of an example.
    pub(super) fn of(example: &Example) -> anyhow::Result<Self> {
        let documents: Vec<Value> =
            serde_saphyr::from_multiple(example.text).context("the manifest is not YAML")?;
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
            manifest: example.path,
            name: format!("{}/{}", text("/metadata/namespace"), text("/metadata/name")),
            provider: text("/spec/provider"),
            role: text("/spec/parameters/roleName"),
            objects,
        })
    }
}
