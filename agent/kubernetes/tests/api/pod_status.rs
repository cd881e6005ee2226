//! Statuses over the wire.

use std::time::Duration;

use serde_json::json;
use sotto_core::identity::{ClassName, PodName, PodUid};
use sotto_dev::apiserver::{FakeApiServer, Fault};
use sotto_kubernetes::pod_status::{ObjectVersion, PodStatus, PodStatuses, Settings, StatusKey};

use crate::kit::{Task, cluster, node, shop, until};

const STATUSES: &str = "secretproviderclasspodstatuses";

fn status(version: &str) -> PodStatus {
    PodStatus {
        key: StatusKey {
            namespace: shop(),
            pod_name: PodName::parse("web-0").unwrap(),
            class: ClassName::parse("db").unwrap(),
        },
        pod_uid: PodUid::parse("uid-0").unwrap(),
        mounted: true,
        target_path: "/var/lib/kubelet/pods/uid-0/volumes/kubernetes.io~csi/s/mount".to_owned(),
        objects: vec![ObjectVersion { id: "db".to_owned(), version: version.to_owned() }],
    }
}

async fn started(server: &FakeApiServer) -> (PodStatuses, Task) {
    let settings = Settings {
        shortest_pause: Duration::from_millis(5),
        longest_pause: Duration::from_millis(20),
        ..Settings::default()
    };
    let (statuses, writer) = PodStatuses::start(&cluster(server).await, node(), settings);
    (statuses, Task::spawn(writer))
}

fn version_written(server: &FakeApiServer) -> Option<String> {
    let objects = server.objects(STATUSES);
    let version = objects.first()?["status"]["objects"][0]["version"].as_str()?;
    Some(version.to_owned())
}

#[tokio::test]
async fn a_status_is_applied_and_changed_in_place() {
    let server = FakeApiServer::start().await.unwrap();
    let (statuses, _task) = started(&server).await;
    statuses.write(status("1"));
    server.until("a status", |it| version_written(it).as_deref() == Some("1")).await;
    statuses.write(status("2"));
    server.until("its change", |it| version_written(it).as_deref() == Some("2")).await;
    let written = server.objects(STATUSES).remove(0);
    assert_eq!(written["metadata"]["name"], "web-0-shop-db");
    assert_eq!(written["metadata"]["ownerReferences"][0]["uid"], "uid-0");
    assert_eq!(written["status"]["mounted"], json!(true));
    let request = server.requests_of("patch", STATUSES).remove(0);
    assert_eq!(request.content_type, "application/apply-patch+yaml");
    assert_eq!(request.query["fieldManager"], "sotto-node");
    assert_eq!(request.query["force"], "true");
}

#[tokio::test]
async fn a_republish_that_changes_nothing_writes_nothing() {
    let server = FakeApiServer::start().await.unwrap();
    let (statuses, _task) = started(&server).await;
    statuses.write(status("1"));
    until("it is written", || statuses.counts().written == 1).await;
    statuses.write(status("1"));
    assert_eq!(statuses.counts().unchanged, 1);
    statuses.forget(&status("1").key);
    statuses.write(status("1"));
    until("it is written anew", || statuses.counts().written == 2).await;
    assert_eq!(server.requests_of("patch", STATUSES).len(), 2);
}

#[tokio::test]
async fn an_outage_ends_with_the_latest_status_written_once() {
    let server = FakeApiServer::absent().await.unwrap();
    let (statuses, _task) = started(&server).await;
    for version in ["1", "2", "3"] {
        statuses.write(status(version));
    }
    server.come_back().await.unwrap();
    server.fail("patch", STATUSES, Fault::Status(500), 1);
    server.fail("patch", STATUSES, Fault::Disconnect, 1);
    server.until("a status", |it| version_written(it).is_some()).await;
    until("it is counted", || statuses.counts().written == 1).await;
    assert_eq!(version_written(&server).as_deref(), Some("3"));
}

#[tokio::test]
async fn a_status_that_is_refused_blocks_no_other() {
    let server = FakeApiServer::start().await.unwrap();
    server.fail("patch", STATUSES, Fault::Status(403), 1);
    let (statuses, _task) = started(&server).await;
    statuses.write(status("1"));
    until("it is given up", || statuses.counts().failed == 1).await;
    let mut other = status("1");
    other.key.class = ClassName::parse("other").unwrap();
    statuses.write(other);
    server.until("the other", |it| it.objects(STATUSES).len() == 1).await;
}

#[tokio::test]
async fn statuses_are_never_read() {
    let server = FakeApiServer::start().await.unwrap();
    let (statuses, _task) = started(&server).await;
    statuses.write(status("1"));
    until("it is written", || statuses.counts().written == 1).await;
    assert!(server.requests().iter().all(|one| one.verb == "patch"), "{:?}", server.requests());
}
