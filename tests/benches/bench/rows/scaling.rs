//! Rows of how cost grows: with volumes, objects, the size of a secret, readers, the rate of rotations. Without goals,
//! and only when asked for: `make bench ROW=scaling`; PERFORMANCE.md shows them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use futures::{StreamExt, TryStreamExt};
use serde_json::json;
use sotto_dev::test_store::TestStore as _;
use sotto_tests::usage::Usage;

use super::Bench;
use crate::reading::Operation;
use crate::report::Row;
use crate::stats::Samples;
use crate::tmpfs::Tmpfs;
use crate::volumes::{Published, Volumes, secret};

pub(crate) const GROUP: &str = "scaling";
const VOLUMES: [usize; 5] = [1, 10, 100, 300, 1_000];
const OBJECTS: [usize; 6] = [1, 5, 20, 50, 100, 500];
const BYTES: [usize; 7] = [64, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20];
const READERS: [usize; 6] = [1, 2, 4, 16, 64, 256];
const ROTATING: [usize; 4] = [1, 5, 20, 50];
/// Of publishes at each point.
const PUBLISHES: usize = 10;
const AT_ONCE: usize = 16;
const READING: Duration = Duration::from_millis(500);
const REFRESH: &str = "1h";
const SETTLE: Duration = Duration::from_millis(500);
/// Parts for which CPU time is counted while volumes rotate.
const ROTATING_PARTS: u32 = 8;

pub(crate) async fn measure(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let mut rows = volumes(bench).await?;
    rows.extend(objects_and_bytes(bench).await?);
    rows.extend(readers(bench).await?);
    rows.extend(rotations(bench).await?);
    Ok(rows)
}

fn row(what: String, unit: &'static str, samples: Samples) -> Row {
    Row::new(GROUP, what, unit, samples)
}

/// Milliseconds of some publishes, first byte included, one after the other; what was published goes again.
async fn publishes(bench: &Bench, volumes: &Arc<Volumes>, class: &str) -> anyhow::Result<Samples> {
    let (volumes, class) = (Arc::clone(volumes), class.to_owned());
    let all = move || async move {
        let kubelet = volumes.kubelet();
        let mut took = Vec::new();
        for number in 0..=PUBLISHES {
            let prepared = volumes.prepare(&class, REFRESH)?;
            let began = Instant::now();
            let published = prepared.publish(&kubelet).await?;
            let read = std::fs::read(published.target.join("s0"))?;
            // The first of a class makes its plan.
            if number > 0 {
                took.push(began.elapsed().as_secs_f64() * 1e3);
            }
            ensure!(!read.is_empty(), "nothing was read");
            published.unpublish(&kubelet).await?;
        }
        Ok(Samples(took))
    };
    bench.processors.awaited_on_side(all).await
}

async fn volumes(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    sotto_runtime::hardening::raise_open_files()?;
    // Room for one more.
    let room = |config: &mut serde_json::Value| config["limits"] = json!({ "volumes": 1_100 });
    let scene = Arc::new(Volumes::start(bench.processors, room).await?);
    scene.class("five", &[64; 5]).await?;
    let (mut rows, mut there) = (Vec::new(), Vec::<Published>::new());
    for count in VOLUMES {
        bench.progress(format_args!("{count} volumes"));
        let kubelet = scene.kubelet();
        let more = (there.len()..count).map(|_| scene.prepare("five", REFRESH));
        let more = more.collect::<anyhow::Result<Vec<_>>>()?;
        let more = more.into_iter().map(|it| it.publish(&kubelet));
        let more = futures::stream::iter(more).buffer_unordered(AT_ONCE);
        there.extend(more.try_collect::<Vec<_>>().await?);
        bench.processors.pin_side(&scene.pids())?;
        tokio::time::sleep(4 * SETTLE).await;
        let [node, csi] = scene.pids().map(|pid| Usage::of(&[pid]));
        let mib = |usage: Usage| Samples::one(usage.rss_kib as f64 / 1024.0);
        rows.push(row(format!("{count} volumes of 5: sotto-node memory"), "MiB", mib(node?)));
        rows.push(row(format!("{count} volumes of 5: sotto-csi memory"), "MiB", mib(csi?)));
        let took = publishes(bench, &scene, "five").await?;
        rows.push(row(format!("{count} volumes of 5: one more publish"), "ms", took));
        let files: Vec<_> = there.iter().map(|it| it.target.join("s0")).collect();
        let opened = opens(bench, files).await?;
        rows.push(row(format!("{count} volumes of 5: open + read + close, in turn"), "µs", opened));
    }
    let kubelet = scene.kubelet();
    let ends = there.iter().map(|it| it.unpublish(&kubelet));
    futures::stream::iter(ends).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
    Ok(rows)
}

/// Microseconds an open, over these files in turn.
async fn opens(bench: &Bench, files: Vec<std::path::PathBuf>) -> anyhow::Result<Samples> {
    let operations = bench.plan.operations.max(files.len());
    let timed = move || {
        Operation::Read.timed(&files, files.len())?;
        (0..PUBLISHES).map(|_| Operation::Read.timed(&files, operations)).collect()
    };
    bench.processors.on_side(timed).await.map(Samples)
}

async fn objects_and_bytes(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let scene = Arc::new(Volumes::start(bench.processors, |_| {}).await?);
    let mut rows = Vec::new();
    for objects in OBJECTS {
        bench.progress(format_args!("{objects} objects"));
        let class = format!("objects-{objects}");
        scene.class(&class, &vec![64; objects]).await?;
        let took = publishes(bench, &scene, &class).await?;
        rows.push(row(format!("a volume of {objects} objects: publish"), "ms", took));
    }
    for bytes in BYTES {
        bench.progress(format_args!("{bytes} bytes"));
        let class = format!("bytes-{bytes}");
        scene.class(&class, &[bytes]).await?;
        let took = publishes(bench, &scene, &class).await?;
        rows.push(row(format!("a secret of {bytes} B: publish"), "ms", took));
        let published = scene.publish(&class, REFRESH).await?;
        bench.processors.pin_side(&scene.pids())?;
        let tmpfs = Tmpfs::of(&[("s0".to_owned(), bytes)])?;
        let paths = [published.target.join("s0"), tmpfs.root().join("s0")];
        let operations = bench.plan.operations / 8;
        let [ours, beside] = bench
            .processors
            .on_side(move || {
                let mut both = [const { Vec::new() }; 2];
                for _ in 0..=PUBLISHES {
                    for (path, samples) in paths.iter().zip(&mut both) {
                        let took =
                            Operation::Whole.timed(std::slice::from_ref(path), operations)?;
                        samples.push(took);
                    }
                }
                // The first of each is the warm-up.
                Ok(both.map(|samples| Samples(samples[1..].to_vec())))
            })
            .await?;
        let what = format!("a secret of {bytes} B: open + read to the end + close");
        rows.push(row(what, "µs", ours).beside("tmpfs", beside));
        published.unpublish(scene.scene.kubelet()).await?;
    }
    Ok(rows)
}

async fn readers(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let scene = Volumes::start(bench.processors, |_| {}).await?;
    scene.class("one", &[64]).await?;
    let mut files = Vec::new();
    for _ in 0..AT_ONCE {
        files.push(scene.publish("one", REFRESH).await?.target.join("s0"));
    }
    bench.processors.pin_side(&scene.pids())?;
    let mut rows = Vec::new();
    for readers in READERS {
        bench.progress(format_args!("{readers} readers"));
        for (of, files) in [("one volume", &files[..1]), ("16 volumes", &files[..])] {
            let mut rates = Vec::new();
            for _ in 0..PUBLISHES / 2 {
                rates.push(rate(bench, readers, files).await?);
            }
            rows.push(row(format!("{readers} readers of {of}: opens"), "/s", Samples(rates)));
        }
    }
    Ok(rows)
}

async fn rate(bench: &Bench, readers: usize, files: &[std::path::PathBuf]) -> anyhow::Result<f64> {
    let until = Instant::now() + READING;
    let counts = (0..readers).map(|number| {
        let mut files = files.to_vec();
        let first = number % files.len();
        files.rotate_left(first);
        bench.processors.on_side(move || {
            let mut done = 0;
            while Instant::now() < until {
                Operation::Read.timed(&files, files.len())?;
                done += files.len();
            }
            Ok(done)
        })
    });
    let began = Instant::now();
    let counts = futures::future::try_join_all(counts).await?;
    Ok(counts.iter().sum::<usize>() as f64 / began.elapsed().as_secs_f64())
}

/// CPU of all three processes with so many volumes that ask every second and change every second.
async fn rotations(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let scene = Volumes::start(bench.processors, |_| {}).await?;
    scene.class("turning", &[64]).await?;
    let path = secret("turning", 0);
    let (mut rows, mut there) = (Vec::new(), Vec::<Published>::new());
    for count in ROTATING {
        bench.progress(format_args!("{count} volumes that rotate every second"));
        while there.len() < count {
            there.push(scene.publish("turning", "1s").await?);
        }
        bench.processors.pin_side(&scene.pids())?;
        tokio::time::sleep(4 * SETTLE).await;
        let (before, began) = (Usage::of(&scene.pids())?.cpu, Instant::now());
        let mut ticks = tokio::time::interval(Duration::from_secs(1));
        let mut version = 0;
        while began.elapsed() < bench.plan.part * ROTATING_PARTS {
            ticks.tick().await;
            version += 1;
            let value = json!({ "password": format!("version {version}") });
            scene.scene.store().write(&path, value).await.context("the store refuses")?;
        }
        let used = Usage::of(&scene.pids())?.cpu.saturating_sub(before);
        let percent = 100.0 * used.as_secs_f64() / began.elapsed().as_secs_f64();
        let what = format!("{count} volumes that rotate every second: CPU");
        rows.push(row(what, "% of a core", Samples::one(percent)));
    }
    Ok(rows)
}
