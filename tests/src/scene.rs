//! A scene: an authority, an issuer, a store, and one node with sotto-csi and sotto-node as processes of
//! their own. Everything ends with it.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use serde_json::{Value, json};
use sotto_dev::bao::Bao;
use sotto_dev::issuer::{DEMO_ISSUER, Issuer, IssuerServer};
use sotto_dev::kubelet::{CsiDriver, Kubelet, KubeletError, Pod};
use sotto_dev::node::{Node, NodeSettings, StoreEntry};
use sotto_dev::pki::Authority;
use sotto_dev::store::DevStore;
use sotto_dev::test_store::{StoreAccess, TestStore};

/// The manifest that a user would apply, and that the demo delivers.
pub const EXAMPLE: &str = include_str!("../../deploy/examples/payments.yaml");
/// The CSIDriver that a cluster gets.
pub const CSI_DRIVER: &str = include_str!("../../deploy/base/csidriver.yaml");

/// The CSIDriver of pods with a sidecar.
pub const SIDECAR_DRIVER: &str = include_str!("../../deploy/components/injection/csidriver.yaml");
/// Kubelet probes once a second; no test shows more by waiting so long.
const PROBE_PERIOD: Duration = Duration::from_millis(100);

/// How long a publish that fails may be waited for.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the scene's configuration has that a default one has not.
pub struct StoreSettings {
    /// The store's `auth`.
    pub auth: Value,
    /// Changes the whole configuration.
    pub edit: Box<dyn Fn(&mut Value) + Send + Sync>,
    /// More arguments of sotto-csi.
    pub csi_arguments: Vec<String>,
    /// More arguments of sotto-node.
    pub agent_arguments: Vec<String>,
    /// Whether the node takes pods with a sidecar.
    pub sidecars: bool,
    /// See [`NodeSettings::canary`].
    pub canary: Option<String>,
    /// See [`NodeSettings::binaries`].
    pub binaries: Option<PathBuf>,
}

impl StoreSettings {
    /// Another auth method, mounted at its own name.
    #[must_use]
    pub fn method(method: &str) -> Self {
        let auth = json!({"method": method, "mount": method, "audience": "bao"});
        Self {
            auth,
            edit: Box::new(|_| {}),
            csi_arguments: Vec::new(),
            agent_arguments: Vec::new(),
            sidecars: false,
            canary: None,
            binaries: None,
        }
    }

    /// The jwt method, on a node that takes pods with a sidecar.
    #[must_use]
    pub fn sidecars() -> Self {
        Self { sidecars: true, ..Self::method("jwt") }
    }

    /// The jwt method, and a configuration changed by `edit`.
    #[must_use]
    pub fn edited(edit: impl Fn(&mut Value) + Send + Sync + 'static) -> Self {
        Self { edit: Box::new(edit), ..Self::method("jwt") }
    }
}

/// A running scene.
pub struct Scene<S> {
    node: Node,
    store: S,
    issuer: Issuer,
    authority: Authority,
    access: StoreAccess,
}

impl Scene<DevStore> {
    /// With the embedded store.
    ///
    /// # Errors
    /// What could not be started.
    pub async fn embedded() -> anyhow::Result<Self> {
        Self::embedded_with(StoreSettings::method("jwt")).await
    }

    /// With the embedded store and other settings.
    ///
    /// # Errors
    /// What could not be started.
    pub async fn embedded_with(settings: StoreSettings) -> anyhow::Result<Self> {
        let (authority, issuer) = (Authority::new("sotto tests")?, Issuer::new(DEMO_ISSUER)?);
        let store = DevStore::start(&authority, &issuer).await?;
        Self::start(authority, issuer, store, settings).await
    }
}

impl Scene<Bao> {
    /// With a real OpenBao server.
    ///
    /// # Errors
    /// What could not be started.
    pub async fn openbao() -> anyhow::Result<Self> {
        Self::openbao_with(StoreSettings::method("jwt")).await
    }

    /// With a real OpenBao server that keeps what it knows when it is killed.
    ///
    /// # Errors
    /// What could not be started.
    pub async fn openbao_durable() -> anyhow::Result<Self> {
        Self::openbao_durable_with(StoreSettings::method("jwt")).await
    }

    /// As [`Self::openbao_durable`], on a node that takes pods with a sidecar.
    ///
    /// # Errors
    /// What could not be started.
    pub async fn openbao_durable_for_sidecars() -> anyhow::Result<Self> {
        Self::openbao_durable_with(StoreSettings::sidecars()).await
    }

    async fn openbao_durable_with(settings: StoreSettings) -> anyhow::Result<Self> {
        let (authority, issuer) = (Authority::new("sotto tests")?, Issuer::new(DEMO_ISSUER)?);
        let store = Bao::start_durable(&authority, &issuer).await?;
        Self::start(authority, issuer, store, settings).await
    }

    /// With a real OpenBao server and other settings.
    ///
    /// # Errors
    /// What could not be started.
    pub async fn openbao_with(settings: StoreSettings) -> anyhow::Result<Self> {
        let (authority, issuer) = (Authority::new("sotto tests")?, Issuer::new(DEMO_ISSUER)?);
        let store = Bao::start(&authority, &issuer).await?;
        Self::start(authority, issuer, store, settings).await
    }
}

impl<S: TestStore> Scene<S> {
    async fn start(
        authority: Authority,
        issuer: Issuer,
        store: S,
        settings: StoreSettings,
    ) -> anyhow::Result<Self> {
        let access = store.access().clone();
        let entry = StoreEntry { auth: settings.auth, ..StoreEntry::main(&access) };
        let driver = CsiDriver::parse(CSI_DRIVER)?;
        let mut node = NodeSettings::new(driver, &issuer, entry, EXAMPLE);
        node.edit = settings.edit;
        node.csi_arguments = settings.csi_arguments;
        node.agent_arguments = settings.agent_arguments;
        node.canary = settings.canary;
        node.binaries = settings.binaries;
        if settings.sidecars {
            node.sidecar_driver = Some(CsiDriver::parse(SIDECAR_DRIVER)?);
            node.probe_period = PROBE_PERIOD;
        }
        let node = Node::start(node).await?;
        Ok(Self { node, store, issuer, authority, access })
    }

    /// The machine.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// The machine, to restart its processes.
    pub fn node_mut(&mut self) -> &mut Node {
        &mut self.node
    }

    /// Its kubelet.
    pub fn kubelet(&self) -> &Kubelet {
        self.node.kubelet()
    }

    /// The store.
    pub fn store(&self) -> &S {
        &self.store
    }

    /// The store, to restart it.
    pub fn store_mut(&mut self) -> &mut S {
        &mut self.store
    }

    /// Who issues the pods' tokens.
    pub fn issuer(&self) -> &Issuer {
        &self.issuer
    }

    /// Who signed the TLS certificates.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The issuer as a server, for TokenReviews and JWKS.
    ///
    /// # Errors
    /// It can't listen.
    pub async fn serve_issuer(&self) -> anyhow::Result<IssuerServer> {
        Ok(self.issuer.serve(&self.authority).await?)
    }

    /// The client certificate that sotto-node shows, PEM.
    ///
    /// # Errors
    /// Its file can't be read.
    pub fn client_certificate(&self) -> anyhow::Result<String> {
        Ok(std::fs::read_to_string(&self.access.client.certificate)?)
    }

    /// Writes a version of a secret.
    ///
    /// # Errors
    /// The store refuses.
    pub async fn write(&self, path: &str, data: Value) -> anyhow::Result<u64> {
        self.store.write(path, data).await
    }

    /// Writes a SecretProviderClass of namespace `payments` with the role `payments` and these objects (YAML).
    ///
    /// # Errors
    /// The file can't be written.
    pub fn class(&self, name: &str, objects: &str) -> anyhow::Result<()> {
        self.class_with(name, json!({"roleName": "payments", "objects": objects}))
    }

    /// Writes a SecretProviderClass with these parameters.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn class_with(&self, name: &str, parameters: Value) -> anyhow::Result<()> {
        let manifest = json!({
            "apiVersion": "secrets-store.csi.x-k8s.io/v1", "kind": "SecretProviderClass",
            "metadata": {"name": name, "namespace": "payments"},
            "spec": {"provider": "openbao", "parameters": parameters},
        });
        let path = self.node.path("classes").join(format!("{name}.yaml"));
        std::fs::write(path, manifest.to_string()).context("a class can't be written")
    }

    /// The pod of the example manifest, as it stands there.
    pub fn example_pod(&self) -> Pod {
        Pod::parse(EXAMPLE).expect("the example is a pod")
    }

    /// A pod of namespace `payments` with one volume of the class; no fsGroup.
    pub fn pod(&self, name: &str, service_account: &str, class: &str) -> Pod {
        let mut pod = self.example_pod().sibling(name, service_account);
        pod.fs_group = None;
        let attributes = &mut pod.volumes[0].attributes;
        attributes.insert("secretProviderClass".to_owned(), class.to_owned());
        pod
    }

    /// Publishes the pod's volume once; returns its target.
    ///
    /// # Errors
    /// What the pod's event would show, with the agent's last lines.
    pub async fn publish(&self, pod: &Pod) -> anyhow::Result<PathBuf> {
        let published = self.kubelet().publish(pod, &pod.volumes[0]).await;
        published.with_context(|| {
            let (csi, agent) = (self.node.csi().log().tail(), self.node.agent().log().tail());
            format!("publish failed; sotto-csi:\n{csi}\nsotto-node:\n{agent}")
        })
    }

    /// The message with which the publish of the pod's volume is refused; checks that nothing is left.
    ///
    /// # Errors
    /// It was not refused, or something was left.
    pub async fn refusal(&self, pod: &Pod) -> anyhow::Result<String> {
        let (_, message) = self.refused(pod).await?;
        Ok(message)
    }

    /// As [`Self::refusal`], with the gRPC code.
    ///
    /// # Errors
    /// It was not refused, or something was left.
    pub async fn refused(&self, pod: &Pod) -> anyhow::Result<(tonic::Code, String)> {
        let volume = &pod.volumes[0];
        let published = tokio::time::timeout(PATIENCE, self.kubelet().publish(pod, volume)).await?;
        let target = self.kubelet().target(pod, volume);
        match published {
            Err(KubeletError::Refused { code, message }) => {
                anyhow::ensure!(crate::files::mounts_at(&target)? == 0, "a mount was left");
                anyhow::ensure!(!target.exists(), "a directory was left");
                Ok((code, message))
            }
            Err(error) => Err(error.into()),
            Ok(_) => anyhow::bail!("the publish was not refused"),
        }
    }

    /// Unpublishes the pod's volumes.
    ///
    /// # Errors
    /// The driver refuses, or leaves something.
    pub async fn stop(&self, pod: &Pod) -> anyhow::Result<()> {
        Ok(self.kubelet().stop(pod).await?)
    }
}
