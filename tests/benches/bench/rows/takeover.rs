//! Row: how long a reader waits when the worker of sotto-node is killed under load.

use anyhow::{Context, ensure};
use sotto_tests::scene::Scene;
use sotto_tests::served::Served;
use sotto_tests::wait;

use super::Bench;
use crate::report::Bound::AtMost;
use crate::report::{Figure, Row};
use crate::stats::Samples;

pub(crate) const GROUP: &str = "take-over";
const VOLUMES: usize = 5;
const READERS: usize = 8;
/// Reads before a kill and after it: each reader has read.
const READS: u64 = 2_000;

pub(crate) async fn measure(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let mut served = Served::start(Scene::openbao().await?, VOLUMES, &[]).await?;
    let readers = served.readers(READERS)?;
    let mut stalls = Vec::new();
    for kill in 1..=bench.plan.kills {
        bench.progress(format_args!("kill {kill} of {}", bench.plan.kills));
        readers.read_on(READS).await?;
        readers.seen().take_longest();
        let node = served.scene.node();
        let killed = node.kill_worker().context("no worker to kill")?;
        wait::until("another worker", || node.worker().is_some_and(|it| it != killed)).await?;
        served.all_served().await?;
        readers.read_on(READS).await?;
        stalls.push(readers.seen().take_longest().as_secs_f64() * 1e3);
        // A supervisor waits longer and longer for a worker that was never well for ten seconds: each kill has a new
        // one.
        served.scene.node_mut().restart_agent().await?;
        served.all_served().await?;
    }
    served.judged(readers)?;
    ensure!(served.scene.node().worker().is_some(), "the last worker is gone");
    let what = format!("take-over stall of {READERS} readers, {VOLUMES} volumes, worker killed");
    let row = Row::new(GROUP, what, "ms", Samples(stalls));
    let row = row.goal(Figure::Ours, AtMost(100.0)).goal(Figure::OursAtWorst, AtMost(100.0));
    Ok(vec![row.note_of(|row| {
        let worst = row.figure(Figure::OursAtWorst);
        format!("the longest read of any reader, worst of all kills {worst:.0} ms; no read failed")
    })])
}
