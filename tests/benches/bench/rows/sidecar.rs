//! Rows of the sidecar: started beside `bao agent` in the same place.
//!
//! [`Sidecar::start`] is where `sotto-agent` is plugged in: it starts one for a pod of so many secrets, waits until
//! the first can be read, and says how long that took and which processes it has.

use std::path::Path;
use std::time::Instant;

use sotto_dev::bao::Bao;
use sotto_dev::node::Binaries;
use sotto_tests::scene::Scene;
use sotto_tests::usage::Usage;

use super::Bench;
use crate::peer::Peer;
use crate::report::Bound::AtMost;
use crate::report::{Figure, Row, State};
use crate::stats::Samples;
use crate::volumes::secret;

pub(crate) const GROUP: &str = "sidecar";
const BINARY: &str = "sotto-agent";
const SECRETS: [usize; 2] = [1, 50];
/// MiB, with 1 and with 50 secrets.
const MEMORY: [f64; 2] = [8.0, 10.0];
const CLASS: &str = "sidecar";

/// A sidecar that serves.
struct Sidecar {
    /// From before its exec to the first secret, ms.
    took: f64,
    /// Its supervisor.
    pids: Vec<u32>,
}

impl Sidecar {
    /// `None` as long as it isn't built.
    async fn start(
        _scene: &Scene<Bao>,
        binaries: &Path,
        _secrets: usize,
    ) -> anyhow::Result<Option<Self>> {
        if !binaries.join(BINARY).is_file() {
            return Ok(None);
        }
        anyhow::bail!("{BINARY} is there, and this bench doesn't know yet how to start it")
    }
}

/// Milliseconds to the first secret, and MiB, of one side.
#[derive(Default)]
struct Side {
    took: Samples,
    memory: Samples,
}

pub(crate) async fn measure(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let binaries = Binaries::find()?.directory;
    let scene = Scene::openbao().await?;
    for number in 0..SECRETS[1] {
        scene.write(&secret(CLASS, number), serde_json::json!({ "password": "x" })).await?;
    }
    let mut rows = Vec::new();
    for (secrets, memory) in SECRETS.into_iter().zip(MEMORY) {
        let (mut ours, mut peer) = (Side::default(), Side::default());
        let mut is_built = true;
        for start in 1..=bench.plan.starts {
            bench.progress(format_args!(
                "{secrets} secrets, start {start} of {}",
                bench.plan.starts
            ));
            match Sidecar::start(&scene, &binaries, secrets).await? {
                Some(sidecar) => ours.add(sidecar.took, &sidecar.pids)?,
                None => is_built = false,
            }
            let began = Instant::now();
            let agent = Peer::start(&scene, secrets, |number| secret(CLASS, number)).await?;
            peer.add(began.elapsed().as_secs_f64() * 1e3, &[agent.pid()])?;
            agent.end().await?;
        }
        let what = format!("sidecar: exec -> first secret readable, cold, {secrets} secrets");
        let cold = Row::new(GROUP, what, "ms", ours.took).beside("bao agent", peer.took);
        let cold = if secrets == 1 { cold.goal(Figure::Ratio, AtMost(0.125)) } else { cold };
        let what = format!("sidecar: memory, {secrets} secrets, supervisor included");
        let resident = Row::new(GROUP, what, "MiB", ours.memory).beside("bao agent", peer.memory);
        let mut pair = [cold, resident.goal(Figure::Ours, AtMost(memory))];
        if !is_built {
            pair.iter_mut().for_each(|row| row.state = State::NotBuilt(BINARY));
        }
        rows.extend(pair);
    }
    Ok(rows)
}

impl Side {
    fn add(&mut self, took: f64, pids: &[u32]) -> anyhow::Result<()> {
        self.took.0.push(took);
        self.memory.0.push(Usage::of(pids)?.rss_kib as f64 / 1024.0);
        Ok(())
    }
}
