//! Whose token is believed. Each wrong token is refused before anything is sent to the store, with its own
//! reason in the pod's event and in the audit log.

use std::time::{Duration, SystemTime};

use serde_json::json;
use sotto_dev::issuer::{PodTokenSpec, Signature};
use sotto_dev::store::{DevStore, Operation};
use sotto_tests::files;
use sotto_tests::scene::Scene;
use tonic::Code;

const SOON: Duration = Duration::from_secs(10);
const OBJECTS: &str =
    "- {objectName: p, secretPath: secret/data/payments/checkout/db, secretKey: password}";

async fn scene() -> anyhow::Result<Scene<DevStore>> {
    let scene = Scene::embedded().await?;
    scene.write("payments/checkout/db", json!({"password": "p-1"})).await?;
    scene.class("db", OBJECTS)?;
    Ok(scene)
}

type Wrong = (&'static str, fn(PodTokenSpec) -> PodTokenSpec, &'static str);

fn long_ago() -> SystemTime {
    SystemTime::now() - Duration::from_secs(3_600)
}

const WRONG: &[Wrong] = &[
    ("audience", |token| token.claim("/aud", json!(["other"])), "audience"),
    ("no-audience", |token| token.without_claim("/aud"), "aud"),
    ("numeric-audience", |token| token.claim("/aud", json!(123)), "aud"),
    ("issuer", |token| token.claim("/iss", json!("https://other.invalid")), "issuer"),
    (
        "issuer-array",
        |token| token.claim("/iss", json!(["https://issuer.sotto-dev.invalid"])),
        "iss",
    ),
    ("forged", |token| token.signature(Signature::Forged), "signature"),
    ("tampered", |token| token.signature(Signature::Tampered), "signature"),
    ("unsigned", |token| token.signature(Signature::Absent), ""),
    ("hmac", |token| token.signature(Signature::HmacOfPublicKey), ""),
    ("expired", |token| token.issued_at(long_ago()), "expired"),
    (
        "future",
        |token| token.issued_at(SystemTime::now() + Duration::from_secs(900)),
        "not valid before",
    ),
    ("critical", |token| token.header("crit", json!(["x"])), "crit"),
    ("unknown-key", |token| token.header("kid", json!("nobody")), "key"),
    ("pod-uid", |token| token.claim("/kubernetes.io/pod/uid", json!("another")), "pod"),
    ("pod-name", |token| token.claim("/kubernetes.io/pod/name", json!("another")), "pod"),
    ("namespace", |token| token.claim("/kubernetes.io/namespace", json!("another")), "namespace"),
    (
        "account",
        |token| token.claim("/kubernetes.io/serviceaccount/name", json!("another")),
        "service account",
    ),
    ("node", |token| token.claim("/kubernetes.io/node/name", json!("another")), "node"),
    ("no-node", |token| token.without_claim("/kubernetes.io/node"), "node"),
];

/// Good tokens, but not this pod's on this node.
const ANOTHER_PODS: &[&str] = &["pod-uid", "pod-name", "namespace", "account", "node"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_wrong_token_is_refused_before_the_store_is_asked() -> anyhow::Result<()> {
    let scene = scene().await?;
    let before = scene.store().count(Operation::Login) + scene.store().count(Operation::Read);
    for (name, wrong, words) in WRONG {
        scene.kubelet().mint_with(std::sync::Arc::new(*wrong));
        let pod = scene.pod(&format!("{name}-0"), "checkout", "db");
        let (code, message) = scene.refused(&pod).await?;
        let expected = if ANOTHER_PODS.contains(name) {
            Code::PermissionDenied
        } else {
            Code::Unauthenticated
        };
        assert_eq!(code, expected, "{name}: {message}");
        assert!(message.to_lowercase().contains(words), "{name}: {message}");
        let denied = |records: &[serde_json::Value]| {
            records.iter().any(|record| {
                record["pod_uid"] == pod.uid.as_str()
                    && record["action"] == "verify-token"
                    && record["decision"] == "denied"
            })
        };
        scene.node().audited("the refusal", SOON, denied).await?;
    }
    let after = scene.store().count(Operation::Login) + scene.store().count(Operation::Read);
    assert_eq!(before, after, "nothing was sent to the store");
    // The check can fail: the same pod with a right token is served, and the store is asked.
    scene.kubelet().mint_with(std::sync::Arc::new(|token| token));
    let pod = scene.pod("right-0", "checkout", "db");
    assert_eq!(files::read(scene.publish(&pod).await?.join("p")).await?, "p-1");
    assert!(scene.store().count(Operation::Login) > 0);
    scene.stop(&pod).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signing_key_that_was_rotated_is_learnt() -> anyhow::Result<()> {
    let scene = scene().await?;
    let first = scene.pod("first-0", "checkout", "db");
    scene.publish(&first).await?;
    scene.issuer().rotate(sotto_dev::issuer::Algorithm::Es256)?;
    scene.issuer().write_jwks(&scene.node().path("etc/jwks.json"))?;
    let second = scene.pod("second-0", "checkout", "db");
    assert_eq!(files::read(scene.publish(&second).await?.join("p")).await?, "p-1");
    scene.stop(&first).await?;
    scene.stop(&second).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_without_a_token_for_the_stores_audience_is_told_which() -> anyhow::Result<()> {
    let scene = scene().await?;
    let pod = scene.pod("none-0", "checkout", "db");
    let volume = &pod.volumes[0];
    let mut request = scene.kubelet().request(&pod, volume);
    let key = "csi.storage.k8s.io/serviceAccount.tokens";
    request.secrets.remove(key);
    request.volume_context.remove(key);
    let target = scene.kubelet().target(&pod, volume);
    std::fs::create_dir_all(target.parent().expect("a target has a parent"))?;
    let error = scene.kubelet().send(request).await.expect_err("it has no token").to_string();
    assert!(error.contains("tokenRequests"), "{error}");
    assert!(!target.exists());
    Ok(())
}
