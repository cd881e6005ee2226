//! Row: readers of many volumes on one processor and on two.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use sotto_tests::usage;

use super::Bench;
use crate::reading::Operation;
use crate::report::Bound::AtLeast;
use crate::report::{Figure, Row};
use crate::stats::Samples;
use crate::volumes::Volumes;

pub(crate) const GROUP: &str = "readers";
const VOLUMES: usize = 8;
/// Operations between two looks at the clock.
const BATCH: usize = 50;
const LENGTH: Duration = Duration::from_millis(400);

pub(crate) async fn measure(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let what = "audited opens of 8 volumes by 2 readers, one -> two cores";
    let (Some(first), Some(second)) = (bench.processors.store, bench.processors.sides) else {
        let row = Row::new(GROUP, what, "/s", Samples::default()).goal(Figure::Ratio, AtLeast(1.6));
        return Ok(vec![row.note("this machine has one processor")]);
    };
    let volumes = Volumes::start(bench.processors, |_| {}).await?;
    volumes.class("one", &[64]).await?;
    let mut files = Vec::new();
    for _ in 0..VOLUMES {
        files.push(volumes.publish("one", "1h").await?.target.join("s0"));
    }
    let (mut two, mut one) = (Vec::new(), Vec::new());
    for round in 0..=bench.plan.rounds {
        bench.progress(format_args!("round {round} of {}", bench.plan.rounds));
        usage::pin(&volumes.pids(), &[second])?;
        let alone = rate(&files, [second, second]).await?;
        usage::pin(&volumes.pids(), &[first, second])?;
        let both = rate(&files, [first, second]).await?;
        if round > 0 {
            one.push(alone);
            two.push(both);
        }
    }
    let row = Row::new(GROUP, what, "/s", Samples(two)).beside("one core", Samples(one));
    Ok(vec![row.goal(Figure::Ratio, AtLeast(1.6))])
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
