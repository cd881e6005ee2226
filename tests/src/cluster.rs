//! A cluster as sotto-node sees it: an API server with the rights of the ClusterRole, and the node.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use serde_json::{Value, json};
use sotto_dev::apiserver::FakeApiServer;
use sotto_dev::store::DevStore;
use tempfile::TempDir;

use crate::scene::{CSI_DRIVER, Scene, StoreSettings};

const RBAC: &str = include_str!("../../deploy/base/rbac.yaml");
const CLASSES: &str = "secretproviderclasses";
/// What the class `db` of a [`Cluster`] has.
pub const OBJECTS: &str =
    "- {objectName: p, secretPath: secret/data/payments/checkout/db, secretKey: password}";

/// A cluster with its API server, a node, and the secret of [`OBJECTS`].
pub struct Cluster {
    /// Its API server.
    pub server: FakeApiServer,
    /// Its node.
    pub scene: Scene<DevStore>,
    _kubeconfig: TempDir,
}

impl Cluster {
    /// Starts one with this value at `payments/checkout/db` and a configuration changed by `edit`.
    ///
    /// # Errors
    /// What could not be started.
    pub async fn start(
        value: &str,
        edit: impl Fn(&mut Value) + Send + Sync + 'static,
    ) -> anyhow::Result<Self> {
        Self::of_node(value, false, edit).await
    }

    /// As [`Self::start`]; `sidecars` says whether its node takes pods with a sidecar.
    ///
    /// # Errors
    /// What could not be started.
    pub async fn of_node(
        value: &str,
        sidecars: bool,
        edit: impl Fn(&mut Value) + Send + Sync + 'static,
    ) -> anyhow::Result<Self> {
        let server = FakeApiServer::start().await?;
        let role: Value = serde_saphyr::from_str(RBAC.split("\n---").next().unwrap_or_default())?;
        server.allow_only(&role["rules"]);
        server.put("csidrivers", serde_saphyr::from_str(CSI_DRIVER)?);
        let kubeconfig = tempfile::tempdir()?;
        let file = kubeconfig.path().join("kubeconfig");
        std::fs::write(&file, server.kubeconfig())?;
        std::fs::set_permissions(kubeconfig.path(), PermissionsExt::from_mode(0o755))?;
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644))?;
        let settings = StoreSettings::edited(move |config| {
            config.as_object_mut().expect("a configuration is a map").remove("classes");
            config["kubernetes"] = json!({"kubeconfig": file});
            edit(config);
        });
        let scene = Scene::embedded_with(StoreSettings { sidecars, ..settings }).await?;
        scene.write("payments/checkout/db", json!({"password": value})).await?;
        let cluster = Self { server, scene, _kubeconfig: kubeconfig };
        cluster.class("db", OBJECTS, &[]).await?;
        Ok(cluster)
    }

    /// Applies a class, and waits until the node has seen it.
    ///
    /// # Errors
    /// The node doesn't see it.
    pub async fn class(
        &self,
        name: &str,
        objects: &str,
        more: &[(&str, &str)],
    ) -> anyhow::Result<()> {
        self.class_of("openbao", name, objects, more).await
    }

    /// As [`Self::class`], of another provider.
    ///
    /// # Errors
    /// The node doesn't see it.
    pub async fn class_of(
        &self,
        provider: &str,
        name: &str,
        objects: &str,
        more: &[(&str, &str)],
    ) -> anyhow::Result<()> {
        let mut parameters = json!({"roleName": "payments", "objects": objects});
        for (key, value) in more {
            parameters[key] = json!(value);
        }
        self.server.put(
            CLASSES,
            json!({
                "apiVersion": "secrets-store.csi.x-k8s.io/v1", "kind": "SecretProviderClass",
                "metadata": {"name": name, "namespace": "payments"},
                "spec": {"provider": provider, "parameters": parameters},
            }),
        );
        let unknown = format!("no SecretProviderClass {name} ");
        let pod = self.scene.pod(&format!("seen-{name}"), "checkout", name);
        let seen = async {
            loop {
                match self.scene.kubelet().publish(&pod, &pod.volumes[0]).await {
                    Err(error) if error.to_string().contains(&unknown) => {}
                    Err(error) if error.to_string().contains("not listed them yet") => {}
                    _seen => return self.scene.stop(&pod).await,
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(10), seen).await?
    }

    /// What kubelet writes as the event of a pod whose volume is refused.
    ///
    /// # Errors
    /// It was not refused.
    pub async fn failed_mount(
        &self,
        name: &str,
        account: &str,
        class: &str,
    ) -> anyhow::Result<String> {
        let pod = self.scene.pod(name, account, class);
        let refused = self.scene.kubelet().publish(&pod, &pod.volumes[0]).await;
        let error = refused.err().ok_or_else(|| anyhow::anyhow!("{name} was not refused"))?;
        Ok(error.event(&pod.volumes[0].name))
    }

    /// The message of sotto-node's event with this reason on a pod.
    ///
    /// # Panics
    /// It doesn't come.
    pub async fn event(&self, pod: &str, reason: &str) -> String {
        let of_pod = |server: &FakeApiServer| {
            let events = server.objects("events");
            let found = events
                .iter()
                .rfind(|event| event["reason"] == reason && event["involvedObject"]["name"] == pod);
            found.and_then(|event| event["message"].as_str().map(str::to_owned))
        };
        let what = format!("{reason} on {pod}");
        self.server.until(&what, |server| of_pod(server).is_some()).await;
        of_pod(&self.server).expect("it was just there")
    }
}
