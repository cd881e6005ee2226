//! What kubelet does after an error: it backs off and tries again, unpublishes or doesn't; and what it must
//! never meet on a volume that is mounted.

use std::sync::Arc;
use std::time::Duration;

use sotto_dev::issuer::Signature;
use sotto_dev::kubelet::{CallKind, KubeletError, Pod};
use sotto_dev::store::{DevStore, Fault, Operation, ROLE, Role};
use sotto_tests::scene::Scene;
use sotto_tests::{files, wait};
use tonic::Code;

use super::{SOON, journal, scene};

/// No mount, no directory, no journal entry, no login that lives on.
async fn assert_nothing_left(scene: &Scene<DevStore>, pod: &Pod) -> anyhow::Result<()> {
    let target = scene.kubelet().target(pod, &pod.volumes[0]);
    assert_eq!(files::mounts_at(&target)?, 0);
    assert!(!target.exists());
    assert!(journal(scene)?.is_empty(), "{:?}", journal(scene)?);
    wait::until("the end of the store's token", || scene.store().tokens() == 0).await
}

fn unpublishes(scene: &Scene<DevStore>) -> usize {
    let calls = scene.kubelet().calls();
    calls.iter().filter(|call| call.kind == CallKind::Unpublish).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publish_is_tried_again_with_growing_pauses_until_the_store_is_there()
-> anyhow::Result<()> {
    let (scene, pod) = scene().await?;
    scene.store().fail(None, Fault::Sealed, None);
    let heal = async {
        let failures = scene.kubelet().until_calls(|calls| calls.len() == 3).await;
        scene.store().heal();
        failures
    };
    let (targets, failures) = tokio::join!(scene.kubelet().start(&pod, SOON), heal);
    assert_eq!(files::read(targets?[0].join("p")).await?, "p-1");
    assert!(failures.iter().all(|call| call.code == Code::Unavailable), "{failures:?}");
    let calls = scene.kubelet().calls();
    let pauses = calls.windows(2).map(|pair| pair[1].sent - pair[0].answered);
    let wanted = [500, 1_000, 2_000].map(Duration::from_millis);
    for (pause, wanted) in pauses.zip(wanted) {
        assert!(pause >= wanted, "{pause:?} instead of {wanted:?}: {calls:?}");
    }
    scene.stop(&pod).await
}

/// Refuses the pod's volume with this code; nothing is left, before and after the pod's end. Whether kubelet
/// unpublished it.
async fn refused_and_stopped(
    scene: &Scene<DevStore>,
    pod: &Pod,
    code: Code,
) -> anyhow::Result<bool> {
    let (refused, message) = scene.refused(pod).await?;
    assert_eq!(refused, code, "{}: {message}", pod.name);
    assert_nothing_left(scene, pod).await?;
    let before = unpublishes(scene);
    scene.stop(pod).await?;
    assert_nothing_left(scene, pod).await?;
    Ok(unpublishes(scene) > before)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_left_of_a_refused_publish_whether_its_unpublish_comes_or_not()
-> anyhow::Result<()> {
    let (scene, _) = scene().await?;
    for (name, operation, fault, code, comes) in [
        ("sealed-0", Operation::Login, Fault::Sealed, Code::Unavailable, true),
        ("denied-0", Operation::Read, Fault::Denied, Code::PermissionDenied, false),
    ] {
        scene.store().fail(Some(operation), fault, None);
        let pod = scene.pod(name, "checkout", "db");
        assert_eq!(refused_and_stopped(&scene, &pod, code).await?, comes, "{name}");
        scene.store().heal();
    }
    // The store takes the login, and then knows none of its tokens.
    let ended = Role { token_ttl: Duration::ZERO, ..Role::of_namespace("payments") };
    scene.store().put_role("jwt", ROLE, ended);
    let pod = scene.pod("token-0", "checkout", "db");
    assert!(!refused_and_stopped(&scene, &pod, Code::Unauthenticated).await?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_unauthenticated_no_unpublish_comes_and_none_is_needed() -> anyhow::Result<()> {
    let (scene, pod) = scene().await?;
    scene.kubelet().mint_with(Arc::new(|token| token.signature(Signature::Forged)));
    let (code, message) = scene.refused(&pod).await?;
    assert_eq!(code, Code::Unauthenticated, "{message}");
    scene.stop(&pod).await?;
    assert_eq!(unpublishes(&scene), 0, "kubelet sends none");
    assert_nothing_left(&scene, &pod).await?;
    assert_eq!(scene.store().count(Operation::Login), 0);
    // The same pod starts as soon as its token is good, with the same volume id and target.
    scene.kubelet().mint_with(Arc::new(|token| token));
    assert_eq!(files::read(scene.publish(&pod).await?.join("p")).await?, "p-1");
    scene.stop(&pod).await
}

/// An error there would cost the pod its directory (kubernetes#121271).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_republish_of_a_mounted_volume_is_an_error() -> anyhow::Result<()> {
    let (scene, pod) = scene().await?;
    let (kubelet, volume) = (scene.kubelet(), &pod.volumes[0]);
    let target = scene.publish(&pod).await?;
    let mount = files::mount_line(&target)?;
    let with = |change: fn(&mut sotto_proto::csi::v1::NodePublishVolumeRequest)| {
        let mut request = kubelet.request(&pod, volume);
        change(&mut request);
        request
    };
    let requests = [
        ("no token", with(|request| request.secrets.clear())),
        (
            "no map of tokens",
            with(|request| {
                request.secrets.values_mut().for_each(|value| *value = "{".to_owned());
            }),
        ),
        ("no attributes", with(|request| request.volume_context.clear())),
        (
            "an attribute that can't be",
            with(|request| {
                request.volume_context.insert("sotto.dev/refresh".to_owned(), "soon".to_owned());
            }),
        ),
        (
            "another class",
            with(|request| {
                request.volume_context.insert("secretProviderClass".to_owned(), "other".to_owned());
            }),
        ),
    ];
    for (name, request) in requests {
        let sent = kubelet.send(request).await;
        assert!(sent.is_ok(), "{name}: {sent:?}");
    }
    kubelet.mint_with(Arc::new(|token| token.audience("other")));
    kubelet.sync(&pod).await?;
    std::fs::remove_file(scene.node().path("classes/db.yaml"))?;
    kubelet.sync(&pod).await?;
    scene.store().go_dark();
    kubelet.sync(&pod).await?;
    scene.node().agent().kill().await?;
    kubelet.sync(&pod).await?;
    assert_eq!(files::mount_line(&target)?, mount);
    let calls = kubelet.calls();
    assert!(calls.iter().all(|call| call.code == Code::Ok), "{calls:?}");
    scene.stop(&pod).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_ends_while_the_driver_is_down_waits_for_it() -> anyhow::Result<()> {
    let (mut scene, pod) = scene().await?;
    let target = scene.publish(&pod).await?;
    scene.node().csi().kill().await?;
    let down = scene.stop(&pod).await.expect_err("nobody listens");
    assert!(matches!(down.downcast_ref(), Some(KubeletError::Unreachable)), "{down:?}");
    assert_eq!(files::read(target.join("p")).await?, "p-1", "the pod reads on");
    scene.node_mut().restart_csi().await?;
    scene.stop(&pod).await?;
    assert_nothing_left(&scene, &pod).await
}

/// A stat of a mount that nobody serves doesn't return.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stats_come_from_the_drivers_state_also_while_nobody_serves() -> anyhow::Result<()> {
    let (mut scene, pod) = scene().await?;
    let volume = &pod.volumes[0];
    scene.publish(&pod).await?;
    let stats = scene.kubelet().stats(&pod, volume).await?;
    let condition = stats.volume_condition.expect("the driver says that it has one");
    assert!(!condition.abnormal, "{}", condition.message);
    assert_eq!(stats.usage[0].total, 1, "one object");
    scene.node().agent().kill().await?;
    let abnormal = async {
        loop {
            let stats = scene.kubelet().stats(&pod, volume).await?;
            match stats.volume_condition {
                Some(condition) if condition.abnormal => return anyhow::Ok(condition.message),
                Some(_) | None => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    };
    let message = tokio::time::timeout(SOON, abnormal).await??;
    assert!(message.contains("sotto-node"), "{message}");
    scene.node_mut().restart_agent().await?;
    scene.stop(&pod).await
}
