//! The machine and its kubelet, with the real driver and agent. Needs `make build` and the right to mount.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use sotto_dev::issuer::{Algorithm, DEMO_ISSUER, Issuer};
use sotto_dev::kubelet::{CsiDriver, KubeletError, Pod};
use sotto_dev::node::{Node, NodeSettings, StoreEntry};
use sotto_dev::pki::Authority;
use sotto_dev::store::{DevStore, Operation};
use sotto_dev::test_store::TestStore as _;

const EXAMPLE: &str = include_str!("../../../deploy/examples/payments.yaml");
const DRIVER: &str = include_str!("../../../deploy/base/csidriver.yaml");
const PATIENCE: Duration = Duration::from_secs(20);

async fn machine() -> (Node, Pod, DevStore) {
    let authority = Authority::new("ca").unwrap();
    let issuer = Issuer::with_keys(DEMO_ISSUER, &[Algorithm::Es256]).unwrap();
    let store = DevStore::start(&authority, &issuer).await.unwrap();
    store.write("payments/checkout/db", json!({"username": "u", "password": "p"})).await.unwrap();
    store.write("payments/checkout/tls", json!({"certificate": "c", "key": "k"})).await.unwrap();
    let driver = CsiDriver::parse(DRIVER).unwrap();
    let entry = StoreEntry::main(store.access());
    let node = Node::start(NodeSettings::new(driver, &issuer, entry, EXAMPLE)).await.unwrap();
    (node, Pod::parse(EXAMPLE).unwrap(), store)
}

/// On a thread of its own: a read that nobody answers must not stop the test's runtime.
async fn read(file: &Path) -> String {
    let file = file.to_owned();
    let read = tokio::task::spawn_blocking(move || std::fs::read_to_string(file).unwrap());
    tokio::time::timeout(PATIENCE, read).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_pod_is_started_and_stopped_and_nothing_is_left() {
    let (node, pod, store) = machine().await;
    let target = node.kubelet().start(&pod, PATIENCE).await.unwrap().remove(0);
    assert_eq!(read(&target.join("db-password")).await, "p");
    let opened = |records: &[serde_json::Value]| {
        records.iter().any(|it| it["action"] == "open" && it["object"] == "db-password")
    };
    node.audited("the open", PATIENCE, opened).await.unwrap();
    node.kubelet().stop(&pod).await.unwrap();
    assert_eq!(store.count(Operation::Revoke), 1, "the store token is revoked");
    let root = node.path("");
    node.end().await.unwrap();
    assert!(!root.exists());
}

#[tokio::test]
async fn a_token_of_another_node_is_refused_and_leaves_no_directory() {
    let (node, pod, store) = machine().await;
    node.kubelet().mint_with(Arc::new(|mut spec| {
        spec.node_name = "node-2".to_owned();
        spec
    }));
    let error = node.kubelet().publish(&pod, &pod.volumes[0]).await.unwrap_err();
    assert!(matches!(&error, KubeletError::Refused { .. }), "{error:?}");
    assert!(!error.is_uncertain(), "{error:?}");
    assert!(!node.path("kubelet/pods").join(&pod.uid).exists());
    assert_eq!(store.requests().len(), 0, "nothing was sent to the store");
    node.end().await.unwrap();
}

#[tokio::test]
async fn a_restarted_agent_and_a_restarted_driver_serve_the_next_pod() {
    let (mut node, pod, _store) = machine().await;
    node.restart_agent().await.unwrap();
    node.restart_csi().await.unwrap();
    let target = node.kubelet().start(&pod, PATIENCE).await.unwrap().remove(0);
    assert_eq!(read(&target.join("tls/server.key")).await, "k");
    node.kubelet().stop(&pod).await.unwrap();
    node.end().await.unwrap();
}

#[tokio::test]
async fn driver_and_agent_are_killed_one_after_the_other_and_the_same_mount_is_read_on() {
    let (mut node, pod, _store) = machine().await;
    let target = node.kubelet().start(&pod, PATIENCE).await.unwrap().remove(0);
    let (file, directory) = (target.join("db-password"), std::fs::File::open(&target).unwrap());
    assert_eq!(read(&file).await, "p");
    for _ in 0..2 {
        node.restart_csi().await.unwrap();
        let back = node.csi().log().until(|lines| {
            lines.iter().any(|line| line.text.contains("the connection is back")).then_some(())
        });
        tokio::time::timeout(PATIENCE, back).await.unwrap();
        assert_eq!(read(&file).await, "p");
        // Kubelet has sent no token to this driver.
        node.restart_agent().await.unwrap();
        assert_eq!(read(&file).await, "p");
        let now = std::fs::File::open(&target).unwrap();
        let ids = [now, directory.try_clone().unwrap()].map(|it| it.metadata().unwrap().dev());
        assert_eq!(ids[0], ids[1], "it is another mount");
    }
    drop(directory);
    node.kubelet().stop(&pod).await.unwrap();
    node.end().await.unwrap();
}

#[tokio::test]
async fn a_mount_that_is_left_is_reported_and_taken_away() {
    let (node, pod, _store) = machine().await;
    node.kubelet().start(&pod, PATIENCE).await.unwrap();
    let root = node.path("");
    let error = node.end().await.unwrap_err();
    assert!(error.to_string().contains(&pod.uid), "{error}");
    assert!(!root.exists());
}
