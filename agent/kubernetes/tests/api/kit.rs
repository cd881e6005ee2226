//! What the tests share: a server with a client, tasks that end with the test, conditions with a deadline.

use std::time::Duration;

use serde_json::{Value, json};
use sotto_core::identity::{
    ClassName, Namespace, NodeName, PodName, PodUid, ServiceAccountName, WorkloadIdentity,
};
use sotto_dev::apiserver::FakeApiServer;
use sotto_kubernetes::classes::{Classes, Settings};
use sotto_kubernetes::client::{Cluster, ConnectError, Source};
use sotto_kubernetes::events::{PodEvent, PodReference, Severity};
use tokio::task::JoinHandle;

pub(crate) const CLASSES: &str = "secretproviderclasses";
/// For whatever must happen; far more than it needs.
pub(crate) const LONG: Duration = Duration::from_secs(10);

/// A client for this kubeconfig.
pub(crate) async fn connect_with(kubeconfig: &str) -> Result<Cluster, ConnectError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config");
    std::fs::write(&path, kubeconfig).unwrap();
    Cluster::connect(&Source::Kubeconfig(path)).await
}

pub(crate) async fn cluster(server: &FakeApiServer) -> Cluster {
    connect_with(&server.kubeconfig()).await.unwrap()
}

/// A task that ends with the test.
pub(crate) struct Task(JoinHandle<()>);

impl Task {
    pub(crate) fn spawn(work: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(work))
    }

    /// Ends by itself.
    pub(crate) async fn ends(mut self) {
        tokio::time::timeout(LONG, &mut self.0).await.unwrap().unwrap();
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Short times, so that no test waits for a pause.
pub(crate) fn quick() -> Settings {
    Settings {
        shortest_pause: Duration::from_millis(5),
        longest_pause: Duration::from_millis(20),
        request_deadline: Duration::from_secs(5),
        ..Settings::default()
    }
}

/// A watch that has listed what the server has.
pub(crate) async fn watched(server: &FakeApiServer, settings: Settings) -> (Classes, Task) {
    let (classes, watch) = Classes::start(&cluster(server).await, settings);
    let task = Task::spawn(watch);
    classes.synced(LONG).await.unwrap();
    (classes, task)
}

pub(crate) fn class(name: &str, role: &str) -> Value {
    json!({"apiVersion": "secrets-store.csi.x-k8s.io/v1", "kind": "SecretProviderClass",
        "metadata": {"namespace": "shop", "name": name},
        "spec": {"provider": "openbao", "parameters": {"roleName": role}}})
}

pub(crate) fn shop() -> Namespace {
    Namespace::parse("shop").unwrap()
}

/// The role of a class in the cache.
pub(crate) fn role(classes: &Classes, name: &str) -> Option<String> {
    let class = classes.get(&shop(), &ClassName::parse(name).unwrap())?;
    class.parameters.get("roleName").cloned()
}

/// Waits for a condition that nothing announces.
pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(tokio::time::timeout(LONG, wait).await.is_ok(), "never: {what}");
}

pub(crate) fn node() -> NodeName {
    NodeName::parse("node-1").unwrap()
}

/// The pod that [`event`] is about.
pub(crate) fn web() -> WorkloadIdentity {
    let PodReference { namespace, name, uid } = event("").pod;
    let service_account = ServiceAccountName::parse("web").unwrap();
    WorkloadIdentity { namespace, pod_name: name, pod_uid: uid, service_account, node: node() }
}

pub(crate) fn event(message: &str) -> PodEvent {
    PodEvent {
        pod: PodReference {
            namespace: shop(),
            name: PodName::parse("web-0").unwrap(),
            uid: PodUid::parse("uid-0").unwrap(),
        },
        severity: Severity::Warning,
        reason: "SecretsUnavailable",
        message: message.to_owned(),
    }
}
