//! Rows beside `bao proxy`: the sidecar of those who ask over HTTP instead of reading files.
//!
//! Measured: exec -> the first secret, and what one more look at the same secret costs the
//! application: a file that is opened, read and closed, or a request over a connection that it keeps.

use std::time::Instant;

use anyhow::ensure;
use sotto_dev::bao::Bao;
use sotto_dev::node::Injected;
use sotto_tests::scene::Scene;

use super::Bench;
use super::sidecar::{BINARY, CLASS, Sidecar, is_built, scene};
use crate::peer::proxy::{Asking, Proxy};
use crate::reading::Operation;
use crate::report::{Row, State};
use crate::stats::Samples;
use crate::volumes::secret;

pub(crate) const GROUP: &str = "proxy";
const PEER: &str = "bao proxy";
/// Looks at the secret in a round: each is a request to the store, for the peer.
const LOOKS: usize = 200;
/// ... and for us a file that is read, which takes a hundredth of that.
const READS: usize = 20 * LOOKS;

/// What one side takes.
#[derive(Default)]
struct Side {
    /// To the first secret, ms.
    start: Samples,
    /// One more look, microseconds.
    look: Samples,
}

pub(crate) async fn measure(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let (mut ours, mut peer) = (Side::default(), Side::default());
    let is_built = is_built()?;
    if is_built {
        beside(bench, (&mut ours, &mut peer)).await?;
    }
    let row = |what, unit, value: fn(&Side) -> &Samples| {
        let row = Row::new(GROUP, what, unit, value(&ours).clone());
        row.beside(PEER, value(&peer).clone())
    };
    let mut rows = vec![
        row("sidecar: exec -> first secret, cold, beside a proxy", "ms", |side| &side.start),
        row("the same secret again, audited, beside a proxy", "µs", |side| &side.look)
            .note("a file that is opened, read and closed; a request over a kept connection, which the proxy sends on to the store"),
    ];
    if !is_built {
        rows.iter_mut().for_each(|row| row.state = State::NotBuilt(BINARY));
    }
    Ok(rows)
}

async fn beside(bench: &Bench, (ours, peer): (&mut Side, &mut Side)) -> anyhow::Result<()> {
    let scene = scene(1).await?;
    for start in 1..=bench.plan.starts {
        bench.progress(format_args!("start {start} of {}", bench.plan.starts));
        let mut sidecar = Sidecar::start(&scene, start).await?;
        let began = Instant::now();
        let proxy = Proxy::start(&scene, &secret(CLASS, 0)).await?;
        peer.start.0.push(began.elapsed().as_secs_f64() * 1e3);
        ours.start.0.push(sidecar.took);
        let pids = [sidecar.pid()?, proxy.pid()];
        bench.processors.pin_side(&pids)?;
        ours.look.0.push(read(bench, &scene, &mut sidecar.pod).await?);
        peer.look.0.push(ask(bench, &proxy).await?);
        proxy.end().await?;
        sidecar.pod.end(scene.node()).await?;
    }
    Ok(())
}

async fn read(bench: &Bench, scene: &Scene<Bao>, pod: &mut Injected) -> anyhow::Result<f64> {
    let file = pod.show_secrets(scene.node())?.join("s0");
    bench.processors.on_side(move || Operation::Read.timed(&[file], READS)).await
}

async fn ask(bench: &Bench, proxy: &Proxy) -> anyhow::Result<f64> {
    let (socket, path) = (proxy.socket(), secret(CLASS, 0));
    let asked = async move {
        let mut asking = Asking::at(&socket).await?;
        let began = Instant::now();
        for _ in 0..LOOKS {
            let value = asking.read(&path).await?;
            ensure!(value == "value-0", "it answers {value}");
        }
        Ok(began.elapsed().as_secs_f64() * 1e6 / LOOKS as f64)
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    bench.processors.on_side(move || runtime.block_on(asked)).await
}
