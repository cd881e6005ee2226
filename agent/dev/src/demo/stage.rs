//! Everything that the demo shows something of: store, issuer, machine, pod.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Map, Value, json};

use super::class::{CSI_DRIVER, Class, MANIFEST, Object};
use crate::issuer::{Algorithm, DEMO_ISSUER, Issuer};
use crate::kubelet::{CsiDriver, Pod};
use crate::node::{Node, NodeSettings, StoreEntry};
use crate::pki::Authority;
use crate::random;
use crate::store::DevStore;
use crate::test_store::TestStore as _;

/// How long the pod's start may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// Where the container sees the volume, below the machine's directory.
const SECRETS: &str = "mnt/secrets";

/// A delivered pod and all that is around it.
pub(super) struct Stage {
    pub(super) store: DevStore,
    pub(super) node: Node,
    pub(super) pod: Pod,
    pub(super) class: Class,
    /// Where kubelet has the volume.
    pub(super) target: PathBuf,
    /// Where the container sees it.
    pub(super) secrets: PathBuf,
}

impl Stage {
    /// Starts everything and the pod.
    pub(super) async fn start() -> anyhow::Result<Self> {
        let class = Class::of_manifest()?;
        let pod = Pod::parse(MANIFEST)?;
        let driver = CsiDriver::parse(CSI_DRIVER)?;
        let authority = Authority::new("sotto-dev CA")?;
        let issuer = Issuer::with_keys(DEMO_ISSUER, &[Algorithm::Es256])?;
        let store = DevStore::start(&authority, &issuer).await?;
        seed(&store, &class);
        let entry = StoreEntry::main(store.access());
        let node = Node::start(NodeSettings::new(driver, &issuer, entry, MANIFEST)).await?;
        let started = node.kubelet().start(&pod, PATIENCE).await;
        let targets = started.map_err(|error| {
            let (csi, agent) = (node.csi().log().tail(), node.agent().log().tail());
            anyhow::anyhow!(
                "the pod's volume is not mounted: {error}\nThe last lines of sotto-csi:\n{csi}\
                 and of sotto-node:\n{agent}"
            )
        })?;
        let target = targets.into_iter().next().context("the example's pod has a volume")?;
        let secrets = node.show_in_container(&target, SECRETS)?;
        Ok(Self { store, node, pod, class, target, secrets })
    }

    /// The object that gets a new value while the pod lives.
    pub(super) fn changing(&self) -> &Object {
        let changing = self.class.objects.iter().find(|it| it.secret_key == "password");
        changing.or(self.class.objects.first()).expect("the example's class has objects")
    }

    /// Gives the secrets of the class new values.
    pub(super) fn write_new_values(&self) {
        seed(&self.store, &self.class);
    }

    /// Ends the pod, then everything; says what could not be ended.
    pub(super) async fn end(self) -> anyhow::Result<()> {
        let root = self.node.path("");
        self.node.end_container(&self.secrets)?;
        self.node.kubelet().stop(&self.pod).await?;
        self.node.end().await?;
        anyhow::ensure!(!root.exists(), "{} is left behind", root.display());
        Ok(())
    }
}

/// Gives every secret of the class a value that nobody can take for a real one.
fn seed(store: &DevStore, class: &Class) {
    let mut secrets: std::collections::BTreeMap<&str, Map<String, Value>> = Default::default();
    for object in &class.objects {
        let path = object.secret_path.strip_prefix("secret/data/").unwrap_or(&object.secret_path);
        let key = object.secret_key.as_str();
        secrets.entry(path).or_default().insert(key.to_owned(), json!(fake(key)));
    }
    for (path, data) in secrets {
        store.seed(path, data);
    }
}

fn fake(key: &str) -> String {
    let value = random::hex::<6>();
    match key {
        "certificate" | "key" => {
            let kind = key.to_uppercase();
            format!("-----BEGIN FAKE {kind}-----\n{value}\n-----END FAKE {kind}-----\n")
        }
        key => format!("fake-{key}-{value}"),
    }
}
