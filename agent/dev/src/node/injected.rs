//! A pod with the sidecar, as kubelet and a container runtime bring it up and take it down.
//!
//! The order is the one that was seen of a kubelet 1.36 (`facts/injection.md`): both volumes are published at the
//! same time; then the sidecar starts, while the secrets are unserved; the application's containers, which mount the
//! secrets, start once the startupProbe has succeeded. At the end the application goes first, then the sidecar gets
//! SIGTERM, then both volumes are unpublished at the same time.
//!
//! What a container would see in a mount namespace of its own is at other paths here, and its arguments say so.

mod container;
mod lifecycle;

use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::projected::Projected;
use super::{AGENT_ID, Node, NodeError, may_become};
use crate::kubelet::{CsiVolume, KubeletError, Pod, Sidecar};
use crate::pki::Credential;
use crate::process::{Log, Running};

pub use lifecycle::{Restart, restart_delay};

/// The volume that the application reads.
pub const SECRETS: &str = "sotto-secrets";
/// The volume with the pod's socket.
pub const HANDOFF: &str = "sotto-handoff";

/// A pod with the sidecar.
pub struct Injected {
    /// The pod, with the two volumes that kubelet publishes.
    pub pod: Pod,
    spec: Sidecar,
    /// Where the runtime keeps what its containers see.
    folder: PathBuf,
    token: Projected,
    certificate: PathBuf,
    cgroup: Option<PathBuf>,
    running: Option<Running>,
    /// Of the containers that have ended.
    logs: Vec<Arc<Log>>,
    shown: Vec<PathBuf>,
    crashes: usize,
}

impl Node {
    /// Prepares a pod that the webhook has made: its token and its client certificate are in their volumes. Nothing is
    /// published and nothing runs yet.
    ///
    /// # Errors
    /// The pod has no sidecar, or its directories can't be made.
    pub fn injected(&self, pod: &Pod, client: &Credential) -> Result<Injected, NodeError> {
        let mut pod = pod.clone();
        let spec = pod.sidecar.clone().ok_or(NodeError::NoSidecar)?;
        pod.volumes.retain(|volume| self.kubelet.has_driver(&volume.driver));
        let folder = self.path("pods").join(&pod.uid);
        let owner = may_become(AGENT_ID).then_some(spec.user.0);
        let token = Projected::new(folder.join("token"), &spec.token.path, owner)?;
        let certificate = folder.join("certificate");
        std::fs::create_dir_all(&certificate)?;
        let cgroup = self.cgroups.as_ref().map(|it| it.of_pod(&pod.uid)).transpose()?;
        let (running, logs, shown) = (None, Vec::new(), Vec::new());
        let injected = Injected {
            pod,
            spec,
            folder,
            token,
            certificate,
            cgroup,
            running,
            logs,
            shown,
            crashes: 0,
        };
        injected.renew_token(self)?;
        injected.renew_certificate(client)?;
        Ok(injected)
    }

    /// A cgroup of the pod with this uid, for a process that is to be taken for one of that pod; `None` where no
    /// cgroup can be made.
    ///
    /// # Errors
    /// The cgroup can't be made though others can.
    pub fn cgroup_of_pod(&self, pod_uid: &str) -> Result<Option<PathBuf>, NodeError> {
        Ok(self.cgroups.as_ref().map(|it| it.of_pod(pod_uid)).transpose()?)
    }
}

impl Injected {
    /// The volume that the application reads.
    ///
    /// # Errors
    /// The pod has none.
    pub fn secrets(&self) -> Result<&CsiVolume, NodeError> {
        self.pod.volume(SECRETS).ok_or(NodeError::NoSidecar)
    }

    /// The volume with the socket.
    ///
    /// # Errors
    /// The pod has none.
    pub fn handoff(&self) -> Result<&CsiVolume, NodeError> {
        self.pod.volume(HANDOFF).ok_or(NodeError::NoSidecar)
    }

    /// Where the sidecar sees its handoff volume.
    #[must_use]
    pub fn handoff_path(&self) -> PathBuf {
        self.folder.join("handoff")
    }

    /// The directory of the token that the sidecar sees.
    #[must_use]
    pub fn token_directory(&self) -> &Path {
        self.token.directory()
    }

    /// The cgroup of its containers, where there is one.
    #[must_use]
    pub fn cgroup(&self) -> Option<&Path> {
        self.cgroup.as_deref()
    }

    /// Writes the token that kubelet has for the pod at this moment into its volume.
    ///
    /// # Errors
    /// It can't be written.
    pub fn renew_token(&self, node: &Node) -> Result<(), NodeError> {
        let wanted = &self.spec.token;
        let token = node.kubelet.token(&self.pod, &wanted.audience, wanted.life);
        Ok(self.token.write(&token)?)
    }

    /// Writes a client certificate and its key into their volume.
    ///
    /// # Errors
    /// They can't be written.
    pub fn renew_certificate(&self, client: &Credential) -> Result<(), NodeError> {
        let files = client.write(&self.certificate, "tls")?;
        let owner = may_become(AGENT_ID).then_some(self.spec.user.0);
        chown(files.key, owner, owner)?;
        Ok(())
    }

    /// Publishes both volumes.
    ///
    /// # Errors
    /// The first volume's that can't be mounted, in kubelet's words.
    pub async fn publish(
        &self,
        node: &Node,
        patience: std::time::Duration,
    ) -> Result<(), KubeletError> {
        node.kubelet.start(&self.pod, patience).await.map(drop)
    }

    /// What all containers of the sidecar have written so far.
    #[must_use]
    pub fn output(&self) -> String {
        let present = self.running.as_ref().map(|it| it.log());
        self.logs.iter().chain(present).map(|log| log.text()).collect()
    }

    /// The sidecar's process, its PID 1; `None` while none runs.
    #[must_use]
    pub fn running(&self) -> Option<&Running> {
        self.running.as_ref()
    }
}
