//! What only a real OpenBao server has: PKI, the kubernetes and cert methods.

use http::Method;
use serde_json::json;
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
