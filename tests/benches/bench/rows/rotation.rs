//! Rows of rotation beside the peer: Sotto and `bao agent`, at the same time, on the same server, each asking every
//! second for 1 and for 50 secrets.
//!
//! Measured: from a write in the store to its content readable (each side's writes begin at the same even spread of
//! moments of its interval); the CPU time of all of its processes (supervisor, worker and driver; the agent's) at
//! rest and while one secret changes every second and nobody reads; their memory.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use serde_json::json;
use sotto_tests::files;
use sotto_tests::usage::Usage;
use tokio::time::Instant;

use super::Bench;
use crate::peer::Peer;
use crate::report::Bound::AtMost;
use crate::report::{Figure, Row};
use crate::stats::Samples;
use crate::volumes::{Volumes, secret};

pub(crate) const GROUP: &str = "rotation";
const SECRETS: [usize; 2] = [1, 50];
/// Both sides ask the store so often.
const INTERVAL: Duration = Duration::from_secs(1);
/// How far apart two looks at a file are: 0.3 % of what is measured.
const POLL: Duration = Duration::from_millis(2);
const SEEN_DEADLINE: Duration = Duration::from_secs(30);
/// Parts of the time for which CPU time is counted, a sample each.
const PARTS: u32 = 4;
/// The seconds after a start are not rest.
const SETTLE: Duration = Duration::from_secs(3);
const OURS: &str = "ours";
const PEERS: &str = "peers";
const PEER: &str = "bao agent";

/// One of the two that are compared.
struct Side {
    class: &'static str,
    files: PathBuf,
    roots: Vec<u32>,
    secrets: usize,
}

/// What one side took.
struct Figures {
    rotations: Samples,
    at_rest: Samples,
    rotating: Samples,
    memory: Samples,
}

pub(crate) async fn measure(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for secrets in SECRETS {
        bench.progress(format_args!("{secrets} secrets"));
        let [ours, peers] =
            with(bench, secrets).await.with_context(|| format!("{secrets} secrets"))?;
        let row = |what: &str, unit, value: fn(&Figures) -> Samples| {
            let row = Row::new(GROUP, format!("{what}, {secrets} secrets"), unit, value(&ours));
            row.beside(PEER, value(&peers))
        };
        let cpu = |row: Row| match secrets {
            1 => row,
            _ => row.goal(Figure::Ours, AtMost(2.0)).goal(Figure::Ratio, AtMost(0.1)),
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
        rows.push(row("... memory, driver included", "MiB", |it| it.memory.clone()));
    }
    Ok(rows)
}

async fn with(bench: &Bench, secrets: usize) -> anyhow::Result<[Figures; 2]> {
    let volumes = Volumes::start(bench.processors, |_| {}).await?;
    volumes.class(OURS, &vec![64; secrets]).await?;
    volumes.class(PEERS, &vec![64; secrets]).await?;
    let published = volumes.publish(OURS, "1s").await?;
    let peer = Peer::start(&volumes.scene, secrets, |number| secret(PEERS, number)).await?;
    let sides = [
        Side {
            class: OURS,
            files: published.target.clone(),
            roots: volumes.pids().to_vec(),
            secrets,
        },
        Side { class: PEERS, files: peer.files(), roots: vec![peer.pid()], secrets },
    ];
    for side in &sides {
        bench.processors.pin_side(&side.roots)?;
    }
    tokio::time::sleep(SETTLE).await;
    let [ours, peers] = &sides;
    let mut memory = [Samples::default(), Samples::default()];
    let window = bench.plan.window;
    let at_rest = cpu(&sides, window).await?;
    look_at_memory(&sides, &mut memory)?;
    let samples = bench.plan.rotations;
    let (of_ours, of_peers) =
        tokio::try_join!(rotations(&volumes, ours, samples), rotations(&volumes, peers, samples))?;
    look_at_memory(&sides, &mut memory)?;
    let seconds = window.as_secs() as usize;
    let (rotating, ()) =
        tokio::try_join!(cpu(&sides, window), write_each_second(&volumes, &sides, seconds))?;
    look_at_memory(&sides, &mut memory)?;
    peer.end().await?;
    published.unpublish(volumes.scene.kubelet()).await?;
    let sides = [of_ours, of_peers].into_iter().zip(at_rest).zip(rotating).zip(memory);
    let figures = sides.map(|(((rotations, at_rest), rotating), memory)| Figures {
        rotations,
        at_rest,
        rotating,
        memory,
    });
    figures.collect::<Vec<_>>().try_into().map_err(|_| anyhow::anyhow!("not two sides"))
}

fn look_at_memory(sides: &[Side; 2], memory: &mut [Samples; 2]) -> anyhow::Result<()> {
    for (side, Samples(of_side)) in sides.iter().zip(memory) {
        of_side.push(Usage::of(&side.roots)?.rss_kib as f64 / 1024.0);
    }
    Ok(())
}

/// Seconds from before each write until its content was read. The first is not counted: it finds the phase.
async fn rotations(volumes: &Volumes, side: &Side, samples: usize) -> anyhow::Result<Samples> {
    let mut seconds = Vec::with_capacity(samples);
    rotation(volumes, side, 0, "phase").await?;
    for sample in 0..samples {
        // Each part of the interval once, far from its neighbours: 7 and 20 have no divisor in common.
        let part = ((sample * 7 % samples) as f64 + 0.5) / samples as f64;
        tokio::time::sleep(INTERVAL.mul_f64(part)).await;
        // Of all alike: one that a refresh reads late has longer to be in it than one that it reads first.
        let secret = sample * side.secrets / samples;
        seconds.push(rotation(volumes, side, secret, &format!("value {sample}")).await?);
    }
    Ok(Samples(seconds))
}

async fn rotation(volumes: &Volumes, side: &Side, at: usize, value: &str) -> anyhow::Result<f64> {
    let began = Instant::now();
    write(volumes, side, at, value).await?;
    seen(side, at, value).await?;
    Ok(began.elapsed().as_secs_f64())
}

async fn write(volumes: &Volumes, side: &Side, at: usize, value: &str) -> anyhow::Result<()> {
    let path = secret(side.class, at);
    volumes.scene.write(&path, json!({ "password": value })).await.map(drop)
}

/// Waits until a side's file has the value.
async fn seen(side: &Side, at: usize, value: &str) -> anyhow::Result<()> {
    let file = side.files.join(format!("s{at}"));
    let seen = async {
        while files::read(file.clone()).await? != value {
            tokio::time::sleep(POLL).await;
        }
        anyhow::Ok(())
    };
    let in_time = tokio::time::timeout(SEEN_DEADLINE, seen).await;
    in_time.with_context(|| format!("{} never shows {value:?}", file.display()))?
}

/// Percent of a core that each side uses for so long from now on, part by part.
async fn cpu(sides: &[Side; 2], window: Duration) -> anyhow::Result<[Samples; 2]> {
    let used = || {
        let [ours, peers] = sides.each_ref().map(|side| Usage::of(&side.roots).map(|it| it.cpu));
        anyhow::Ok([ours?, peers?])
    };
    let mut percents = [Samples::default(), Samples::default()];
    for _ in 0..PARTS {
        let (before, began) = (used()?, Instant::now());
        tokio::time::sleep(window / PARTS).await;
        let (after, took) = (used()?, began.elapsed());
        for (at, Samples(percents)) in percents.iter_mut().enumerate() {
            let used = after[at].saturating_sub(before[at]);
            percents.push(100.0 * used.as_secs_f64() / took.as_secs_f64());
        }
    }
    Ok(percents)
}

/// Writes one secret of each side a second; the last values must arrive.
async fn write_each_second(
    volumes: &Volumes,
    sides: &[Side; 2],
    seconds: usize,
) -> anyhow::Result<()> {
    let mut ticks = tokio::time::interval(INTERVAL);
    let mut last = (0, String::new());
    for tick in 0..seconds {
        ticks.tick().await;
        last = (tick % sides[0].secrets, format!("tick {tick}"));
        for side in sides {
            write(volumes, side, last.0, &last.1).await?;
        }
    }
    ticks.tick().await;
    for side in sides {
        seen(side, last.0, &last.1).await?;
    }
    Ok(())
}
