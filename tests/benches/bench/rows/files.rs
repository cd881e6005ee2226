//! Rows: what an application pays for a file, beside tmpfs and beside a FUSE server with empty handlers.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::Bench;
use crate::empty_handler::EmptyHandler;
use crate::reading::Operation;
use crate::report::Bound::AtMost;
use crate::report::{Figure, Row};
use crate::stats::Samples;
use crate::tmpfs::Tmpfs;
use crate::volumes::Volumes;

pub(crate) const GROUP: &str = "files";
const SMALL: usize = 64;
const PAGE: usize = 4096;
const FILES: usize = 20;
/// How long the audit log's last lines may take.
const AUDITED: Duration = Duration::from_secs(10);
/// No refresh falls into the run.
const REFRESH: &str = "1h";

/// One thing that is timed on one side.
struct Case {
    operation: Operation,
    path: PathBuf,
    samples: Vec<f64>,
}

/// Cases that are timed in turn, forwards and backwards.
#[derive(Default)]
struct Cases(Vec<Case>);

impl Cases {
    fn add(&mut self, operation: Operation, path: PathBuf) -> usize {
        self.0.push(Case { operation, path, samples: Vec::new() });
        self.0.len() - 1
    }

    fn of(&self, case: usize) -> Samples {
        Samples(self.0[case].samples.clone())
    }

    async fn time(mut self, bench: &Bench) -> anyhow::Result<Self> {
        let (rounds, operations) = (bench.plan.rounds, bench.plan.operations);
        for round in 0..=rounds {
            bench.progress(format_args!("round {round} of {rounds}"));
            self = bench
                .processors
                .on_side(move || {
                    let order: Vec<usize> = (0..self.0.len()).collect();
                    let order =
                        if round % 2 == 0 { order } else { order.into_iter().rev().collect() };
                    for at in order {
                        let Case { operation, path, samples } = &mut self.0[at];
                        let took = operation.timed(std::slice::from_ref(path), operations)?;
                        // The first round is the warm-up.
                        if round > 0 {
                            samples.push(took);
                        }
                    }
                    Ok(self)
                })
                .await?;
        }
        Ok(self)
    }
}

/// A volume of twenty files of which the second has a page, and the same on tmpfs.
struct Scene {
    volumes: Arc<Volumes>,
    ours: PathBuf,
    tmpfs: Tmpfs,
}

impl Scene {
    async fn start(bench: &Bench, audit: Value) -> anyhow::Result<Self> {
        let edit = move |config: &mut Value| config["audit"] = audit.clone();
        let volumes = Volumes::start(bench.processors, edit).await?;
        let mut sizes = [SMALL; FILES];
        sizes[1] = PAGE;
        volumes.class("files", &sizes).await?;
        let target = volumes.publish("files", REFRESH).await?.target;
        // As a container sees it: kubelet's path has twice the directories of the others'.
        let ours = volumes.scene.node().show_in_container(&target, "mnt/secrets")?;
        // Threads that came with the volume.
        bench.processors.pin_side(&volumes.pids())?;
        let named = |(number, size): (usize, &usize)| (format!("s{number}"), *size);
        let tmpfs = Tmpfs::of(&sizes.iter().enumerate().map(named).collect::<Vec<_>>())?;
        Ok(Self { volumes: Arc::new(volumes), ours, tmpfs })
    }

    fn add(&self, cases: &mut Cases, operation: Operation, name: &str) -> [usize; 2] {
        [&self.ours, &self.tmpfs.root()].map(|root| cases.add(operation, root.join(name)))
    }

    /// Records that the audit log had to leave out. Of so many opens each is told, or said to be lost.
    async fn lost(&self, opens: usize) -> anyhow::Result<u64> {
        let all = |records: &[Value]| told(records) + lost(records) >= opens as u64;
        let records = self.volumes.scene.node().audited("each open", AUDITED, all).await?;
        Ok(lost(&records))
    }
}

fn told(records: &[Value]) -> u64 {
    records.iter().filter(|it| it["action"] == "open").count() as u64
}

fn lost(records: &[Value]) -> u64 {
    let lost = records.iter().filter(|it| it["action"] == "lost");
    lost.filter_map(|it| it["records"].as_u64()).sum()
}

/// Where the time of an audited open goes.
fn opens_note(row: &Row) -> String {
    format!(
        "the round trip alone is some 4.5 times tmpfs: two switches of process and two messages, OPEN and RELEASE; \
         the rest is half the audit log's line and its way out. `audit: none` saves both. Records that the log had no \
         room for, which it says itself: {}",
        row.count
    )
}

pub(crate) async fn audited(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let scene = Scene::start(bench, json!({ "output": "stdout" })).await?;
    let empty = [EmptyHandler::start(SMALL).await?, EmptyHandler::start(PAGE).await?];
    bench.processors.pin_side(&empty.each_ref().map(EmptyHandler::pid))?;
    let mut cases = Cases::default();
    let mut opens = Vec::new();
    for (name, empty) in ["s0", "s1"].into_iter().zip(&empty) {
        let [ours, tmpfs] = scene.add(&mut cases, Operation::Read, name);
        opens.push([ours, tmpfs, cases.add(Operation::Read, empty.file())]);
    }
    let stat = scene.add(&mut cases, Operation::Stat, "s0");
    let plain_stat = scene.add(&mut cases, Operation::Stat, "..1/s0");
    let list = scene.add(&mut cases, Operation::List, "");
    let map = scene.add(&mut cases, Operation::Map, "s1");
    let cases = cases.time(bench).await?;
    // Both sizes are opened, and one is mapped; with the warm-up.
    let lost = scene.lost((bench.plan.rounds + 1) * bench.plan.operations * 3).await?;
    let mut rows = Vec::new();
    for (size, [ours, tmpfs, empty]) in ["64 B", "4 KiB"].into_iter().zip(opens) {
        let what = format!("open + read + close, audited, {size}");
        let row = |beside: &str| Row::new(GROUP, format!("{what}{beside}"), "µs", cases.of(ours));
        let beside_tmpfs = row("").beside("tmpfs", cases.of(tmpfs)).counting(lost);
        rows.push(beside_tmpfs.goal(Figure::Ratio, AtMost(5.0)).note_of(opens_note));
        let row = row(", beside the round trip");
        rows.push(row.beside("empty handler", cases.of(empty)).goal(Figure::Ratio, AtMost(1.3)));
    }
    let links = "no message is sent: the kernel walks two links, and keeps a FUSE link's target in its page cache where \
                 tmpfs has it in the inode. The layout is every Kubernetes volume's";
    let mapped = "the audited open is all of the difference but a page fault";
    for (what, [ours, tmpfs], goal, note) in [
        ("stat of the file itself", plain_stat, 1.2, "no message is sent: see the next one"),
        ("stat through the volume's two links", stat, 1.2, links),
        ("readdir of 20", list, 2.5, ""),
        ("open + mmap + read a page + close", map, 3.0, mapped),
    ] {
        let row = Row::new(GROUP, what, "µs", cases.of(ours)).note(note);
        rows.push(row.beside("tmpfs", cases.of(tmpfs)).goal(Figure::Ratio, AtMost(goal)));
    }
    Ok(rows)
}

pub(crate) async fn unaudited(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let scene = Scene::start(bench, json!({ "output": "none" })).await?;
    let mut cases = Cases::default();
    let opens = ["s0", "s1"].map(|name| scene.add(&mut cases, Operation::Read, name));
    let cases = cases.time(bench).await?;
    let rows = ["64 B", "4 KiB"].into_iter().zip(opens).map(|(size, [ours, tmpfs])| {
        let what = format!("open + read + close, `audit: none`, {size}");
        let row = Row::new(GROUP, what, "µs", cases.of(ours));
        row.beside("tmpfs", cases.of(tmpfs)).goal(Figure::Ratio, AtMost(1.6))
    });
    Ok(rows.collect())
}
