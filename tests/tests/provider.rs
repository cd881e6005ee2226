//! Providers of the Secrets Store CSI driver, end to end: a provider's files are served over FUSE. Its socket
//! belongs to root, and sotto-node is nobody: the driver connects.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};
use sotto_dev::kubelet::Pod;
use sotto_dev::provider::{Behaviour, DevProvider, ProviderFile};
use sotto_dev::store::DevStore;
use sotto_tests::files::{mode_and_owner, read, tree};
use sotto_tests::scene::{Scene, StoreSettings};
use sotto_tests::wait::until;

/// The audience of the node's main store too: the CSIDriver asks for a token of it.
const AUDIENCE: &str = "bao";

async fn scene() -> anyhow::Result<Scene<DevStore>> {
    let settings = StoreSettings::edited(|config| {
        let provider = json!({
            "name": "fake", "kind": "provider", "audience": AUDIENCE,
            "allow": {"namespaces": ["payments"]},
        });
        config["stores"].as_array_mut().unwrap().push(provider);
    });
    let scene = Scene::embedded_with(settings).await?;
    for (name, provider) in [("fake", "fake"), ("absent", "azure")] {
        let manifest = json!({
            "apiVersion": "secrets-store.csi.x-k8s.io/v1", "kind": "SecretProviderClass",
            "metadata": {"name": name, "namespace": "payments"},
            "spec": {"provider": provider, "parameters": {"objects": "a: b", "region": "eu-1"}},
        });
        std::fs::write(scene.node().path(&format!("classes/{name}.yaml")), manifest.to_string())?;
    }
    Ok(scene)
}

fn provider(scene: &Scene<DevStore>, behaviour: Behaviour) -> anyhow::Result<DevProvider> {
    use std::os::unix::fs::PermissionsExt;
    let provider = DevProvider::start(&scene.node().path("providers"), "fake", behaviour)?;
    // As providers leave it: root's.
    std::fs::set_permissions(provider.socket(), PermissionsExt::from_mode(0o755))?;
    Ok(provider)
}

fn pod(scene: &Scene<DevStore>) -> Pod {
    let mut pod = scene.pod("checkout-0", "checkout", "fake");
    let attributes = &mut pod.volumes[0].attributes;
    attributes.insert("sotto.dev/refresh".to_owned(), "1s".to_owned());
    pod.volumes[0].publish_secrets.insert("clientSecret".to_owned(), "s-1".to_owned());
    pod
}

fn files(password: &str, version: &str) -> Behaviour {
    Behaviour::Files(vec![
        ProviderFile::new("password", password, version),
        ProviderFile { mode: 0o600, ..ProviderFile::new("tls/key", "k", "1") },
    ])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_providers_files_are_served_and_turn_when_it_returns_others() -> anyhow::Result<()> {
    let scene = scene().await?;
    let provider = provider(&scene, files("p-1", "1"))?;
    let pod = pod(&scene);
    let target = scene.publish(&pod).await?;
    let seen = tree(target.join("..data/")).await?;
    assert_eq!(seen.get("password").map(String::as_str), Some("p-1"), "{seen:?}");
    assert_eq!(mode_and_owner(target.join("tls/key")).await?.0 & 0o777, 0o600);
    let asked = provider.seen();
    assert_eq!(asked[0].attributes["region"], "eu-1");
    assert_eq!(asked[0].attributes["csi.storage.k8s.io/pod.name"], "checkout-0");
    assert_eq!(asked[0].secrets, json!({"clientSecret": "s-1"}));
    assert_eq!(
        asked[0].tokens().as_object().map(|it| it.keys().cloned().collect()),
        Some(vec![AUDIENCE.to_owned()])
    );

    provider.behave(files("p-2", "2"));
    let file = target.join("password");
    until("the new value", || std::fs::read_to_string(&file).is_ok_and(|it| it == "p-2")).await?;
    assert_eq!(std::fs::read_link(target.join("..data"))?, Path::new("..2"));
    let last = provider.seen().pop().unwrap();
    assert_eq!(last.versions.get("password").map(String::as_str), Some("1"), "what it had");
    scene.stop(&pod).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_goes_away_is_bridged_and_its_return_noticed() -> anyhow::Result<()> {
    let scene = scene().await?;
    let first = provider(&scene, files("p-1", "1"))?;
    let pod = pod(&scene);
    let target = scene.publish(&pod).await?;
    drop(first);
    let status = target.join("..sotto/status.json");
    let stale = || std::fs::read_to_string(&status).is_ok_and(|it| it.contains("\"stale\""));
    until("the outage", stale).await?;
    assert_eq!(read(target.join("password")).await?, "p-1");
    scene.node().kill_worker()?;
    assert_eq!(read(target.join("password")).await?, "p-1", "another worker serves it on");
    let _second = provider(&scene, files("p-3", "3"))?;
    let file = target.join("password");
    until("the new value", || std::fs::read_to_string(&file).is_ok_and(|it| it == "p-3")).await?;
    scene.stop(&pod).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_provider_does_wrong_is_said_with_what_to_do() -> anyhow::Result<()> {
    let scene = scene().await?;
    let absent = scene.pod("checkout-1", "checkout", "absent");
    let text = scene.refusal(&absent).await?;
    assert!(text.contains("azure") && text.contains("kind provider"), "{text}");
    let pod = Arc::new(pod(&scene));
    let text = scene.refusal(&pod).await?;
    assert!(text.contains("provider fake is not installed on this node"), "{text}");
    assert!(text.contains("fake.sock") && text.contains("install it"), "{text}");
    let provider = provider(&scene, Behaviour::WithoutFiles)?;
    for (behaviour, said) in [
        (Behaviour::WithoutFiles, "writes files itself instead of returning them"),
        (Behaviour::Files(vec![ProviderFile::new("../x", "v", "1")]), "returns file 0 (../x)"),
        (Behaviour::Large(5 << 20), "larger than 4 MiB"),
        (Behaviour::ErrorCode("ProviderBinaryNotFound".to_owned()), "ProviderBinaryNotFound"),
        (
            Behaviour::Refuses(tonic::Code::PermissionDenied, "no".to_owned()),
            "refuses payments/checkout",
        ),
    ] {
        provider.behave(behaviour);
        let text = scene.refusal(&pod).await?;
        assert!(text.contains(said), "{said}: {text}");
        let token = |value: &Value| value.to_string().contains("eyJ");
        assert!(!token(&json!(text)) && !text.contains("s-1"), "{text}");
    }
    provider.behave(files("p-1", "1"));
    scene.publish(&pod).await?;
    scene.stop(&pod).await
}
