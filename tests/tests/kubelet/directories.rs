//! Who makes and removes what below a pod's directory.

use std::os::unix::fs::PermissionsExt;

use sotto_dev::kubelet::volume_id;
use sotto_tests::files;
use sotto_tests::scene::EXAMPLE;

use super::{journal, names, scene};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_target_is_the_drivers_and_its_parent_kubelets() -> anyhow::Result<()> {
    let (scene, pod) = scene().await?;
    let (kubelet, volume) = (scene.kubelet(), &pod.volumes[0]);
    let target = scene.publish(&pod).await?;
    let parent = target.parent().expect("a target has a parent").to_owned();
    assert_eq!(names(&parent)?, ["mount", "vol_data.json"]);
    assert_eq!(std::fs::metadata(&parent)?.permissions().mode() & 0o7777, 0o750);
    assert_eq!(journal(&scene)?.len(), 1);

    kubelet.send_unpublish(&volume_id(&pod, volume), &target.to_string_lossy()).await?;
    assert_eq!(names(&parent)?, ["vol_data.json"], "the driver removes its own and no more");
    assert_eq!(std::fs::metadata(&parent)?.permissions().mode() & 0o7777, 0o750);
    assert!(journal(&scene)?.is_empty());
    // The second one of kubelet finds nothing to do, and removes kubelet's part.
    kubelet.unpublish(&pod, volume).await?;
    assert!(!parent.exists());
    assert!(names(&scene.node().path("kubelet/pods"))?.is_empty());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_its_parent_a_target_is_refused_and_nothing_is_made() -> anyhow::Result<()> {
    let (scene, pod) = scene().await?;
    let request = scene.kubelet().request(&pod, &pod.volumes[0]);
    let refusal = scene.kubelet().send(request).await.expect_err("kubelet makes the parent");
    assert!(refusal.to_string().contains("the target path"), "{refusal}");
    assert!(!scene.node().path("kubelet/pods").exists(), "kubelet's directories are kubelet's");
    assert!(journal(&scene)?.is_empty());
    Ok(())
}

/// kubelets before 1.20 make it, and one that is killed may leave it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_is_there_already_is_used_and_removed_at_the_end() -> anyhow::Result<()> {
    let (scene, pod) = scene().await?;
    let target = scene.kubelet().target(&pod, &pod.volumes[0]);
    std::fs::create_dir_all(&target)?;
    assert_eq!(scene.publish(&pod).await?, target);
    assert_eq!(files::read(target.join("p")).await?, "p-1");
    scene.stop(&pod).await?;
    assert!(!target.exists());
    Ok(())
}

/// `fsGroupPolicy: None` and VOLUME_MOUNT_GROUP: kubelet changes no owner, the driver is told the group.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_pods_group_owns_the_files_and_no_one_else_reads_them() -> anyhow::Result<()> {
    let (scene, _) = scene().await?;
    let mut pod = scene.pod("group-0", "checkout", "db");
    pod.fs_group = sotto_dev::kubelet::Pod::parse(EXAMPLE)?.fs_group;
    let file = scene.publish(&pod).await?.join("p");
    assert_eq!(files::mode_and_owner(file).await?, (0o440, 0, 2000));
    scene.stop(&pod).await
}

/// One pod, two volumes of one driver: two ids, two targets, and the end of one leaves the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_volumes_of_a_pod_have_a_parent_each() -> anyhow::Result<()> {
    let (scene, mut pod) = scene().await?;
    let mut second = pod.volumes[0].clone();
    second.name = "more".to_owned();
    pod.volumes.push(second);
    let targets = scene.kubelet().start(&pod, super::SOON).await?;
    assert_eq!(targets.len(), 2);
    scene.kubelet().unpublish(&pod, &pod.volumes[0]).await?;
    assert!(!targets[0].exists());
    assert_eq!(files::read(targets[1].join("p")).await?, "p-1");
    scene.stop(&pod).await?;
    assert!(names(&scene.node().path("kubelet/pods"))?.is_empty());
    Ok(())
}
