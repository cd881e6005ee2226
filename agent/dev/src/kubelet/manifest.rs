//! Pods and CSIDrivers as their YAML manifests say them; only what a kubelet looks at for a CSI volume.

mod sidecar;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::KubeletError;
use crate::random;

pub use sidecar::{Mount, ProjectedToken, Sidecar};

use sidecar::{ContainerManifest, Projected};

/// The lifecycle mode of a volume that stands in the pod itself.
const EPHEMERAL: &str = "Ephemeral";
/// Kubernetes' default for a token request without an expiration.
const DEFAULT_TOKEN_LIFE_SECONDS: u64 = 3600;

/// A manifest that this kubelet can't read.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Not YAML.
    #[error("the manifest is not YAML")]
    Yaml(#[source] serde_saphyr::Error),
    /// Not the shape of its kind.
    #[error("a {kind} of the manifest has another shape than Kubernetes gives it")]
    Shape {
        /// The kind.
        kind: &'static str,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// Nothing of the kind wanted.
    #[error("the manifest has no {0}")]
    Missing(&'static str),
}

/// A pod that is bound to this node.
#[derive(Debug, Clone)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its uid; a new one for each [`Pod::parse`].
    pub uid: String,
    /// Its service account.
    pub service_account: String,
    /// The uid of the service account.
    pub service_account_uid: String,
    /// `runAsUser`.
    pub run_as_user: Option<u32>,
    /// `fsGroup`.
    pub fs_group: Option<u32>,
    /// Its inline CSI volumes.
    pub volumes: Vec<CsiVolume>,
    /// Its native sidecar, where it has one with a projected token.
    pub sidecar: Option<Sidecar>,
}

/// An inline CSI volume.
#[derive(Debug, Clone)]
pub struct CsiVolume {
    /// The volume's name in the pod.
    pub name: String,
    /// The driver.
    pub driver: String,
    /// `readOnly`.
    pub read_only: bool,
    /// `volumeAttributes`.
    pub attributes: BTreeMap<String, String>,
    /// The data of `nodePublishSecretRef`'s Secret.
    pub publish_secrets: BTreeMap<String, String>,
}

/// What the CSIDriver object tells kubelet.
#[derive(Debug, Clone)]
pub struct CsiDriver {
    /// The driver's name.
    pub name: String,
    /// `podInfoOnMount`.
    pub pod_info_on_mount: bool,
    /// `requiresRepublish`.
    pub requires_republish: bool,
    /// Whether `volumeLifecycleModes` has `Ephemeral`; Kubernetes' default has not.
    pub is_ephemeral: bool,
    /// `tokenRequests`: audience and life.
    pub token_requests: Vec<(String, Duration)>,
    /// `serviceAccountTokenInSecrets`: where the tokens travel.
    pub tokens: TokenPlace,
}

/// Where a publish request carries the pod's tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenPlace {
    /// In `secrets`.
    Secrets,
    /// In `volume_context`, as before Kubernetes 1.35.
    VolumeContext,
    /// Here at one call and there at the next: a rollout.
    Moving,
}

impl Pod {
    /// The first pod of a manifest; without one, the first that its Deployment or Job would make.
    ///
    /// # Errors
    /// The manifest can't be read or has no pod.
    pub fn parse(manifest: &str) -> Result<Self, ManifestError> {
        let found = documents::<PodManifest>(manifest, "Pod")?;
        match found.into_iter().next() {
            Some(pod) => Self::from_manifest(pod),
            None => Self::from_manifest(pod_of_workload(manifest)?),
        }
    }

    fn from_manifest(pod: PodManifest) -> Result<Self, ManifestError> {
        let sidecar = Sidecar::of(&pod.spec)?;
        let context = pod.spec.security_context;
        let account = pod.spec.service_account_name.unwrap_or_else(|| "default".to_owned());
        Ok(Self {
            name: pod.metadata.name,
            namespace: pod.metadata.namespace.unwrap_or_else(|| "default".to_owned()),
            uid: random::uuid(),
            service_account: account,
            service_account_uid: random::uuid(),
            run_as_user: context.run_as_user,
            fs_group: context.fs_group,
            volumes: pod.spec.volumes.into_iter().filter_map(VolumeManifest::into_csi).collect(),
            sidecar,
        })
    }

    /// The volume of this name.
    #[must_use]
    pub fn volume(&self, name: &str) -> Option<&CsiVolume> {
        self.volumes.iter().find(|volume| volume.name == name)
    }

    /// The same pod, new, with another name and service account.
    #[must_use]
    pub fn sibling(&self, name: &str, service_account: &str) -> Self {
        Self {
            name: name.to_owned(),
            uid: random::uuid(),
            service_account: service_account.to_owned(),
            service_account_uid: random::uuid(),
            ..self.clone()
        }
    }
}

impl CsiDriver {
    /// The first CSIDriver of a manifest.
    ///
    /// # Errors
    /// The manifest can't be read or has no CSIDriver.
    pub fn parse(manifest: &str) -> Result<Self, ManifestError> {
        let found = documents::<DriverManifest>(manifest, "CSIDriver")?;
        let driver = found.into_iter().next().ok_or(ManifestError::Missing("CSIDriver"))?;
        let spec = driver.spec;
        let life = |request: &TokenRequest| {
            let seconds = request.expiration_seconds.unwrap_or(DEFAULT_TOKEN_LIFE_SECONDS);
            (request.audience.clone(), Duration::from_secs(seconds))
        };
        Ok(Self {
            name: driver.metadata.name,
            pod_info_on_mount: spec.pod_info_on_mount,
            requires_republish: spec.requires_republish,
            is_ephemeral: spec.volume_lifecycle_modes.iter().any(|mode| mode == EPHEMERAL),
            token_requests: spec.token_requests.iter().map(life).collect(),
            tokens: match spec.service_account_token_in_secrets {
                true => TokenPlace::Secrets,
                false => TokenPlace::VolumeContext,
            },
        })
    }
}

impl CsiDriver {
    /// What kubelet checks before it asks a driver for an inline volume.
    pub(super) fn takes(&self, volume: &CsiVolume) -> Result<(), KubeletError> {
        let Self { name, .. } = self;
        if volume.driver != *name {
            let text =
                format!("volume {} is for driver {}, not {name}", volume.name, volume.driver);
            return Err(KubeletError::NotOffered(text));
        }
        if !self.is_ephemeral {
            let text = format!("volume mode {EPHEMERAL:?} is not supported by driver {name}");
            return Err(KubeletError::NotOffered(text));
        }
        Ok(())
    }
}

/// The pod that a workload's controller would make.
fn pod_of_workload(manifest: &str) -> Result<PodManifest, ManifestError> {
    for kind in ["Deployment", "Job"] {
        let found = documents::<WorkloadManifest>(manifest, kind)?;
        if let Some(workload) = found.into_iter().next() {
            let Metadata { name, namespace } = workload.metadata;
            let metadata = Metadata { name: format!("{name}-{}", random::hex::<3>()), namespace };
            return Ok(PodManifest { metadata, spec: workload.spec.template.spec });
        }
    }
    Err(ManifestError::Missing("Pod"))
}

/// The documents of one kind.
fn documents<T: DeserializeOwned>(
    manifest: &str,
    kind: &'static str,
) -> Result<Vec<T>, ManifestError> {
    let documents: Vec<Value> =
        serde_saphyr::from_multiple(manifest).map_err(ManifestError::Yaml)?;
    documents
        .into_iter()
        .filter(|document| document["kind"] == kind)
        .map(|document| {
            serde_json::from_value(document).map_err(|source| ManifestError::Shape { kind, source })
        })
        .collect()
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
    namespace: Option<String>,
}

#[derive(Deserialize)]
struct PodManifest {
    metadata: Metadata,
    spec: PodSpec,
}

#[derive(Deserialize)]
struct WorkloadManifest {
    metadata: Metadata,
    spec: WorkloadSpec,
}

#[derive(Deserialize)]
struct WorkloadSpec {
    template: TemplateManifest,
}

#[derive(Deserialize)]
struct TemplateManifest {
    spec: PodSpec,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodSpec {
    service_account_name: Option<String>,
    #[serde(default)]
    init_containers: Vec<ContainerManifest>,
    #[serde(default)]
    security_context: SecurityContext,
    #[serde(default)]
    volumes: Vec<VolumeManifest>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct SecurityContext {
    run_as_user: Option<u32>,
    fs_group: Option<u32>,
}

#[derive(Deserialize)]
struct VolumeManifest {
    name: String,
    csi: Option<CsiSource>,
    projected: Option<Projected>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CsiSource {
    driver: String,
    #[serde(default)]
    read_only: bool,
    #[serde(default)]
    volume_attributes: BTreeMap<String, String>,
}

impl VolumeManifest {
    fn into_csi(self) -> Option<CsiVolume> {
        let csi = self.csi?;
        Some(CsiVolume {
            name: self.name,
            driver: csi.driver,
            read_only: csi.read_only,
            attributes: csi.volume_attributes,
            publish_secrets: BTreeMap::new(),
        })
    }
}

#[derive(Deserialize)]
struct DriverManifest {
    metadata: Metadata,
    spec: DriverSpec,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct DriverSpec {
    pod_info_on_mount: bool,
    requires_republish: bool,
    volume_lifecycle_modes: Vec<String>,
    token_requests: Vec<TokenRequest>,
    service_account_token_in_secrets: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TokenRequest {
    audience: String,
    expiration_seconds: Option<u64>,
}
