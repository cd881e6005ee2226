//! How a pod ends: readable until the application's last container has exited, and nothing is left in the store.

use std::time::{Duration, Instant};

use sotto_dev::bao::jwt_role;
use sotto_dev::postgres::Postgres;
use sotto_tests::files::read;
use sotto_tests::scene::StoreSettings;
use sotto_tests::served::is_gone;
use sotto_tests::sidecars::{PATIENCE, no_tokens_are_left, pod_tokens, scene, scene_with};

/// A native sidecar gets its SIGTERM when the application has exited, and what is left of the grace period.
const SOON: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_ends_leaves_no_token_in_the_store() -> anyhow::Result<()> {
    let scene = scene().await?;
    let (mut pod, secrets) = scene.delivered("checkout-0", &[]).await?;
    assert_eq!(pod_tokens(scene.store()).await?.len(), 1, "the detector detects");
    assert_eq!(read(secrets.join("password")).await?, "p-1");
    pod.end_application(scene.node())?;
    let (status, took) = pod.end_sidecar(scene.node()).await?;
    assert!(status.success(), "{status}{}", scene.last_lines_of(&pod));
    assert!(took < SOON, "{took:?}");
    assert_eq!(pod_tokens(scene.store()).await?, Vec::<String>::new(), "revoked before its exit");
    pod.end(scene.node()).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_under_a_lease_are_gone_from_the_database_with_their_pod() -> anyhow::Result<()>
{
    let scene = scene().await?;
    let postgres = Postgres::start().await?;
    scene.store().enable_database(&postgres, ("60s", "120s"), jwt_role()).await?;
    scene.class(
        "database",
        "- {objectName: username, secretPath: database/creds/payments, secretKey: username}\n\
         - {objectName: password, secretPath: database/creds/payments, secretKey: password}",
    )?;
    let class = [("sotto.dev/secret-provider-class", "database")];
    let (mut pod, secrets) = scene.delivered("checkout-0", &class).await?;
    assert!(!read(secrets.join("username")).await?.is_empty());
    assert_eq!(postgres.roles().await?.len(), 1);
    pod.end(scene.node()).await?;
    let gone = async {
        while !postgres.roles().await?.is_empty() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(SOON, gone).await??;
    Ok(())
}

/// A drain: the sidecar of a pod that is being deleted serves until the application has exited.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_readable_until_the_applications_last_container_has_exited() -> anyhow::Result<()> {
    let scene = scene().await?;
    let (mut pod, secrets) = scene.delivered("checkout-0", &[]).await?;
    // Kubelet has sent SIGTERM to the application, and nothing to a native sidecar yet.
    for _ in 0..20 {
        assert_eq!(read(secrets.join("password")).await?, "p-1");
    }
    pod.end(scene.node()).await?;
    no_tokens_are_left(scene.store()).await
}

/// A Job: kubelet stops the sidecar when the last container has exited, and then the pod is done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_completes_without_delay() -> anyhow::Result<()> {
    let scene = scene().await?;
    let (mut pod, secrets) = scene.delivered("migrate-x", &[]).await?;
    assert_eq!(read(secrets.join("password")).await?, "p-1");
    let begun = Instant::now();
    pod.end(scene.node()).await?;
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    no_tokens_are_left(scene.store()).await
}

/// The sidecar gone by force and a container runtime's `stat` of a subPath that waits: the end of H ends S at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_the_handoff_volume_ends_whoever_waits_for_the_secrets() -> anyhow::Result<()> {
    let mut settings = StoreSettings::sidecars();
    settings.csi_arguments.push("--request-deadline=10m".to_owned());
    let scene = scene_with(settings).await?;
    for serves_first in [false, true] {
        let mut pod = scene.injected("checkout-0", &[]).await?;
        scene.publish_injected(&pod).await?;
        if serves_first {
            pod.start_sidecar(scene.node()).await?;
            pod.ready(scene.node(), PATIENCE).await?;
            pod.kill_sidecar().await?;
        }
        let secrets = scene.kubelet().target(&pod.pod, pod.secrets()?);
        let file = secrets.join("tls/other");
        let waits = tokio::task::spawn_blocking(move || std::fs::metadata(file));
        let begun = Instant::now();
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(!waits.is_finished(), "nobody answers it");
        scene.kubelet().unpublish(&pod.pod, pod.handoff()?).await?;
        let answer = tokio::time::timeout(SOON, waits).await??;
        assert!(answer.is_err());
        tokio::time::timeout(SOON, scene.kubelet().unpublish(&pod.pod, pod.secrets()?)).await??;
        assert!(is_gone(&secrets)? && begun.elapsed() < 2 * SOON, "{:?}", begun.elapsed());
        pod.end(scene.node()).await?;
    }
    Ok(())
}

/// Its pod is deleted by force: both volumes go while the sidecar runs, and before it is told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_is_deleted_by_force_leaves_no_token_either() -> anyhow::Result<()> {
    let scene = scene().await?;
    let (mut pod, _) = scene.delivered("checkout-0", &[]).await?;
    pod.end_application(scene.node())?;
    tokio::time::timeout(PATIENCE, scene.kubelet().stop(&pod.pod)).await??;
    no_tokens_are_left(scene.store()).await?;
    pod.end(scene.node()).await?;
    Ok(())
}
