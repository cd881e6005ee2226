//! What kubelet does, in whatever state the node is.

use std::time::{Duration, Instant};

use anyhow::Context;
use sotto_dev::kubelet::{KubeletError, volume_id};
use sotto_dev::process::{Program, Running};
use sotto_dev::store::Operation;
use sotto_tests::files;
use sotto_tests::procfs;
use sotto_tests::scene::Scene;
use sotto_tests::served::{NAMES, Served, is_gone, value};
use sotto_tests::table::{Milliseconds, Outcome};

const SOON: Duration = Duration::from_secs(20);

pub(crate) async fn restarts() -> anyhow::Result<Outcome> {
    let served = Served::start(Scene::embedded().await?, 3, &[]).await?;
    let (mounts, readers) = (served.mounts()?, served.readers(4)?);
    for _ in 0..3 {
        readers.read_on(100).await?;
        served.scene.kubelet().restart(SOON).await?;
        for pod in &served.pods {
            served.scene.kubelet().sync(pod).await?;
        }
    }
    anyhow::ensure!(served.mounts()? == mounts, "something was mounted anew");
    anyhow::ensure!(served.scene.store().count(Operation::Login) == 3, "it logged in anew");
    let outcome = served.judged(readers)?;
    served.stop().await?;
    Ok(outcome.noting("3 times; a container runtime's restart touches nothing of Sotto's"))
}

pub(crate) async fn publishes_fifty_times_at_once() -> anyhow::Result<Outcome> {
    let served = Served::start(Scene::embedded().await?, 0, &[]).await?;
    let pod = served.pod(0, &[]);
    let (kubelet, volume) = (served.scene.kubelet(), &pod.volumes[0]);
    let target = kubelet.target(&pod, volume);
    std::fs::create_dir_all(target.parent().context("a parent")?)?;
    let request = kubelet.request(&pod, volume);
    let calls = futures::future::join_all((0..50).map(|_| kubelet.send(request.clone()))).await;
    let others = calls.iter().filter_map(|call| call.as_ref().err());
    let wrong: Vec<_> = others.filter(|error| error.code() != tonic::Code::Aborted).collect();
    anyhow::ensure!(wrong.is_empty(), "{wrong:?}");
    let good = calls.iter().filter(|call| call.is_ok()).count();
    anyhow::ensure!(good > 0 && files::mounts_at(&target)? == 1, "not one mount");
    anyhow::ensure!(files::read(target.join("a")).await? == value(1));
    kubelet.send_unpublish(&volume_id(&pod, volume), &target.to_string_lossy()).await?;
    anyhow::ensure!(is_gone(&target)?, "something is left");
    Ok(Outcome::held().noting(format!("{good} OK, the rest ABORTED")))
}

pub(crate) async fn republishes_while_the_store_is_down() -> anyhow::Result<Outcome> {
    let served = Served::start(Scene::embedded().await?, 2, &[]).await?;
    let (mounts, readers) = (served.mounts()?, served.readers(2)?);
    served.scene.store().go_dark();
    for _ in 0..5 {
        for pod in &served.pods {
            served.scene.kubelet().republish(pod, &pod.volumes[0]).await?;
        }
        readers.read_on(50).await?;
    }
    anyhow::ensure!(served.mounts()? == mounts, "the mounts are others");
    let outcome = served.judged(readers)?;
    served.scene.store().come_back().await?;
    served.stop().await?;
    Ok(outcome)
}

pub(crate) async fn unpublishes_twice_and_the_unknown() -> anyhow::Result<Outcome> {
    let served = Served::start(Scene::embedded().await?, 1, &[]).await?;
    let (pod, kubelet) = (&served.pods[0], served.scene.kubelet());
    let id = volume_id(pod, &pod.volumes[0]);
    for _ in 0..2 {
        kubelet.send_unpublish(&id, &served.targets[0].to_string_lossy()).await?;
        anyhow::ensure!(is_gone(&served.targets[0])?, "something is left");
    }
    let never = served.pod(7, &[]);
    let target = kubelet.target(&never, &never.volumes[0]);
    kubelet.send_unpublish("csi-never", &target.to_string_lossy()).await?;
    served.stop().await?;
    Ok(Outcome::held())
}

pub(crate) async fn unpublishes_under_open_files() -> anyhow::Result<Outcome> {
    let served = Served::start(Scene::embedded().await?, 1, &[]).await?;
    let files: Vec<_> = served.files();
    let open = files.iter().map(std::fs::File::open).collect::<std::io::Result<Vec<_>>>()?;
    let directory = std::fs::File::open(&served.targets[0])?;
    let begun = Instant::now();
    served.stop().await?;
    let took = begun.elapsed();
    anyhow::ensure!(took <= Duration::from_secs(10), "{took:?}");
    drop((open, directory));
    Ok(Outcome::held().noting(format!("took {}", Milliseconds(took))))
}

/// Grace 0: the containers are killed and the volume ends at once, here with nobody to serve it.
pub(crate) async fn deletes_by_force() -> anyhow::Result<Outcome> {
    let mut served = Served::start(Scene::embedded().await?, 2, &[]).await?;
    let file = served.targets[0].join(NAMES[0]);
    served.scene.node().agent().kill().await?;
    let tail = ["-f".to_owned(), file.display().to_string()];
    let reader = Running::start(Program::new("tail", "/usr/bin/tail").arguments(tail)).await?;
    let (pod, target) = (served.pods.remove(0), served.targets.remove(0));
    let (killed, stopped) = tokio::join!(reader.kill(), served.scene.stop(&pod));
    killed.context("its container can't be killed")?;
    stopped?;
    anyhow::ensure!(is_gone(&target)?, "something is left");
    let stuck = procfs::stuck(&[served.scene.node().csi().pid()]);
    anyhow::ensure!(stuck.is_empty(), "in D state: {stuck:?}");
    served.scene.node_mut().restart_agent().await?;
    served.all_served().await?;
    served.stop().await?;
    Ok(Outcome::held())
}

pub(crate) async fn ends_a_pod_while_the_driver_is_away() -> anyhow::Result<Outcome> {
    let mut served = Served::start(Scene::embedded().await?, 1, &[]).await?;
    served.scene.node().csi().kill().await?;
    let down = served.scene.stop(&served.pods[0]).await.err().context("nobody listens")?;
    anyhow::ensure!(matches!(down.downcast_ref(), Some(KubeletError::Unreachable)), "{down:?}");
    anyhow::ensure!(files::read(served.targets[0].join("a")).await? == value(1), "it reads on");
    served.scene.node_mut().restart_csi().await?;
    served.stop().await?;
    Ok(Outcome::held())
}

/// What a pod with fsGroup, another user, and an init container see.
pub(crate) async fn starts_pods_of_several_users() -> anyhow::Result<Outcome> {
    if !sotto_dev::node::is_mapped(2000) {
        return Ok(Outcome::not_here("this user namespace has no other users"));
    }
    let served = Served::start(Scene::embedded().await?, 0, &[]).await?;
    let mut pod = served.pod(0, &[]);
    pod.fs_group = Some(2000);
    let target = served.scene.publish(&pod).await?;
    let seen = files::mode_and_owner(target.join("a")).await?;
    anyhow::ensure!(seen == (0o440, 0, 2000), "{seen:?}");
    let shown = served.scene.node().show_in_container(&target, "mnt/container")?;
    let member = files::cat_as(&shown.join("a"), 1000, 2000).await?;
    anyhow::ensure!(String::from_utf8_lossy(&member.stdout) == value(1), "{member:?}");
    let stranger = files::cat_as(&shown.join("a"), 1000, 1000).await?;
    let said = String::from_utf8_lossy(&stranger.stderr).into_owned();
    anyhow::ensure!(!stranger.status.success() && said.contains("Permission denied"), "{said}");
    served.scene.node().end_container(&shown)?;
    served.scene.stop(&pod).await?;
    served.stop().await?;
    Ok(Outcome::held())
}

/// An init container is the first to read, the moment that kubelet has its OK.
pub(crate) async fn starts_an_init_container() -> anyhow::Result<Outcome> {
    let served = Served::start(Scene::embedded().await?, 0, &[]).await?;
    let mut slowest = Duration::ZERO;
    for number in 0..5 {
        let pod = served.pod(number, &[]);
        let target = served.scene.publish(&pod).await?;
        let begun = Instant::now();
        anyhow::ensure!(std::fs::read_to_string(target.join("a"))? == value(1), "not its value");
        slowest = slowest.max(begun.elapsed());
        served.scene.stop(&pod).await?;
    }
    Ok(Outcome::read(slowest))
}
