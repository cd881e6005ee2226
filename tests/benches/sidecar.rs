//! A sidecar beside the peer that people inject today: from the start of its process to the first secret readable, its
//! memory, its size. Both ask the same real OpenBao server over mutual TLS, with 1 and with 50 secrets.
//! `make bench-sidecar`; about a minute.
//!
//! Measured for Sotto: the container's process is started, as kubelet does once both volumes are published, and a
//! reader that waits for the first file has it; supervisor and worker together. For the peer: `bao agent` is started,
//! and its first file is there. Starts alternate, so that both see the same machine.

#[path = "rotation/peer.rs"]
mod peer;

use std::fmt::Display;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use serde_json::json;
use sotto_dev::bao::Bao;
use sotto_dev::node::Injected;
use sotto_tests::files;
use sotto_tests::scene::{Scene, StoreSettings};
use sotto_tests::sidecars::PATIENCE;
use sotto_tests::usage::{self, Usage};
use tokio::time::Instant;

use peer::Peer;

const STARTS: usize = 15;
const SECRETS: [usize; 2] = [1, 50];
const ACCOUNT: &str = "checkout";
/// What is allocated at the start has been freed by then.
const SETTLE: Duration = Duration::from_secs(3);

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(format_args!("sidecar: {error:?}"));
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    let build = if cfg!(debug_assertions) { "development build" } else { "release-like build" };
    let processors = usage::processors()?.len();
    let load = std::fs::read_to_string("/proc/loadavg")?;
    let load: Vec<_> = load.split(' ').take(3).collect();
    say(format_args!(
        "{build}; {STARTS} starts a side; {processors} processors; load {}",
        load.join(" ")
    ));
    say("\n| secrets | | Sotto's sidecar | `bao agent` | ratio |\n|---|---|---|---|---|");
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).enable_all().build()?;
    for secrets in SECRETS {
        runtime.block_on(with(secrets)).with_context(|| format!("{secrets} secrets"))?;
    }
    let bytes = |path: &std::path::Path| Ok::<_, std::io::Error>(std::fs::metadata(path)?.len());
    let own = std::env::current_exe()?;
    let own = own.ancestors().nth(2).context("a bench is in deps")?.join("sotto-agent");
    row("", "binary, MiB", mib(bytes(&own)?), mib(bytes(&Bao::installed_at())?));
    Ok(())
}

async fn with(secrets: usize) -> anyhow::Result<()> {
    let scene = Scene::openbao_with(StoreSettings::sidecars()).await?;
    for secret in 0..secrets {
        let path = format!("payments/{ACCOUNT}/s{secret}");
        scene.write(&path, json!({"password": format!("value-{secret}")})).await?;
    }
    let object = |secret| {
        format!(
            "- {{objectName: s{secret}, secretPath: secret/data/payments/{ACCOUNT}/s{secret}, secretKey: password}}"
        )
    };
    scene.class("many", &(0..secrets).map(object).collect::<Vec<_>>().join("\n"))?;
    let (mut ours, mut peers) = (Vec::new(), Vec::new());
    for number in 0..STARTS {
        let (took, mut pod) = our_start(&scene, number).await?;
        ours.push(took);
        pod.end(scene.node()).await?;
        let begun = Instant::now();
        let peer = Peer::start(&scene, ACCOUNT, secrets).await?;
        peers.push(begun.elapsed());
        anyhow::ensure!(peer.files().join("s0").is_file(), "what was awaited is gone");
        peer.end().await?;
    }
    let name = secrets.to_string();
    let (ours, peers) = (median(ours), median(peers));
    row(&name, "start to first secret readable, ms, median", ours, peers);
    memory(&scene, secrets, &name).await
}

async fn memory(scene: &Scene<Bao>, secrets: usize, name: &str) -> anyhow::Result<()> {
    let (_, mut pod) = our_start(scene, STARTS).await?;
    let peer = Peer::start(scene, ACCOUNT, secrets).await?;
    tokio::time::sleep(SETTLE).await;
    let own = pod.running().context("it has been started")?.pid();
    let (own, other) = (Usage::of(&[own])?, Usage::of(&[peer.pid()])?);
    row(name, "RSS, MiB", mib(own.rss_kib * 1024), mib(other.rss_kib * 1024));
    if let (Some(own), Some(other)) = (own.pss_kib, other.pss_kib) {
        row(name, "PSS, MiB", mib(own * 1024), mib(other * 1024));
    }
    peer.end().await?;
    pod.end(scene.node()).await?;
    Ok(())
}

/// From the start of the sidecar's process until a reader that waits has the first file.
async fn our_start(scene: &Scene<Bao>, number: usize) -> anyhow::Result<(Duration, Injected)> {
    let class = [("sotto.dev/secret-provider-class", "many"), ("sotto.dev/refresh", "1s")];
    let mut pod = scene.injected_as(&format!("checkout-{number}"), ACCOUNT, &class).await?;
    scene.publish_injected(&pod).await?;
    let secrets = pod.show_secrets(scene.node())?;
    pod.show_handoff(scene.node())?;
    let begun = Instant::now();
    pod.start_sidecar(scene.node()).await?;
    files::read(secrets.join("s0")).await?;
    let took = begun.elapsed();
    pod.ready(scene.node(), PATIENCE).await?;
    Ok((took, pod))
}

fn median(mut all: Vec<Duration>) -> f64 {
    all.sort();
    all.get(all.len() / 2).map_or(0.0, |it| it.as_secs_f64() * 1_000.0)
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn row(secrets: &str, what: &str, ours: f64, peers: f64) {
    say(format_args!("| {secrets} | {what} | {ours:.1} | {peers:.1} | {:.3} |", ours / peers));
}

#[expect(clippy::print_stdout, reason = "the figures are this program's result")]
fn say(text: impl Display) {
    println!("{text}");
}
