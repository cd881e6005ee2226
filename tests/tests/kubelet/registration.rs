//! Registration without a sidecar container, and kubelet's own restart.

use std::os::unix::fs::{FileTypeExt, PermissionsExt};

use sotto_dev::kubelet::volume_id;
use sotto_dev::store::Operation;
use sotto_tests::{files, wait};

use super::{SOON, scene};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kubelet_that_restarts_registers_the_driver_and_publishes_again_what_it_knows()
-> anyhow::Result<()> {
    let (scene, pod) = scene().await?;
    let (kubelet, volume) = (scene.kubelet(), &pod.volumes[0]);
    let target = kubelet.start(&pod, SOON).await?.remove(0);
    let (mount, token) = (files::mount_line(&target)?, kubelet.request(&pod, volume).secrets);
    for _ in 0..2 {
        let registered = kubelet.restart(SOON).await?;
        assert!(registered.mount_group);
        assert_eq!(registered.node_id, "node-1");
        assert_ne!(kubelet.request(&pod, volume).secrets, token, "its tokens are new ones");
        kubelet.sync(&pod).await?;
        assert_eq!(files::mount_line(&target)?, mount, "the mount is untouched");
        assert_eq!(files::read(target.join("p")).await?, "p-1");
    }
    let said = |line: &str| line.contains("kubelet registered the driver");
    let times = || scene.node().csi().log().text().lines().filter(|line| said(line)).count();
    wait::until("the driver's word about three registrations", || times() == 3).await?;
    assert_eq!(scene.store().count(Operation::Login), 1);
    // What it found on its disk it also unpublishes.
    scene.stop(&pod).await?;
    assert!(!target.exists());
    Ok(())
}

/// Pods that ended while kubelet was down are found by their directories.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kubelet_that_restarts_unpublishes_what_ended_in_the_meantime() -> anyhow::Result<()> {
    let (scene, pod) = scene().await?;
    let refused = scene.pod("refused-0", "checkout", "none");
    let target = scene.publish(&pod).await?;
    scene.refusal(&refused).await?;
    let before = scene.kubelet().calls().len();
    scene.kubelet().restart(SOON).await?;
    scene.stop(&refused).await?;
    scene.stop(&pod).await?;
    let calls = scene.kubelet().calls();
    let after: Vec<_> = calls[before..].iter().map(|call| call.volume_id.as_str()).collect();
    assert_eq!(after, [volume_id(&pod, &pod.volumes[0])], "the other left nothing to be found");
    assert_eq!(files::mounts_at(&target)?, 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_registration_socket_is_private_survives_a_crash_and_goes_with_a_proper_end()
-> anyhow::Result<()> {
    let (mut scene, pod) = scene().await?;
    let socket = scene.kubelet().registration_dir().join("csi.sotto.dev-reg.sock");
    let is_socket = || std::fs::symlink_metadata(&socket).map(|it| it.file_type().is_socket());
    assert!(is_socket()?);
    assert_eq!(std::fs::metadata(&socket)?.permissions().mode() & 0o077, 0, "umask 0077");
    scene.node().csi().kill().await?;
    assert!(is_socket()?, "a killed driver leaves it");
    scene.node_mut().restart_csi().await?;
    let target = scene.publish(&pod).await?;
    assert_eq!(files::read(target.join("p")).await?, "p-1", "and the next one replaces it");
    scene.stop(&pod).await?;
    scene.node().csi().end().await?;
    assert!(!socket.exists());
    Ok(())
}
