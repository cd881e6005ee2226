//! Rows of memory: a sidecar beside `bao agent` and `bao proxy`, and a node's processes with one volume, each side asking
//! every second but the proxy, which asks when it is asked.
//!
//! Measured: of several starts, half a second after each side has shown a second new value. No time is measured: it is
//! done while `fill` waits for a thousand volumes to come to rest.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::ensure;
use serde_json::json;
use sotto_dev::bao::Bao;
use sotto_tests::scene::{Scene, StoreSettings};
use sotto_tests::usage::Usage;
use tokio::sync::Barrier;

use super::Bench;
use super::rotation::seen;
use super::sidecar::{BINARY, CLASS, Sidecar, is_built, scene_with};
use crate::machine::{copy_of_binaries, page_in_binaries};
use crate::peer::Peer;
use crate::peer::proxy::{Asking, Proxy};
use crate::report::Bound::AtMost;
use crate::report::{Figure, Row, State};
use crate::stats::Samples;
use crate::volumes::{Volumes, secret};

pub(crate) const GROUP: &str = "memory";
/// Of a sidecar, at most, in MiB.
const GOALS: [(usize, f64); 2] = [(1, 8.0), (50, 10.0)];
/// Starts of each side.
const STARTS: usize = 12;
const VOLUME: &str = "volume";
const AGENT: &str = "bao agent";
/// Values after which all that is needed to serve and to follow has been used.
const TURNS: [&str; 2] = ["first turn", "second turn"];
/// A turn's helper has ended by then.
const SETTLE: Duration = Duration::from_millis(500);

/// MiB, one of each a start.
#[derive(Default)]
struct Looks {
    sidecar: Samples,
    agent: Samples,
    proxy: Samples,
    node: Samples,
}

/// The rows, if `fill` has not taken them along.
pub(crate) async fn measured(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let before = bench.take_meanwhile();
    if before.is_empty() { measure(bench).await } else { Ok(before) }
}

/// Takes them along with another group.
pub(super) async fn meanwhile(bench: &Bench) {
    if bench.plan.has(GROUP) {
        let rows = measure(bench).await;
        bench.keep_meanwhile(rows.unwrap_or_else(|error| vec![Row::failed(GROUP, &error)]));
    }
}

async fn measure(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let is_built = is_built()?;
    let looks = Box::pin(starts(bench, is_built)).await?;
    let mut rows = Vec::new();
    for ((secrets, goal), looks) in GOALS.into_iter().zip(looks) {
        let row = |what: String, ours: &Samples, by: &'static str, its: &Samples| {
            Row::new(GROUP, what, "MiB", ours.clone()).beside(by, its.clone())
        };
        let what = format!("sidecar: memory, {secrets} secrets, supervisor included");
        let sidecar = row(what, &looks.sidecar, AGENT, &looks.agent);
        let mut of_sidecar = vec![sidecar.goal(Figure::Ours, AtMost(goal)).note(
            "PSS of supervisor and worker: what two processes of one binary share counts once, as in a control group; RSS of the peer's one process",
        )];
        if secrets == 1 {
            let what = "sidecar: memory, 1 secrets, beside a proxy".to_owned();
            of_sidecar.push(row(what, &looks.sidecar, "bao proxy", &looks.proxy));
        }
        if !is_built {
            of_sidecar.iter_mut().for_each(|row| row.state = State::NotBuilt(BINARY));
        }
        rows.extend(of_sidecar);
        let what = format!("node agent and driver: memory, a volume of {secrets} secrets");
        rows.push(row(what, &looks.node, AGENT, &looks.agent));
    }
    Ok(rows)
}

/// With few and with many secrets side by side, each sidecar from a binary of its own: two of one would share its pages.
async fn starts(bench: &Bench, is_built: bool) -> anyhow::Result<[Looks; GOALS.len()]> {
    let copies = [copy_of_binaries(&bench.binaries)?, copy_of_binaries(&bench.binaries)?];
    let [few, many] = [0, 1].map(|at| {
        let binaries = Some(copies[at].path().to_owned());
        scene_with(StoreSettings { binaries, ..StoreSettings::sidecars() }, GOALS[at].0)
    });
    let scenes = [few.await?, many.await?];
    let mut looks = [Looks::default(), Looks::default()];
    for start in 1..=STARTS {
        bench.progress(format_args!("memory, start {start} of {STARTS}"));
        page_in_binaries(&[&bench.binaries, copies[0].path(), copies[1].path()])?;
        let both_settle = Barrier::new(2);
        let [few, many] = &mut looks;
        let [few, many] = [(few, 0), (many, 1)].map(|(looks, at)| {
            Box::pin(start_of(
                bench,
                &scenes[at],
                GOALS[at].0,
                start,
                looks,
                is_built.then_some(&both_settle),
            ))
        });
        tokio::try_join!(few, many)?;
    }
    Ok(looks)
}

/// Both nodes; the sidecars where they are built.
async fn start_of(
    bench: &Bench,
    scene: &Scene<Bao>,
    secrets: usize,
    start: usize,
    looks: &mut Looks,
    both_settle: Option<&Barrier>,
) -> anyhow::Result<()> {
    let node = Box::pin(of_node(bench, secrets));
    let mib = match both_settle {
        Some(both_settle) => {
            let sidecar = Box::pin(of_sidecar(scene, secrets, start, looks, both_settle));
            tokio::try_join!(node, sidecar)?.0
        }
        None => node.await?,
    };
    looks.node.0.push(mib);
    Ok(())
}

/// A sidecar and its peers, each once it has shown a second new value.
async fn of_sidecar(
    scene: &Scene<Bao>,
    secrets: usize,
    start: usize,
    looks: &mut Looks,
    both_settle: &Barrier,
) -> anyhow::Result<()> {
    let mut sidecar = Sidecar::start(scene, start).await?;
    let agent = Peer::start(scene, secrets, |number| secret(CLASS, number)).await?;
    let proxy =
        if secrets == 1 { Some(Proxy::start(scene, &secret(CLASS, 0)).await?) } else { None };
    let files = [sidecar.pod.show_secrets(scene.node())?, agent.files()];
    for turn in TURNS {
        turned(scene, &secret(CLASS, 0), turn, &files.each_ref().map(|it| it.join("s0"))).await?;
        if let Some(proxy) = &proxy {
            let value = Asking::at(&proxy.socket()).await?.read(&secret(CLASS, 0)).await?;
            ensure!(value == turn, "bao proxy answers {value}");
        }
    }
    // The other one has shown its second value too: what both share with others is the same at each look.
    both_settle.wait().await;
    tokio::time::sleep(SETTLE).await;
    let own = Usage::of(&[sidecar.pid()?])?;
    looks.sidecar.0.push(mib(own.pss_kib.unwrap_or(own.rss_kib)));
    looks.agent.0.push(mib(Usage::of(&[agent.pid()])?.rss_kib));
    if let Some(proxy) = proxy {
        looks.proxy.0.push(mib(Usage::of(&[proxy.pid()])?.rss_kib));
        proxy.end().await?;
    }
    agent.end().await?;
    Ok(sidecar.pod.end(scene.node()).await?)
}

/// Supervisor, worker and driver of a node with one volume.
async fn of_node(bench: &Bench, secrets: usize) -> anyhow::Result<f64> {
    let volumes = Volumes::start(bench.processors, |_| {}).await?;
    volumes.class(VOLUME, &vec![64; secrets]).await?;
    let published = volumes.publish(VOLUME, "1s").await?;
    for turn in TURNS {
        turned(&volumes.scene, &secret(VOLUME, 0), turn, &[published.target.join("s0")]).await?;
    }
    tokio::time::sleep(SETTLE).await;
    let used = mib(Usage::of(&volumes.pids())?.rss_kib);
    published.unpublish(volumes.scene.kubelet()).await?;
    Ok(used)
}

/// Writes a value, and waits until each file shows it.
async fn turned(
    scene: &Scene<Bao>,
    path: &str,
    value: &str,
    files: &[PathBuf],
) -> anyhow::Result<()> {
    scene.write(path, json!({ "password": value })).await?;
    for file in files {
        seen(file, value).await?;
    }
    Ok(())
}

fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}
