//! sotto-node in a cluster: classes of the API server, events and statuses told to it, with the rights of
//! the ClusterRole and no others.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use sotto_dev::apiserver::FakeApiServer;
use sotto_dev::store::DevStore;
use sotto_dev::test_store::TestStore;
use sotto_tests::files;
use sotto_tests::scene::{CSI_DRIVER, Scene, StoreSettings};
use tempfile::TempDir;

const RBAC: &str = include_str!("../../deploy/base/rbac.yaml");
const CLASSES: &str = "secretproviderclasses";
const STATUSES: &str = "secretproviderclasspodstatuses";
const SOON: Duration = Duration::from_secs(10);

async fn api_server() -> FakeApiServer {
    let server = FakeApiServer::start().await.unwrap();
    let role: Value = serde_saphyr::from_str(RBAC.split("\n---").next().unwrap()).unwrap();
    server.allow_only(&role["rules"]);
    server.put("csidrivers", serde_saphyr::from_str(CSI_DRIVER).unwrap());
    server
}

/// A kubeconfig that the agent's own user can read.
fn kubeconfig(server: &FakeApiServer) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let open = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let file = directory.path().join("kubeconfig");
    std::fs::write(&file, server.kubeconfig()).unwrap();
    open(directory.path(), 0o755);
    open(&file, 0o644);
    (directory, file)
}

async fn scene(server: &FakeApiServer) -> anyhow::Result<(Scene<DevStore>, TempDir)> {
    let (directory, file) = kubeconfig(server);
    let settings = StoreSettings::edited(move |config| {
        config.as_object_mut().unwrap().remove("classes");
        config["kubernetes"] = json!({"kubeconfig": file});
    });
    let scene = Scene::embedded_with(settings).await?;
    scene.write("payments/checkout/db", json!({"password": "p-1"})).await?;
    Ok((scene, directory))
}

fn class(name: &str) -> Value {
    let objects =
        "- {objectName: p, secretPath: secret/data/payments/checkout/db, secretKey: password}";
    json!({
        "apiVersion": "secrets-store.csi.x-k8s.io/v1", "kind": "SecretProviderClass",
        "metadata": {"name": name, "namespace": "payments"},
        "spec": {"provider": "openbao", "parameters": {"roleName": "payments", "objects": objects}},
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_is_served_by_a_class_of_the_api_server_which_is_told_about_it() -> anyhow::Result<()>
{
    let server = api_server().await;
    let mut db = class("db");
    db["spec"]["secretObjects"] = json!([{"secretName": "copy", "type": "Opaque"}]);
    server.put(CLASSES, db);
    let (scene, _kubeconfig) = scene(&server).await?;
    let pod = scene.pod("checkout-0", "checkout", "db");
    assert_eq!(files::read(scene.publish(&pod).await?.join("p")).await?, "p-1");
    server.until("an event", |server| !server.objects("events").is_empty()).await;
    let event = server.objects("events")[0].clone();
    assert_eq!(event["reason"], "SecretObjectsIgnored");
    assert_eq!(event["involvedObject"]["name"], "checkout-0");
    server.until("a status", |server| !server.objects(STATUSES).is_empty()).await;
    let status = server.objects(STATUSES)[0]["status"].clone();
    assert_eq!(status["secretProviderClassName"], "db");
    assert_eq!(status["objects"].as_array().map(Vec::len), Some(1), "{status}");
    assert!(!server.requests().iter().any(|request| format!("{request:?}").contains("p-1")));
    let fits = |line: &str| line.contains("the CSIDriver object fits the configuration");
    scene.node().agent().line("the check of the CSIDriver", SOON, fits).await?;
    scene.stop(&pod).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_class_that_comes_later_is_found_and_an_outage_takes_none_away() -> anyhow::Result<()> {
    let server = api_server().await;
    let (scene, _kubeconfig) = scene(&server).await?;
    let pod = scene.pod("checkout-0", "checkout", "db");
    let refusal = scene.refusal(&pod).await?;
    assert!(refusal.contains("no SecretProviderClass db in namespace payments"), "{refusal}");
    server.put(CLASSES, class("db"));
    let published = async {
        while scene.publish(&pod).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(SOON, published).await?;
    server.go_dark().await;
    let other = scene.pod("checkout-1", "checkout", "db");
    assert_eq!(files::read(scene.publish(&other).await?.join("p")).await?, "p-1");
    scene.stop(&other).await?;
    scene.stop(&pod).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_an_outage_and_a_refusal_are_told_on_the_pod() -> anyhow::Result<()> {
    let server = api_server().await;
    server.put(CLASSES, class("db"));
    let (scene, _kubeconfig) = scene(&server).await?;
    let mut pod = scene.pod("checkout-0", "checkout", "db");
    let attributes = &mut pod.volumes[0].attributes;
    attributes.insert("sotto.dev/refresh".to_owned(), "1s".to_owned());
    scene.publish(&pod).await?;
    scene.write("payments/checkout/db", json!({"password": "p-2"})).await?;
    let shows_second = |server: &FakeApiServer| {
        let statuses = server.objects(STATUSES);
        let version =
            statuses.first().map(|status| status["status"]["objects"][0]["version"].clone());
        version.is_some_and(|version| version.as_str().is_some_and(|it| it.starts_with("2@")))
    };
    server.until("the new version in the status", shows_second).await;
    let told = |reason: &'static str| {
        move |server: &FakeApiServer| {
            server.objects("events").iter().any(|event| event["reason"] == reason)
        }
    };
    scene.store().go_dark();
    server.until("the outage", told("SecretsStale")).await;
    scene.store().come_back().await?;
    server.until("its end", told("SecretsFresh")).await;
    scene.store().remove_policy("pod").await?;
    server.until("the refusal", told("SecretRefused")).await;
    scene.stop(&pod).await
}
