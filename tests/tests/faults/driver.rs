//! The driver dies, leaves, or finds what an earlier one left.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use rustix::process::Signal;
use sotto_dev::kubelet::{Pod, volume_id};
use sotto_dev::process::{Program, Running};
use sotto_dev::store::{DevStore, Fault, Operation};
use sotto_tests::chance::Chance;
use sotto_tests::files;
use sotto_tests::scene::Scene;
use sotto_tests::served::{Served, is_gone, value};
use sotto_tests::table::Outcome;
use sotto_tests::wait::until;

pub(crate) async fn is_killed() -> anyhow::Result<Outcome> {
    let refreshed = [("sotto.dev/refresh", "1s")];
    let mut served = Served::start(Scene::embedded().await?, 5, &refreshed).await?;
    let (mounts, readers) = (served.mounts()?, served.readers(4)?);
    for _ in 0..3 {
        readers.read_on(100).await?;
        served.scene.node().csi().kill().await?;
        readers.read_on(200).await?;
        served.scene.node_mut().restart_csi().await?;
        served.all_served().await?;
        let next = served.write().await?;
        served.all_show(&next).await.context("rotation goes on")?;
    }
    anyhow::ensure!(served.mounts()? == mounts, "the mounts are others");
    let outcome = served.judged(readers)?;
    served.stop().await?;
    Ok(outcome.noting("3 times; rotation goes on"))
}

pub(crate) async fn is_rolled_under_a_hundred_volumes() -> anyhow::Result<Outcome> {
    let mut served = Served::start(Scene::embedded().await?, 100, &[]).await?;
    let readers = served.readers(8)?;
    readers.read_on(200).await?;
    let slow = Fault::Slow(Duration::from_secs(1));
    served.scene.store().fail(Some(Operation::Login), slow, Some(1));
    let pending = served.pod(1_000, &[]);
    let logins = served.scene.store().count(Operation::Login);
    let kubelet = std::sync::Arc::clone(served.scene.node().kubelet());
    let publish = {
        let (kubelet, pod) = (std::sync::Arc::clone(&kubelet), pending.clone());
        tokio::spawn(async move { kubelet.publish(&pod, &pod.volumes[0]).await })
    };
    until("the pending login", || served.scene.store().count(Operation::Login) > logins).await?;
    served.scene.node_mut().roll_csi().await?;
    let target = publish.await?.context("the pending mount")?;
    anyhow::ensure!(files::read(target.join("a")).await? == value(1));
    served.all_served().await?;
    readers.read_on(200).await?;
    let outcome = served.judged(readers)?;
    kubelet.stop(&pending).await?;
    served.stop().await?;
    Ok(outcome)
}

/// Sockets of the dead, a directory and a journal entry without a mount, a symlink instead of a socket.
pub(crate) async fn finds_what_is_stale() -> anyhow::Result<Outcome> {
    let mut served = Served::start(Scene::embedded().await?, 2, &[]).await?;
    let node = served.scene.node();
    node.csi().kill().await?;
    node.agent().kill().await?;
    let socket = node.path("run/node.sock");
    anyhow::ensure!(socket.exists(), "its socket is left");
    std::fs::remove_file(&socket)?;
    let other = node.path("etc/elsewhere");
    std::os::unix::fs::symlink(&other, &socket)?;
    node.end_container(&served.targets[0])?;
    anyhow::ensure!(files::mounts_at(&served.targets[0])? == 0 && served.targets[0].is_dir());
    // Nothing but a socket is taken away: a symlink there is somebody's doing.
    let refused = served.scene.node_mut().restart_csi_alone().await.err().context("it started")?;
    anyhow::ensure!(refused.to_string().contains("move it away"), "{refused}");
    anyhow::ensure!(!other.exists(), "it followed a symlink");
    std::fs::remove_file(&socket)?;
    served.scene.node_mut().restart_csi_alone().await?;
    served.scene.node_mut().restart_agent().await?;
    anyhow::ensure!(is_gone(&served.targets[0])?, "the directory without a mount is left");
    anyhow::ensure!(journal(&served.scene)? == 1, "the journal names what isn't mounted");
    // Both of them end the same way, published or not.
    for pod in &served.pods {
        let target = served.scene.kubelet().target(pod, &pod.volumes[0]);
        served.scene.publish(pod).await?;
        anyhow::ensure!(files::mounts_at(&target)? >= 1);
    }
    served.stop().await?;
    Ok(Outcome::held().noting("a symlink in a socket's place is refused, with what to do"))
}

fn journal(scene: &Scene<DevStore>) -> std::io::Result<usize> {
    Ok(std::fs::read_dir(scene.node().path("run/volumes"))?.count())
}

/// SIGKILL at any moment of publish and unpublish: what is left without power is less than that.
pub(crate) async fn is_killed_while_it_publishes() -> anyhow::Result<Outcome> {
    let Cut { cut, calls, .. } = interrupted(Signal::KILL).await?;
    anyhow::ensure!(cut > 0, "no call was cut");
    Ok(Outcome::held().noting(format!("{cut} of {calls} calls cut")))
}

pub(crate) async fn is_terminated_while_it_publishes() -> anyhow::Result<Outcome> {
    let Cut { met, cut, calls } = interrupted(Signal::TERM).await?;
    anyhow::ensure!(met > 0, "no call was under way");
    let sanity = sanity().await?;
    let note = format!("{met} of {calls} calls met under way, {cut} of them cut; {sanity}");
    Ok(Outcome::held().noting(note))
}

/// The specification's own suite, as `make sanity` runs it.
async fn sanity() -> anyhow::Result<&'static str> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (script, suite) = (here.join("tools/sanity"), here.join("../.tools/csi-sanity"));
    if !suite.exists() {
        return Ok("csi-sanity isn't installed here: `make sanity`");
    }
    let run = Running::start(Program::new("sanity", script)).await?;
    let passed = run.wait(Duration::from_secs(180)).await?;
    anyhow::ensure!(passed.success(), "csi-sanity: {}", run.log().tail());
    Ok("csi-sanity passes")
}

/// Calls, those that were under way when the signal came, and those that were cut by it.
#[derive(Default)]
struct Cut {
    calls: usize,
    met: usize,
    cut: usize,
}

impl Cut {
    fn count(&mut self, (met, cut): (bool, bool)) {
        self.calls += 1;
        self.met += usize::from(met);
        self.cut += usize::from(cut);
    }
}

async fn interrupted(signal: Signal) -> anyhow::Result<Cut> {
    const ROUNDS: usize = 10;
    let mut served = Served::start(Scene::embedded().await?, 0, &[]).await?;
    let seed = Chance::seed();
    let (mut chance, mut cut) = (Chance::of(seed), Cut::default());
    for round in 0..ROUNDS {
        let pod = served.pod(round, &[]);
        let told = || format!("round {round} (SEED={seed})");
        let moment = chance.within(Duration::from_millis(60));
        cut.count(cut_publish(&mut served, &pod, signal, moment).await.with_context(told)?);
        let target = served.scene.publish(&pod).await.with_context(told)?;
        anyhow::ensure!(files::mounts_at(&target)? == 1, "{}: not one mount", told());
        anyhow::ensure!(files::read(target.join("a")).await? == value(1));
        let moment = chance.within(Duration::from_millis(20));
        cut.count(cut_unpublish(&mut served, &pod, signal, moment).await.with_context(told)?);
        served.scene.stop(&pod).await.with_context(told)?;
        anyhow::ensure!(is_gone(&target)? && journal(&served.scene)? == 0, "{}: left", told());
    }
    let tokens = || served.scene.store().tokens() == 0;
    until("an end of the store's tokens", tokens).await?;
    Ok(cut)
}

/// Ends the driver in the middle of a publish, and starts another one; whether the call was met, and whether cut.
async fn cut_publish(
    served: &mut Served<DevStore>,
    pod: &Pod,
    signal: Signal,
    moment: Duration,
) -> anyhow::Result<(bool, bool)> {
    let kubelet = std::sync::Arc::clone(served.scene.node().kubelet());
    let pod = pod.clone();
    let call = tokio::spawn(async move { kubelet.publish(&pod, &pod.volumes[0]).await });
    tokio::time::sleep(moment).await;
    let met = !call.is_finished();
    end(served, signal).await?;
    Ok((met, call.await?.is_err()))
}

async fn cut_unpublish(
    served: &mut Served<DevStore>,
    pod: &Pod,
    signal: Signal,
    moment: Duration,
) -> anyhow::Result<(bool, bool)> {
    let kubelet = std::sync::Arc::clone(served.scene.node().kubelet());
    let id = volume_id(pod, &pod.volumes[0]);
    let target: PathBuf = kubelet.target(pod, &pod.volumes[0]);
    let call =
        tokio::spawn(async move { kubelet.send_unpublish(&id, &target.to_string_lossy()).await });
    tokio::time::sleep(moment).await;
    let met = !call.is_finished();
    end(served, signal).await?;
    Ok((met, call.await?.is_err()))
}

async fn end(served: &mut Served<DevStore>, signal: Signal) -> anyhow::Result<()> {
    let node = served.scene.node_mut();
    if signal == Signal::TERM {
        node.roll_csi().await?;
    } else {
        node.restart_csi().await?;
    }
    Ok(())
}
