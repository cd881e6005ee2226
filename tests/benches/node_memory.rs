//! What a volume costs sotto-node, its supervisor and its worker together: resident memory, threads and file
//! descriptors with 10, 100 and 250 volumes of five secrets, each of a pod of its own, and when all are gone
//! again. `make bench-memory`.
//!
//! Exits 1 if the cost doesn't grow with the number of volumes in a straight line, if a volume costs more
//! than a mebibyte (with glibc's thresholds left alone it is 6.8 MB), one thread or three descriptors, or if
//! threads or descriptors don't come back. The judgement is tried on made-up measurements first.

use std::fmt::{Display, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::json;
use sotto_dev::kubelet::Pod;
use sotto_dev::store::DevStore;
use sotto_tests::files;
use sotto_tests::scene::Scene;
use sotto_tests::usage::Usage;

/// Volumes at which it is measured.
const STEPS: [usize; 3] = [10, 100, 250];
/// Secrets of a volume, each with a path of its own in the store.
const SECRETS: usize = 5;
/// Threads that a volume may add: one, of the worker. The runtime's own come and go.
const THREADS_A_VOLUME: f64 = 1.05;
/// Descriptors that a volume may add: the worker's connection; the supervisor's dup of it and its keep of the values.
const FDS_A_VOLUME: f64 = 3.0;
/// A socket that is open while it is counted, shared out among the volumes.
const FDS_BESIDES: f64 = 0.1;
/// Most that a volume may add to the resident memory, KiB.
const MOST_A_VOLUME: f64 = 1024.0;
/// How much dearer a volume may be between the last two steps than between the first two.
const STEEPEST: f64 = 1.5;
/// A slope below this, KiB, is taken for this: a ratio of less is noise.
const LEAST_SLOPE: f64 = 1.0;
/// Descriptors that a volume may cost the agent, the driver or this process, and what they need besides.
const FILES_A_VOLUME: u64 = 4;
const FILES_BESIDES: u64 = 512;
/// A runtime keeps idle threads for some seconds.
const SETTLE_DEADLINE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    let measured = the_judge_sees_each_fault().and_then(|()| enough_files()).and_then(|()| {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        runtime.worker_threads(2).enable_all().build()?.block_on(measure())
    });
    match measured {
        Ok(series) => {
            say(series.table());
            let faults = series.faults();
            faults.iter().for_each(|fault| say(format_args!("FAULT: {fault}")));
            if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            say(format_args!("node_memory: {error:?}"));
            ExitCode::FAILURE
        }
    }
}

/// The processes of the scene inherit the limit.
fn enough_files() -> anyhow::Result<()> {
    let limit = sotto_runtime::hardening::raise_open_files()?.unwrap_or(u64::MAX);
    let needed = FILES_A_VOLUME * STEPS[2] as u64 + FILES_BESIDES;
    ensure!(limit >= needed, "the hard limit of open files is {limit}: raise it to {needed}");
    Ok(())
}

async fn measure() -> anyhow::Result<Series> {
    let scene = Scene::embedded().await?;
    // With all below it.
    let agent = scene.node().agent().pid();
    scene.node().worker().context("sotto-node has no worker that could be measured")?;
    let cold = Usage::of(&[agent])?;
    write_secrets(&scene).await?;
    // The first volume pages code in and opens the connection to the store.
    let first = publish(&scene, 0).await?;
    scene.stop(&first).await?;
    let start = settled(agent, |now| now.threads <= cold.threads).await?;
    let (mut pods, mut steps) = (Vec::new(), [start; STEPS.len()]);
    for (step, volumes) in steps.iter_mut().zip(STEPS) {
        while pods.len() < volumes {
            pods.push(publish(&scene, pods.len() + 1).await?);
        }
        *step = Usage::of(&[agent])?;
    }
    for pod in &pods {
        scene.stop(pod).await?;
    }
    let returned = |now: &Usage| now.threads <= start.threads && now.fds <= start.fds;
    Ok(Series { cold, start, steps, end: settled(agent, returned).await? })
}

async fn write_secrets(scene: &Scene<DevStore>) -> anyhow::Result<()> {
    let mut objects = String::new();
    for index in 0..SECRETS {
        let path = format!("payments/checkout/s{index}");
        scene.write(&path, json!({"password": value_of(index)})).await?;
        writeln!(
            objects,
            "- {{objectName: s{index}, secretPath: secret/data/{path}, secretKey: password}}"
        )?;
    }
    scene.class("five", &objects)
}

fn value_of(index: usize) -> String {
    format!("{index}").repeat(64)
}

/// Publishes the volume of a new pod and reads one of its files: its threads have run.
async fn publish(scene: &Scene<DevStore>, number: usize) -> anyhow::Result<Pod> {
    let pod = scene.pod(&format!("checkout-{number}"), "checkout", "five");
    let target = scene.publish(&pod).await.with_context(|| format!("volume {number}"))?;
    let index = number % SECRETS;
    let read = files::read(target.join(format!("s{index}"))).await?;
    ensure!(read == value_of(index), "volume {number} shows another secret");
    Ok(pod)
}

/// The first measurement that satisfies the condition, or the last one before the deadline.
async fn settled(pid: u32, condition: impl Fn(&Usage) -> bool) -> anyhow::Result<Usage> {
    let give_up = tokio::time::Instant::now() + SETTLE_DEADLINE;
    loop {
        let usage = Usage::of(&[pid])?;
        if condition(&usage) || tokio::time::Instant::now() > give_up {
            return Ok(usage);
        }
        tokio::time::sleep(POLL).await;
    }
}

/// All that was measured.
#[derive(Clone, Copy)]
struct Series {
    /// Before any volume.
    cold: Usage,
    /// After a first volume came and went.
    start: Usage,
    /// At each of [`STEPS`].
    steps: [Usage; STEPS.len()],
    /// When every volume is gone.
    end: Usage,
}

impl Series {
    /// What a volume adds from one step to the next.
    fn slopes(&self, value: impl Fn(&Usage) -> f64) -> [f64; 2] {
        [0, 1].map(|at| {
            let volumes = (STEPS[at + 1] - STEPS[at]) as f64;
            (value(&self.steps[at + 1]) - value(&self.steps[at])) / volumes
        })
    }

    fn ratio([first, second]: [f64; 2]) -> f64 {
        second / first.max(LEAST_SLOPE)
    }

    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let slopes = self.slopes(|it| it.rss_kib as f64);
        let ratio = Self::ratio(slopes);
        if ratio > STEEPEST {
            faults
                .push(format!("memory does not grow in a straight line: {ratio:.2} > {STEEPEST}"));
        }
        if let Some(dear) = slopes.into_iter().find(|it| *it > MOST_A_VOLUME) {
            faults.push(format!("a volume costs {dear:.0} KiB, more than {MOST_A_VOLUME:.0}"));
        }
        if let Some(threads) =
            self.slopes(|it| it.threads as f64).into_iter().find(|it| *it > THREADS_A_VOLUME)
        {
            faults.push(format!("a volume costs {threads:.2} threads, more than one"));
        }
        if let Some(fds) =
            self.slopes(|it| it.fds as f64).into_iter().find(|it| *it > FDS_A_VOLUME + FDS_BESIDES)
        {
            faults.push(format!("a volume costs {fds:.2} descriptors, more than {FDS_A_VOLUME}"));
        }
        for (what, before, after) in [
            ("threads", self.cold.threads.min(self.start.threads), self.end.threads),
            ("descriptors", self.start.fds, self.end.fds),
        ] {
            if after > before {
                faults.push(format!("{before} {what} at the start, {after} at the end"));
            }
        }
        faults
    }

    fn table(&self) -> String {
        let build = if cfg!(debug_assertions) { "development build, " } else { "" };
        let mut text = format!(
            "sotto-node (supervisor and worker), {build}volumes of {SECRETS} secrets, one a pod\n"
        );
        let head = ["volumes", "RSS KiB", "PSS KiB", "threads", "fds"].map(str::to_owned);
        row(&mut text, "", head);
        usage_row(&mut text, "started", 0, &self.cold);
        usage_row(&mut text, "start: one came and went", 0, &self.start);
        for (volumes, usage) in STEPS.iter().zip(&self.steps) {
            usage_row(&mut text, "", *volumes, usage);
        }
        usage_row(&mut text, "all unpublished", 0, &self.end);
        let rss = self.slopes(|it| it.rss_kib as f64);
        let pss = self.slopes(|it| it.pss_kib.unwrap_or_default() as f64);
        let threads = self.slopes(|it| it.threads as f64);
        let fds = self.slopes(|it| it.fds as f64);
        let has_pss = self.steps.iter().all(|it| it.pss_kib.is_some());
        let pss_or_none = |text: String| if has_pss { text } else { "-".to_owned() };
        for at in [0, 1] {
            let from_to = format!("{}-{}", STEPS[at], STEPS[at + 1]);
            let pss = pss_or_none(format!("{:.1}", pss[at]));
            let (rss, threads, fds) = (rss[at], threads[at], fds[at]);
            let numbers = [format!("{rss:.1}"), pss, format!("{threads:.2}"), format!("{fds:.2}")];
            let [rss, pss, threads, fds] = numbers;
            row(&mut text, "each volume adds", [from_to, rss, pss, threads, fds]);
        }
        let ratios = [rss, pss, threads, fds].map(|slopes| format!("{:.2}", Self::ratio(slopes)));
        let [rss, pss, threads, fds] = ratios;
        let pss = pss_or_none(pss);
        row(&mut text, "ratio (a straight line: 1)", [String::new(), rss, pss, threads, fds]);
        text
    }
}

fn usage_row(text: &mut String, label: &str, volumes: usize, usage: &Usage) {
    let pss = usage.pss_kib.map_or_else(|| "-".to_owned(), |it| it.to_string());
    let Usage { rss_kib, threads, fds, .. } = usage;
    let cells =
        [volumes.to_string(), rss_kib.to_string(), pss, threads.to_string(), fds.to_string()];
    row(text, label, cells);
}

fn row(text: &mut String, label: &str, cells: [String; 5]) {
    let _ = write!(text, "{label:<27}");
    for cell in cells {
        let _ = write!(text, "{cell:>10}");
    }
    text.push('\n');
}

/// Breaks a sound series in each way that must be told.
fn the_judge_sees_each_fault() -> anyhow::Result<()> {
    let of = |volumes: u64, kib: u64| {
        let rss_kib = 10_000 + kib;
        let (threads, fds) = (6 + volumes, 20 + FDS_A_VOLUME as u64 * volumes);
        Usage { rss_kib, pss_kib: None, threads, fds, ..Usage::default() }
    };
    let grown = |cost: fn(u64) -> u64| Series {
        cold: of(0, 0),
        start: of(0, 0),
        steps: STEPS.map(|volumes| of(volumes as u64, cost(volumes as u64))),
        end: of(0, 0),
    };
    let sound = grown(|volumes| 40 * volumes);
    ensure!(sound.faults().is_empty(), "a sound series is refused: {:?}", sound.faults());
    let (mut thread_left, mut fd_left) = (sound, sound);
    let (mut two_threads, mut more_fds) = (sound, sound);
    more_fds.steps.iter_mut().zip(STEPS).for_each(|(it, volumes)| it.fds += volumes as u64);
    two_threads.steps.iter_mut().zip(STEPS).for_each(|(it, volumes)| it.threads += volumes as u64);
    thread_left.end.threads += 1;
    fd_left.end.fds += 1;
    for (what, series) in [
        ("glibc's trap", grown(|volumes| 6_640 * volumes)),
        ("a cost that grows with the number of volumes", grown(|volumes| volumes * volumes)),
        ("a second thread a volume", two_threads),
        ("a fourth descriptor a volume", more_fds),
        ("a thread that is left", thread_left),
        ("a descriptor that is left", fd_left),
    ] {
        ensure!(series.faults().len() == 1, "{what} is not told: {:?}", series.faults());
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the result of a bench")]
fn say(text: impl Display) {
    println!("{text}");
}
