//! sotto-node in a cluster: classes of the API server, events and statuses told to it, with the rights of
//! the ClusterRole and no others.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use sotto_dev::apiserver::{FakeApiServer, Fault};
use sotto_dev::issuer::Issuer;
use sotto_dev::store::{DevStore, Operation};
use sotto_dev::test_store::TestStore;
use sotto_tests::files;
use sotto_tests::metrics;
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
    let open = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let file = directory.path().join("kubeconfig");
    std::fs::write(&file, server.kubeconfig()).unwrap();
    open(directory.path(), 0o755);
    open(&file, 0o644);
    (directory, file)
}

async fn scene(server: &FakeApiServer) -> anyhow::Result<(Scene<DevStore>, TempDir)> {
    scene_with(server, |_| {}).await
}

async fn scene_with(
    server: &FakeApiServer,
    edit: impl Fn(&mut Value) + Send + Sync + 'static,
) -> anyhow::Result<(Scene<DevStore>, TempDir)> {
    let (directory, file) = kubeconfig(server);
    let settings = StoreSettings::edited(move |config| {
        config.as_object_mut().unwrap().remove("classes");
        config["kubernetes"] = json!({"kubeconfig": file});
        edit(config);
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
    let target = scene.kubelet().target(&pod, &pod.volumes[0]);
    assert_eq!(status["targetPath"].as_str(), target.to_str());
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

/// Like a real API server: good tokens of pods that it has.
fn review_tokens(server: &FakeApiServer, issuer: &Issuer) {
    let issuer = issuer.clone();
    server.answer_token_reviews(move |asked| {
        let spec = json!({"token": asked.token, "audiences": asked.audiences});
        issuer.review(&json!({"spec": spec}))["status"].clone()
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_pods_token_is_refused_where_the_store_wants_reviews() -> anyhow::Result<()> {
    for wanted in [true, false] {
        let server = api_server().await;
        server.put(CLASSES, class("db"));
        let review = if wanted { json!(["main"]) } else { json!([]) };
        let edit = move |config: &mut Value| config["tokens"]["review"] = review.clone();
        let (scene, _kubeconfig) = scene_with(&server, edit).await?;
        review_tokens(&server, scene.issuer());
        let pod = scene.pod("checkout-0", "checkout", "db");
        assert_eq!(files::read(scene.publish(&pod).await?.join("p")).await?, "p-1");
        let asked = server.requests_of("create", "tokenreviews").len();
        assert_eq!(asked > 0, wanted, "reviews are made where they are wanted, and nowhere else");
        scene.stop(&pod).await?;

        let deleted = scene.pod("checkout-1", "checkout", "db");
        scene.issuer().forget_pod(&deleted.uid);
        if wanted {
            let logins = scene.store().count(Operation::Login);
            let (code, text) = scene.refused(&deleted).await?;
            assert_eq!(code, tonic::Code::Unauthenticated, "{text}");
            assert!(text.contains("the API server refuses the token"), "{text}");
            assert_eq!(
                scene.store().count(Operation::Login),
                logins,
                "nothing was sent to the store"
            );
        } else {
            // What the review is for: the offline check can't know of it.
            scene.publish(&deleted).await?;
            scene.stop(&deleted).await?;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_wants_reviews_has_no_pod_without_one() -> anyhow::Result<()> {
    let server = api_server().await;
    server.put(CLASSES, class("db"));
    let edit = |config: &mut Value| config["tokens"]["review"] = json!(["main"]);
    let (scene, _kubeconfig) = scene_with(&server, edit).await?;
    review_tokens(&server, scene.issuer());
    server.fail("create", "tokenreviews", Fault::Status(503), 1);
    let pod = scene.pod("checkout-0", "checkout", "db");
    let (code, text) = scene.refused(&pod).await?;
    assert_eq!(code, tonic::Code::Unavailable, "{text}");
    assert!(text.contains("tokens.review"), "{text}");
    scene.publish(&pod).await?;
    scene.stop(&pod).await
}

/// What a container runtime does with a volume of a pod with `hostUsers: false`.
fn map_ids(source: &Path, target: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(target)?;
    let tool = concat!(env!("CARGO_MANIFEST_DIR"), "/tools/idmap-bind");
    let output = std::process::Command::new(tool).args([source, target]).output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    anyhow::ensure!(output.status.success(), "{said}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_with_host_users_false_has_a_mount_that_takes_mapped_ids() -> anyhow::Result<()> {
    let server = api_server().await;
    server.put(CLASSES, class("db"));
    let (scene, _kubeconfig) = scene(&server).await?;
    for own_users in [true, false] {
        let mut pod = scene.pod(&format!("checkout-{own_users}"), "checkout", "db");
        pod.fs_group = Some(2000);
        server.put(
            "pods",
            json!({
                "metadata": {"name": pod.name, "namespace": pod.namespace, "uid": pod.uid},
                "spec": {"hostUsers": !own_users},
            }),
        );
        let target = scene.publish(&pod).await?;
        let seen = scene.node().path("mapped");
        let mapped = map_ids(&target, &seen);
        if own_users {
            mapped?;
            // Group 2000 of the container.
            let groups = ["--reuid=101000", "--regid=102000", "--clear-groups", "cat"];
            let read =
                std::process::Command::new("setpriv").args(groups).arg(seen.join("p")).output()?;
            assert_eq!(String::from_utf8_lossy(&read.stdout), "p-1", "{read:?}");
            let stranger = ["--reuid=101000", "--regid=101000", "--clear-groups", "cat"];
            let read = std::process::Command::new("setpriv")
                .args(stranger)
                .arg(seen.join("p"))
                .output()?;
            assert!(!read.status.success(), "another group reads it: {read:?}");
            let is_open = |record: &&Value| record["action"] == "open";
            let opened = |records: &[Value]| records.iter().any(|record| is_open(&record));
            let audit = scene.node().audited("the open", SOON, opened).await?;
            let record = audit.iter().find(is_open);
            let has_no_ids = |it: &Value| it["uid"].is_null() && it["gid"].is_null();
            assert!(record.is_some_and(has_no_ids), "{audit:?}");
            scene.node().end_container(&seen)?;
        } else {
            let refused = mapped.unwrap_err().to_string();
            assert_eq!(refused.trim(), "mount_setattr: EINVAL");
        }
        scene.stop(&pod).await?;
    }
    Ok(())
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scrape_has_what_the_agent_and_the_driver_count_and_no_name_of_a_tenant()
-> anyhow::Result<()> {
    let server = api_server().await;
    server.put(CLASSES, class("db"));
    let free = metrics::free_address()?;
    let edit = move |config: &mut Value| config["metrics"]["address"] = json!(free.to_string());
    let (scene, _kubeconfig) = scene_with(&server, edit).await?;
    let pod = scene.pod("checkout-0", "checkout", "db");
    files::read(scene.publish(&pod).await?.join("p")).await?;
    let text = metrics::scrape(free).await?;
    for line in [
        "sotto_volumes 1.0",
        "sotto_driver_requests_total{request=\"prepare\",code=\"ok\"} 1",
        "sotto_opens_total{decision=\"allowed\"} 1",
        "sotto_prepare_seconds_count 1",
        "sotto_worker_restarts_total 0",
        "sotto_driver_volumes{state=\"served\"} 1.0",
        "sotto_driver_calls_total{method=\"NodePublishVolume\",code=\"OK\"} 1",
    ] {
        assert!(text.lines().any(|it| it == line), "{line} is not in\n{text}");
    }
    for name in ["checkout", "payments", "\"p\"", "p-1"] {
        assert!(!text.contains(name), "{name} is in\n{text}");
    }
    scene.node().kill_worker()?;
    let counted = async {
        let told = |text: String| text.lines().any(|line| line == "sotto_worker_restarts_total 1");
        while !metrics::scrape(free).await.is_ok_and(told) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), counted).await?;
    scene.stop(&pod).await
}
