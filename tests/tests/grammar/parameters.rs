//! The parameters beside `objects` that pick among the administrator's stores: address, role, mount,
//! audience, namespace, server name; and the three prefixes.

use serde_json::json;
use sotto_dev::store::Operation;
use sotto_dev::test_store::TestStore;
use sotto_tests::files;
use sotto_tests::scene::{Scene, StoreSettings};

use super::{PROVIDERS, publish_with};

sotto_tests::on_both_stores! {
    each_parameter_that_agrees_with_the_store_is_taken,
}

async fn each_parameter_that_agrees_with_the_store_is_taken<S: TestStore>(
    scene: Scene<S>,
) -> anyhow::Result<()> {
    scene.write("payments/checkout/db", json!({"password": "p-1"})).await?;
    let url = scene.store().access().url();
    let spelled = format!(" {}/ ", url.to_uppercase().replacen("HTTPS", "https", 1));
    let cases: &[(&str, &[(&str, &str)])] = &[
        ("nothing", &[]),
        ("address", &[("vaultAddress", &url)]),
        ("spelling", &[("vaultAddress", &spelled)]),
        ("verify", &[("vaultSkipTLSVerify", "false")]),
        ("kubernetes-mount", &[("vaultKubernetesMountPath", "jwt")]),
        ("auth-mount", &[("vaultAuthMountPath", "jwt")]),
        ("slashes", &[("vaultAuthMountPath", "/jwt/")]),
        ("audience", &[("audience", "bao")]),
        ("empty", &[("vaultNamespace", ""), ("vaultAddress", ""), ("vaultCACertPath", "")]),
        ("all", &[("vaultAddress", &url), ("vaultAuthMountPath", "jwt"), ("audience", "bao")]),
    ];
    for provider in PROVIDERS {
        for (name, parameters) in cases {
            let mut parameters = parameters.to_vec();
            parameters.push(("roleName", "payments"));
            let class = format!("{provider}-{name}");
            let (pod, file) = publish_with(&scene, &class, provider, &parameters).await?;
            assert_eq!(files::read(file).await?, "p-1", "{class}");
            scene.stop(&pod).await?;
        }
    }
    Ok(())
}

/// `bao`, `openbao`, `vault`: what the first of them says counts, whether it is right or wrong.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_the_three_prefixes_the_first_that_is_given_wins() -> anyhow::Result<()> {
    let scene = Scene::embedded().await?;
    scene.write("payments/checkout/db", json!({"password": "p-1"})).await?;
    let url = scene.store().access().url();
    let suffixes =
        [("Address", url.as_str(), "https://evil.invalid:8200"), ("AuthMountPath", "jwt", "other")];
    let orders = [("bao", "openbao"), ("bao", "vault"), ("openbao", "vault")];
    for (index, (suffix, right, wrong)) in suffixes.into_iter().enumerate() {
        for prefix in ["bao", "openbao", "vault"] {
            let parameters = [("roleName", "payments"), (&*format!("{prefix}{suffix}"), right)];
            let class = format!("only-{prefix}-{index}");
            let (pod, file) = publish_with(&scene, &class, "openbao", &parameters).await?;
            assert_eq!(files::read(file).await?, "p-1");
            scene.stop(&pod).await?;
        }
        for (first, second) in orders {
            let (winner, loser) = (format!("{first}{suffix}"), format!("{second}{suffix}"));
            let parameters = [("roleName", "payments"), (&winner, right), (&loser, wrong)];
            let class = format!("right-{first}-{second}-{index}");
            let (pod, _) = publish_with(&scene, &class, "openbao", &parameters).await?;
            scene.stop(&pod).await?;
            let parameters = [("roleName", "payments"), (&winner, wrong), (&loser, right)];
            let class = format!("wrong-{first}-{second}-{index}");
            let pod = super::apply(&scene, &class, "openbao", &parameters, super::ONE_OBJECT)?;
            let refusal = scene.refusal(&pod).await?;
            let says = |name: &str| refusal.contains(&format!("parameter {name}:"));
            assert!(says(&winner) && !says(&loser), "{class}: {refusal}");
        }
    }
    Ok(())
}

/// The vault provider knows its own prefix only: the others have no effect, right or wrong.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_vault_provider_reads_its_own_prefix_only() -> anyhow::Result<()> {
    let scene = Scene::embedded().await?;
    scene.write("payments/checkout/db", json!({"password": "p-1"})).await?;
    let parameters = [
        ("roleName", "payments"),
        ("baoAddress", "https://evil.invalid:8200"),
        ("openbaoAuthMountPath", "other"),
    ];
    let (pod, file) = publish_with(&scene, "own", "vault", &parameters).await?;
    assert_eq!(files::read(file).await?, "p-1");
    scene.stop(&pod).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_role_is_the_classs_or_else_the_stores() -> anyhow::Result<()> {
    let mut settings = StoreSettings::method("jwt");
    settings.auth["role"] = json!("payments");
    let scene = Scene::embedded_with(settings).await?;
    scene.write("payments/checkout/db", json!({"password": "p-1"})).await?;
    let (pod, file) = publish_with(&scene, "default", "vault", &[]).await?;
    assert_eq!(files::read(file).await?, "p-1", "the store's");
    scene.stop(&pod).await?;
    let other = [("roleName", "none")];
    let pod = super::apply(&scene, "other", "vault", &other, super::ONE_OBJECT)?;
    let refusal = scene.refusal(&pod).await?;
    assert!(refusal.contains("no role \"none\" at auth/jwt"), "{refusal}");
    assert!(refusal.contains("create it or correct roleName"), "{refusal}");
    Ok(())
}

/// The name in the store's certificate is the administrator's; a class may repeat it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_name_that_is_the_stores_is_taken_and_another_refused() -> anyhow::Result<()> {
    let settings = StoreSettings::edited(|config| {
        config["stores"][0]["serverName"] = json!("localhost");
    });
    let scene = Scene::embedded_with(settings).await?;
    scene.write("payments/checkout/db", json!({"password": "p-1"})).await?;
    let role = ("roleName", "payments");
    let same = [role, ("vaultTLSServerName", "localhost")];
    let (pod, file) = publish_with(&scene, "same", "vault", &same).await?;
    assert_eq!(files::read(file).await?, "p-1");
    scene.stop(&pod).await?;
    let logins = scene.store().count(Operation::Login);
    let other = [role, ("vaultTLSServerName", "evil.invalid")];
    let pod = super::apply(&scene, "other", "vault", &other, super::ONE_OBJECT)?;
    let refusal = scene.refusal(&pod).await?;
    assert!(refusal.contains("parameter vaultTLSServerName:"), "{refusal}");
    assert!(refusal.contains("remove it"), "{refusal}");
    assert_eq!(scene.store().count(Operation::Login), logins);
    Ok(())
}

/// Of two stores at one address the mount, or the audience, says which is meant.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_stores_at_one_address_the_one_that_agrees_is_used() -> anyhow::Result<()> {
    let settings = StoreSettings::edited(|config| {
        let mut second = config["stores"][0].clone();
        second["name"] = json!("second");
        second["auth"] = json!({"method": "kubernetes", "mount": "kubernetes", "audience": "bao"});
        config["stores"].as_array_mut().expect("a list").push(second);
    });
    let scene = Scene::embedded_with(settings).await?;
    scene.write("payments/checkout/db", json!({"password": "p-1"})).await?;
    let url = scene.store().access().url();
    for mount in ["jwt", "kubernetes"] {
        let parameters = [
            ("roleName", "payments"),
            ("vaultAddress", url.as_str()),
            ("vaultKubernetesMountPath", mount),
        ];
        let (pod, file) = publish_with(&scene, mount, "vault", &parameters).await?;
        assert_eq!(files::read(file).await?, "p-1");
        let logins =
            scene.store().requests().into_iter().filter(|it| it.operation == Operation::Login);
        let last = logins.last().map(|login| login.path);
        assert_eq!(last, Some(format!("auth/{mount}/login")));
        scene.stop(&pod).await?;
    }
    Ok(())
}
