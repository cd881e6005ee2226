//! Rows of a node that is filled to a thousand volumes: the rate of publishes, memory, CPU at rest. While it comes to rest, the
//! rows of `memory` are measured.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use futures::{StreamExt, TryStreamExt};
use serde_json::Value;
use sotto_dev::issuer::PodTokenSpec;
use sotto_tests::metrics;
use sotto_tests::usage::{self, Usage};

use super::{Bench, memory};
use crate::floor_client::FloorClient;
use crate::report::Bound::{AtLeast, AtMost};
use crate::report::{Figure, Row};
use crate::stats::Samples;
use crate::volumes::{ACCOUNT, Published, Volumes, secret};

pub(crate) const GROUP: &str = "fill";
const VOLUMES: usize = 1_000;
/// Volumes there are when memory is looked at; rounds of publishes lie between.
const STEPS: [usize; 11] = [10, 100, 200, 300, 400, 500, 600, 700, 800, 900, VOLUMES];
const SECRETS: usize = 5;
const BYTES: usize = 64;
const CLASS: &str = "five";
const AT_ONCE: usize = 16;
const REFRESH: &str = "60s";
const REFRESH_SECONDS: usize = 60;
const REFRESHES_A_SECOND: f64 = VOLUMES as f64 / REFRESH_SECONDS as f64;
/// Refreshes after which the windows begin: each volume's first one, which come twice as close as later ones.
const FIRST_ONES: f64 = VOLUMES as f64;
/// For so long CPU time is counted for a sample at rest: there is one beat in it.
const WINDOW: Duration = Duration::from_secs(1);
/// Before the floor's reads of a second: they find the processor idle.
const FLOOR_GAP: Duration = Duration::from_millis(100);
/// A tenth of what lies between two beats.
const LOOK: Duration = Duration::from_millis(100);
/// How long refreshes, and memory that is steady, are waited for.
const DEADLINE: Duration = Duration::from_secs(120);
/// What a round leaves to be done in the background.
const SETTLE: Duration = Duration::from_millis(500);
/// A smaller part of what was there half a second before is a fall; less is pages that come and go.
const FALLS: f64 = 0.995;
/// Memory that hasn't fallen for so long falls no more.
const STEADY: Duration = Duration::from_secs(3);
/// Descriptors that a volume costs each process at most, and what they need besides.
const FILES: u64 = 4 * VOLUMES as u64 + 512;

/// Resident memory in KiB of sotto-node, supervisor and worker, and of sotto-csi.
type Resident = [f64; 2];

/// What is found on the way up and down.
struct Filled {
    /// Publishes a second, of ours and of the floor, round by round.
    rates: [Samples; 2],
    start: Resident,
    steps: Vec<Resident>,
    /// Milliseconds of CPU of Sotto's processes for each publish.
    cpu: f64,
    /// Percent of a core, window by window.
    at_rest: Samples,
    /// Of the floor's client, which reads as much.
    floor_at_rest: Samples,
    /// Refreshes a second meanwhile.
    came: f64,
    end: Resident,
}

pub(crate) async fn measure(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let limit = sotto_runtime::hardening::raise_open_files()?.unwrap_or(u64::MAX);
    ensure!(limit >= FILES, "the hard limit of open files is {limit}: raise it to {FILES}");
    let scrape = metrics::free_address()?;
    let edit = move |config: &mut Value| config["metrics"]["address"] = scrape.to_string().into();
    let volumes = Arc::new(Volumes::start(bench.processors, edit).await?);
    volumes.class(CLASS, &[BYTES; SECRETS]).await?;
    // The first volume pages code in and opens the connection to the store.
    volumes.publish(CLASS, REFRESH).await?.unpublish(volumes.scene.kubelet()).await?;
    tokio::time::sleep(SETTLE).await;
    let mut filled = Filled {
        rates: [Samples::default(), Samples::default()],
        start: resident(&volumes)?,
        steps: Vec::new(),
        cpu: 0.0,
        at_rest: Samples::default(),
        floor_at_rest: Samples::default(),
        came: f64::NAN,
        end: [f64::NAN; 2],
    };
    let mut published = Vec::new();
    for step in STEPS {
        bench.progress(format_args!("{step} of {VOLUMES} volumes"));
        let more = step - published.len();
        let before = Usage::of(&volumes.pids())?.cpu;
        let (ours, new) = round_of_ours(bench, &volumes, more).await?;
        let used = Usage::of(&volumes.pids())?.cpu.saturating_sub(before);
        filled.cpu += used.as_secs_f64() * 1e3 / VOLUMES as f64;
        published.extend(new);
        let floor = round_of_floor(bench, &volumes, more).await?;
        // Of ten, most are the first of their connection.
        if step > STEPS[0] {
            filled.rates[0].0.push(ours);
            filled.rates[1].0.push(floor);
        }
        tokio::time::sleep(SETTLE).await;
        filled.steps.push(resident(&volumes)?);
    }
    bench.progress(format_args!("at rest, once each volume's first refresh has come"));
    let (refreshed, ()) = tokio::join!(refreshed(scrape), memory::meanwhile(bench));
    refreshed?;
    at_rest(bench, &volumes, scrape, &mut filled).await?;
    bench.progress(format_args!("all unpublished"));
    let kubelet = volumes.kubelet();
    let ends = published.iter().map(|it| it.unpublish(&kubelet));
    futures::stream::iter(ends).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
    filled.end = settled(&volumes).await?;
    Ok(filled.rows())
}

/// Memory once it doesn't fall any more: store tokens are revoked after the unpublish, and what is free is given back once it
/// has been quiet for a second.
async fn settled(volumes: &Volumes) -> anyhow::Result<Resident> {
    let (mut last, began) = (resident(volumes)?, Instant::now());
    let mut fell = began;
    while fell.elapsed() < STEADY {
        ensure!(began.elapsed() < DEADLINE, "memory still falls");
        tokio::time::sleep(SETTLE).await;
        let now = resident(volumes)?;
        if now[0] < last[0] * FALLS {
            fell = Instant::now();
        }
        last = now;
    }
    Ok(last)
}

fn resident(volumes: &Volumes) -> anyhow::Result<Resident> {
    let [node, csi] = volumes.pids().map(|pid| Usage::of(&[pid]));
    Ok([node?.rss_kib as f64, csi?.rss_kib as f64])
}

async fn round_of_ours(
    bench: &Bench,
    volumes: &Arc<Volumes>,
    count: usize,
) -> anyhow::Result<(f64, Vec<Published>)> {
    let volumes = Arc::clone(volumes);
    bench
        .processors
        .awaited_on_side(move || async move {
            let kubelet = volumes.kubelet();
            let prepared = (0..count).map(|_| volumes.prepare(CLASS, REFRESH));
            let prepared = prepared.collect::<anyhow::Result<Vec<_>>>()?;
            let began = Instant::now();
            let publishes = prepared.into_iter().map(|it| it.publish(&kubelet));
            let published = futures::stream::iter(publishes).buffer_unordered(AT_ONCE);
            let published: Vec<_> = published.try_collect().await?;
            Ok((count as f64 / began.elapsed().as_secs_f64(), published))
        })
        .await
}

async fn round_of_floor(
    bench: &Bench,
    volumes: &Arc<Volumes>,
    count: usize,
) -> anyhow::Result<f64> {
    let volumes = Arc::clone(volumes);
    bench
        .processors
        .awaited_on_side(move || async move {
            let client = FloorClient::connect(volumes.store()).await?;
            let paths: Vec<String> = (0..SECRETS).map(|number| secret(CLASS, number)).collect();
            let mint = |_| {
                let pod = PodTokenSpec::new("payments", ACCOUNT, "floor", "node-1");
                volumes.scene.issuer().mint(&pod)
            };
            let tokens: Vec<String> = (0..count).map(mint).collect();
            let began = Instant::now();
            let asked = tokens.iter().map(|token| client.login_and_read(token, &paths));
            let asked = futures::stream::iter(asked).buffer_unordered(AT_ONCE);
            asked.try_for_each(|_| async { Ok(()) }).await?;
            Ok(count as f64 / began.elapsed().as_secs_f64())
        })
        .await
}

/// Refreshes that changed nothing: others would cost something else.
async fn refreshes(scrape: SocketAddr) -> anyhow::Result<f64> {
    let text = metrics::scrape(scrape).await?;
    Ok(metrics::sum(&text, "sotto_refreshes_total", "result=\"unchanged\""))
}

/// Waits until as many have come as there are volumes, from now on.
async fn refreshed(scrape: SocketAddr) -> anyhow::Result<()> {
    let (filled, began) = (refreshes(scrape).await?, Instant::now());
    while refreshes(scrape).await? - filled < FIRST_ONES {
        ensure!(began.elapsed() < DEADLINE, "not all volumes are refreshed");
        tokio::time::sleep(SETTLE).await;
    }
    Ok(())
}

/// Waits until a beat's refreshes are done and the next ones are not yet due.
async fn between_beats(scrape: SocketAddr) -> anyhow::Result<()> {
    let (before, began) = (refreshes(scrape).await?, Instant::now());
    while refreshes(scrape).await? == before {
        ensure!(began.elapsed() < DEADLINE, "nothing is refreshed any more");
        tokio::time::sleep(LOOK).await;
    }
    tokio::time::sleep(SETTLE).await;
    Ok(())
}

/// CPU of all three processes while each volume asks every 60 s: of one refresh, as many as come a second. And how many came a
/// second. Before and after two windows, of a client that reads as much.
async fn at_rest(
    bench: &Bench,
    volumes: &Arc<Volumes>,
    scrape: SocketAddr,
    filled: &mut Filled,
) -> anyhow::Result<()> {
    let windows = bench.plan.windows_at_rest;
    bench.progress(format_args!("at rest, {windows} windows of {} s", WINDOW.as_secs()));
    let volumes = Arc::clone(volumes);
    let counted = move || async move {
        let floor = FloorReads::new(&volumes).await?;
        // The first are the first of their connection.
        floor.percent().await?;
        let (mut ours, mut its, mut came) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..windows / 2 {
            // Floor, ours, ours, floor: either goes first as often as the other.
            let before = floor.percent().await?;
            between_beats(scrape).await?;
            let two = [Window::of(&volumes, scrape).await?, Window::of(&volumes, scrape).await?];
            ours.extend(two.iter().map(Window::percent));
            came.extend(two.iter().map(|it| it.done / it.seconds));
            its.extend([before, floor.percent().await?]);
        }
        let came = came.iter().sum::<f64>() / came.len() as f64;
        ensure!(came >= REFRESHES_A_SECOND / 2.0, "{came:.1} refreshes came a second");
        Ok((Samples(ours), Samples(its), came))
    };
    (filled.at_rest, filled.floor_at_rest, filled.came) =
        bench.processors.awaited_on_side(counted).await?;
    Ok(())
}

/// What all three processes did for some time.
struct Window {
    seconds: f64,
    cpu: Duration,
    /// Refreshes.
    done: f64,
}

impl Window {
    /// From now on, and on where no beat came: on a machine that stood still one is late.
    async fn of(volumes: &Volumes, scrape: SocketAddr) -> anyhow::Result<Self> {
        // What is counted must not have cost anything meanwhile.
        let (before, used_before) = (refreshes(scrape).await?, Usage::of(&volumes.pids())?.cpu);
        let began = Instant::now();
        loop {
            tokio::time::sleep(WINDOW).await;
            let cpu = Usage::of(&volumes.pids())?.cpu.saturating_sub(used_before);
            let (seconds, now) = (began.elapsed().as_secs_f64(), refreshes(scrape).await?);
            if now > before {
                return Ok(Self { seconds, cpu, done: now - before });
            }
            ensure!(began.elapsed() < DEADLINE, "nothing is refreshed any more");
        }
    }

    /// Of a core: of one refresh, as many as come a second.
    fn percent(&self) -> f64 {
        100.0 * self.cpu.as_secs_f64() / self.done * REFRESHES_A_SECOND
    }
}

/// The least client, which reads as many secrets as the volumes ask for.
struct FloorReads {
    client: FloorClient,
    token: String,
    paths: Vec<String>,
}

impl FloorReads {
    async fn new(volumes: &Volumes) -> anyhow::Result<Self> {
        let client = FloorClient::connect(volumes.store()).await?;
        let pod = PodTokenSpec::new("payments", ACCOUNT, "floor", "node-1");
        let token = client.login(&volumes.scene.issuer().mint(&pod)).await?;
        let paths = (0..SECRETS).map(|number| secret(CLASS, number)).collect();
        Ok(Self { client, token, paths })
    }

    /// Percent of a core, as it reads what the volumes ask for in a second, at once, as they do.
    async fn percent(&self) -> anyhow::Result<f64> {
        let at_once = VOLUMES / REFRESH_SECONDS;
        tokio::time::sleep(FLOOR_GAP).await;
        let before = usage::cpu_of_this_thread()?;
        let reads = (0..at_once).map(|_| self.client.read(&self.token, &self.paths));
        futures::future::try_join_all(reads).await?;
        let used = usage::cpu_of_this_thread()?.saturating_sub(before);
        Ok(100.0 * used.as_secs_f64() / at_once as f64 * REFRESHES_A_SECOND)
    }
}

impl Filled {
    /// KiB that each volume adds, from one step to the next.
    fn slopes(&self) -> Vec<f64> {
        let pairs = self.steps.windows(2).zip(STEPS.windows(2));
        pairs
            .map(|(kib, volumes)| (kib[1][0] - kib[0][0]) / (volumes[1] - volumes[0]) as f64)
            .collect()
    }

    fn rows(self) -> Vec<Row> {
        let slopes = self.slopes();
        let half = slopes.len() / 2;
        let mean = |of: &[f64]| of.iter().sum::<f64>() / of.len() as f64;
        let bend = mean(&slopes[slopes.len() - half..]) / mean(&slopes[..half]);
        let [ours, floor] = self.rates;
        let (node, csi) = (|at: Resident| at[0] / 1024.0, |at: Resident| at[1] / 1024.0);
        let full = self.steps.last().copied().unwrap_or([f64::NAN; 2]);
        let at_rest = self.at_rest.median();
        let left = node(self.end) / node(self.start);
        let row = |what: &str, unit, samples| Row::new(GROUP, what, unit, samples);
        vec![
            row("1,000 publishes of 5 secrets, 16 at once", "/s", ours)
                .beside("the store's ceiling", floor)
                .goal(Figure::Ratio, AtLeast(0.85))
                .note(format!(
                    "{:.1} ms of CPU of Sotto's processes for each, on the core that kubelet's part has as well; the \
                     floor's client needs that core for TLS only",
                    self.cpu
                )),
            row("`sotto-node` memory, a volume of 5 secrets, 10 to 1,000", "KiB", Samples(slopes))
                .goal(Figure::Ours, AtMost(40.0))
                .note(format!("{:.1} MiB with 1,000 volumes, supervisor and worker", node(full))),
            row(
                "... the later half's cost by the earlier half's (a straight line: 1)",
                "",
                Samples::one(bend),
            )
            .goal(Figure::Ours, AtMost(1.5)),
            row("... all unpublished, by the start", "", Samples::one(left))
                .goal(Figure::Ours, AtMost(1.1))
                .note(format!(
                    "{:.1} MiB at the start, {:.1} at the end",
                    node(self.start),
                    node(self.end)
                )),
            row("`sotto-csi` memory, 1,000 volumes", "MiB", Samples::one(csi(full)))
                .goal(Figure::Ours, AtMost(12.0))
                .note(format!(
                    "{:.1} MiB at the start, {:.1} at the end",
                    csi(self.start),
                    csi(self.end)
                )),
            row("CPU at rest, 1,000 volumes of 5 secrets, every 60 s", "% of a core", self.at_rest)
                .beside("client: the same reads", self.floor_at_rest)
                .goal(Figure::Ours, AtMost(1.0))
                .note(format!(
                    "{:.0} µs of CPU for a refresh of {} secrets; a thousand volumes have {:.1} of them a second, and {:.1} came \
                     while these were measured",
                    at_rest * 1e4 / REFRESHES_A_SECOND,
                    SECRETS,
                    REFRESHES_A_SECOND,
                    self.came
                )),
        ]
    }
}
