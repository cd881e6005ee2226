//! The driver killed at each step of a pod's start, and while it lives.

use sotto_dev::bao::Bao;
use sotto_tests::files::{self, read};
use sotto_tests::readers::Readers;
use sotto_tests::scene::Scene;
use sotto_tests::served::is_gone;
use sotto_tests::sidecars::{PATIENCE, scene};

/// Between which two steps the driver is killed.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Moment {
    BeforeBoth,
    BetweenBoth,
    AfterBoth,
    WhileItAttaches,
    AfterAttach,
    WhileItEnds,
}

/// Which of the two volumes is published first.
#[derive(Debug, Clone, Copy, PartialEq)]
enum First {
    Secrets,
    Handoff,
}

/// The driver is killed, and kubelet, which notices nothing, goes on with the one that comes.
async fn kill_if(scene: &mut Scene<Bao>, now: Moment, wanted: Moment) -> anyhow::Result<()> {
    if now == wanted {
        scene.node_mut().restart_csi().await?;
    }
    Ok(())
}

async fn start_with_a_kill(scene: &mut Scene<Bao>, at: Moment, first: First) -> anyhow::Result<()> {
    let mut pod = scene.injected("checkout-0", &[]).await?;
    kill_if(scene, Moment::BeforeBoth, at).await?;
    let (one, other) = match first {
        First::Secrets => (pod.secrets()?, pod.handoff()?),
        First::Handoff => (pod.handoff()?, pod.secrets()?),
    };
    scene.kubelet().publish(&pod.pod, one).await?;
    kill_if(scene, Moment::BetweenBoth, at).await?;
    scene.kubelet().publish(&pod.pod, other).await?;
    kill_if(scene, Moment::AfterBoth, at).await?;
    pod.start_sidecar(scene.node()).await?;
    kill_if(scene, Moment::WhileItAttaches, at).await?;
    if pod.ready(scene.node(), PATIENCE).await.is_err() {
        anyhow::bail!("{at:?}: never ready{}", scene.last_lines_of(&pod));
    }
    let secrets = pod.show_secrets(scene.node())?;
    let readers = Readers::start(2, vec![secrets.join("password")])?;
    readers.read_on(20).await?;
    kill_if(scene, Moment::AfterAttach, at).await?;
    readers.read_on(20).await?;
    let failures = readers.stop().failures();
    anyhow::ensure!(failures.is_empty(), "{at:?}: {failures:?}{}", scene.last_lines_of(&pod));
    assert_eq!(read(secrets.join("password")).await?, "p-1");
    let targets = [pod.secrets()?, pod.handoff()?].map(|it| scene.kubelet().target(&pod.pod, it));
    pod.end_application(scene.node())?;
    pod.end_sidecar(scene.node()).await?;
    kill_if(scene, Moment::WhileItEnds, at).await?;
    pod.end(scene.node()).await?;
    for target in targets {
        anyhow::ensure!(is_gone(&target)?, "{at:?}: {} is left", target.display());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_step_of_a_pods_start_it_finds_its_way_back() -> anyhow::Result<()> {
    let mut scene = scene().await?;
    for first in [First::Secrets, First::Handoff] {
        for moment in
            [Moment::BeforeBoth, Moment::BetweenBoth, Moment::AfterBoth, Moment::WhileItAttaches]
        {
            start_with_a_kill(&mut scene, moment, first).await?;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_while_a_pod_reads_and_while_it_ends_it_fails_no_read_and_leaves_nothing()
-> anyhow::Result<()> {
    let mut scene = scene().await?;
    for moment in [Moment::AfterAttach, Moment::WhileItEnds] {
        start_with_a_kill(&mut scene, moment, First::Secrets).await?;
    }
    Ok(())
}

/// Kubelet publishes both again when it is restarted, in spite of requiresRepublish: false. Nothing may touch the target
/// of a mount that nobody serves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_kubelet_publishes_again_and_nothing_hangs_though_nobody_serves()
-> anyhow::Result<()> {
    let scene = scene().await?;
    let mut pod = scene.injected("checkout-0", &[]).await?;
    scene.publish_injected(&pod).await?;
    for _ in 0..2 {
        scene.kubelet().restart(PATIENCE).await?;
        let again = scene.kubelet().reconstruct(&pod.pod);
        tokio::time::timeout(std::time::Duration::from_secs(5), again).await??;
    }
    pod.start_sidecar(scene.node()).await?;
    pod.ready(scene.node(), PATIENCE).await?;
    scene.kubelet().reconstruct(&pod.pod).await?;
    let secrets = pod.show_secrets(scene.node())?;
    assert_eq!(read(secrets.join("password")).await?, "p-1");
    for volume in [pod.secrets()?, pod.handoff()?] {
        assert_eq!(files::mounts_at(&scene.kubelet().target(&pod.pod, volume))?, 1);
    }
    pod.end(scene.node()).await?;
    Ok(())
}
