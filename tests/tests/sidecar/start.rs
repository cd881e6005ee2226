//! How a pod starts: in kubelet's order, and in every other.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use sotto_dev::node::Injected;
use sotto_tests::files::{self, read};
use sotto_tests::scene::StoreSettings;
use sotto_tests::sidecars::{self, PATIENCE, is, scene, scene_with};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_injected_pod_reads_its_secrets_and_no_token_went_to_the_driver() -> anyhow::Result<()> {
    let scene = scene().await?;
    let mut pod = scene.injected("checkout-0", &[]).await?;
    for volume in &pod.pod.volumes {
        let request = scene.kubelet().request(&pod.pod, volume);
        assert!(request.secrets.is_empty(), "kubelet sends nothing but the volume");
        assert!(!request.volume_context.keys().any(|key| key.contains("tokens")));
    }
    scene.publish_injected(&pod).await?;
    let unready = pod.probe(scene.node()).await?;
    assert!(unready.is_some(), "nobody serves it, so nothing may be started");
    pod.start_sidecar(scene.node()).await?;
    pod.ready(scene.node(), PATIENCE).await?;
    let secrets = pod.show_secrets(scene.node())?;
    let files = files::tree(secrets).await?;
    let wanted = [("password", "p-1"), ("tls/user", "u-1")];
    assert_eq!(files, wanted.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
    let opened = |records: &[serde_json::Value]| records.iter().any(|it| is(it, "open", "allowed"));
    let records = pod.audited("the open", PATIENCE, opened).await?;
    assert!(records.iter().any(|it| is(it, "fetch", "allowed")), "{records:?}");
    pod.end(scene.node()).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_volumes_may_be_published_in_either_order() -> anyhow::Result<()> {
    let scene = scene().await?;
    for (name, handoff_first) in [("first-0", true), ("last-0", false)] {
        let mut pod = scene.injected(name, &[]).await?;
        let (one, other) = match handoff_first {
            true => (pod.handoff()?, pod.secrets()?),
            false => (pod.secrets()?, pod.handoff()?),
        };
        scene.kubelet().publish(&pod.pod, one).await?;
        scene.kubelet().publish(&pod.pod, other).await?;
        pod.start_sidecar(scene.node()).await?;
        pod.ready(scene.node(), PATIENCE).await?;
        let secrets = pod.show_secrets(scene.node())?;
        assert_eq!(read(secrets.join("password")).await?, "p-1");
        pod.end(scene.node()).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sidecar_that_is_there_before_the_secrets_volume_waits_for_it() -> anyhow::Result<()> {
    let scene = scene().await?;
    let mut pod = scene.injected("checkout-0", &[]).await?;
    scene.kubelet().publish(&pod.pod, pod.handoff()?).await?;
    pod.start_sidecar(scene.node()).await?;
    for _ in 0..3 {
        assert!(pod.probe(scene.node()).await?.is_some(), "there is nothing to serve yet");
    }
    scene.kubelet().publish(&pod.pod, pod.secrets()?).await?;
    pod.ready(scene.node(), PATIENCE).await?;
    let secrets = pod.show_secrets(scene.node())?;
    assert_eq!(read(secrets.join("password")).await?, "p-1");
    pod.end(scene.node()).await?;
    Ok(())
}

/// A read of the file, on a thread of its own; it may block.
fn reading(file: &Path) -> tokio::task::JoinHandle<(std::io::Result<String>, Duration)> {
    let file = file.to_owned();
    tokio::task::spawn_blocking(move || {
        let begun = Instant::now();
        (std::fs::read_to_string(file), begun.elapsed())
    })
}

/// Starts the sidecar, and waits until it serves.
async fn serve(
    scene: &sotto_tests::scene::Scene<sotto_dev::bao::Bao>,
    pod: &mut Injected,
) -> anyhow::Result<()> {
    pod.start_sidecar(scene.node()).await?;
    pod.ready(scene.node(), PATIENCE).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_reads_before_a_late_sidecar_is_there_waits_for_it() -> anyhow::Result<()> {
    let scene = scene().await?;
    let mut pod = scene.injected("checkout-0", &[]).await?;
    scene.publish_injected(&pod).await?;
    let secrets = pod.show_secrets(scene.node())?;
    let late = reading(&secrets.join("password"));
    let waits = sotto_tests::procfs::waiting(&scene.kubelet().target(&pod.pod, pod.secrets()?));
    assert!(waits.is_none_or(|waiting| waiting <= 1));
    serve(&scene, &mut pod).await?;
    assert_eq!(late.await?.0?, "p-1");
    pod.end(scene.node()).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mount_that_is_touched_too_early_waits_at_most_the_request_deadline() -> anyhow::Result<()>
{
    let mut settings = StoreSettings::sidecars();
    settings.csi_arguments.push("--request-deadline=2s".to_owned());
    let scene = scene_with(settings).await?;
    let mut pod = scene.injected("checkout-0", &[]).await?;
    scene.publish_injected(&pod).await?;
    let secrets = pod.show_secrets(scene.node())?;
    let (answer, took) =
        tokio::time::timeout(PATIENCE, reading(&secrets.join("password"))).await??;
    assert!(answer.is_err(), "nobody serves it");
    assert!(took >= Duration::from_millis(1_500) && took < Duration::from_secs(8), "{took:?}");
    serve(&scene, &mut pod).await?;
    assert_eq!(read(secrets.join("password")).await?, "p-1", "and it can live");
    pod.end(scene.node()).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_sidecar_is_refused_and_reported_and_the_first_serves_on() -> anyhow::Result<()> {
    let scene = scene().await?;
    let (mut pod, secrets) = scene.delivered("checkout-0", &[]).await?;
    let second = pod.another_sidecar(scene.node()).await?;
    let refused =
        |records: &[serde_json::Value]| records.iter().any(|it| is(it, "handoff", "denied"));
    let records = scene.node().audited("the refusal", PATIENCE, refused).await?;
    let record = records.iter().find(|it| is(it, "handoff", "denied"));
    let record = record.expect("it was just awaited");
    assert_eq!(record["pod_uid"], pod.pod.uid.as_str(), "{record}");
    assert_eq!(read(secrets.join("password")).await?, "p-1");
    assert!(pod.probe(scene.node()).await?.is_none(), "the first one serves");
    second.kill().await?;
    assert_eq!(read(secrets.join("password")).await?, "p-1");
    pod.end(scene.node()).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sidecar_with_an_expired_token_is_ready_once_kubelet_has_replaced_it()
-> anyhow::Result<()> {
    let scene = scene().await?;
    scene.kubelet().mint_with(Arc::new(|spec| {
        spec.issued_at(SystemTime::now() - Duration::from_secs(2 * 3_600))
    }));
    let mut pod = scene.injected("checkout-0", &[]).await?;
    scene.publish_injected(&pod).await?;
    pod.start_sidecar(scene.node()).await?;
    let running = pod.running().expect("it was just started");
    let waits = |line: &str| line.contains("waiting for a fresh token");
    let line = running.line("its wait for another token", PATIENCE, waits).await?;
    assert!(line.contains("expired"), "{line}");
    assert!(pod.probe(scene.node()).await?.is_some());
    scene.kubelet().mint_with(Arc::new(|spec| spec));
    pod.renew_token(scene.node())?;
    pod.ready(scene.node(), PATIENCE).await?;
    assert!(pod.running().is_some_and(|it| it.status().is_none()), "it needed no restart");
    let secrets = pod.show_secrets(scene.node())?;
    assert_eq!(read(secrets.join("password")).await?, "p-1");
    pod.end(scene.node()).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sidecar_that_finds_the_store_down_is_ready_once_it_is_up() -> anyhow::Result<()> {
    let mut scene = sotto_tests::scene::Scene::openbao_durable_for_sidecars().await?;
    sidecars::prepare(&scene).await?;
    scene.store().process().kill().await?;
    let mut pod = scene.injected("checkout-0", &[]).await?;
    scene.publish_injected(&pod).await?;
    pod.start_sidecar(scene.node()).await?;
    let outage = |records: &[serde_json::Value]| records.iter().any(|it| is(it, "fetch", "denied"));
    pod.audited("the failed fetch", PATIENCE, outage).await?;
    let said = pod.probe(scene.node()).await?;
    assert!(said.is_some(), "it has nothing to show");
    scene.store_mut().restart().await?;
    pod.ready(scene.node(), PATIENCE).await?;
    let secrets = pod.show_secrets(scene.node())?;
    assert_eq!(read(secrets.join("password")).await?, "p-1");
    pod.end(scene.node()).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_class_that_cannot_be_used_fails_the_publish_with_its_reason() -> anyhow::Result<()> {
    let scene = scene().await?;
    let pod = scene.injected("checkout-0", &[("sotto.dev/secret-provider-class", "none")]).await?;
    scene.kubelet().publish(&pod.pod, pod.handoff()?).await?;
    let refused = scene.kubelet().publish(&pod.pod, pod.secrets()?).await;
    let event = refused.expect_err("there is no such class").event(sotto_dev::node::SECRETS);
    assert!(event.contains("no SecretProviderClass none"), "{event}");
    assert_eq!(files::mounts_at(&scene.kubelet().target(&pod.pod, pod.secrets()?))?, 0);
    scene.kubelet().stop(&pod.pod).await?;
    Ok(())
}
