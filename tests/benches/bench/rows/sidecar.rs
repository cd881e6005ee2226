//! Rows of the sidecar: started beside `bao agent` in the same place.
//!
//! Measured for Sotto: from the exec of the container's process, once both volumes are published, until a reader that
//! waits for the first file has it. For the peer: from its exec until all files are
//! there. Both processes were put into their place before (in the kit's case a cgroup, 8 to 16 ms of the kernel's). Cold: new
//! processes, whose binaries are in the page cache.

use std::fmt::Write as _;
use std::time::Instant;

use anyhow::Context;
use serde_json::json;
use sotto_dev::bao::Bao;
use sotto_dev::node::{Binaries, Injected};
use sotto_tests::files;
use sotto_tests::scene::{Scene, StoreSettings};
use sotto_tests::sidecars::PATIENCE;

use super::Bench;
use crate::peer::Peer;
use crate::report::Bound::AtMost;
use crate::report::{Figure, Row, State};
use crate::stats::Samples;
use crate::volumes::{ACCOUNT, secret};

pub(crate) const GROUP: &str = "sidecar";
pub(super) const BINARY: &str = "sotto-agent";
const SECRETS: [usize; 2] = [1, 50];
pub(super) const CLASS: &str = "sidecar";

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
    scene_with(StoreSettings::sidecars(), secrets).await
}

pub(super) async fn scene_with(
    settings: StoreSettings,
    secrets: usize,
) -> anyhow::Result<Scene<Bao>> {
    let scene = Scene::openbao_with(settings).await?;
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

pub(crate) async fn measure(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let is_built = is_built()?;
    let mut rows = Vec::new();
    for secrets in SECRETS {
        let [ours, peer] =
            if is_built { beside(bench, secrets).await? } else { Default::default() };
        let what = format!("sidecar: exec -> first secret readable, cold, {secrets} secrets");
        let row = Row::new(GROUP, what, "ms", ours).beside("bao agent", peer);
        let row = row.note(
            "two thirds are TLS, login and reads at the store, a quarter the start of two processes, the rest the link to the driver",
        );
        let mut row = if secrets == 1 { row.goal(Figure::Ratio, AtMost(0.125)) } else { row };
        if !is_built {
            row.state = State::NotBuilt(BINARY);
        }
        rows.push(row);
    }
    Ok(rows)
}

/// Milliseconds to the first secret, ours and the peer's.
async fn beside(bench: &Bench, secrets: usize) -> anyhow::Result<[Samples; 2]> {
    let scene = scene(secrets).await?;
    let [mut ours, mut peer] = [const { Vec::new() }; 2];
    for start in 1..=bench.plan.starts {
        bench.progress(format_args!("{secrets} secrets, start {start} of {}", bench.plan.starts));
        let mut sidecar = Sidecar::start(&scene, start).await?;
        let agent = Peer::start(&scene, secrets, |number| secret(CLASS, number)).await?;
        peer.push(agent.executed().elapsed().as_secs_f64() * 1e3);
        ours.push(sidecar.took);
        agent.end().await?;
        sidecar.pod.end(scene.node()).await?;
    }
    Ok([Samples(ours), Samples(peer)])
}
