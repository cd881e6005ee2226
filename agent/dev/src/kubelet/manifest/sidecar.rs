//! What a kubelet takes from an injected pod for its native sidecar: an init container with `restartPolicy:
//! Always`, its mounts, its startupProbe, and the token that is projected for it.

use std::time::Duration;

use serde::Deserialize;

use super::{ManifestError, PodSpec};

/// A native sidecar.
#[derive(Debug, Clone)]
pub struct Sidecar {
    /// The container's name.
    pub name: String,
    /// Its image.
    pub image: String,
    /// Its executable in the image.
    pub command: String,
    /// `args`.
    pub arguments: Vec<String>,
    /// `volumeMounts`.
    pub mounts: Vec<Mount>,
    /// `runAsUser` and `runAsGroup`.
    pub user: (u32, u32),
    /// The arguments of the startupProbe's command.
    pub probe: Vec<String>,
    /// `periodSeconds`.
    pub probe_period: Duration,
    /// `timeoutSeconds`.
    pub probe_timeout: Duration,
    /// `failureThreshold`.
    pub probe_failures: u32,
    /// The token that is projected into one of its mounts.
    pub token: ProjectedToken,
}

/// Where a container sees a volume.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mount {
    /// The volume.
    pub name: String,
    /// The path in the container.
    pub mount_path: String,
}

/// A `serviceAccountToken` of a projected volume.
#[derive(Debug, Clone)]
pub struct ProjectedToken {
    /// The volume.
    pub volume: String,
    /// Its audience.
    pub audience: String,
    /// Its life.
    pub life: Duration,
    /// The file in the volume.
    pub path: String,
}

impl Sidecar {
    /// The first native sidecar of a pod that has a projected token, if there is one.
    pub(super) fn of(spec: &PodSpec) -> Result<Option<Self>, ManifestError> {
        let native = |it: &&ContainerManifest| it.restart_policy.as_deref() == Some("Always");
        let Some(container) = spec.init_containers.iter().find(native) else { return Ok(None) };
        let token = spec.volumes.iter().find_map(|volume| {
            let sources = &volume.projected.as_ref()?.sources;
            let source = sources.iter().find_map(|source| source.service_account_token.as_ref())?;
            Some(ProjectedToken {
                volume: volume.name.clone(),
                audience: source.audience.clone(),
                life: Duration::from_secs(source.expiration_seconds),
                path: source.path.clone(),
            })
        });
        let Some(token) = token else { return Ok(None) };
        let missing = ManifestError::Missing;
        let probe = container.startup_probe.as_ref().ok_or(missing("startupProbe"))?;
        let context = &container.security_context;
        Ok(Some(Self {
            name: container.name.clone(),
            image: container.image.clone(),
            command: container.command.first().cloned().ok_or(missing("command"))?,
            arguments: container.args.clone(),
            mounts: container.volume_mounts.clone(),
            user: (
                context.run_as_user.ok_or(missing("runAsUser"))?,
                context.run_as_group.ok_or(missing("runAsGroup"))?,
            ),
            probe: probe.exec.command.iter().skip(1).cloned().collect(),
            probe_period: Duration::from_secs(probe.period_seconds),
            probe_timeout: Duration::from_secs(probe.timeout_seconds),
            probe_failures: probe.failure_threshold,
            token,
        }))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ContainerManifest {
    name: String,
    #[serde(default)]
    image: String,
    restart_policy: Option<String>,
    #[serde(default)]
    command: Vec<String>,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    volume_mounts: Vec<Mount>,
    #[serde(default)]
    security_context: Context,
    startup_probe: Option<Probe>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Context {
    run_as_user: Option<u32>,
    run_as_group: Option<u32>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Probe {
    exec: Exec,
    period_seconds: u64,
    timeout_seconds: u64,
    failure_threshold: u32,
}

#[derive(Deserialize)]
struct Exec {
    command: Vec<String>,
}

#[derive(Deserialize)]
pub(super) struct Projected {
    sources: Vec<Source>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Source {
    service_account_token: Option<Token>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Token {
    audience: String,
    expiration_seconds: u64,
    path: String,
}
