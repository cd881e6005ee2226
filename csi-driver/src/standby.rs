//! An agent that comes while another one serves, as in a rolling update: it prepares all of the other's volumes
//! before it counts as ready, so that it serves them in the moment that the other one leaves.
//!
//! Invariant: what the other agent serves is not touched; a volume that can't be prepared (the store is down)
//! keeps the new agent from being ready, and with that the old one in its place.

use std::sync::Arc;
use std::time::Duration;

use sotto_handoff::message::Standby;
use tokio::task::JoinSet;

use crate::broker::Agent;
use crate::driver::Driver;
use crate::volume::{Mode, Volume};

/// Volumes that are prepared at one time.
const PARALLEL: usize = 16;
const PREPARE_DEADLINE: Duration = Duration::from_secs(30);
const STANDBY_DEADLINE: Duration = Duration::from_secs(5);
/// Until what failed is tried again, and what is held ready is asked about so that it is not given up.
const PAUSE: Duration = Duration::from_secs(5);

/// Prepares the volumes of other agents at `agent`, as long as there are any.
pub(crate) async fn run(driver: Arc<Driver>, agent: Agent) {
    while agent.is_live() {
        let others = others(&driver, &agent);
        let left = others.len();
        let standby = prepare_all(&driver, &agent, others).await;
        let told = agent.stands_by(standby.clone(), STANDBY_DEADLINE).await;
        tracing::info!(
            instance = %agent.instance(), prepared = standby.prepared, missing = standby.missing,
            reason = standby.reason, "volumes of another sotto-node are held ready"
        );
        if let Err(error) = told {
            tracing::warn!(instance = %agent.instance(), %error, "it can't be told that it stands by");
        } else if left == 0 {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            () = driver.drain.begun() => return,
        }
    }
}

fn others(driver: &Driver, agent: &Agent) -> Vec<Arc<Volume>> {
    let of_another = |volume: &Arc<Volume>| {
        volume.spec.mode == Mode::Node
            && volume.server().is_some_and(|server| server.instance() != agent.instance())
    };
    driver.volumes.all().into_iter().filter(of_another).collect()
}

async fn prepare_all(driver: &Arc<Driver>, agent: &Agent, volumes: Vec<Arc<Volume>>) -> Standby {
    let mut standby = Standby::default();
    let mut tasks = JoinSet::new();
    let mut waiting = volumes.into_iter();
    loop {
        while tasks.len() < PARALLEL
            && let Some(volume) = waiting.next()
        {
            let (driver, agent) = (Arc::clone(driver), agent.clone());
            tasks.spawn(async move { prepare(&driver, &agent, &volume).await });
        }
        match tasks.join_next().await {
            None => return standby,
            Some(Ok(Ok(()))) => standby.prepared += 1,
            Some(failed) => {
                let reason = match failed {
                    Ok(Ok(())) => String::new(),
                    Ok(Err(reason)) => reason,
                    Err(error) => error.to_string(),
                };
                standby.missing += 1;
                if standby.reason.is_empty() {
                    standby.reason = reason;
                }
            }
        }
    }
}

async fn prepare(driver: &Driver, agent: &Agent, volume: &Volume) -> Result<(), String> {
    let credentials =
        volume.credentials().ok_or("no token is known: kubelet's next republish brings one")?;
    let place = driver.kubelet.mount_point(&volume.target);
    let prepared = agent.prepare(volume.prepare(&place, &credentials), PREPARE_DEADLINE).await;
    prepared.map(drop).map_err(|error| error.to_string())
}
