//! A node with Sotto on a real OpenBao server, and volumes published as kubelet would, timed or not.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Value, json};
use sotto_dev::bao::Bao;
use sotto_dev::kubelet::{Kubelet, Pod, volume_id};
use sotto_dev::test_store::StoreAccess;
use sotto_dev::test_store::TestStore as _;
use sotto_proto::csi::v1::NodePublishVolumeRequest;
use sotto_tests::scene::{Scene, StoreSettings};

use crate::machine::Processors;

/// Whose secrets they are.
pub(crate) const ACCOUNT: &str = "checkout";

/// A node.
pub(crate) struct Volumes {
    pub(crate) scene: Scene<Bao>,
}

/// A volume that is about to be published: all that kubelet does before its call is done.
pub(crate) struct Prepared {
    pub(crate) pod: Pod,
    pub(crate) target: PathBuf,
    pub(crate) request: NodePublishVolumeRequest,
}

impl Prepared {
    /// NodePublishVolume.
    pub(crate) async fn publish(self, kubelet: &Kubelet) -> anyhow::Result<Published> {
        kubelet.send(self.request).await?;
        Ok(Published { pod: self.pod, target: self.target })
    }
}

/// A volume that is there.
pub(crate) struct Published {
    pub(crate) pod: Pod,
    pub(crate) target: PathBuf,
}

impl Published {
    /// NodeUnpublishVolume.
    pub(crate) async fn unpublish(&self, kubelet: &Kubelet) -> anyhow::Result<()> {
        let id = volume_id(&self.pod, &self.pod.volumes[0]);
        Ok(kubelet.send_unpublish(&id, &self.target.display().to_string()).await?)
    }
}

impl Volumes {
    /// Starts store and node, pinned: the node's two processes to the sides' processor.
    pub(crate) async fn start(
        processors: Processors,
        edit: impl Fn(&mut Value) + Send + Sync + 'static,
    ) -> anyhow::Result<Self> {
        let volumes = Self { scene: Scene::openbao_with(StoreSettings::edited(edit)).await? };
        processors.pin_side(&volumes.pids())?;
        Ok(volumes)
    }

    /// sotto-node's supervisor, which has its worker below it, and sotto-csi.
    pub(crate) fn pids(&self) -> [u32; 2] {
        [self.scene.node().agent().pid(), self.scene.node().csi().pid()]
    }

    pub(crate) fn kubelet(&self) -> Arc<Kubelet> {
        Arc::clone(self.scene.node().kubelet())
    }

    pub(crate) fn store(&self) -> &StoreAccess {
        self.scene.store().access()
    }

    /// Writes a secret for each size, and a class that has them as files `s0`, `s1`, ...
    pub(crate) async fn class(&self, name: &str, sizes: &[usize]) -> anyhow::Result<()> {
        let mut objects = String::new();
        for (number, size) in sizes.iter().enumerate() {
            let path = secret(name, number);
            self.scene.write(&path, json!({ "password": "x".repeat(*size) })).await?;
            writeln!(
                objects,
                "- {{objectName: s{number}, secretPath: secret/data/{path}, secretKey: password}}"
            )?;
        }
        self.scene.class(name, &objects)
    }

    /// A volume of a new pod, refreshed so often, up to kubelet's call.
    pub(crate) fn prepare(&self, class: &str, refresh: &str) -> anyhow::Result<Prepared> {
        let mut pod = self.scene.pod("checkout-0", ACCOUNT, class);
        pod.volumes[0].attributes.insert("sotto.dev/refresh".to_owned(), refresh.to_owned());
        let kubelet = self.scene.kubelet();
        let target = kubelet.target(&pod, &pod.volumes[0]);
        if let Some(parent) = target.parent() {
            std::fs::create_dir_all(parent)?;
        }
        let request = kubelet.request(&pod, &pod.volumes[0]);
        Ok(Prepared { pod, target, request })
    }

    /// A volume that is there.
    pub(crate) async fn publish(&self, class: &str, refresh: &str) -> anyhow::Result<Published> {
        self.prepare(class, refresh)?.publish(self.scene.kubelet()).await
    }
}

/// Where a class's secret is, below `secret/`.
pub(crate) fn secret(class: &str, number: usize) -> String {
    format!("payments/{ACCOUNT}/{class}-{number}")
}
