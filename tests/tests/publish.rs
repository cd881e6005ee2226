//! Publish and unpublish: all or nothing, and any number of times.

use std::time::Duration;

use serde_json::json;
use sotto_dev::kubelet::{Pod, volume_id};
use sotto_dev::store::{DevStore, Fault};
use sotto_tests::files;
use sotto_tests::scene::Scene;

async fn scene_with_a_secret() -> anyhow::Result<(Scene<DevStore>, Pod)> {
    let scene = Scene::embedded().await?;
    scene.write("payments/checkout/db", json!({"password": "p-1"})).await?;
    scene.class(
        "db",
        "- {objectName: p, secretPath: secret/data/payments/checkout/db, secretKey: password}",
    )?;
    let pod = scene.pod("checkout-0", "checkout", "db");
    Ok((scene, pod))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publishing_twice_mounts_once() -> anyhow::Result<()> {
    let (scene, pod) = scene_with_a_secret().await?;
    let target = scene.publish(&pod).await?;
    for _ in 0..3 {
        scene.kubelet().republish(&pod, &pod.volumes[0]).await?;
    }
    assert_eq!(files::mounts_at(&target)?, 1);
    assert_eq!(files::read(target.join("p")).await?, "p-1");
    scene.stop(&pod).await?;
    assert_eq!(files::mounts_at(&target)?, 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_publishes_at_once_mount_once() -> anyhow::Result<()> {
    let (scene, pod) = scene_with_a_secret().await?;
    let volume = &pod.volumes[0];
    let target = scene.kubelet().target(&pod, volume);
    std::fs::create_dir_all(target.parent().expect("a target has a parent"))?;
    let request = scene.kubelet().request(&pod, volume);
    let publishes = (0..50).map(|_| scene.kubelet().send(request.clone()));
    let results = futures::future::join_all(publishes).await;
    for result in &results {
        if let Err(error) = result {
            assert!(format!("{error:?}").contains("Aborted"), "only ABORTED is allowed: {error:?}");
        }
    }
    assert!(results.iter().any(Result::is_ok));
    scene.kubelet().republish(&pod, volume).await?;
    assert_eq!(files::mounts_at(&target)?, 1);
    assert_eq!(files::read(target.join("p")).await?, "p-1");
    scene.kubelet().send_unpublish(&volume_id(&pod, volume), &target.to_string_lossy()).await?;
    assert_eq!(files::mounts_at(&target)?, 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_fetch_leaves_no_mount_and_no_directory() -> anyhow::Result<()> {
    let (scene, _) = scene_with_a_secret().await?;
    scene.class(
        "half",
        "- {objectName: p, secretPath: secret/data/payments/checkout/db, secretKey: password}\n\
         - {objectName: q, secretPath: secret/data/payments/checkout/none, secretKey: password}",
    )?;
    let pod = scene.pod("half-0", "checkout", "half");
    let refusal = scene.refusal(&pod).await?;
    assert!(refusal.contains("object 1 (q): no such secret"), "{refusal}");
    scene.write("payments/checkout/none", json!({"password": "now"})).await?;
    let target = scene.publish(&pod).await?;
    assert_eq!(files::tree(target).await?.len(), 2, "it heals with the next attempt");
    scene.stop(&pod).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unpublish_is_idempotent() -> anyhow::Result<()> {
    let (scene, pod) = scene_with_a_secret().await?;
    let (volume, kubelet) = (&pod.volumes[0], scene.kubelet());
    let target = scene.publish(&pod).await?;
    let id = volume_id(&pod, volume);
    for _ in 0..2 {
        kubelet.send_unpublish(&id, &target.to_string_lossy()).await?;
        assert!(!target.exists());
    }
    let never = kubelet.target(&scene.pod("never-0", "checkout", "db"), volume);
    kubelet.send_unpublish("csi-never", &never.to_string_lossy()).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_republish_with_the_store_down_is_ok() -> anyhow::Result<()> {
    let (scene, pod) = scene_with_a_secret().await?;
    let target = scene.publish(&pod).await?;
    scene.store().go_dark();
    scene.kubelet().republish(&pod, &pod.volumes[0]).await?;
    assert_eq!(files::read(target.join("p")).await?, "p-1");
    assert_eq!(files::mounts_at(&target)?, 1);
    scene.stop(&pod).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_agent_serves_the_same_mount() -> anyhow::Result<()> {
    let (mut scene, pod) = scene_with_a_secret().await?;
    let target = scene.publish(&pod).await?;
    let before = files::blocking({
        let path = target.join("p");
        move || Ok(std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(path)?))
    })
    .await?;
    scene.node().agent().kill().await?;
    scene.node_mut().restart_agent().await?;
    assert_eq!(files::read(target.join("p")).await?, "p-1");
    let after = files::blocking({
        let path = target.join("p");
        move || Ok(std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(path)?))
    })
    .await?;
    assert_eq!(before, after, "inode numbers depend on names and generation only");
    assert_eq!(files::mounts_at(&target)?, 1);
    scene.stop(&pod).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubelets_own_start_sequence_works() -> anyhow::Result<()> {
    let (scene, pod) = scene_with_a_secret().await?;
    let targets = scene.kubelet().start(&pod, Duration::from_secs(5)).await?;
    assert_eq!(files::read(targets[0].join("p")).await?, "p-1");
    scene.stop(&pod).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_busy_for_a_moment_only_delays_the_pod() -> anyhow::Result<()> {
    let (scene, pod) = scene_with_a_secret().await?;
    scene.store().fail(None, Fault::RateLimited(Some(1)), Some(1));
    let targets = scene.kubelet().start(&pod, Duration::from_secs(15)).await?;
    assert_eq!(files::read(targets[0].join("p")).await?, "p-1");
    scene.stop(&pod).await
}
