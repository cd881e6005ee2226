//! Rotation beside the peer: Sotto and `bao agent`, at the same time, on the same real OpenBao server over mutual
//! TLS, each asking every second for 1 and for 50 secrets. `make bench-rotation`; about two and a half minutes.
//!
//! Measured: from a write in the store to its content readable (each side's writes begin at the same even spread of
//! moments of its interval); the CPU time of all of its processes (supervisor, worker and driver; the agent's) at
//! rest and while one secret changes every second and nobody reads; their memory. Exits 1 if a goal is not met. The
//! judgement is tried on made-up figures first.
//!
//! Store and bench share one processor, both sides another, where there are two: neither runs beside what it asks.

#[path = "rotation/judge.rs"]
mod judge;
#[path = "rotation/peer.rs"]
mod peer;

use std::fmt::{Display, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use serde_json::json;
use sotto_dev::bao::Bao;
use sotto_tests::files;
use sotto_tests::scene::Scene;
use sotto_tests::usage::{self, Usage};
use tokio::time::Instant;

use judge::{Figures, Judged, Measured, SAMPLES, SECRETS};
use peer::Peer;

/// Both sides ask the store so often.
const INTERVAL: Duration = Duration::from_secs(1);
/// How far apart two looks at a file are: 0.3 % of what is measured.
const POLL: Duration = Duration::from_millis(2);
const SEEN_DEADLINE: Duration = Duration::from_secs(30);
/// CPU time is counted in units of 10 ms: 0.07 % of this.
const WINDOW: Duration = Duration::from_secs(15);
/// The seconds after a start are not rest.
const SETTLE: Duration = Duration::from_secs(3);
const OURS: &str = "checkout";
const PEERS: &str = "peer";

fn main() -> ExitCode {
    let measured = judge::sees_each_fault().and_then(|()| {
        let processors = usage::processors()?;
        let [own, sides] = match processors[..] {
            [first, second, ..] => [Some(first), Some(second)],
            _ => [None, None],
        };
        if let Some(own) = own {
            usage::pin_this_thread(own)?;
        }
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        runtime.worker_threads(2).enable_all().build()?.block_on(measure(sides))
    });
    match measured {
        Ok(measured) => {
            let judged = Judged::of(&measured);
            say(format_args!("\n{judged}"));
            let missed = judged.missed();
            missed.iter().for_each(|what| say(format_args!("NOT MET: {what}")));
            if missed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            say(format_args!("rotation: {error:?}"));
            ExitCode::FAILURE
        }
    }
}

async fn measure(processor: Option<usize>) -> anyhow::Result<Vec<Measured>> {
    let build = if cfg!(debug_assertions) { "development build" } else { "release-like build" };
    let pinned = match processor {
        Some(_) => "store and bench on one processor, both sides on another",
        None => "one processor for all",
    };
    say(format_args!("{build}; {SAMPLES} rotations a side, every {INTERVAL:?}; {pinned}"));
    say(format_args!("Sotto: supervisor, worker and driver; load before {}", load()?));
    let mut measured = Vec::new();
    for secrets in SECRETS {
        measured
            .push(with(secrets, processor).await.with_context(|| format!("{secrets} secrets"))?);
    }
    say(format_args!("load after {}", load()?));
    Ok(measured)
}

/// The load averages; other work on the machine makes the figures noisy.
fn load() -> anyhow::Result<String> {
    let text = std::fs::read_to_string("/proc/loadavg")?;
    Ok(text.split_whitespace().take(3).collect::<Vec<_>>().join(" "))
}

/// One of the two that are compared.
struct Side {
    account: &'static str,
    files: PathBuf,
    roots: Vec<u32>,
    secrets: usize,
}

async fn with(secrets: usize, processor: Option<usize>) -> anyhow::Result<Measured> {
    let scene = Scene::openbao().await?;
    for account in [OURS, PEERS] {
        for secret in 0..secrets {
            write(&scene, account, secret, "first").await?;
        }
    }
    let (pod, files) = published(&scene, secrets).await?;
    let peer = Peer::start(&scene, PEERS, secrets).await?;
    let node = scene.node();
    let ours = vec![node.agent().pid(), node.csi().pid()];
    let ours = Side { account: OURS, files, roots: ours, secrets };
    let peers = Side { account: PEERS, files: peer.files(), roots: vec![peer.pid()], secrets };
    if let Some(processor) = processor {
        usage::pin(&ours.roots, processor)?;
        usage::pin(&peers.roots, processor)?;
    }
    tokio::time::sleep(SETTLE).await;
    let both = [&ours, &peers];
    let at_rest = cpu(both, tokio::time::sleep(WINDOW)).await?;
    let (our_rotations, peer_rotations) =
        tokio::try_join!(rotations(&scene, &ours), rotations(&scene, &peers))?;
    let mut written = Ok(());
    let rotating = cpu(both, async { written = write_each_second(&scene, both).await }).await?;
    written?;
    let figures = |side: &Side, rotations, at: usize| {
        let usage = Usage::of(&side.roots)?;
        let mib = |kib: u64| kib as f64 / 1024.0;
        let (rss, pss) = (mib(usage.rss_kib), usage.pss_kib.map(mib));
        let (cpu_at_rest, cpu_rotating) = (at_rest[at], rotating[at]);
        anyhow::Ok(Figures { rotations, cpu_at_rest, cpu_rotating, rss, pss })
    };
    let (ours, peers) = (figures(&ours, our_rotations, 0)?, figures(&peers, peer_rotations, 1)?);
    peer.end().await?;
    scene.stop(&pod).await?;
    Ok(Measured { secrets, ours, peers })
}

/// A pod with one volume of so many secrets, refreshed every second.
async fn published(
    scene: &Scene<Bao>,
    secrets: usize,
) -> anyhow::Result<(sotto_dev::kubelet::Pod, PathBuf)> {
    let mut objects = String::new();
    for secret in 0..secrets {
        let path = format!("secret/data/payments/{OURS}/s{secret}");
        writeln!(objects, "- {{objectName: s{secret}, secretPath: {path}, secretKey: password}}")?;
    }
    scene.class("all", &objects)?;
    let mut pod = scene.pod("checkout-0", OURS, "all");
    let refresh = format!("{}s", INTERVAL.as_secs());
    pod.volumes[0].attributes.insert("sotto.dev/refresh".to_owned(), refresh);
    let target = scene.publish(&pod).await?;
    Ok((pod, target))
}

async fn write(
    scene: &Scene<Bao>,
    account: &str,
    secret: usize,
    value: &str,
) -> anyhow::Result<()> {
    let path = format!("payments/{account}/s{secret}");
    scene.write(&path, json!({"password": value})).await.map(drop)
}

/// Seconds from before each write until its content was read. The first is not counted: it finds the phase.
async fn rotations(scene: &Scene<Bao>, side: &Side) -> anyhow::Result<Vec<f64>> {
    let mut seconds = Vec::with_capacity(SAMPLES);
    rotation(scene, side, 0, "phase").await?;
    for sample in 0..SAMPLES {
        // Each twentieth of the interval once, far from its neighbours: 7 and 20 have no common divisor.
        let part = ((sample * 7 % SAMPLES) as f64 + 0.5) / SAMPLES as f64;
        tokio::time::sleep(INTERVAL.mul_f64(part)).await;
        let secret = sample % side.secrets;
        seconds.push(rotation(scene, side, secret, &format!("value {sample}")).await?);
    }
    Ok(seconds)
}

async fn rotation(
    scene: &Scene<Bao>,
    side: &Side,
    secret: usize,
    value: &str,
) -> anyhow::Result<f64> {
    let began = Instant::now();
    write(scene, side.account, secret, value).await?;
    seen(side, secret, value).await?;
    Ok(began.elapsed().as_secs_f64())
}

/// Waits until a side's file has the value.
async fn seen(side: &Side, secret: usize, value: &str) -> anyhow::Result<()> {
    let file = side.files.join(format!("s{secret}"));
    let seen = async {
        while files::read(file.clone()).await? != value {
            tokio::time::sleep(POLL).await;
        }
        anyhow::Ok(())
    };
    let in_time = tokio::time::timeout(SEEN_DEADLINE, seen).await;
    in_time.with_context(|| format!("{} never shows {value:?}", file.display()))?
}

/// Percent of a core that each side uses while something goes on.
async fn cpu(sides: [&Side; 2], meanwhile: impl Future<Output = ()>) -> anyhow::Result<[f64; 2]> {
    let used = || {
        let [ours, peers] = sides.map(|side| Usage::of(&side.roots).map(|usage| usage.cpu));
        anyhow::Ok([ours?, peers?])
    };
    let (before, began) = (used()?, Instant::now());
    meanwhile.await;
    let (after, took) = (used()?, began.elapsed());
    Ok([0, 1].map(|at| {
        let used = after[at].saturating_sub(before[at]);
        100.0 * used.as_secs_f64() / took.as_secs_f64()
    }))
}

/// Writes one secret of each side a second for the window; the last values must arrive.
async fn write_each_second(scene: &Scene<Bao>, sides: [&Side; 2]) -> anyhow::Result<()> {
    let mut ticks = tokio::time::interval(INTERVAL);
    let mut last = (0, String::new());
    for tick in 0..WINDOW.as_secs() as usize {
        ticks.tick().await;
        last = (tick % sides[0].secrets, format!("tick {tick}"));
        for side in sides {
            write(scene, side.account, last.0, &last.1).await?;
        }
    }
    ticks.tick().await;
    for side in sides {
        seen(side, last.0, &last.1).await?;
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the result of a bench")]
fn say(text: impl Display) {
    println!("{text}");
}
