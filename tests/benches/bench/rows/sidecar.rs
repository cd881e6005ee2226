//! Rows of the sidecar: started beside `bao agent` in the same place.
//!
//! Measured for Sotto: from the exec of the container's process, once both volumes are published, until a reader that
//! waits for the first file has it; supervisor and worker together. For the peer: from its exec until all files are
//! there. Both processes were put into their place before (in the kit's case a cgroup, 8 to 16 ms of the kernel's).

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::json;
use sotto_dev::bao::Bao;
use sotto_dev::node::{Binaries, Injected};
use sotto_tests::files;
use sotto_tests::scene::{Scene, StoreSettings};
use sotto_tests::sidecars::PATIENCE;
use sotto_tests::usage::Usage;

use super::Bench;
use crate::peer::Peer;
use crate::report::Bound::AtMost;
use crate::report::{Figure, Row, State};
use crate::stats::Samples;
use crate::volumes::{ACCOUNT, secret};

pub(crate) const GROUP: &str = "sidecar";
const BINARY: &str = "sotto-agent";
const SECRETS: [usize; 2] = [1, 50];
/// MiB, with 1 and with 50 secrets.
const MEMORY: [f64; 2] = [8.0, 10.0];
pub(super) const CLASS: &str = "sidecar";

/// Starts of which memory is looked at.
pub(super) const LOOKED_AT: usize = 3;
/// What is allocated at the start has been freed by then, and what is freed is given back.
pub(super) const SETTLE: Duration = Duration::from_secs(3);

/// A sidecar that serves.
pub(super) struct Sidecar {
    /// From its exec to the first secret, ms.
    pub(super) took: f64,
    pub(super) pod: Injected,
}

impl Sidecar {
    pub(super) async fn start(scene: &Scene<Bao>, number: usize) -> anyhow::Result<Self> {
        let class = [("sotto.dev/secret-provider-class", CLASS), ("sotto.dev/refresh", "1s")];
        let mut pod = scene.injected_as(&format!("{CLASS}-{number}"), ACCOUNT, &class).await?;
        scene.publish_injected(&pod).await?;
        let secrets = pod.show_secrets(scene.node())?;
        pod.show_handoff(scene.node())?;
        pod.start_sidecar(scene.node()).await?;
        files::read(secrets.join("s0")).await?;
        let read = Instant::now();
        let executed = pod.running().context("it has been started")?.executed();
        let took = (read - executed).as_secs_f64() * 1e3;
        pod.ready(scene.node(), PATIENCE).await?;
        Ok(Self { took, pod })
    }

    pub(super) fn pid(&self) -> anyhow::Result<u32> {
        Ok(self.pod.running().context("it has been started")?.pid())
    }
}

pub(super) fn is_built() -> anyhow::Result<bool> {
    Ok(Binaries::find()?.directory.join(BINARY).is_file())
}

/// A class of so many secrets, at a store that pods with a sidecar use.
pub(super) async fn scene(secrets: usize) -> anyhow::Result<Scene<Bao>> {
    let scene = Scene::openbao_with(StoreSettings::sidecars()).await?;
    let mut objects = String::new();
    for number in 0..secrets {
        let path = secret(CLASS, number);
        scene.write(&path, json!({ "password": format!("value-{number}") })).await?;
        let _ = writeln!(
            objects,
            "- {{objectName: s{number}, secretPath: secret/data/{path}, secretKey: password}}"
        );
    }
    scene.class(CLASS, &objects)?;
    Ok(scene)
}

/// Milliseconds to the first secret, and MiB, of one side.
#[derive(Default)]
struct Side {
    took: Samples,
    memory: Samples,
}

pub(crate) async fn measure(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let is_built = is_built()?;
    let mut rows = Vec::new();
    for (secrets, memory) in SECRETS.into_iter().zip(MEMORY) {
        let (mut ours, mut peer) = (Side::default(), Side::default());
        if is_built {
            beside(bench, secrets, (&mut ours, &mut peer)).await?;
        }
        let what = format!("sidecar: exec -> first secret readable, cold, {secrets} secrets");
        let cold = Row::new(GROUP, what, "ms", ours.took).beside("bao agent", peer.took);
        let cold = cold.note(
            "two thirds are TLS, login and reads at the store, a quarter the start of two processes, the rest the link to the driver",
        );
        let cold = if secrets == 1 { cold.goal(Figure::Ratio, AtMost(0.125)) } else { cold };
        let what = format!("sidecar: memory, {secrets} secrets, supervisor included");
        let resident = Row::new(GROUP, what, "MiB", ours.memory).beside("bao agent", peer.memory);
        let resident = resident.note(
            "PSS of supervisor and worker: what two processes of one binary share counts once, as in a control group; RSS of the peer's one process",
        );
        let mut pair = [cold, resident.goal(Figure::Ours, AtMost(memory))];
        if !is_built {
            pair.iter_mut().for_each(|row| row.state = State::NotBuilt(BINARY));
        }
        rows.extend(pair);
    }
    Ok(rows)
}

async fn beside(
    bench: &Bench,
    secrets: usize,
    (ours, peer): (&mut Side, &mut Side),
) -> anyhow::Result<()> {
    let scene = scene(secrets).await?;
    for start in 1..=bench.plan.starts {
        bench.progress(format_args!("{secrets} secrets, start {start} of {}", bench.plan.starts));
        let mut sidecar = Sidecar::start(&scene, start).await?;
        let agent = Peer::start(&scene, secrets, |number| secret(CLASS, number)).await?;
        let took = agent.executed().elapsed().as_secs_f64() * 1e3;
        if start <= LOOKED_AT {
            tokio::time::sleep(SETTLE).await;
            let (own, other) = (Usage::of(&[sidecar.pid()?])?, Usage::of(&[agent.pid()])?);
            ours.memory.0.push(mib(own.pss_kib.unwrap_or(own.rss_kib)));
            peer.memory.0.push(mib(other.rss_kib));
        }
        ours.took.0.push(sidecar.took);
        peer.took.0.push(took);
        agent.end().await?;
        sidecar.pod.end(scene.node()).await?;
    }
    Ok(())
}

pub(super) fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}
