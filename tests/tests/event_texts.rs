//! What a pod's events say when its secrets don't come: each says what is wrong and what to do.
//!
//! A refused mount is told by kubelet, in the driver's words; what happens to a volume that is mounted is told
//! by sotto-node, as an event of its own. Both are read here, in a cluster.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

#[path = "event_texts/mounted.rs"]
mod mounted;
#[path = "event_texts/refused.rs"]
mod refused;

use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};
use sotto_dev::apiserver::FakeApiServer;
use sotto_dev::store::DevStore;
use sotto_tests::scene::{CSI_DRIVER, Scene, StoreSettings};
use tempfile::TempDir;

const RBAC: &str = include_str!("../../deploy/base/rbac.yaml");
const CLASSES: &str = "secretproviderclasses";
/// Stands in the secrets, and so must stand nowhere else.
const CANARY: &str = "canary-value-7d2e";
/// Longest message that an event keeps.
const MOST_OF_AN_EVENT: usize = 1024;
const OBJECTS: &str =
    "- {objectName: p, secretPath: secret/data/payments/checkout/db, secretKey: password}";

/// A text that says what is wrong and what to do, and no value, no token, no more than an event keeps.
#[track_caller]
fn assert_says(case: &str, text: &str, wrong: &[&str], to_do: &[&str]) {
    for (kind, words) in [("what is wrong", wrong), ("what to do", to_do)] {
        assert!(!words.is_empty(), "{case}: the table has no words for {kind}");
        for word in words {
            assert!(text.contains(word), "{case}: {kind} is not said ({word:?}): {text}");
        }
    }
    assert!(!text.contains(CANARY), "{case}: a value is in: {text}");
    assert!(!text.contains("eyJ"), "{case}: a token is in: {text}");
    assert!(text.len() <= MOST_OF_AN_EVENT, "{case}: {} bytes: {text}", text.len());
}

#[test]
#[should_panic(expected = "what to do is not said")]
fn a_text_that_does_not_say_what_to_do_is_detected() {
    let text = "store main refuses payments/other: policy denies secret/data/x";
    assert_says("policy refusal", text, &["policy denies"], &["allow it"]);
}

#[test]
#[should_panic(expected = "a value is in")]
fn a_text_that_carries_a_value_is_detected() {
    let text = format!("the value {CANARY} is wrong; correct it");
    assert_says("value", &text, &["is wrong"], &["correct it"]);
}

/// A cluster with its API server, a node, and the secret of [`OBJECTS`].
struct Cluster {
    server: FakeApiServer,
    scene: Scene<DevStore>,
    _kubeconfig: TempDir,
}

impl Cluster {
    async fn start(edit: impl Fn(&mut Value) + Send + Sync + 'static) -> anyhow::Result<Self> {
        let server = FakeApiServer::start().await?;
        let role: Value = serde_saphyr::from_str(RBAC.split("\n---").next().unwrap())?;
        server.allow_only(&role["rules"]);
        server.put("csidrivers", serde_saphyr::from_str(CSI_DRIVER)?);
        let kubeconfig = tempfile::tempdir()?;
        let file = kubeconfig.path().join("kubeconfig");
        std::fs::write(&file, server.kubeconfig())?;
        std::fs::set_permissions(kubeconfig.path(), PermissionsExt::from_mode(0o755))?;
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644))?;
        let settings = StoreSettings::edited(move |config| {
            config.as_object_mut().unwrap().remove("classes");
            config["kubernetes"] = json!({"kubeconfig": file});
            edit(config);
        });
        let scene = Scene::embedded_with(settings).await?;
        scene.write("payments/checkout/db", json!({"password": CANARY})).await?;
        let cluster = Self { server, scene, _kubeconfig: kubeconfig };
        cluster.class("db", OBJECTS, &[]).await?;
        Ok(cluster)
    }

    /// Applies a class, and waits until the node has seen it.
    async fn class(&self, name: &str, objects: &str, more: &[(&str, &str)]) -> anyhow::Result<()> {
        self.class_of("openbao", name, objects, more).await
    }

    async fn class_of(
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
        tokio::time::timeout(std::time::Duration::from_secs(10), seen).await?
    }

    /// What kubelet writes as the event of a pod whose volume is refused.
    async fn failed_mount(&self, name: &str, account: &str, class: &str) -> anyhow::Result<String> {
        let pod = self.scene.pod(name, account, class);
        let refused = self.scene.kubelet().publish(&pod, &pod.volumes[0]).await;
        let error = refused.err().ok_or_else(|| anyhow::anyhow!("{name} was not refused"))?;
        Ok(error.event(&pod.volumes[0].name))
    }

    /// The message of sotto-node's event with this reason on a pod.
    async fn event(&self, pod: &str, reason: &str) -> String {
        let of_pod = |server: &FakeApiServer| {
            let events = server.objects("events");
            let found = events
                .iter()
                .rfind(|event| event["reason"] == reason && event["involvedObject"]["name"] == pod);
            found.and_then(|event| event["message"].as_str().map(str::to_owned))
        };
        let what = format!("{reason} on {pod}");
        self.server.until(&what, |server| of_pod(server).is_some()).await;
        of_pod(&self.server).unwrap()
    }
}
