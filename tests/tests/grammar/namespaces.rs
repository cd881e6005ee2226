//! `vaultNamespace`: it travels with each request; a store that has one admits those beneath it.

use http::Method;
use serde_json::{Value, json};
use sotto_dev::bao::Bao;
use sotto_dev::store::{Operation, Recorded};
use sotto_tests::files;
use sotto_tests::scene::{Scene, StoreSettings};

use super::{ONE_OBJECT, PROVIDERS, apply, publish_with};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_namespace_goes_with_the_login_each_read_and_the_revocation() -> anyhow::Result<()> {
    let scene = Scene::embedded().await?;
    scene.write("payments/checkout/db", json!({"password": "p-1"})).await?;
    for (provider, name) in
        [("vault", "vaultNamespace"), ("openbao", "baoNamespace"), ("openbao", "openbaoNamespace")]
    {
        let before = scene.store().requests().len();
        let parameters = [("roleName", "payments"), (name, "team-a/billing/")];
        let class = name.to_lowercase();
        let (pod, file) = publish_with(&scene, &class, provider, &parameters).await?;
        assert_eq!(files::read(file).await?, "p-1");
        scene.stop(&pod).await?;
        let requests = scene.store().requests().split_off(before);
        let of = |operation| move |request: &&Recorded| request.operation == operation;
        for operation in [Operation::Login, Operation::Read, Operation::Revoke] {
            assert_eq!(requests.iter().filter(of(operation)).count(), 1, "{name} {operation:?}");
        }
        let namespaces =
            requests.iter().map(|it| it.namespace.as_deref().map(|it| it.trim_matches('/')));
        assert!(namespaces.into_iter().all(|it| it == Some("team-a/billing")), "{requests:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_with_a_namespace_admits_those_beneath_it_only() -> anyhow::Result<()> {
    let settings = StoreSettings::edited(|config| {
        config["stores"][0]["namespace"] = json!("team-a");
    });
    let scene = Scene::embedded_with(settings).await?;
    scene.write("payments/checkout/db", json!({"password": "p-1"})).await?;
    for provider in PROVIDERS {
        for (index, (given, sent)) in
            [("", "team-a"), ("team-a", "team-a"), ("team-a/x", "team-a/x")].into_iter().enumerate()
        {
            let parameters = [("roleName", "payments"), ("vaultNamespace", given)];
            let class = format!("in-{provider}-{index}");
            let (pod, _) = publish_with(&scene, &class, provider, &parameters).await?;
            let last = scene.store().requests().pop().and_then(|request| request.namespace);
            assert_eq!(last.as_deref().map(|it| it.trim_matches('/')), Some(sent));
            scene.stop(&pod).await?;
        }
        for (index, given) in ["team-b", "team-ab", "root"].into_iter().enumerate() {
            let parameters = [("roleName", "payments"), ("vaultNamespace", given)];
            let class = format!("out-{provider}-{index}");
            let pod = apply(&scene, &class, provider, &parameters, ONE_OBJECT)?;
            let refusal = scene.refusal(&pod).await?;
            assert!(
                refusal.contains("parameter vaultNamespace: store main is for namespace team-a")
            );
            assert!(refusal.contains("correct or remove it"), "{refusal}");
        }
    }
    Ok(())
}

/// A namespace of a real server with a jwt method, a role, a policy and a secret of its own.
async fn team(scene: &Scene<Bao>, namespace: &str, password: &str) -> anyhow::Result<()> {
    let store = scene.store();
    let post = async |path: &str, body: Value| store.admin(Method::POST, path, Some(body)).await;
    post(&format!("sys/namespaces/{namespace}"), json!({})).await?;
    let within = |path: &str| format!("{namespace}/{path}");
    post(&within("sys/mounts/secret"), json!({"type": "kv", "options": {"version": "2"}})).await?;
    post(&within("sys/auth/jwt"), json!({"type": "jwt"})).await?;
    let keys = scene.issuer().public_keys_pem();
    let config = json!({"jwt_validation_pubkeys": keys, "bound_issuer": scene.issuer().name()});
    post(&within("auth/jwt/config"), config).await?;
    let rule = "path \"secret/data/payments/checkout/*\" { capabilities = [\"read\"] }";
    post(&within("sys/policies/acl/reader"), json!({"policy": rule})).await?;
    let role = json!({
        "role_type": "jwt", "bound_audiences": ["bao"], "user_claim": "sub",
        "bound_subject": "system:serviceaccount:payments:checkout", "token_policies": ["reader"],
    });
    post(&within("auth/jwt/role/payments"), role).await?;
    let secret = json!({"data": {"password": password}});
    post(&within("secret/data/payments/checkout/db"), secret).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_stores_namespaces_are_told_apart() -> anyhow::Result<()> {
    let scene = Scene::openbao().await?;
    scene.write("payments/checkout/db", json!({"password": "of-the-root"})).await?;
    for namespace in ["team-a", "team-b"] {
        team(&scene, namespace, &format!("of-{namespace}")).await?;
    }
    for (class, namespace, password) in
        [("root", "", "of-the-root"), ("a", "team-a", "of-team-a"), ("b", "team-b/", "of-team-b")]
    {
        let parameters = [("roleName", "payments"), ("vaultNamespace", namespace)];
        let (pod, file) = publish_with(&scene, class, "vault", &parameters).await?;
        assert_eq!(files::read(file).await?, password);
        scene.stop(&pod).await?;
    }
    let parameters = [("roleName", "payments"), ("vaultNamespace", "team-c")];
    let pod = apply(&scene, "none", "vault", &parameters, ONE_OBJECT)?;
    let refusal = scene.refusal(&pod).await?;
    assert!(refusal.contains("store main refuses the login of payments/checkout"), "{refusal}");
    Ok(())
}
