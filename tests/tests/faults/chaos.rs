//! Everything is killed, one after the other at random, while applications read.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::fs::inotify::ReadFlags;
use sotto_dev::bao::Bao;
use sotto_tests::chance::Chance;
use sotto_tests::inotify::{Event, Watch};
use sotto_tests::procfs;
use sotto_tests::readers::Readers;
use sotto_tests::scene::Scene;
use sotto_tests::served::Served;
use sotto_tests::table::{Milliseconds, Outcome};
use sotto_tests::wait::until;

use super::agents::{RESTART_DELAY, killed_and_replaced};

const VOLUMES: usize = 20;
const READERS: usize = 8;
const BETWEEN_KILLS: Duration = Duration::from_secs(2);
/// Pairs are read the more often, the more likely a torn one is seen; but others want to read as well.
const BETWEEN_PAIRS: Duration = Duration::from_millis(1);
/// A volume keeps the values of eight generations, and turns to another one every 2 s here.
const KEPT_OPEN: Duration = Duration::from_secs(10);
const KINDS: [&str; 4] = ["worker", "agent", "driver", "store"];

/// How long, in seconds: `DURATION`, or 60.
fn duration() -> Duration {
    let named =
        std::env::var("DURATION").ok().and_then(|text| text.trim_end_matches('s').parse().ok());
    Duration::from_secs(named.unwrap_or(60))
}

pub(crate) async fn for_a_while() -> anyhow::Result<Outcome> {
    play(duration()).await
}

/// What `make test` has time for.
pub(crate) async fn for_a_moment() -> anyhow::Result<Outcome> {
    play(Duration::from_secs(15)).await
}

async fn play(duration: Duration) -> anyhow::Result<Outcome> {
    let seed = Chance::seed();
    let played = killed_at_random(duration, Chance::of(seed)).await;
    let outcome = played.with_context(|| format!("SEED={seed}"))?;
    let note = format!("{}; SEED={seed}", outcome.note);
    Ok(outcome.noting(note))
}

async fn killed_at_random(duration: Duration, mut chance: Chance) -> anyhow::Result<Outcome> {
    let refreshed = [("sotto.dev/refresh", "2s")];
    let served = Served::start(Scene::openbao_durable().await?, VOLUMES / 2, &refreshed).await?;
    let mut served = served.and_fixed(VOLUMES / 2, &refreshed).await?;
    let mounts = served.mounts()?;
    let watches = served.targets.iter().map(|target| Watch::on(target));
    let watches = watches.collect::<std::io::Result<Vec<_>>>()?;
    // Each reader keeps a file of the start open beside: of those that don't change, as an old generation ends.
    let files = served.fixed_files().into_iter().chain(served.files()).collect();
    let readers = Readers::start(READERS, files)?;
    // And of those that do change: sets, and files that stay open over some generations and kills.
    let pairs = served.readers_of_pairs(READERS / 2, BETWEEN_PAIRS)?;
    let kept = Readers::of_kept(READERS / 2, &served.files(), KEPT_OPEN)?;
    for each in [&readers, &pairs, &kept] {
        each.read_on(500).await?;
    }
    let stalls = kill_for(duration, &mut served, &readers, &mut chance).await?;
    let last = served.write().await?;
    served.all_show(&last).await?;
    let renamed = |event: &Event| event.0.contains(ReadFlags::MOVED_TO) && event.1 == "..data";
    for watch in &watches {
        anyhow::ensure!(watch.seen()?.iter().any(renamed), "a watch has seen no rotation");
    }
    anyhow::ensure!(served.mounts()? == mounts, "the mounts are others");
    let [reads, sets, opened] = [&readers, &pairs, &kept].map(|each| each.seen().reads());
    for each in [readers, pairs, kept] {
        served.judged(each)?;
    }
    let node = served.scene.node();
    let pids = [node.csi().pid(), node.agent().pid()];
    until("an end of D states", || procfs::stuck(&pids).is_empty()).await?;
    served.stop().await?;
    let worst = stalls.values().map(|stalls| stalls.longest).max().unwrap_or_default();
    let told: Vec<String> =
        stalls.iter().map(|(kind, stalls)| format!("{kind} {stalls}")).collect();
    let reads = format!("{reads} reads, {sets} of pairs, {opened} of files kept open");
    Ok(Outcome::read(worst).noting(format!("{reads}; {}", told.join(", "))))
}

/// Each kind once, then whichever comes; a value more in the store after each.
async fn kill_for(
    duration: Duration,
    served: &mut Served<Bao>,
    readers: &Readers,
    chance: &mut Chance,
) -> anyhow::Result<BTreeMap<&'static str, Stalls>> {
    let (begun, mut stalls) = (Instant::now(), BTreeMap::<&str, Stalls>::new());
    for turn in 0.. {
        let due = BETWEEN_KILLS * turn;
        if due >= duration {
            break;
        }
        tokio::time::sleep_until((begun + due).into()).await;
        // A holder only when its volumes have two.
        served.all_served().await?;
        let kind = KINDS[if turn < 4 { turn as usize } else { chance.below(KINDS.len()) }];
        readers.seen().take_longest();
        let away = kill(served, kind).await.with_context(|| format!("{kind}, kill {turn}"))?;
        served.all_served().await.with_context(|| format!("after the {kind}, kill {turn}"))?;
        readers.read_on(100).await?;
        stalls.entry(kind).or_default().add(readers.seen().take_longest(), away);
        served.write().await.with_context(|| format!("after the {kind}, kill {turn}"))?;
    }
    Ok(stalls)
}

/// Kills, and starts again as kubelet would; returns how long nobody of that kind ran.
async fn kill(served: &mut Served<Bao>, kind: &str) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    match kind {
        "worker" => killed_and_replaced(served).await?,
        "agent" => {
            served.scene.node().agent().kill().await?;
            tokio::time::sleep(RESTART_DELAY).await;
            served.scene.node_mut().restart_agent().await?;
        }
        "driver" => {
            served.scene.node().csi().kill().await?;
            tokio::time::sleep(RESTART_DELAY).await;
            served.scene.node_mut().restart_csi().await?;
        }
        _ => {
            served.scene.store().process().kill().await?;
            tokio::time::sleep(RESTART_DELAY).await;
            served.scene.store_mut().restart().await?;
        }
    }
    Ok(begun.elapsed())
}

/// The longest stall of a kind, and how long its process was away then.
#[derive(Default)]
struct Stalls {
    times: usize,
    longest: Duration,
    away: Duration,
}

impl Stalls {
    fn add(&mut self, stall: Duration, away: Duration) {
        self.times += 1;
        if stall >= self.longest {
            (self.longest, self.away) = (stall, away);
        }
    }
}

impl std::fmt::Display for Stalls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (longest, away) = (Milliseconds(self.longest), Milliseconds(self.away));
        write!(f, "x{} {longest} (away {away})", self.times)
    }
}
