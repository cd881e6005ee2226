//! Row: from kubelet's NodePublishVolume to the first byte of a file, beside the least client's login and reads.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use sotto_dev::issuer::PodTokenSpec;

use super::Bench;
use crate::floor_client::FloorClient;
use crate::report::Bound::AtMost;
use crate::report::{Figure, Row};
use crate::stats::Samples;
use crate::volumes::{ACCOUNT, Volumes, secret};

pub(crate) const GROUP: &str = "publish";
const SECRETS: usize = 3;
const BYTES: usize = 64;
const CLASS: &str = "three";
/// Pairs that warm up connections and code.
const WARM_UP: usize = 10;
/// What a volume leaves to be done in the background: its store token is revoked.
const SETTLE: Duration = Duration::from_millis(10);

pub(crate) async fn measure(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let volumes = Arc::new(Volumes::start(bench.processors, |_| {}).await?);
    volumes.class(CLASS, &[BYTES; SECRETS]).await?;
    let pairs = bench.plan.publishes;
    bench.progress(format_args!("{pairs} pairs"));
    let [ours, floor] = bench.processors.awaited_on_side(move || pairs_of(volumes, pairs)).await?;
    let what = format!("NodePublishVolume -> first byte read, {SECRETS} secrets, warm");
    let row = Row::new(GROUP, what, "ms", ours).beside("client: login + reads", floor);
    Ok(vec![row.goal(Figure::Difference, AtMost(1.0)).note_of(|row| {
        format!(
            "{:.2} ms more than the floor, all of it on one core. perf sched, in microseconds: 360 kubelet's connection and \
             request (HTTP/2 anew), 100 the look at the target and Prepare, 490 class, plan, token's check and login, 510 \
             snapshot, server and what the supervisor keeps, 50 the mount's showing, 250 the answer through gRPC, 200 eleven \
             FUSE requests. The mount made while the store answers, and one thread less, were tried: no gain that stood out. \
             It would take a driver and an agent in one process, which the design forbids, or a kubelet that keeps its \
             connection",
            row.figure(Figure::Difference)
        )
    })])
}

async fn pairs_of(volumes: Arc<Volumes>, pairs: usize) -> anyhow::Result<[Samples; 2]> {
    let client = FloorClient::connect(volumes.store()).await?;
    let paths: Vec<String> = (0..SECRETS).map(|number| secret(CLASS, number)).collect();
    let (mut ours, mut floor) = (Vec::new(), Vec::new());
    for pair in 0..WARM_UP + pairs {
        // Either goes first as often as the other.
        let (our, its) = if pair % 2 == 0 {
            let our = published(&volumes).await?;
            (our, asked(&volumes, &client, &paths).await?)
        } else {
            let its = asked(&volumes, &client, &paths).await?;
            (published(&volumes).await?, its)
        };
        if pair >= WARM_UP {
            ours.push(our);
            floor.push(its);
        }
    }
    Ok([Samples(ours), Samples(floor)])
}

/// Milliseconds of a publish and a read; kubelet's part before its call isn't counted.
async fn published(volumes: &Volumes) -> anyhow::Result<f64> {
    let kubelet = volumes.kubelet();
    let prepared = volumes.prepare(CLASS, "1h")?;
    let began = Instant::now();
    let published = prepared.publish(&kubelet).await?;
    let read = std::fs::read(published.target.join("s0"))?;
    let took = began.elapsed();
    ensure!(read.len() == BYTES, "{} bytes were read", read.len());
    published.unpublish(&kubelet).await?;
    tokio::time::sleep(SETTLE).await;
    Ok(took.as_secs_f64() * 1e3)
}

/// Milliseconds of the floor, with a token that is minted before.
async fn asked(volumes: &Volumes, client: &FloorClient, paths: &[String]) -> anyhow::Result<f64> {
    let pod = PodTokenSpec::new("payments", ACCOUNT, "floor", "node-1");
    let token = volumes.scene.issuer().mint(&pod);
    let began = Instant::now();
    let value = client.login_and_read(&token, paths).await?;
    let took = began.elapsed();
    ensure!(value.len() == BYTES, "{} bytes were read", value.len());
    tokio::time::sleep(SETTLE).await;
    Ok(took.as_secs_f64() * 1e3)
}
