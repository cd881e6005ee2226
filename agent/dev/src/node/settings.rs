//! What a machine is made of, and why it can't be.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use super::{MachineError, NotBuilt, StoreEntry};
use crate::issuer::Issuer;
use crate::kubelet::{CsiDriver, KubeletError};
use crate::process::ProcessError;

/// A machine could not be started or ended.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The binaries.
    #[error(transparent)]
    NotBuilt(#[from] NotBuilt),
    /// Its directories and mounts.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// Its files.
    #[error("the machine's files can't be written")]
    Files(#[from] io::Error),
    /// A process did not start or end.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// The driver can't be registered.
    #[error(transparent)]
    Kubelet(#[from] KubeletError),
    /// Mounts were left when everything had ended.
    #[error("mounts were left behind: {0:?}")]
    Left(Vec<PathBuf>),
    /// The pod has no sidecar, or it doesn't run.
    #[error("the pod has no sidecar, or it doesn't run")]
    NoSidecar,
    /// The webhook refuses the manifest.
    #[error("the webhook refuses the pod:\n{0}")]
    NotInjected(String),
    /// The startupProbe never succeeded.
    #[error("the sidecar is never ready: {said}\nits last lines:\n{lines}\nsotto-csi's:\n{csi}")]
    NeverReady {
        /// What the probe said at last.
        said: String,
        /// The end of the sidecar's log.
        lines: String,
        /// The end of the driver's log.
        csi: String,
    },
    /// What was awaited did not come.
    #[error("{0} was not in the audit log within {1:?}; its records:\n{2}")]
    NoRecord(String, Duration, String),
}

/// What a machine is made of.
pub struct NodeSettings {
    /// The node's name.
    pub name: String,
    /// Where its binaries are, all that it starts, for its users to execute and longer than it lives; looked for where nothing
    /// is said.
    pub binaries: Option<PathBuf>,
    /// What the CSIDriver object says.
    pub driver: CsiDriver,
    /// The CSIDriver object of injected pods, where the node takes any.
    pub sidecar_driver: Option<CsiDriver>,
    /// More arguments of each sidecar.
    pub sidecar_arguments: Vec<String>,
    /// The longest pause between two probes of a sidecar, if the pod has a longer one.
    pub probe_period: Duration,
    /// Who issues the pods' tokens.
    pub issuer: Issuer,
    /// The stores; the first is the default.
    pub stores: Vec<StoreEntry>,
    /// Manifests with SecretProviderClasses: file name and content.
    pub classes: Vec<(String, String)>,
    /// A text that both processes and each sidecar have in their environment: for searches of their memory, which must
    /// find it.
    pub canary: Option<String>,
    /// The log filter of both processes.
    pub log: String,
    /// More arguments of sotto-csi.
    pub csi_arguments: Vec<String>,
    /// More arguments of sotto-node.
    pub agent_arguments: Vec<String>,
    /// Changes the configuration before it is written.
    pub edit: Box<dyn Fn(&mut Value) + Send + Sync>,
}

impl NodeSettings {
    /// A node with one store and one manifest.
    #[must_use]
    pub fn new(driver: CsiDriver, issuer: &Issuer, store: StoreEntry, manifest: &str) -> Self {
        Self {
            name: "node-1".to_owned(),
            binaries: None,
            driver,
            sidecar_driver: None,
            sidecar_arguments: Vec::new(),
            probe_period: Duration::MAX,
            issuer: issuer.clone(),
            stores: vec![store],
            classes: vec![("classes.yaml".to_owned(), manifest.to_owned())],
            canary: None,
            log: "info".to_owned(),
            csi_arguments: Vec::new(),
            agent_arguments: Vec::new(),
            edit: Box::new(|_| {}),
        }
    }
}
