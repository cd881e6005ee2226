//! Rows of rotation beside the peer: Sotto and `bao agent`, at the same time, on the same server, each asking every
//! second for 1 and for 50 secrets.
//!
//! Measured: from a write in the store to its content readable (each side's writes begin at the same even spread of
//! moments of its interval); the CPU time of all of its processes (supervisor, worker, driver and helpers; the agent's)
//! at rest and while one secret changes every second and nobody reads.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use serde_json::json;
use sotto_tests::cpu_time::CpuTime;
use sotto_tests::files;
use tokio::time::Instant;

use super::Bench;
use crate::peer::Peer;
use crate::plan::PASSES;
use crate::report::Bound::AtMost;
use crate::report::{Figure, Row};
use crate::stats::Samples;
use crate::volumes::{Published, Volumes, secret};

pub(crate) const GROUP: &str = "rotation";
const SECRETS: [usize; 2] = [1, 50];
/// Both sides ask the store so often.
const INTERVAL: Duration = Duration::from_secs(1);
/// How far apart two looks at a file are: 0.3 % of what is measured.
const POLL: Duration = Duration::from_millis(2);
const SEEN_DEADLINE: Duration = Duration::from_secs(30);
/// Samples of CPU time in a pass, at rest and while one secret changes.
const PARTS: u32 = 2;
/// The first second after a start is not rest, nor is the turn that comes then.
const SETTLE: Duration = INTERVAL;
const OURS: &str = "ours";
const PEERS: &str = "peers";
const PEER: &str = "bao agent";

const BY_CGROUP: &str =
    "the helpers that make a turn and end are counted to the microsecond, in a cgroup";
const BY_CLOCKS: &str = "the helpers that make a turn and end are counted in units of 10 ms: no cgroup can be made here";

/// One of the two that are compared.
struct Side {
    class: &'static str,
    files: PathBuf,
    cpu: CpuTime,
    secrets: usize,
}

/// Both, at one store. The node is the last to go: it has the cgroups.
struct Started {
    peer: Peer,
    published: Published,
    /// Ours, the peer's.
    sides: [Side; 2],
    volumes: Volumes,
}

/// What one side took.
struct Figures {
    rotations: Samples,
    at_rest: Samples,
    rotating: Samples,
    /// How the CPU time of a turn's helpers was counted.
    helpers: &'static str,
}

pub(crate) async fn measure(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for secrets in SECRETS {
        let [ours, peers] =
            Box::pin(with(bench, secrets)).await.with_context(|| format!("{secrets} secrets"))?;
        let row = |what: &str, unit, value: fn(&Figures) -> Samples| {
            let row = Row::new(GROUP, format!("{what}, {secrets} secrets"), unit, value(&ours));
            row.beside(PEER, value(&peers))
        };
        let cpu = |row: Row| {
            let row = row.note(ours.helpers);
            match secrets {
                1 => row,
                _ => row.goal(Figure::Ours, AtMost(2.0)).goal(Figure::Ratio, AtMost(0.1)),
            }
        };
        rows.push(
            row("rotation: write -> readable, interval 1 s", "s", |it| it.rotations.clone())
                .goal(Figure::Ours, AtMost(0.6))
                .note(
                    "writes fall evenly into the interval: half of it is waited on average, before anything is read. What is \
                     written in its last moments, while a turn is made, comes with the next",
                ),
        );
        let percent = "% of a core";
        rows.push(cpu(row("... CPU, one changing a second", percent, |it| it.rotating.clone())));
        rows.push(cpu(row("... CPU, nothing changing", percent, |it| it.at_rest.clone())));
    }
    Ok(rows)
}

async fn with(bench: &Bench, secrets: usize) -> anyhow::Result<[Figures; 2]> {
    bench.progress(format_args!("{secrets} secrets"));
    let started = Started::new(bench, secrets).await?;
    let figures = started.measure(bench).await?;
    started.end().await?;
    Ok(figures)
}

/// When in the interval a pass's writes begin, and of which secret each is: those of all passes fall evenly.
#[derive(Clone, Copy)]
struct Spots {
    pass: usize,
    writes: usize,
}

impl Spots {
    /// The part of the interval, and the secret. Every other pass goes backwards through the interval, so that early and late
    /// parts of it are not early and late in a pass.
    fn of_write(self, write: usize, secrets: usize) -> (f64, usize) {
        let all = PASSES * self.writes;
        let at = if self.pass.is_multiple_of(2) { write } else { self.writes - 1 - write };
        let part = (at * PASSES + self.pass) as f64 + 0.5;
        (part / all as f64, (write * PASSES + self.pass) * secrets / all)
    }
}

impl Started {
    async fn new(bench: &Bench, secrets: usize) -> anyhow::Result<Self> {
        let volumes = Volumes::start(bench.processors, |_| {}).await?;
        volumes.class(OURS, &vec![64; secrets]).await?;
        volumes.class(PEERS, &vec![64; secrets]).await?;
        let published = volumes.publish(OURS, "1s").await?;
        let peer = Peer::start(&volumes.scene, secrets, |number| secret(PEERS, number)).await?;
        let side = |class, files, roots: &[u32]| {
            bench.processors.pin_side(roots)?;
            let cpu = CpuTime::of(roots, volumes.scene.node().cgroup_of_pod(class)?)?;
            anyhow::Ok(Side { class, files, cpu, secrets })
        };
        let sides = [
            side(OURS, published.target.clone(), &volumes.pids())?,
            side(PEERS, peer.files(), &[peer.pid()])?,
        ];
        Ok(Self { peer, published, sides, volumes })
    }

    async fn measure(&self, bench: &Bench) -> anyhow::Result<[Figures; 2]> {
        let ([ours, peers], part) = (&self.sides, bench.plan.part);
        let spots = Spots { pass: bench.pass(), writes: bench.plan.rotations };
        let settled = tokio::time::sleep(SETTLE);
        let turn = async {
            rotation(&self.volumes, ours, 0, "settled").await?;
            anyhow::Ok(Instant::now())
        };
        let ((), turned) = tokio::join!(settled, turn);
        between_refreshes(turned?).await;
        let at_rest = cpu(&self.sides, part).await?;
        let ((of_ours, last), (of_peers, _)) = tokio::try_join!(
            rotations(&self.volumes, ours, spots),
            rotations(&self.volumes, peers, spots)
        )?;
        between_refreshes(last).await;
        let seconds = (part * PARTS).as_secs() as usize;
        let (rotating, ()) =
            tokio::try_join!(cpu(&self.sides, part), self.write_each_second(seconds))?;
        let ([rest_of_ours, rest_of_peers], [turns_of_ours, turns_of_peers]) = (at_rest, rotating);
        let figures = |side: &Side, rotations, at_rest, rotating| {
            let helpers = if side.cpu.is_exact() { BY_CGROUP } else { BY_CLOCKS };
            Figures { rotations, at_rest, rotating, helpers }
        };
        Ok([
            figures(ours, of_ours, rest_of_ours, turns_of_ours),
            figures(peers, of_peers, rest_of_peers, turns_of_peers),
        ])
    }

    /// Writes one secret of each side a second; the last values must arrive.
    async fn write_each_second(&self, seconds: usize) -> anyhow::Result<()> {
        let mut ticks = tokio::time::interval(INTERVAL);
        let mut last = (0, String::new());
        for tick in 0..seconds {
            ticks.tick().await;
            last = (tick % self.sides[0].secrets, format!("tick {tick}"));
            for side in &self.sides {
                write(&self.volumes, side, last.0, &last.1).await?;
            }
        }
        ticks.tick().await;
        for side in &self.sides {
            seen(&side.file(last.0), &last.1).await?;
        }
        Ok(())
    }

    async fn end(self) -> anyhow::Result<()> {
        self.peer.end().await?;
        self.published.unpublish(self.volumes.scene.kubelet()).await
    }
}

impl Side {
    fn file(&self, secret: usize) -> PathBuf {
        self.files.join(format!("s{secret}"))
    }
}

/// Seconds from before each write until its content was read. The first is not counted: it finds the phase.
/// Also when the last was read.
async fn rotations(
    volumes: &Volumes,
    side: &Side,
    spots: Spots,
) -> anyhow::Result<(Samples, Instant)> {
    let mut seconds = Vec::with_capacity(spots.writes);
    rotation(volumes, side, 0, "phase").await?;
    for write in 0..spots.writes {
        let (part, secret) = spots.of_write(write, side.secrets);
        tokio::time::sleep(INTERVAL.mul_f64(part)).await;
        seconds.push(rotation(volumes, side, secret, &format!("value {write}")).await?);
    }
    Ok((Samples(seconds), Instant::now()))
}

/// Waits until half an interval lies between now and our refreshes, of which one was seen then: so each second has one of
/// them. Where the peer's lie is left to chance.
async fn between_refreshes(seen: Instant) {
    let mut next = seen + INTERVAL / 2;
    while next < Instant::now() {
        next += INTERVAL;
    }
    tokio::time::sleep_until(next).await;
}

async fn rotation(volumes: &Volumes, side: &Side, at: usize, value: &str) -> anyhow::Result<f64> {
    let began = Instant::now();
    write(volumes, side, at, value).await?;
    seen(&side.file(at), value).await?;
    Ok(began.elapsed().as_secs_f64())
}

async fn write(volumes: &Volumes, side: &Side, at: usize, value: &str) -> anyhow::Result<()> {
    let path = secret(side.class, at);
    volumes.scene.write(&path, json!({ "password": value })).await.map(drop)
}

/// Waits until a file has the value.
pub(super) async fn seen(file: &Path, value: &str) -> anyhow::Result<()> {
    let seen = async {
        while files::read(file.to_owned()).await? != value {
            tokio::time::sleep(POLL).await;
        }
        anyhow::Ok(())
    };
    let in_time = tokio::time::timeout(SEEN_DEADLINE, seen).await;
    in_time.with_context(|| format!("{} never shows {value:?}", file.display()))?
}

/// Percent of a core that each side uses from now on, part by part.
async fn cpu(sides: &[Side; 2], part: Duration) -> anyhow::Result<[Samples; 2]> {
    let used = || {
        let [ours, peers] = sides.each_ref().map(|side| side.cpu.used());
        anyhow::Ok([ours?, peers?])
    };
    let mut percents = [Samples::default(), Samples::default()];
    for _ in 0..PARTS {
        let (before, began) = (used()?, Instant::now());
        tokio::time::sleep(part).await;
        let (after, took) = (used()?, began.elapsed());
        for (at, Samples(percents)) in percents.iter_mut().enumerate() {
            let used = after[at].saturating_sub(before[at]);
            percents.push(100.0 * used.as_secs_f64() / took.as_secs_f64());
        }
    }
    Ok(percents)
}
