//! What only a real OpenBao server has: PKI, the kubernetes and cert methods, its own count of logins.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::Method;
use serde_json::json;
use sotto_dev::bao::Bao;
use sotto_dev::issuer::{PodTokenSpec, Signature};
use sotto_tests::files;
use sotto_tests::scene::{Scene, StoreSettings};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_and_its_key_belong_together() -> anyhow::Result<()> {
    let scene = Scene::openbao().await?;
    scene.store().enable_pki().await?;
    let request = "secretPath: pki/issue/payments-checkout, method: PUT, \
                   secretArgs: {common_name: checkout.payments.invalid, ttl: 24h}";
    scene.class(
        "pki",
        &format!(
            "- {{objectName: tls.crt, {request}, secretKey: certificate}}\n\
             - {{objectName: tls.key, {request}, secretKey: private_key, filePermission: 0440}}"
        ),
    )?;
    let pod = scene.pod("pki-0", "checkout", "pki");
    let files = files::tree(scene.publish(&pod).await?).await?;
    let key = rcgen::KeyPair::from_pem(&files["tls.key"])?;
    let (_, pem) = x509_parser::pem::parse_x509_pem(files["tls.crt"].as_bytes())?;
    let certificate = pem.parse_x509()?;
    assert_eq!(
        certificate.public_key().subject_public_key.data.as_ref(),
        rcgen::PublicKeyData::der_bytes(&key),
        "the key is the certificate's"
    );
    scene.stop(&pod).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_kubernetes_method_logs_in_by_token_review() -> anyhow::Result<()> {
    let scene = Scene::openbao_with(StoreSettings::method("kubernetes")).await?;
    let server = scene.serve_issuer().await?;
    scene.store().enable_kubernetes(&server).await?;
    scene.write("payments/checkout/db", json!({"password": "p-1"})).await?;
    scene.class(
        "db",
        "- {objectName: p, secretPath: kv/payments/checkout/db, secretKey: password}",
    )?;
    let policy = json!({"policy": "path \"kv/payments/checkout/*\" { capabilities = [\"read\"] }"});
    scene.store().admin(Method::POST, "sys/policies/acl/pod", Some(policy)).await?;
    scene
        .store()
        .admin(Method::POST, "kv/payments/checkout/db", Some(json!({"password": "p-1"})))
        .await?;
    let pod = scene.pod("k-0", "checkout", "db");
    assert_eq!(files::read(scene.publish(&pod).await?.join("p")).await?, "p-1");
    scene.stop(&pod).await?;

    let gone = scene.pod("gone-0", "checkout", "db");
    scene.issuer().forget_pod(&gone.uid);
    let refusal = scene.refusal(&gone).await?;
    assert!(refusal.contains("store main refuses the login of payments/checkout"), "{refusal}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cert_method_logs_in_with_the_client_certificate() -> anyhow::Result<()> {
    let scene = Scene::openbao_with(StoreSettings::method("cert")).await?;
    let policy = json!({"policy": "path \"secret/data/payments/*\" { capabilities = [\"read\"] }"});
    scene.store().admin(Method::POST, "sys/policies/acl/by-cert", Some(policy)).await?;
    scene.store().enable_cert(&scene.client_certificate()?, "by-cert").await?;
    scene.write("payments/checkout/db", json!({"password": "p-1"})).await?;
    scene.class(
        "db",
        "- {objectName: p, secretPath: secret/data/payments/checkout/db, secretKey: password}",
    )?;
    let pod = scene.pod("c-0", "checkout", "db");
    assert_eq!(files::read(scene.publish(&pod).await?.join("p")).await?, "p-1");
    scene.stop(&pod).await
}

/// Store tokens alive at the server.
async fn tokens(scene: &Scene<Bao>) -> anyhow::Result<usize> {
    let list = Method::from_bytes(b"LIST")?;
    let answer = scene.store().admin(list, "auth/token/accessors", None).await?;
    Ok(answer["data"]["keys"].as_array().map_or(0, Vec::len))
}

type Wrong = (&'static str, fn(PodTokenSpec) -> PodTokenSpec);

const WRONG: &[Wrong] = &[
    ("audience", |token| token.audience("other")),
    ("issuer", |token| token.claim("/iss", json!("https://other.invalid"))),
    ("forged", |token| token.signature(Signature::Forged)),
    ("expired", |token| token.issued_at(SystemTime::now() - Duration::from_secs(3_600))),
    ("future", |token| token.issued_at(SystemTime::now() + Duration::from_secs(900))),
    ("pod", |token| token.claim("/kubernetes.io/pod/uid", json!("another"))),
    ("node", |token| token.claim("/kubernetes.io/node/name", json!("another"))),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_token_brings_no_login() -> anyhow::Result<()> {
    let scene = Scene::openbao().await?;
    scene.write("payments/checkout/db", json!({"password": "p-1"})).await?;
    scene.class(
        "db",
        "- {objectName: p, secretPath: secret/data/payments/checkout/db, secretKey: password}",
    )?;
    let before = tokens(&scene).await?;
    for (name, wrong) in WRONG {
        scene.kubelet().mint_with(Arc::new(*wrong));
        let pod = scene.pod(&format!("{name}-0"), "checkout", "db");
        let (code, message) = scene.refused(&pod).await?;
        let expected = [tonic::Code::Unauthenticated, tonic::Code::PermissionDenied];
        assert!(expected.contains(&code), "{name}: {code:?} {message}");
    }
    assert_eq!(tokens(&scene).await?, before, "no login was made");
    scene.kubelet().mint_with(Arc::new(|token| token));
    let pod = scene.pod("right-0", "checkout", "db");
    scene.publish(&pod).await?;
    assert_eq!(tokens(&scene).await?, before + 1, "the check sees a login");
    scene.stop(&pod).await?;
    assert_eq!(tokens(&scene).await?, before, "the store token is revoked at the end");
    Ok(())
}
