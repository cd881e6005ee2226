//! `sotto-dev demo`: delivers the secrets of `deploy/examples/payments.yaml` to a pod, here and now, and
//! shows each step; with `--sidecar` those of `deploy/examples/sidecar.yaml`, to a pod with a sidecar.
//!
//! Invariant: when it ends, in whatever way, it leaves no process, no mount and no file. Its mounts are in
//! a namespace of its own, its files on a tmpfs there, its children die with it.

mod class;
mod isolation;
mod live;
mod paint;
mod reader;
mod report;
mod search;
mod socket;
mod stage;
mod text;

use std::io::{self, Write as _};
use std::pin::Pin;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::{Value, json};
use sotto_runtime::drain::termination_signal;

pub use reader::print as print_what_is_seen;

use crate::node::Injected;
use isolation::Isolation;
use paint::Paint;
use report::Report;
use stage::Stage;

/// How often the demo's kubelet publishes again while it stays up; a real one does every 60 to 90 s.
const SYNC_FREQUENCY: Duration = Duration::from_secs(60);

/// How the demo runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::Args)]
pub struct Options {
    /// Ends after having shown everything, with exit status 0.
    #[arg(long)]
    pub once: bool,
    /// Writes one JSON object to standard output instead of words.
    #[arg(long)]
    pub json: bool,
    /// Sidecar mode: the node never holds the pod's token or its secrets.
    #[arg(long)]
    pub sidecar: bool,
}

/// Who serves the pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mode {
    /// sotto-node.
    Node,
    /// Its own sidecar.
    Sidecar,
}

/// Runs it. Call it while the process has one thread.
///
/// # Errors
/// What is in the way, or what was left behind.
pub fn run(options: Options) -> anyhow::Result<()> {
    let begun = Instant::now();
    let isolation = isolation::isolate()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("no runtime")?;
    runtime.block_on(show(options, isolation, begun))
}

async fn show(options: Options, isolation: Isolation, begun: Instant) -> anyhow::Result<()> {
    let mut interrupt = std::pin::pin!(termination_signal());
    let mode = if options.sidecar { Mode::Sidecar } else { Mode::Node };
    // Whatever was started is dropped when it is interrupted, which ends it.
    let (stage, report) = tokio::select! {
        shown = Box::pin(deliver(mode, isolation, begun)) => shown?,
        ended = &mut interrupt => {
            ended?;
            anyhow::bail!("interrupted");
        }
    };
    let paint = Paint::for_stdout();
    if !options.json {
        text::write(&report, paint, &mut io::stdout().lock())?;
    }
    if !options.once {
        match options.json {
            true => write_json(&report, None)?,
            false => text::write_hints(&report, paint, &mut io::stdout().lock())?,
        }
        stay(&stage, options, paint, interrupt).await?;
    }
    stage.end().await?;
    match (options.once, options.json) {
        (true, true) => write_json(&report, Some(json!([])))?,
        (_, true) => {}
        (_, false) => {
            writeln!(io::stdout(), "{}", paint.dim("Ended: no process, mount or file is left."))?
        }
    }
    Ok(())
}

async fn deliver(
    mode: Mode,
    isolation: Isolation,
    begun: Instant,
) -> anyhow::Result<(Stage, Report)> {
    let stage = Stage::start(mode).await?;
    match Report::look(&stage, isolation, begun).await {
        Ok(report) => Ok((stage, report)),
        Err(error) => {
            // In order, not by being dropped; the first error is the one to tell.
            if let Err(late) = stage.end().await {
                tracing::warn!(error = %late, "the demo did not end in order");
            }
            Err(error)
        }
    }
}

/// Until Ctrl-C: republishes as kubelet does, and shows what is opened.
async fn stay(
    stage: &Stage,
    options: Options,
    paint: Paint,
    interrupt: Pin<&mut impl Future<Output = io::Result<()>>>,
) -> anyhow::Result<()> {
    tokio::select! {
        ended = interrupt => Ok(ended?),
        () = stage.node.kubelet().sync_every(&stage.pod, SYNC_FREQUENCY) => Ok(()),
        failed = follow(stage, options, paint) => failed,
    }
}

/// Shows each audit record of whoever serves the pod as it comes.
async fn follow(stage: &Stage, options: Options, paint: Paint) -> anyhow::Result<()> {
    let sidecar = stage.injected.as_ref().and_then(Injected::running);
    let server = sidecar.unwrap_or_else(|| stage.node.agent());
    // What came before is in the report.
    let mut shown = server.log().read(crate::node::records).len();
    loop {
        let records = server
            .log()
            .until(|lines| {
                let records = crate::node::records(lines);
                (records.len() > shown).then(|| records[shown..].to_vec())
            })
            .await;
        shown += records.len();
        if !options.json {
            write_records(&records, paint)?;
        }
    }
}

fn write_records(records: &[Value], paint: Paint) -> io::Result<()> {
    let mut out = io::stdout().lock();
    records.iter().try_for_each(|record| writeln!(out, "   {}", text::audit_line(record, paint)))
}

fn write_json(report: &Report, left_behind: Option<Value>) -> anyhow::Result<()> {
    let mut value = serde_json::to_value(report)?;
    if let Some(left_behind) = left_behind {
        value["left_behind"] = left_behind;
    }
    Ok(writeln!(io::stdout(), "{value}")?)
}

#[cfg(test)]
mod tests;
