//! Whether a connected agent still says anything.
//!
//! The socket of an agent whose processes are stopped (a frozen cgroup, SIGSTOP of a whole container) stays
//! open, and its readers would wait for ever. So each is pinged; one that left two pings unanswered, and
//! whose mounts don't answer either, is silent: it doesn't count for its volumes (see [`crate::unserved`]) and
//! gets nothing new until it answers.
//!
//! Invariant: a silent agent holds its connections and goes on with them as soon as it is woken, whatever
//! this process does about it. Therefore its volumes are never handed to another agent before its link has
//! ended; and before it counts again, this process has ceased to answer for it. Between its wake-up and that
//! moment, the time of one answer, both read from the connection: each request is read, and answered, by one
//! of them, so that a reader gets its file or the error. What this process has read when it ceases, and what
//! the agent has read and not answered yet, the kernel sends again (RESEND); an answer to the former copy
//! is refused with ENOENT and belongs to nobody.

use std::convert::Infallible;
use std::sync::Arc;

use sotto_handoff::link::CallError;

use super::agent::Agent;
use crate::driver::Driver;
use crate::mount_health;
use crate::volume::Volume;

/// Unanswered pings in a row.
const MOST_MISSED: u32 = 2;
/// One ping lies with a silent agent this many times as long, so that its socket doesn't fill up.
const SILENT_FACTOR: u32 = 6;

/// Pings `agent` as long as it is polled: the link's own task tells of the link's end.
pub(crate) async fn watch(driver: &Driver, agent: &Agent) -> Infallible {
    let (interval, deadline) = (driver.settings.ping_interval, driver.settings.ping_deadline);
    let mut missed = 0;
    let mut is_silent = false;
    loop {
        match agent.ping(if is_silent { deadline * SILENT_FACTOR } else { deadline }).await {
            Ok(()) => {
                if is_silent {
                    woken(driver, agent).await;
                }
                (missed, is_silent) = (0, false);
            }
            Err(CallError::Deadline(_)) if is_silent => continue,
            Err(CallError::Deadline(_)) => {
                missed += 1;
                if missed >= MOST_MISSED && leaves_readers_waiting(driver, agent).await {
                    fallen_silent(driver, agent);
                    is_silent = true;
                }
                continue;
            }
            Err(_) => {}
        }
        tokio::time::sleep(interval).await;
    }
}

fn served_by(driver: &Driver, agent: &Agent) -> Vec<Arc<Volume>> {
    let mut volumes = driver.volumes.all();
    volumes.retain(|volume| volume.is_served_by(agent));
    volumes
}

/// A process that is too busy for its driver may still serve. One volume of it tells: a stopped process stops
/// for all of them.
async fn leaves_readers_waiting(driver: &Driver, agent: &Agent) -> bool {
    match served_by(driver, agent).first() {
        Some(volume) => mount_health::is_silent(driver, volume).await,
        None => true,
    }
}

fn fallen_silent(driver: &Driver, agent: &Agent) {
    tracing::error!(
        instance = %agent.instance(),
        "an agent is connected and doesn't answer, as if it were stopped: its volumes count as unserved, \
         and go to another one when its process has ended"
    );
    agent.set_silent(true);
    driver.broker.changed();
    driver.look_for_agents();
}

async fn woken(driver: &Driver, agent: &Agent) {
    let volumes = served_by(driver, agent);
    let mut held = Vec::with_capacity(volumes.len());
    for volume in &volumes {
        let mut silence = volume.silence.lock().await;
        if let Err(error) = silence.pause().await {
            tracing::error!(volume = %volume.id, %error, "two answer the volume's readers");
        }
        held.push(silence);
    }
    agent.set_silent(false);
    for (volume, silence) in volumes.iter().zip(&mut held) {
        silence.ends();
        volume.set_trouble(None);
    }
    drop(held);
    tracing::warn!(instance = %agent.instance(), volumes = volumes.len(), "an agent answers again");
    driver.broker.changed();
    driver.look_for_agents();
}
