//! Pods with a sidecar: it is killed, hangs, or never starts; their ends.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::process::Signal;
use sotto_dev::bao::Bao;
use sotto_dev::node::{Injected, Restart};
use sotto_tests::procfs;
use sotto_tests::readers::Readers;
use sotto_tests::scene::{Scene, StoreSettings};
use sotto_tests::served::is_gone;
use sotto_tests::sidecars::{self, PATIENCE, no_tokens_are_left};
use sotto_tests::table::{Milliseconds, Outcome};

const REFRESH: [(&str, &str); 1] = [("sotto.dev/refresh", "1s")];
/// A kubelet gives a pod's volumes far longer.
const SOON: Duration = Duration::from_secs(10);

fn judged(readers: Readers) -> anyhow::Result<Outcome> {
    let stall = readers.seen().take_longest();
    let failures = readers.stop().failures();
    anyhow::ensure!(failures.is_empty(), "reads failed: {failures:#?}");
    Ok(Outcome::read(stall))
}

fn readers(secrets: &[PathBuf]) -> anyhow::Result<Readers> {
    Ok(Readers::start(4, secrets.iter().map(|it| it.join("password")).collect())?)
}

pub(crate) async fn is_killed_ten_times() -> anyhow::Result<Outcome> {
    let scene = sidecars::scene().await?;
    let (mut pod, secrets) = scene.delivered("checkout-0", &[]).await?;
    let readers = readers(&[secrets])?;
    for _ in 0..10 {
        readers.read_on(100).await?;
        pod.kill_sidecar().await?;
        pod.restart_sidecar(scene.node(), Restart::Immediate).await?;
        pod.ready(scene.node(), PATIENCE).await?;
    }
    readers.read_on(100).await?;
    let outcome = judged(readers)?;
    pod.end(scene.node()).await?;
    Ok(outcome.noting("the container, with an immediate restart; kubelet's pauses come on top"))
}

/// Stops the sidecar's processes, or wakes them.
fn signal(pod: &Injected, signal: Signal) -> anyhow::Result<()> {
    let running = pod.running().context("no sidecar runs")?.pid();
    procfs::tree(running).into_iter().try_for_each(|pid| Ok(procfs::signal(pid, signal)?))
}

/// Stops a sidecar while the driver's helper is at the operations of its rotation; false if none was met.
async fn stop_in_a_rotation(scene: &Scene<Bao>, pod: &Injected) -> anyhow::Result<bool> {
    let csi = scene.node().csi().pid();
    for turn in 0..20 {
        sidecars::write(scene, &format!("p-{turn}-turned")).await?;
        let begun = Instant::now();
        // A helper lives for some milliseconds.
        while begun.elapsed() < Duration::from_secs(3) {
            if !procfs::children(csi).is_empty() {
                signal(pod, Signal::STOP)?;
                if !procfs::children(csi).is_empty() {
                    return Ok(true);
                }
                signal(pod, Signal::CONT)?;
                break;
            }
            tokio::task::yield_now().await;
        }
    }
    signal(pod, Signal::STOP)?;
    Ok(false)
}

pub(crate) async fn never_answers_a_rename_while_the_driver_is_killed() -> anyhow::Result<Outcome> {
    let mut scene = sidecars::scene().await?;
    let (mut other, others) = scene.delivered("checkout-1", &[]).await?;
    let (mut pod, _) = scene.delivered("checkout-0", &REFRESH).await?;
    let readers = readers(&[others])?;
    readers.read_on(50).await?;
    let met = stop_in_a_rotation(&scene, &pod).await?;
    let begun = Instant::now();
    scene.node_mut().restart_csi().await?;
    let back = begun.elapsed();
    anyhow::ensure!(back < SOON, "the driver was back after {back:?}");
    readers.read_on(50).await?;
    let (mut third, _) = scene.delivered("checkout-2", &[]).await?;
    third.end(scene.node()).await?;
    signal(&pod, Signal::CONT)?;
    pod.ready(scene.node(), PATIENCE).await?;
    let outcome = judged(readers)?;
    pod.end(scene.node()).await?;
    other.end(scene.node()).await?;
    let met = if met { "in the middle of its rename" } else { "no rename met" };
    Ok(outcome.noting(format!("the driver was back after {}, {met}", Milliseconds(back))))
}

pub(crate) async fn never_starts() -> anyhow::Result<Outcome> {
    let mut settings = StoreSettings::sidecars();
    settings.csi_arguments.push("--request-deadline=2s".to_owned());
    let scene = sidecars::scene_with(settings).await?;
    let fds = procfs::fds(scene.node().csi().pid());
    let mut pod = scene.injected("checkout-0", &[]).await?;
    scene.publish_injected(&pod).await?;
    pod.show_handoff(scene.node())?;
    let said = pod.probe(scene.node()).await?;
    let said = said.context("a pod without a sidecar is no pod that is ready")?;
    anyhow::ensure!(!said.trim().is_empty(), "kubelet's event has no reason");
    // The stat of a subPath volume, which kubelet makes before it unpublishes.
    let target = scene.kubelet().target(&pod.pod, pod.secrets()?);
    let subpath = target.join("tls/user");
    let stat = tokio::task::spawn_blocking(move || std::fs::metadata(subpath));
    let answer = tokio::time::timeout(SOON, stat).await.context("the stat hangs")??;
    anyhow::ensure!(answer.is_err(), "nobody serves it");
    let begun = Instant::now();
    tokio::time::timeout(SOON, pod.end(scene.node())).await.context("it can't be deleted")??;
    let took = begun.elapsed();
    anyhow::ensure!(is_gone(&target)?, "a mount is left");
    let back = || procfs::fds(scene.node().csi().pid()) <= fds;
    sotto_tests::wait::until("the driver's descriptors", back).await?;
    Ok(Outcome::held().noting(format!(
        "the startupProbe's event has the reason; deleted in {}",
        Milliseconds(took)
    )))
}

pub(crate) async fn serves_until_the_last_exit() -> anyhow::Result<Outcome> {
    const LATER: Duration = Duration::from_secs(5);
    let scene = sidecars::scene().await?;
    let (mut pod, secrets) = scene.delivered("checkout-0", &[]).await?;
    // Kubelet has told the application to go, which takes its time; a native sidecar is told when it has.
    let readers = readers(&[secrets])?;
    tokio::time::sleep(LATER).await;
    readers.read_on(100).await?;
    let outcome = judged(readers)?;
    pod.end_application(scene.node())?;
    let (status, took) = pod.end_sidecar(scene.node()).await?;
    anyhow::ensure!(status.success() && took < SOON, "{status} after {took:?}");
    pod.end(scene.node()).await?;
    no_tokens_are_left(scene.store()).await?;
    Ok(outcome.noting(format!("here 5 s; the sidecar then ended in {}", Milliseconds(took))))
}

pub(crate) async fn lets_a_job_complete() -> anyhow::Result<Outcome> {
    let scene = sidecars::scene().await?;
    let (mut pod, secrets) = scene.delivered("job-x", &[]).await?;
    anyhow::ensure!(sotto_tests::files::read(secrets.join("password")).await? == "p-1");
    let begun = Instant::now();
    pod.end(scene.node()).await?;
    let took = begun.elapsed();
    anyhow::ensure!(took < SOON, "it took {took:?}");
    no_tokens_are_left(scene.store()).await?;
    Ok(Outcome::held().noting(format!("all of it gone {} after the last exit", Milliseconds(took))))
}
