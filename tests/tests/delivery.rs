//! The main job: a pod's secrets, fetched as that pod over mutual TLS, as files.

use serde_json::json;
use sotto_dev::issuer::Algorithm;
use sotto_dev::test_store::TestStore;
use sotto_tests::files;
use sotto_tests::scene::Scene;

sotto_tests::on_both_stores! {
    a_pod_reads_its_secrets,
    a_pod_cannot_read_another_pods_path,
    tokens_signed_with_rs256_and_es256_are_taken,
    versions_missing_deleted_and_destroyed_secrets_are_told_apart,
    kv_version_1_is_read,
    encodings_are_decoded_and_values_that_are_not_text_become_json,
    a_token_that_was_revoked_costs_one_new_login,
}

async fn a_pod_reads_its_secrets<S: TestStore>(scene: Scene<S>) -> anyhow::Result<()> {
    scene.write("payments/checkout/db", json!({"username": "u-1", "password": "p-1"})).await?;
    scene.write("payments/checkout/tls", json!({"certificate": "CERT", "key": "KEY"})).await?;
    let pod = scene.example_pod();
    let target = scene.publish(&pod).await?;
    let files = files::tree(target).await?;
    let expected = [
        ("db-password", "p-1"),
        ("db-username", "u-1"),
        ("tls/server.crt", "CERT"),
        ("tls/server.key", "KEY"),
    ];
    assert_eq!(files, expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
    scene.stop(&pod).await
}

async fn a_pod_cannot_read_another_pods_path<S: TestStore>(scene: Scene<S>) -> anyhow::Result<()> {
    scene.write("payments/checkout/db", json!({"password": "checkout's"})).await?;
    scene.class(
        "db",
        "- {objectName: p, secretPath: secret/data/payments/checkout/db, secretKey: password}",
    )?;
    let checkout = scene.pod("checkout-0", "checkout", "db");
    assert_eq!(files::read(scene.publish(&checkout).await?.join("p")).await?, "checkout's");
    let other = scene.pod("other-0", "other", "db");
    let refusal = scene.refusal(&other).await?;
    assert!(refusal.contains("store main refuses payments/other: policy"), "{refusal}");
    assert!(!refusal.contains("checkout's"));
    scene.stop(&checkout).await
}

async fn tokens_signed_with_rs256_and_es256_are_taken<S: TestStore>(
    scene: Scene<S>,
) -> anyhow::Result<()> {
    scene.write("payments/checkout/db", json!({"password": "p-1"})).await?;
    scene.class(
        "db",
        "- {objectName: p, secretPath: secret/data/payments/checkout/db, secretKey: password}",
    )?;
    for (name, algorithm) in [("rs-0", Algorithm::Rs256), ("es-0", Algorithm::Es256)] {
        scene.kubelet().mint_with(std::sync::Arc::new(move |token| token.algorithm(algorithm)));
        let pod = scene.pod(name, "checkout", "db");
        assert_eq!(files::read(scene.publish(&pod).await?.join("p")).await?, "p-1", "{name}");
        scene.stop(&pod).await?;
    }
    Ok(())
}

async fn versions_missing_deleted_and_destroyed_secrets_are_told_apart<S: TestStore>(
    scene: Scene<S>,
) -> anyhow::Result<()> {
    let path = "payments/checkout/v";
    let object = |name: &str, query: &str| {
        format!("- {{objectName: {name}, secretPath: \"secret/data/{path}{query}\", secretKey: a}}")
    };
    for value in ["one", "two", "three", "four"] {
        scene.write(path, json!({"a": value})).await?;
    }
    scene.store().delete(path, &[2]).await?;
    scene.store().destroy(path, &[3]).await?;
    scene.class("first", &object("first", "?version=1"))?;
    scene.class("newest", &object("newest", ""))?;
    for (class, value) in [("first", "one"), ("newest", "four")] {
        let pod = scene.pod(&format!("{class}-0"), "checkout", class);
        assert_eq!(files::read(scene.publish(&pod).await?.join(class)).await?, value);
        scene.stop(&pod).await?;
    }
    let missing = "- {objectName: x, secretPath: secret/data/payments/checkout/none, secretKey: a}";
    for (class, objects, words) in [
        ("deleted", object("x", "?version=2"), "is deleted"),
        ("destroyed", object("x", "?version=3"), "is destroyed"),
        (
            "missing",
            missing.to_owned(),
            "no such secret at secret/data/payments/checkout/none (store main)",
        ),
        ("no-key", object("x", "").replace("secretKey: a", "secretKey: b"), "has no key \"b\""),
    ] {
        scene.class(class, &objects)?;
        let refusal = scene.refusal(&scene.pod(&format!("{class}-0"), "checkout", class)).await?;
        assert!(refusal.contains(words), "{class}: {refusal}");
    }
    Ok(())
}

async fn kv_version_1_is_read<S: TestStore>(scene: Scene<S>) -> anyhow::Result<()> {
    scene.store().write_v1("payments/checkout/old", json!({"a": "one", "n": 7})).await?;
    scene.class(
        "old",
        "- {objectName: a, secretPath: kv/payments/checkout/old, secretKey: a}\n\
         - {objectName: n, secretPath: kv/payments/checkout/old, secretKey: n}",
    )?;
    let pod = scene.pod("old-0", "checkout", "old");
    let target = scene.publish(&pod).await?;
    assert_eq!(files::read(target.join("a")).await?, "one");
    assert_eq!(files::read(target.join("n")).await?, "7");
    scene.stop(&pod).await
}

async fn encodings_are_decoded_and_values_that_are_not_text_become_json<S: TestStore>(
    scene: Scene<S>,
) -> anyhow::Result<()> {
    let data =
        json!({"plain": "p", "base": "aGVsbG8=", "hex": "68656c6c6f", "nested": {"x": [1, 2]}});
    scene.write("payments/checkout/e", data.clone()).await?;
    scene.class(
        "e",
        "- {objectName: plain, secretPath: secret/data/payments/checkout/e, secretKey: plain}\n\
         - {objectName: base, secretPath: secret/data/payments/checkout/e, secretKey: base, encoding: base64}\n\
         - {objectName: hex, secretPath: secret/data/payments/checkout/e, secretKey: hex, encoding: hex}\n\
         - {objectName: nested, secretPath: secret/data/payments/checkout/e, secretKey: nested}\n\
         - {objectName: whole, secretPath: secret/data/payments/checkout/e}",
    )?;
    let pod = scene.pod("e-0", "checkout", "e");
    let files = files::tree(scene.publish(&pod).await?).await?;
    assert_eq!(files["plain"], "p");
    assert_eq!(files["base"], "hello");
    assert_eq!(files["hex"], "hello");
    assert_eq!(serde_json::from_str::<serde_json::Value>(&files["nested"])?, json!({"x": [1, 2]}));
    let whole: serde_json::Value = serde_json::from_str(&files["whole"])?;
    assert_eq!(whole["data"]["data"], data, "the whole response, as the provider gives it");
    scene.stop(&pod).await
}

async fn a_token_that_was_revoked_costs_one_new_login<S: TestStore>(
    scene: Scene<S>,
) -> anyhow::Result<()> {
    scene.write("payments/checkout/db", json!({"password": "p-1"})).await?;
    scene.class(
        "db",
        "- {objectName: p, secretPath: secret/data/payments/checkout/db, secretKey: password}",
    )?;
    let first = scene.pod("a-0", "checkout", "db");
    scene.publish(&first).await?;
    scene.store().revoke_tokens().await?;
    let second = scene.pod("b-0", "checkout", "db");
    assert_eq!(files::read(scene.publish(&second).await?.join("p")).await?, "p-1");
    scene.stop(&first).await?;
    scene.stop(&second).await
}
