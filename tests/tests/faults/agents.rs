//! The agent dies, hangs, or never comes up, while applications read.

use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::process::Signal;
use sotto_dev::kubelet::Pod;
use sotto_dev::process::{Line, Program, Running};
use sotto_dev::store::DevStore;
use sotto_dev::test_store::TestStore;
use sotto_tests::cluster::Cluster;
use sotto_tests::procfs;
use sotto_tests::scene::{Scene, StoreSettings};
use sotto_tests::served::{NAMES, Served};
use sotto_tests::table::{Milliseconds, Outcome};
use sotto_tests::wait::until;

/// Until kubelet starts a container again, the first time; chosen, since kubelet has no bound for it.
pub(crate) const RESTART_DELAY: Duration = Duration::from_secs(1);
/// What the driver answers to a reader that nobody serves.
const UNSERVED: [i32; 2] = [libc::EIO, libc::ENOMEM];

pub(crate) async fn is_killed_once() -> anyhow::Result<Outcome> {
    let mut served = Served::start(Scene::embedded().await?, 5, &[]).await?;
    let (mounts, readers) = (served.mounts()?, served.readers(4)?);
    readers.read_on(100).await?;
    served.scene.node().agent().kill().await?;
    let begun = Instant::now();
    tokio::time::sleep(RESTART_DELAY).await;
    served.scene.node_mut().restart_agent().await?;
    let restart = begun.elapsed();
    served.all_served().await?;
    readers.read_on(200).await?;
    anyhow::ensure!(served.mounts()? == mounts, "the mounts are others");
    let outcome = served.judged(readers)?;
    served.stop().await?;
    Ok(outcome.noting(format!("of it {} until the container ran again", Milliseconds(restart))))
}

pub(crate) async fn worker_is_killed() -> anyhow::Result<Outcome> {
    let served = Served::start(Scene::embedded().await?, 5, &[]).await?;
    let (mounts, readers) = (served.mounts()?, served.readers(4)?);
    served.scene.store().go_dark();
    readers.read_on(100).await?;
    killed_and_replaced(&served).await?;
    readers.read_on(100).await?;
    anyhow::ensure!(served.mounts()? == mounts, "the mounts are others");
    let outcome = served.judged(readers)?;
    served.scene.store().come_back().await?;
    served.stop().await?;
    Ok(outcome.noting("5 volumes, the store down"))
}

/// Kills the worker, and waits for another one that serves every volume.
pub(crate) async fn killed_and_replaced<S: TestStore>(served: &Served<S>) -> anyhow::Result<()> {
    // The driver's log: the agent's has a line for each open, and forgets.
    let log = served.scene.node().csi().log();
    let ended = |line: &&Line| line.text.contains("the link to sotto-node ended");
    let links = || log.read(|lines| lines.iter().filter(ended).count());
    let before = links();
    let killed = served.scene.node().kill_worker()?;
    until("the end of its link", || links() > before).await?;
    served.all_served().await?;
    anyhow::ensure!(served.scene.node().worker() != Some(killed), "the same worker");
    Ok(())
}

/// The worker's requests are those that a reader waits for right now.
pub(crate) async fn dies_in_mid_request() -> anyhow::Result<Outcome> {
    const TIMES: usize = 8;
    let served = Served::start(Scene::embedded().await?, 3, &[]).await?;
    let readers = served.readers(8)?;
    for _ in 0..TIMES {
        readers.read_on(50).await?;
        killed_and_replaced(&served).await?;
    }
    readers.read_on(200).await?;
    let outcome = served.judged(readers)?;
    let none_waits = || served.targets.iter().all(|it| procfs::waiting(it).is_none_or(|n| n == 0));
    until("the end of every request", none_waits).await?;
    served.stop().await?;
    Ok(outcome.noting(format!("{TIMES} kills under 8 readers")))
}

pub(crate) async fn crashes_again_and_again() -> anyhow::Result<Outcome> {
    let mut settings = StoreSettings::method("jwt");
    settings.csi_arguments = vec!["--request-deadline=2s".to_owned()];
    let mut served = Served::start(Scene::embedded_with(settings).await?, 1, &[]).await?;
    let config = served.scene.node().path("etc/config.yaml");
    let good = std::fs::read_to_string(&config)?;
    let file = served.targets[0].join(NAMES[0]);
    std::fs::write(&config, "stores: nowhere")?;
    served.scene.node().agent().kill().await?;
    let begun = Instant::now();
    let cat = Program::new("cat", "/bin/cat").arguments([file.display().to_string()]);
    let killed = Running::start(cat).await?;
    let refused = served.scene.node_mut().restart_agent().await.err();
    let refused = refused.with_context(|| format!("it started: {}", served.last_lines()))?;
    anyhow::ensure!(refused.to_string().contains("stores"), "no clear reason: {refused}");
    killed.kill().await.context("a reader can't be killed before the deadline")?;
    let waiting = file.clone();
    let errno = sotto_tests::files::blocking(move || {
        Ok(std::fs::read(waiting).err().and_then(|error| error.raw_os_error()))
    });
    let errno = errno.await?.context("nobody serves, and it was read")?;
    anyhow::ensure!(UNSERVED.contains(&errno), "errno {errno}");
    let waited = begun.elapsed();
    anyhow::ensure!(waited >= Duration::from_secs(2), "before the deadline: {waited:?}");
    let stats = served.scene.kubelet().stats(&served.pods[0], &served.pods[0].volumes[0]).await?;
    let condition = stats.volume_condition.context("no condition")?;
    anyhow::ensure!(
        condition.abnormal && condition.message.contains("sotto-node"),
        "{condition:?}"
    );
    std::fs::write(&config, good)?;
    served.scene.node_mut().restart_agent().await?;
    served.all_served().await?;
    served.all_show(&sotto_tests::served::value(1)).await?;
    served.stop().await?;
    Ok(Outcome::read(waited).noting("EIO after the deadline of 2 s; readers killable before"))
}

/// Stopped for 10 s: reads wait, and nothing else does.
pub(crate) async fn is_stopped_for_a_while() -> anyhow::Result<Outcome> {
    let served = Served::start(Scene::embedded().await?, 4, &[]).await?;
    let worker = served.scene.node().worker().context("no worker")?;
    let readers = served.readers(4)?;
    readers.read_on(100).await?;
    procfs::signal(worker, Signal::STOP)?;
    let stopped = Instant::now();
    let (pod, kubelet) = (&served.pods[0], served.scene.kubelet());
    let mut slowest = Duration::ZERO;
    while stopped.elapsed() < Duration::from_secs(10) {
        let begun = Instant::now();
        anyhow::ensure!(kubelet.driver_is_ready().await, "the driver is not ready");
        kubelet.stats(pod, &pod.volumes[0]).await?;
        slowest = slowest.max(begun.elapsed());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    anyhow::ensure!(slowest < Duration::from_secs(1), "the driver took {slowest:?}");
    procfs::signal(worker, Signal::CONT)?;
    readers.read_on(100).await?;
    anyhow::ensure!(served.scene.node().worker() == Some(worker), "it was replaced");
    let outcome = served.judged(readers)?;
    served.stop().await?;
    Ok(outcome.noting(format!("driver's slowest answer {}", Milliseconds(slowest))))
}

/// The volume of a stopped process is unpublished, with a reader waiting in it.
pub(crate) async fn is_stopped_while_a_volume_ends() -> anyhow::Result<Outcome> {
    let mut served = Served::start(Scene::embedded().await?, 2, &[]).await?;
    let worker = served.scene.node().worker().context("no worker")?;
    let file = served.targets[0].join(NAMES[0]);
    procfs::signal(worker, Signal::STOP)?;
    let cat = Program::new("cat", "/bin/cat").arguments([file.display().to_string()]);
    let reader = Running::start(cat).await?;
    let (pod, target) = (served.pods.remove(0), served.targets.remove(0));
    let begun = Instant::now();
    served.scene.stop(&pod).await?;
    let took = begun.elapsed();
    anyhow::ensure!(took <= Duration::from_secs(10), "unpublish took {took:?}");
    anyhow::ensure!(sotto_tests::served::is_gone(&target)?, "something is left");
    reader.wait(Duration::from_secs(5)).await.context("its reader is stuck")?;
    let node = served.scene.node();
    let pids = [node.csi().pid(), node.agent().pid()];
    until("an end of D states", || procfs::stuck(&pids).is_empty()).await?;
    // Stopped for good, as far as it can tell: its supervisor replaces it.
    served.all_show(&sotto_tests::served::value(1)).await?;
    anyhow::ensure!(served.scene.node().worker() != Some(worker), "it is stopped still");
    served.stop().await?;
    Ok(Outcome::held()
        .noting(format!("unpublish {}; a worker stopped for good is replaced", Milliseconds(took))))
}

/// As the kernel ends a process of a container that is over its memory.
pub(crate) async fn is_out_of_memory() -> anyhow::Result<Outcome> {
    let Some(group) = MemoryGroup::new() else {
        return Ok(Outcome::not_here("no memory cgroup can be made"));
    };
    let served = Served::start(Scene::embedded().await?, 2, &[]).await?;
    let readers = served.readers(4)?;
    readers.read_on(100).await?;
    let worker = served.scene.node().worker().context("no worker")?;
    group.take(worker)?;
    group.limit_to(2 << 20)?;
    let large = large_pod(&served).await?;
    let kubelet = std::sync::Arc::clone(served.scene.node().kubelet());
    let asked = {
        let large = large.clone();
        tokio::spawn(async move { kubelet.publish(&large, &large.volumes[0]).await })
    };
    until("the kernel's kill", || procfs::state(worker).is_none_or(|it| it == 'Z')).await?;
    asked.await?.err().context("it was published all the same")?;
    readers.read_on(200).await?;
    let log = served.scene.node().agent().log().text();
    let named = |line: &str| line.contains("the worker ended") && line.contains("Some(9)");
    anyhow::ensure!(log.lines().any(named), "nobody names it: {log}");
    let outcome = served.judged(readers)?;
    served.stop().await?;
    Ok(outcome.noting("killed by the kernel, in a memory cgroup"))
}

/// A pod whose secrets need more memory than is left.
async fn large_pod(served: &Served<DevStore>) -> anyhow::Result<Pod> {
    let mut objects = String::new();
    for number in 0..7 {
        let path = format!("payments/checkout/large{number}");
        served.scene.write(&path, serde_json::json!({"a": "x".repeat(1 << 20)})).await?;
        objects +=
            &format!("- {{objectName: o{number}, secretPath: secret/data/{path}, secretKey: a}}\n");
    }
    served.scene.class("large", &objects)?;
    Ok(served.scene.pod("large-0", "checkout", "large"))
}

/// A memory cgroup (version 1 or 2) that ends with this value.
struct MemoryGroup {
    path: std::path::PathBuf,
    limit: &'static str,
}

impl MemoryGroup {
    fn new() -> Option<Self> {
        let name = format!("sotto-{}", std::process::id());
        let kinds =
            [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")];
        kinds.into_iter().find_map(|(at, limit)| {
            let path = std::path::Path::new(at).join(&name);
            std::fs::create_dir(&path).ok()?;
            let group = Self { path, limit };
            group.path.join(limit).exists().then_some(group)
        })
    }

    fn take(&self, pid: u32) -> std::io::Result<()> {
        std::fs::write(self.path.join("cgroup.procs"), pid.to_string())
    }

    /// The pages that it has are not moved along: what it touches anew is counted.
    fn limit_to(&self, bytes: u64) -> std::io::Result<()> {
        std::fs::write(self.path.join(self.limit), bytes.max(64 << 10).to_string())
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.path);
    }
}

/// A node's mounts are shared with the containers that ask for it.
async fn share_mounts(cluster: &mut Cluster) -> anyhow::Result<()> {
    let kubelet_dir = cluster.scene.node().path("kubelet");
    rustix::mount::mount_bind(&kubelet_dir, &kubelet_dir)?;
    rustix::mount::mount_change(&kubelet_dir, rustix::mount::MountPropagationFlags::SHARED)?;
    Ok(cluster.scene.node_mut().restart_csi().await?)
}

/// Republishes, as kubelet does, until the file can be read.
async fn heals(cluster: &Cluster, pod: &Pod, file: &std::path::Path) -> anyhow::Result<()> {
    let healed = async {
        while std::fs::read_to_string(file).ok().as_deref() != Some("p-1") {
            cluster.scene.kubelet().sync(pod).await?;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(Duration::from_secs(30), healed).await.context("it doesn't heal")?
}

/// Both holders are lost: the mount is dead, and a fresh one is put over it.
pub(crate) async fn and_driver_are_both_lost() -> anyhow::Result<Outcome> {
    let mut cluster = Cluster::start("p-1", |_| {}).await?;
    share_mounts(&mut cluster).await?;
    let pod = cluster.scene.pod("lost-0", "checkout", "db");
    let target = cluster.scene.publish(&pod).await?;
    let container = cluster.scene.node().show_in_container(&target, "mnt/host-to-container")?;
    rustix::mount::mount_change(&container, rustix::mount::MountPropagationFlags::DOWNSTREAM)?;
    let kept = std::fs::File::open(target.join("p"))?;
    cluster.scene.node().agent().kill().await?;
    cluster.scene.node().csi().kill().await?;
    let dead = std::fs::read(target.join("p")).err().context("it lives")?;
    anyhow::ensure!(dead.raw_os_error() == Some(libc::ENOTCONN), "{dead}");
    cluster.scene.node_mut().restart_csi_alone().await?;
    cluster.scene.node_mut().restart_agent().await?;
    heals(&cluster, &pod, &target.join("p")).await?;
    let seen = std::fs::read_to_string(container.join("p")).context("HostToContainer")?;
    anyhow::ensure!(seen == "p-1", "{seen}");
    let told =
        tokio::time::timeout(Duration::from_secs(10), cluster.event("lost-0", "MountedAnew"));
    anyhow::ensure!(told.await.context("no event")?.contains("restarted"));
    drop(kept);
    while sotto_tests::files::mounts_at(&container)? > 0 {
        cluster.scene.node().end_container(&container)?;
    }
    cluster.scene.stop(&pod).await?;
    anyhow::ensure!(sotto_tests::served::is_gone(&target)?, "something is left");
    Ok(Outcome::held().noting("HostToContainer mounts heal; event MountedAnew"))
}

/// maxSurge 1 of sotto-node and maxUnavailable 1 of sotto-csi, at one time.
pub(crate) async fn and_driver_are_rolled_together() -> anyhow::Result<Outcome> {
    let mut served = Served::start(Scene::embedded().await?, 5, &[]).await?;
    let (mounts, readers) = (served.mounts()?, served.readers(8)?);
    for _ in 0..2 {
        readers.read_on(100).await?;
        let node = served.scene.node_mut();
        let successor = node.successor().await?;
        node.roll_csi().await?;
        node.succeeded_by(successor).await?;
        served.all_served().await?;
    }
    readers.read_on(200).await?;
    anyhow::ensure!(served.mounts()? == mounts, "the mounts are others");
    let outcome = served.judged(readers)?;
    served.stop().await?;
    Ok(outcome.noting("twice, 8 readers of 5 volumes"))
}

/// What the table would say if the promise were broken: nobody is left to serve, and readers go on.
pub(crate) async fn are_gone_for_good() -> anyhow::Result<Outcome> {
    let served: Served<DevStore> = Served::start(Scene::embedded().await?, 2, &[]).await?;
    let readers = served.readers(2)?;
    readers.read_on(50).await?;
    served.scene.node().agent().kill().await?;
    served.scene.node().csi().kill().await?;
    readers.read_on(50).await?;
    served.judged(readers)
}
