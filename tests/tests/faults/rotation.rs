//! Values change while applications read, and while whoever changes them dies.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::fs::inotify::ReadFlags;
use sotto_dev::store::DevStore;
use sotto_tests::chance::Chance;
use sotto_tests::files::blocking;
use sotto_tests::inotify::{Event, Watch};
use sotto_tests::procfs;
use sotto_tests::scene::Scene;
use sotto_tests::served::{NAMES, Served, value};
use sotto_tests::table::Outcome;
use sotto_tests::wait::until;

/// Rotations that are interrupted.
const ROUNDS: usize = 4;

pub(crate) async fn under_a_thousand_readers() -> anyhow::Result<Outcome> {
    const READERS: usize = 1_000;
    let refreshed = [("sotto.dev/refresh", "1h")];
    let mut served = Served::start(Scene::embedded().await?, 2, &refreshed).await?;
    let readers = served.readers_of_pairs(READERS, Duration::from_millis(500))?;
    readers.read_on(2_000).await?;
    for _ in 0..6 {
        served.turn().await?;
        readers.read_on(1_000).await?;
    }
    let reads = readers.seen().reads();
    let outcome = served.judged(readers)?;
    served.stop().await?;
    Ok(outcome.noting(format!("6 rotations, {reads} pairs read by {READERS} threads, none torn")))
}

/// One file is bind-mounted by itself, as kubelet does with a subPath.
pub(crate) async fn with_a_long_open_file_and_a_sub_path() -> anyhow::Result<Outcome> {
    let refreshed = [("sotto.dev/refresh", "1h")];
    let mut served = Served::start(Scene::embedded().await?, 1, &refreshed).await?;
    let file = served.targets[0].join(NAMES[0]);
    let open = std::fs::File::open(&file)?;
    let bound = served.scene.node().path("mnt/sub-path");
    std::fs::write(&bound, "")?;
    rustix::mount::mount_bind(std::fs::canonicalize(&file)?, &bound)?;
    let second = served.turn().await?;
    served.all_show(&second).await?;
    let first = value(1);
    let seen = read_through(&open, first.len())?;
    anyhow::ensure!(seen == first, "an open file has another generation");
    let begun = Instant::now();
    let follows = async {
        loop {
            let at = bound.clone();
            let now = blocking(move || std::fs::read_to_string(at)).await?;
            anyhow::ensure!(now == first || now == second, "torn");
            if now == second {
                return anyhow::Ok(begun.elapsed());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let took = tokio::time::timeout(Duration::from_secs(60), follows).await;
    let took = took.context("the subPath never follows")??;
    let read = read_through(&open, first.len())?;
    anyhow::ensure!(read == first || read == second, "an open file is torn");
    served.scene.node().end_container(&bound)?;
    drop(open);
    served.stop().await?;
    Ok(Outcome::held().noting(format!("the subPath follows after {} s", took.as_secs())))
}

fn read_through(file: &std::fs::File, len: usize) -> anyhow::Result<String> {
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(String::from_utf8(bytes)?)
}

pub(crate) async fn whose_worker_is_killed() -> anyhow::Result<Outcome> {
    interrupted(Victim::Worker).await
}

pub(crate) async fn whose_driver_is_killed() -> anyhow::Result<Outcome> {
    interrupted(Victim::Driver).await
}

#[derive(Clone, Copy, PartialEq)]
enum Victim {
    Worker,
    Driver,
}

/// Kills the victim while the helper makes the rotation's operations, again and again.
async fn interrupted(victim: Victim) -> anyhow::Result<Outcome> {
    let refreshed = [("sotto.dev/refresh", "1s")];
    let mut served = Served::start(Scene::embedded().await?, 1, &refreshed).await?;
    let readers = served.readers_of_pairs(4, Duration::ZERO)?;
    let seed = Chance::seed();
    let (mut chance, mut hit) = (Chance::of(seed), 0);
    for round in 0..ROUNDS {
        let before = generation(&served.targets[0]).await?;
        let watch = Watch::on(&served.targets[0])?;
        let next = served.write().await?;
        let csi = served.scene.node().csi().pid();
        hit += usize::from(helper_of(csi, chance.within(Duration::from_millis(3))).await?);
        match victim {
            Victim::Worker => drop(served.scene.node().kill_worker()?),
            Victim::Driver => served.scene.node_mut().restart_csi().await?,
        }
        served.all_served().await?;
        let seen = served.all_show(&next).await;
        seen.with_context(|| format!("round {round} (SEED={seed})"))?;
        let told = || format!("round {round} (SEED={seed}){}", served.last_lines());
        once(&served, &watch, &before).await.with_context(told)?;
    }
    anyhow::ensure!(hit > 0, "no helper was met at its work (SEED={seed})");
    let outcome = served.judged(readers)?;
    let node = served.scene.node();
    let pids = [node.csi().pid(), node.agent().pid()];
    until("an end of D states", || procfs::stuck(&pids).is_empty()).await?;
    until("the end of every helper", || helper(node.csi().pid()).is_none()).await?;
    served.stop().await?;
    Ok(outcome.noting(format!("{ROUNDS} rotations, {hit} helpers met at their work")))
}

/// The rotation was made exactly once: one more generation, one rename seen.
async fn once(served: &Served<DevStore>, watch: &Watch, before: &Path) -> anyhow::Result<()> {
    let now = generation(&served.targets[0]).await?;
    let number = |link: &Path| link.to_string_lossy().trim_start_matches('.').parse::<u64>();
    let (before, now) = (number(before)?, number(&now)?);
    anyhow::ensure!(now == before + 1, "generation {now} after {before}");
    let renamed = |event: &Event| event.0.contains(ReadFlags::MOVED_TO) && event.1 == "..data";
    // Who renames is told by the kernel a moment after who reads.
    let mut events = watch.until(Duration::from_secs(5), renamed)?;
    events.extend(watch.seen()?);
    let renames = events.iter().filter(|event| renamed(event)).count();
    anyhow::ensure!(renames == 1, "{renames} renames: {events:?}");
    Ok(())
}

async fn generation(target: &Path) -> anyhow::Result<PathBuf> {
    let link = target.join("..data");
    blocking(move || std::fs::read_link(link)).await
}

/// Waits until the driver has a helper at work, and then a little; whether one was met.
async fn helper_of(driver: u32, then: Duration) -> anyhow::Result<bool> {
    blocking(move || {
        let begun = Instant::now();
        // The helper lives for about a millisecond: no pause between two looks.
        while begun.elapsed() < Duration::from_secs(5) {
            if helper(driver).is_some() {
                let met = Instant::now();
                while met.elapsed() < then {
                    std::hint::spin_loop();
                }
                return Ok(true);
            }
        }
        Ok(false)
    })
    .await
}

fn helper(driver: u32) -> Option<u32> {
    let children = procfs::children(driver).into_iter();
    children.into_iter().find(|pid| procfs::command_line(*pid).contains("rotation-helper"))
}
