//! Volumes that are mounted: kubelet hears OK at each republish, so that sotto-node says what is wrong.

use std::sync::Arc;

use serde_json::json;
use sotto_dev::kubelet::{CsiDriver, Pod};
use sotto_tests::scene::CSI_DRIVER;

use super::{CANARY, Cluster, OBJECTS, assert_says};

/// A pod whose volume is mounted and refreshed every second.
async fn mounted(cluster: &Cluster, name: &str) -> anyhow::Result<Pod> {
    let mut pod = cluster.scene.pod(name, "checkout", "db");
    let attributes = &mut pod.volumes[0].attributes;
    attributes.insert("sotto.dev/refresh".to_owned(), "1s".to_owned());
    attributes.insert("sotto.dev/max-stale".to_owned(), "3s".to_owned());
    cluster.scene.publish(&pod).await?;
    Ok(pod)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fresh_token_that_is_not_taken_is_said_with_what_to_do() -> anyhow::Result<()> {
    let cluster = Cluster::start(CANARY, |_| {}).await?;
    let (scene, case) = (&cluster.scene, "token of a republish");
    let pod = mounted(&cluster, "claim-0").await?;
    scene.kubelet().mint_with(Arc::new(|token| token.claim("/aud", json!(["vault"]))));
    scene.kubelet().sync(&pod).await?;
    let text = cluster.event("claim-0", "TokenRefreshFailed").await;
    let wrong = ["the pod's token is not for audience bao", "served on with its last login"];
    assert_says(case, &text, &wrong, &["compare the store's audience", "tokenRequests"]);
    scene.stop(&pod).await?;

    scene.kubelet().mint_with(Arc::new(|token| token));
    let pod = mounted(&cluster, "map-0").await?;
    let other = CSI_DRIVER.replace("audience: bao", "audience: vault");
    scene.kubelet().apply(CsiDriver::parse(&other)?);
    scene.kubelet().sync(&pod).await?;
    let text = cluster.event("map-0", "TokenRefreshFailed").await;
    let wrong = ["kubelet sent no token for audience bao, only for vault"];
    assert_says(case, &text, &wrong, &["add bao to the CSIDriver's tokenRequests"]);
    scene.stop(&pod).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_and_its_end_are_said_with_what_to_do() -> anyhow::Result<()> {
    let cluster = Cluster::start(CANARY, |_| {}).await?;
    let pod = mounted(&cluster, "outage-0").await?;
    cluster.scene.store().go_dark();
    let text = cluster.event("outage-0", "SecretsStale").await;
    let wrong = ["the store can't be reached", "the last good values are served", "store main"];
    assert_says("store down", &text, &wrong, &["check the store"]);
    let text = cluster.event("outage-0", "SecretsClosed").await;
    let wrong = ["the last good values are older than max-stale", "nothing is readable"];
    assert_says("store down for long", &text, &wrong, &["check the store"]);
    cluster.scene.store().come_back().await?;
    let text = cluster.event("outage-0", "SecretsFresh").await;
    assert!(text.contains("those of the store again"), "{text}");
    cluster.scene.stop(&pod).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_of_what_a_volume_had_is_said_with_what_to_do() -> anyhow::Result<()> {
    use sotto_dev::test_store::TestStore;
    let cluster = Cluster::start(CANARY, |_| {}).await?;
    let pod = mounted(&cluster, "policy-0").await?;
    cluster.scene.store().remove_policy("pod").await?;
    let text = cluster.event("policy-0", "SecretRefused").await;
    let wrong = ["the store refuses p now"];
    let to_do =
        ["check that the secret is there and that a policy of the pod's role allows reading it"];
    assert_says("policy refusal", &text, &wrong, &to_do);
    cluster.scene.stop(&pod).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_of_a_class_has_no_effect_is_said_with_what_to_do() -> anyhow::Result<()> {
    let cluster = Cluster::start(CANARY, |_| {}).await?;
    let objects = OBJECTS.replace("}", ", secretArgs: {a: 1}}");
    cluster.class("args", &objects, &[("vaultRolename", "typo")]).await?;
    let pod = cluster.scene.pod("args-0", "checkout", "args");
    cluster.scene.publish(&pod).await?;
    let text = cluster.event("args-0", "ClassPartlyIgnored").await;
    let wrong =
        ["SecretProviderClass args", "parameter \"vaultRolename\" is unknown", "secretArgs"];
    assert_says("ignored parts", &text, &wrong, &["write method: PUT"]);
    cluster.scene.stop(&pod).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_drivers_mount_on_the_target_is_said_with_what_to_do() -> anyhow::Result<()> {
    let cluster = Cluster::start(CANARY, |_| {}).await?;
    let scene = &cluster.scene;
    let pod = scene.pod("foreign-0", "checkout", "db");
    let target = scene.kubelet().target(&pod, &pod.volumes[0]);
    std::fs::create_dir_all(&target)?;
    let flags = rustix::mount::MountFlags::empty();
    rustix::mount::mount("tmpfs", &target, "tmpfs", flags, None)?;
    std::fs::write(target.join("theirs"), "x")?;
    for _ in 0..2 {
        scene.kubelet().publish(&pod, &pod.volumes[0]).await?;
    }
    assert_eq!(std::fs::read_to_string(target.join("theirs"))?, "x", "it is untouched");
    let text = cluster.event("foreign-0", "ForeignMount").await;
    let wrong = ["a tmpfs mount that csi.sotto.dev did not make"];
    assert_says("foreign mount", &text, &wrong, &["restart the pod"]);
    scene.stop(&pod).await?;
    assert!(!target.exists(), "its unpublish unmounts and removes");
    Ok(())
}
