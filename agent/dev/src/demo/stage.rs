//! Everything that the demo shows something of: store, issuer, machine, pod.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Map, Value, json};

use super::Mode;
use super::class::{CSI_DRIVER, Class, Example, Object, SIDECAR_DRIVER};
use crate::issuer::{Algorithm, DEMO_ISSUER, Issuer};
use crate::kubelet::{CsiDriver, Pod};
use crate::node::{Injected, Node, NodeSettings, StoreEntry, is_mapped};
use crate::pki::Authority;
use crate::random;
use crate::store::DevStore;
use crate::test_store::TestStore as _;

/// How long the pod's start may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long a sidecar's may.
pub(super) const SIDECAR_PATIENCE: Duration = Duration::from_secs(20);
/// Kubelet probes once a second; whoever looks at a demo has seen nothing by waiting so long.
const PROBE_PERIOD: Duration = Duration::from_millis(50);
/// Where the container sees the volume in node mode, below the machine's directory.
const SECRETS: &str = "mnt/secrets";

/// A delivered pod and all that is around it.
pub(super) struct Stage {
    pub(super) mode: Mode,
    pub(super) store: DevStore,
    pub(super) node: Node,
    pub(super) pod: Pod,
    pub(super) class: Class,
    /// In sidecar mode the pod with its sidecar.
    pub(super) injected: Option<Injected>,
    /// Where kubelet has the volume.
    pub(super) target: PathBuf,
    /// Where the container sees it.
    pub(super) secrets: PathBuf,
    /// What driver and node agent have in their environment, for the search of their memory.
    pub(super) canary: String,
    /// Who signs client certificates.
    pub(super) authority: Authority,
    /// Every value that the store has had.
    values: Mutex<Vec<String>>,
    /// Threads of this process that have read in the volume.
    threads: Mutex<Vec<u32>>,
}

impl Stage {
    /// Starts everything and the pod.
    pub(super) async fn start(mode: Mode) -> anyhow::Result<Self> {
        let example = Example::of(mode);
        let class = Class::of(&example)?;
        let authority = Authority::new("sotto-dev CA")?;
        let issuer = Issuer::with_keys(DEMO_ISSUER, &[Algorithm::Es256])?;
        let store = DevStore::start(&authority, &issuer).await?;
        let values = Mutex::new(seed(&store, &class));
        let entry = StoreEntry::main(store.access());
        let driver = CsiDriver::parse(CSI_DRIVER)?;
        let mut settings = NodeSettings::new(driver, &issuer, entry, example.text);
        let canary = format!("canary-{}", random::hex::<16>());
        if mode == Mode::Sidecar {
            settings.sidecar_driver = Some(CsiDriver::parse(SIDECAR_DRIVER)?);
            settings.canary = Some(canary.clone());
            settings.probe_period = PROBE_PERIOD;
        }
        let node = Node::start(settings).await?;
        let mut stage = Self {
            mode,
            pod: representable(Pod::parse(example.text)?),
            store,
            node,
            class,
            injected: None,
            target: PathBuf::new(),
            secrets: PathBuf::new(),
            canary,
            authority,
            values,
            threads: Mutex::default(),
        };
        let delivered = match mode {
            Mode::Node => stage.deliver().await,
            Mode::Sidecar => stage.deliver_to_sidecar(&example).await,
        };
        delivered.map_err(|error| {
            let (csi, agent) = (stage.node.csi().log().tail(), stage.node.agent().log().tail());
            error.context(format!(
                "the pod isn't started\nThe last lines of sotto-csi:\n{csi}and of sotto-node:\n{agent}"
            ))
        })?;
        Ok(stage)
    }

    async fn deliver(&mut self) -> anyhow::Result<()> {
        let targets = self.node.kubelet().start(&self.pod, PATIENCE).await?;
        self.target = targets.into_iter().next().context("the example's pod has a volume")?;
        self.secrets = self.node.show_in_container(&self.target, SECRETS)?;
        Ok(())
    }

    /// The webhook's part first, then kubelet's.
    async fn deliver_to_sidecar(&mut self, example: &Example) -> anyhow::Result<()> {
        // The example's interval is for a cluster.
        let manifest = example.text.replace("sotto.dev/refresh: 30s", "sotto.dev/refresh: 1s");
        let pod = representable(Pod::parse(&self.node.inject(&manifest).await?)?);
        let mut injected = self.start_injected(&pod).await?;
        injected.ready(&self.node, SIDECAR_PATIENCE).await?;
        self.secrets = injected.show_secrets(&self.node)?;
        self.target = self.node.kubelet().target(&injected.pod, injected.secrets()?);
        self.pod = injected.pod.clone();
        self.injected = Some(injected);
        Ok(())
    }

    /// A pod whose sidecar has been started.
    pub(super) async fn start_injected(&self, pod: &Pod) -> anyhow::Result<Injected> {
        let client = self.authority.client(&format!("{}.{}.pod", pod.name, pod.namespace))?;
        let mut injected = self.node.injected(pod, &client)?;
        injected.publish(&self.node, PATIENCE).await?;
        injected.start_sidecar(&self.node).await?;
        Ok(injected)
    }

    /// The object that gets a new value while the pod lives.
    pub(super) fn changing(&self) -> &Object {
        let changing = self.class.objects.iter().find(|it| it.secret_key == "password");
        changing.or(self.class.objects.first()).expect("the example's class has objects")
    }

    /// Gives the secrets of the class new values.
    pub(super) fn write_new_values(&self) {
        let new = seed(&self.store, &self.class);
        self.values.lock().unwrap_or_else(PoisonError::into_inner).extend(new);
    }

    /// Every value that the store has had.
    pub(super) fn values(&self) -> Vec<String> {
        self.values.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A thread of this process has read in the volume, to see how far things are.
    pub(super) fn looked(&self, thread: u32) {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
    }

    /// Whether an audit record is of such a thread.
    pub(super) fn has_looked(&self, record: &Value) -> bool {
        let threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        record["pid"].as_u64().is_some_and(|pid| threads.iter().any(|it| u64::from(*it) == pid))
    }

    /// Ends the pod, then everything; says what could not be ended.
    pub(super) async fn end(mut self) -> anyhow::Result<()> {
        let root = self.node.path("");
        match &mut self.injected {
            Some(injected) => injected.end(&self.node).await?,
            None => {
                self.node.end_container(&self.secrets)?;
                self.node.kubelet().stop(&self.pod).await?;
            }
        }
        self.node.end().await?;
        anyhow::ensure!(!root.exists(), "{} is left behind", root.display());
        Ok(())
    }
}

/// Without its fsGroup where this user namespace has no such group: the kernel refuses to change a directory whose
/// group it can't name, and so each rotation.
fn representable(mut pod: Pod) -> Pod {
    pod.fs_group = pod.fs_group.filter(|group| is_mapped(*group));
    pod
}

/// Gives every secret of the class a value that nobody can take for a real one; returns them.
fn seed(store: &DevStore, class: &Class) -> Vec<String> {
    let mut secrets: std::collections::BTreeMap<&str, Map<String, Value>> = Default::default();
    let mut values = Vec::new();
    for object in &class.objects {
        let path = object.secret_path.strip_prefix("secret/data/").unwrap_or(&object.secret_path);
        let key = object.secret_key.as_str();
        let (unique, value) = fake(key);
        values.push(unique);
        secrets.entry(path).or_default().insert(key.to_owned(), json!(value));
    }
    for (path, data) in secrets {
        store.seed(path, data);
    }
    values
}

/// A value, and the part of it that is in no other.
fn fake(key: &str) -> (String, String) {
    let value = random::hex::<12>();
    let text = match key {
        "certificate" | "key" => {
            let kind = key.to_uppercase();
            format!("-----BEGIN FAKE {kind}-----\n{value}\n-----END FAKE {kind}-----\n")
        }
        key => format!("fake-{key}-{value}"),
    };
    (value, text)
}
