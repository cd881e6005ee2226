//! Row: readers of many volumes on one processor and on two.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use sotto_dev::kubelet::volume_id;
use sotto_tests::usage;

use super::Bench;
use crate::reading::Operation;
use crate::report::Bound::AtLeast;
use crate::report::{Figure, Row};
use crate::stats::Samples;
use crate::volumes::{Published, Volumes};

pub(crate) const GROUP: &str = "readers";
const VOLUMES: usize = 8;
/// Linux keeps no more of a thread's name.
const LONGEST_NAME: usize = 15;
/// Operations between two looks at the clock.
const BATCH: usize = 50;
const LENGTH: Duration = Duration::from_millis(200);

pub(crate) async fn measure(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let row = |what: &str, one, two| {
        let what =
            format!("audited opens of {VOLUMES} volumes by 2 readers, one -> two cores{what}");
        Row::new(GROUP, what, "/s", Samples(two)).beside("one core", Samples(one))
    };
    let (Some(first), Some(second)) = (bench.processors.store, bench.processors.sides) else {
        let row = row("", Vec::new(), Vec::new()).goal(Figure::Ratio, AtLeast(1.6));
        return Ok(vec![row.note("this machine has one processor")]);
    };
    let volumes = Volumes::start(bench.processors, |_| {}).await?;
    volumes.class("one", &[64]).await?;
    let mut published = Vec::new();
    for _ in 0..VOLUMES {
        published.push(volumes.publish("one", "1h").await?);
    }
    let files: Vec<_> = published.iter().map(|it| it.target.join("s0")).collect();
    let [mut one, mut two, mut left_alone] = [const { Vec::new() }; 3];
    for round in 0..=bench.plan.rounds {
        bench.progress(format_args!("round {round} of {}", bench.plan.rounds));
        usage::pin(&volumes.pids(), &[second])?;
        let on_one = rate(&files, [second, second]).await?;
        usage::pin(&volumes.pids(), &[first, second])?;
        let alone = rate(&files, [first, second]).await?;
        let worker = volumes.scene.node().worker().context("sotto-node has no worker")?;
        for (number, volume) in published.iter().enumerate() {
            let at = if number < VOLUMES / 2 { first } else { second };
            let pinned = usage::pin_named(worker, &thread_of(volume), at)?;
            ensure!(pinned == 1, "{pinned} threads serve {}", volume.target.display());
        }
        let on_two = rate(&files, [first, second]).await?;
        if round > 0 {
            one.push(on_one);
            two.push(on_two);
            left_alone.push(alone);
        }
    }
    let note = "each volume's server on its readers' core";
    Ok(vec![
        row("", one.clone(), two).goal(Figure::Ratio, AtLeast(1.6)).note(note),
        row(", servers not pinned", one, left_alone).note(
            "the kernel wakes a server on whichever core idles; a wake-up across cores costs a virtual machine more \
             than an open",
        ),
    ])
}

/// What sotto-node calls the thread that serves a volume.
fn thread_of(volume: &Published) -> String {
    let id = volume_id(&volume.pod, &volume.pod.volumes[0]);
    format!("fuse-{}", id.trim_start_matches("csi-")).chars().take(LONGEST_NAME).collect()
}

/// Opens a second of two readers, each on its processor and with half of the volumes.
async fn rate(files: &[PathBuf], processors: [usize; 2]) -> anyhow::Result<f64> {
    let halves = files.split_at(files.len() / 2);
    let halves = [halves.0.to_vec(), halves.1.to_vec()];
    let readers = halves.into_iter().zip(processors).map(|(files, processor)| {
        std::thread::spawn(move || -> anyhow::Result<f64> {
            usage::pin_this_thread(processor)?;
            let (mut done, began) = (0, Instant::now());
            while began.elapsed() < LENGTH {
                Operation::Read.timed(&files, BATCH)?;
                done += BATCH;
            }
            Ok(done as f64 / began.elapsed().as_secs_f64())
        })
    });
    let readers: Vec<_> = readers.collect();
    let joined = tokio::task::spawn_blocking(move || {
        let join = |reader: std::thread::JoinHandle<anyhow::Result<f64>>| {
            reader.join().map_err(|_| anyhow::anyhow!("a reader panicked"))?
        };
        readers.into_iter().map(join).sum::<anyhow::Result<f64>>()
    });
    let rate = joined.await.context("the readers were lost")??;
    ensure!(rate > 0.0, "nobody read");
    Ok(rate)
}
