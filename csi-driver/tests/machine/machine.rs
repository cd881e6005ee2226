//! One machine: a kubelet directory, a run directory, kubelet's calls. Whatever a test leaves mounted is
//! taken away with it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;
use rustix::mount::{UnmountFlags, unmount};
use sotto_core::identity::{
    ClassName, Namespace, NodeName, PodName, PodUid, ServiceAccountName, WorkloadIdentity,
};
use sotto_csi::app::App;
use sotto_csi::cli::{Cli, Serve};
use sotto_csi::mountinfo::{self, Mount};
use sotto_csi::settings::Settings;
use sotto_csi::volume::{Mode, VolumeSpec};
use sotto_proto::csi::v1::node_client::NodeClient;
use sotto_proto::csi::v1::volume_capability::{AccessType, MountVolume};
use sotto_proto::csi::v1::{
    NodeGetVolumeStatsRequest, NodePublishVolumeRequest, NodeUnpublishVolumeRequest,
    VolumeCapability, VolumeCondition,
};
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

/// Longest wait for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A machine; its driver may be in this process or not.
pub(crate) struct Machine {
    directory: tempfile::TempDir,
    app: Option<App>,
}

impl Machine {
    /// A machine without a driver.
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir_in("/dev/shm").unwrap();
        for name in ["kubelet/pods", "kubelet/plugins_registry", "csi"] {
            std::fs::create_dir_all(directory.path().join(name)).unwrap();
        }
        Self { directory, app: None }
    }

    /// A machine with a driver in this process.
    pub(crate) async fn started() -> Self {
        Self::started_with(|_| {}).await
    }

    /// The same, with other settings.
    pub(crate) async fn started_with(change: impl FnOnce(&mut Settings)) -> Self {
        let mut machine = Self::new();
        machine.start(change).await;
        machine
    }

    /// Starts a driver in this process.
    pub(crate) async fn start(&mut self, change: impl FnOnce(&mut Settings)) {
        let mut settings = Settings::check(self.arguments(), Some(4_096)).unwrap();
        settings.agent_patience = Duration::from_millis(300);
        change(&mut settings);
        self.app = Some(App::start(settings).await.unwrap());
    }

    /// Ends the driver of this process in order.
    pub(crate) async fn stop(&mut self) {
        self.app.take().unwrap().leave().await.unwrap();
    }

    /// The driver of this process.
    pub(crate) fn app(&self) -> &App {
        self.app.as_ref().unwrap()
    }

    /// The command line of this machine's driver.
    pub(crate) fn command_line(&self) -> Vec<String> {
        let path = |name| self.path(name).display().to_string();
        vec![
            format!("--endpoint=unix://{}", path("csi/csi.sock")),
            format!("--registration-dir={}", path("kubelet/plugins_registry")),
            "--node-name=node-1".to_owned(),
            format!("--kubelet-dir={}", path("kubelet")),
            format!("--run-dir={}", path("run")),
            "--agent-uid=0".to_owned(),
            format!("--agent-gid={}", agent_gid()),
        ]
    }

    fn arguments(&self) -> Serve {
        let line = ["sotto-csi".to_owned()].into_iter().chain(self.command_line());
        Cli::try_parse_from(line).unwrap().serve.unwrap()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn run_dir(&self) -> PathBuf {
        self.path("run")
    }

    /// The target of pod `uid`.
    pub(crate) fn target(&self, uid: &str) -> PathBuf {
        self.path("kubelet/pods").join(uid).join("volumes/kubernetes.io~csi/secrets/mount")
    }

    pub(crate) async fn connect(&self, socket: &str) -> Channel {
        let path = format!("unix://{}", self.path(socket).display());
        Endpoint::from_shared(path).unwrap().connect().await.unwrap()
    }

    async fn node(&self) -> NodeClient<Channel> {
        NodeClient::new(self.connect("csi/csi.sock").await)
    }

    /// What kubelet sends for the volume `id` of pod `uid`; its part of the directories is made.
    pub(crate) fn request(&self, id: &str, uid: &str, tokens: &str) -> NodePublishVolumeRequest {
        let target = self.target(uid);
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        request(&target, id, uid, tokens)
    }

    pub(crate) async fn publish(&self, id: &str, uid: &str, tokens: &str) -> Result<(), Status> {
        self.send(self.request(id, uid, tokens)).await
    }

    pub(crate) async fn send(&self, request: NodePublishVolumeRequest) -> Result<(), Status> {
        self.node().await.node_publish_volume(request).await.map(drop)
    }

    async fn sidecar_node(&self) -> NodeClient<Channel> {
        NodeClient::new(self.connect("csi/sidecar.sock").await)
    }

    /// Where a volume of pod `uid` is mounted.
    pub(crate) fn target_of(&self, uid: &str, volume: &str) -> PathBuf {
        let pod = self.path("kubelet/pods").join(uid);
        pod.join("volumes/kubernetes.io~csi").join(volume).join("mount")
    }

    /// What kubelet sends for the two volumes of an injected pod: the same, but no token.
    pub(crate) fn injected(&self, id: &str, uid: &str, volume: &str) -> NodePublishVolumeRequest {
        let target = self.target_of(uid, volume);
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        let mut request = request(&target, id, uid, "");
        request.secrets.clear();
        if volume == "handoff" {
            request.volume_context.remove("secretProviderClass");
            request.volume_context.insert("sotto.dev/role".to_owned(), "handoff".to_owned());
        }
        request
    }

    pub(crate) async fn send_injected(
        &self,
        request: NodePublishVolumeRequest,
    ) -> Result<(), Status> {
        self.sidecar_node().await.node_publish_volume(request).await.map(drop)
    }

    /// Publishes a volume (`secrets` or `handoff`) of an injected pod.
    pub(crate) async fn inject(&self, id: &str, uid: &str, volume: &str) -> Result<(), Status> {
        self.send_injected(self.injected(id, uid, volume)).await
    }

    pub(crate) async fn eject(&self, id: &str, uid: &str, volume: &str) -> Result<(), Status> {
        let target_path = self.target_of(uid, volume).display().to_string();
        let request = NodeUnpublishVolumeRequest { volume_id: id.to_owned(), target_path };
        self.sidecar_node().await.node_unpublish_volume(request).await.map(drop)
    }

    pub(crate) async fn unpublish(&self, id: &str, uid: &str) -> Result<(), Status> {
        let target_path = self.target(uid).display().to_string();
        let request = NodeUnpublishVolumeRequest { volume_id: id.to_owned(), target_path };
        self.node().await.node_unpublish_volume(request).await.map(drop)
    }

    pub(crate) async fn condition(&self, id: &str, uid: &str) -> Result<VolumeCondition, Status> {
        let volume_path = self.target(uid).display().to_string();
        let request = NodeGetVolumeStatsRequest {
            volume_id: id.to_owned(),
            volume_path,
            ..NodeGetVolumeStatsRequest::default()
        };
        let answer = self.node().await.node_get_volume_stats(request).await?.into_inner();
        assert_eq!(answer.usage.len(), 1);
        Ok(answer.volume_condition.unwrap())
    }

    /// All mounts beneath this machine.
    pub(crate) fn mounts(&self) -> Vec<Mount> {
        let own = |mount: &Mount| mount.mount_point.starts_with(self.directory.path());
        mountinfo::read().unwrap().into_iter().filter(own).collect()
    }

    /// The journal's files.
    pub(crate) fn journal(&self) -> Vec<String> {
        let directory = std::fs::read_dir(self.path("run/volumes")).unwrap();
        directory.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// Who serves the volume of pod `uid`, as the mount itself says. Only for served mounts.
    pub(crate) async fn who_serves(&self, uid: &str) -> std::io::Result<String> {
        let file = self.target(uid).join("who");
        let read = tokio::task::spawn_blocking(move || std::fs::read_to_string(file));
        tokio::time::timeout(PATIENCE, read).await.expect("nobody serves the mount").unwrap()
    }
}

/// What kubelet sends for the volume `id` of pod `uid`, to be mounted at `target`.
pub(crate) fn request(
    target: &Path,
    id: &str,
    uid: &str,
    tokens: &str,
) -> NodePublishVolumeRequest {
    let context = [
        ("csi.storage.k8s.io/ephemeral", "true"),
        ("csi.storage.k8s.io/pod.name", "web-0"),
        ("csi.storage.k8s.io/pod.namespace", "payments"),
        ("csi.storage.k8s.io/pod.uid", uid),
        ("csi.storage.k8s.io/serviceAccount.name", "checkout"),
        ("secretProviderClass", "payments-db"),
    ];
    let mount = MountVolume { volume_mount_group: "2000".to_owned(), ..MountVolume::default() };
    NodePublishVolumeRequest {
        volume_id: id.to_owned(),
        target_path: target.display().to_string(),
        volume_capability: Some(VolumeCapability {
            access_mode: None,
            access_type: Some(AccessType::Mount(mount)),
        }),
        readonly: true,
        secrets: BTreeMap::from([(
            "csi.storage.k8s.io/serviceAccount.tokens".to_owned(),
            tokens.to_owned(),
        )]),
        volume_context: context.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
        ..NodePublishVolumeRequest::default()
    }
}

/// What the driver makes of the machine's requests for pod `uid`, but for the group.
pub(crate) fn spec(uid: &str) -> VolumeSpec {
    VolumeSpec {
        identity: WorkloadIdentity {
            namespace: Namespace::parse("payments").unwrap(),
            pod_name: PodName::parse("web-0").unwrap(),
            pod_uid: PodUid::parse(uid).unwrap(),
            service_account: ServiceAccountName::parse("checkout").unwrap(),
            node: NodeName::parse("node-1").unwrap(),
        },
        class: ClassName::parse("payments-db").unwrap(),
        mount_group: None,
        refresh_ms: None,
        max_stale_ms: None,
        optional: false,
        mode: Mode::Node,
        own_users: false,
        selinux_context: None,
    }
}

/// The group of a real agent, where this user namespace has it.
pub(crate) fn agent_gid() -> u32 {
    let map = std::fs::read_to_string("/proc/self/gid_map").unwrap();
    let line: Vec<u64> = map.split_whitespace().take(3).map(|n| n.parse().unwrap()).collect();
    if line[0] == 0 && line[2] > 65_532 { 65_532 } else { 0 }
}

impl Drop for Machine {
    fn drop(&mut self) {
        for mount in self.mounts() {
            let _ = unmount(
                Path::new(&mount.mount_point),
                UnmountFlags::FORCE | UnmountFlags::DETACH | UnmountFlags::NOFOLLOW,
            );
        }
    }
}

/// Waits, looking again and again, for something that no event tells of.
pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let looked = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, looked).await.is_ok(), "{what}");
}
