//! What a pod's event shows: each failure has its own message, with what and what to do, and never a value
//! or a token.

use serde_json::json;
use sotto_dev::store::{DevStore, Fault, Operation};
use sotto_tests::scene::{Scene, StoreSettings};
use tonic::Code;

const OBJECTS: &str =
    "- {objectName: p, secretPath: secret/data/payments/checkout/db, secretKey: password}";
const CANARY: &str = "canary-value-5f1b";

async fn scene() -> anyhow::Result<Scene<DevStore>> {
    let scene = Scene::embedded().await?;
    scene.write("payments/checkout/db", json!({"password": CANARY})).await?;
    scene.class("db", OBJECTS)?;
    Ok(scene)
}

async fn refused_while(
    scene: &Scene<DevStore>,
    name: &str,
    operation: Option<Operation>,
    fault: Fault,
) -> anyhow::Result<(Code, String)> {
    scene.store().fail(operation, fault, None);
    let refused = scene.refused(&scene.pod(name, "checkout", "db")).await;
    scene.store().heal();
    refused
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_failure_has_its_own_message() -> anyhow::Result<()> {
    let scene = scene().await?;
    scene.class("missing", &OBJECTS.replace("/db", "/none"))?;
    let missing = scene.refused(&scene.pod("a-0", "checkout", "missing")).await?;
    assert!(
        missing.1.contains("no such secret at secret/data/payments/checkout/none (store main)")
    );
    assert_eq!(missing.0, Code::NotFound, "{}", missing.1);

    let policy = scene.refused(&scene.pod("b-0", "other", "db")).await?;
    assert!(policy.1.contains("store main refuses payments/other: policy"), "{}", policy.1);
    assert_eq!(policy.0, Code::PermissionDenied, "{}", policy.1);

    let unknown = scene.refused(&scene.pod("c-0", "checkout", "nothing")).await?;
    assert!(unknown.1.contains("nothing") && unknown.1.contains("payments"), "{}", unknown.1);

    let sealed = refused_while(&scene, "d-0", None, Fault::Sealed).await?;
    assert!(sealed.1.contains("store main is sealed"), "{}", sealed.1);
    assert_eq!(sealed.0, Code::Unavailable);

    let busy = refused_while(&scene, "e-0", None, Fault::RateLimited(Some(60))).await?;
    assert!(busy.1.contains("store main limits the rate"), "{}", busy.1);

    let redirect = Fault::Redirect("https://evil.invalid/v1/steal".to_owned());
    let redirected = refused_while(&scene, "f-0", Some(Operation::Read), redirect).await?;
    assert!(redirected.1.contains("redirects to"), "{}", redirected.1);

    let garbage = refused_while(&scene, "g-0", Some(Operation::Read), Fault::Garbage).await?;
    assert!(garbage.1.contains("can't be read"), "{}", garbage.1);

    scene.store().go_dark();
    let dark = scene.refused(&scene.pod("h-0", "checkout", "db")).await?;
    assert!(dark.1.contains("store main is unreachable"), "{}", dark.1);
    assert_eq!(dark.0, Code::Unavailable);

    for (_, message) in [missing, policy, unknown, sealed, busy, redirected, garbage, dark] {
        assert!(!message.contains(CANARY), "a value is in: {message}");
        assert!(!message.contains("eyJ"), "a token is in: {message}");
        assert!(message.len() <= 1024);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_the_namespace_may_not_use_is_refused() -> anyhow::Result<()> {
    let settings = StoreSettings::edited(|config| {
        config["stores"][0]["allow"] = json!({"namespaces": ["shop"]});
    });
    let scene = Scene::embedded_with(settings).await?;
    scene.class("db", OBJECTS)?;
    let refusal = scene.refusal(&scene.pod("a-0", "checkout", "db")).await?;
    assert!(refusal.contains("main") && refusal.contains("payments"), "{refusal}");
    assert_eq!(scene.store().count(Operation::Login), 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_another_authority_signed_never_gets_the_token() -> anyhow::Result<()> {
    let settings = StoreSettings::method("jwt");
    let scene = Scene::embedded_with(settings).await?;
    scene.class("db", OBJECTS)?;
    let stranger = sotto_dev::pki::Authority::new("stranger")?;
    std::fs::write(scene.node().path("etc/main-ca.pem"), stranger.certificate_pem())?;
    let mut scene = scene;
    scene.node().agent().end().await?;
    scene.node_mut().restart_agent().await?;
    let refusal = scene.refusal(&scene.pod("a-0", "checkout", "db")).await?;
    assert!(refusal.contains("store main is not trusted"), "{refusal}");
    assert_eq!(scene.store().count(Operation::Login), 0);
    Ok(())
}
