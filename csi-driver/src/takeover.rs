//! Volumes whose agent is gone are handed to the next one; those of an earlier driver process are fetched back
//! from the agents that serve them. Each volume is tried by a task of its own ([`tries`]): one whose store or agent is
//! slow keeps no other waiting.
//!
//! Invariant: the driver's dup keeps a connection alive between two agents; a volume is handed out again
//! only if its own agent's link has ended (one that is only silent may wake up and serve on) and a process that isn't that agent (or has lost it) is there.
//! An agent whose container was restarted has nothing, so it fetches anew with the freshest token, then serves with
//! `resend`. The next worker of the same supervisor serves on before it is linked: it is only asked whether it does.

mod tries;

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use sotto_core::identity::VolumeId;
use sotto_handoff::link::CallError;
use sotto_handoff::message::Prepare;

use crate::broker::Agent;
use crate::credentials::Credentials;
use crate::driver::Driver;
use crate::returns::{self, ReturnError};
use crate::sidecar::{AssignmentError, assignment, remount};
use crate::unserved::{StillAnswering, sleep_until};
use crate::volume::{Mode, Volume};
use crate::volumes::Busy;
use tries::Tries;

const PREPARE_DEADLINE: Duration = Duration::from_secs(30);
const SERVE_DEADLINE: Duration = Duration::from_secs(10);
const TURN_PATIENCE: Duration = Duration::from_secs(1);

/// Why a volume is still unserved.
#[derive(Debug, thiserror::Error)]
enum TakeOverError {
    #[error(transparent)]
    Busy(#[from] Busy),
    #[error("{0} is not connected")]
    NoAgent(&'static str),
    #[error(transparent)]
    Assignment(#[from] AssignmentError),
    #[error(
        "{0} is connected and doesn't answer, as if it were stopped: continue its process, or end it so that the next one serves"
    )]
    Silent(&'static str),
    #[error("no token is known: kubelet's next republish brings one")]
    NoToken,
    #[error(transparent)]
    StillAnswering(#[from] StillAnswering),
    #[error(transparent)]
    Agent(#[from] CallError),
    #[error(transparent)]
    Return(#[from] ReturnError),
    #[error("it is being unpublished")]
    Ending,
}

/// Hands volumes over whenever an agent comes or goes, until the drain begins.
pub(crate) async fn run(driver: Arc<Driver>) {
    let mut agents = driver.broker.changes();
    let mut tries = Tries::default();
    loop {
        let next = tries.begin_due(&driver);
        tokio::select! {
            _ = agents.changed() => tries.forget_failures(),
            () = driver.unserved.notified() => {}
            Some((volume, is_cared_for)) = tries.ended() => {
                let agent = driver.volumes.get(&volume).and_then(|it| driver.agent_for(&it));
                tries.note(volume, is_cared_for, agent);
                driver.unserved_count.send_replace(tries.count());
            }
            () = sleep_until(next) => {}
            () = driver.drain.begun() => return,
        }
    }
}

/// Volumes whose only holder is this process, now or as soon as an agent has left that is about to.
pub(crate) fn unserved(driver: &Driver) -> Vec<Arc<Volume>> {
    let alone = |volume: &Arc<Volume>| {
        // Nobody has read from it yet, and the next process mounts it anew.
        let is_untouched = volume.spec.mode == Mode::Sidecar && volume.last_instance().is_none();
        volume.is_held() && !is_untouched && !volume.server().is_some_and(|agent| agent.takes())
    };
    driver.volumes.all().into_iter().filter(alone).collect()
}

fn needs_care(volume: &Volume) -> bool {
    !volume.is_held() || volume.needs_agent()
}

/// Its pod's sidecar comes when it comes: nothing is to be tried until then.
fn awaits_sidecar(driver: &Driver, volume: &Volume) -> bool {
    volume.spec.mode == Mode::Sidecar && volume.is_held() && driver.agent_for(volume).is_none()
}

async fn restore(driver: &Driver, id: &VolumeId) -> bool {
    match hand_over(driver, id).await {
        Ok(()) => true,
        Err(TakeOverError::Return(error)) => {
            if error.is_expected() {
                tracing::debug!(volume = %id, %error, "the volume is not held yet");
            } else {
                tracing::warn!(volume = %id, %error, "the volume is not held yet");
            }
            false
        }
        Err(error) => {
            tracing::warn!(volume = %id, %error, "nobody serves the volume yet");
            if let Some(volume) = driver.volumes.get(id) {
                let server = volume.spec.mode.server();
                volume.set_trouble(Some(format!("{server} doesn't serve the volume: {error}")));
            }
            false
        }
    }
}

async fn hand_over(driver: &Driver, id: &VolumeId) -> Result<(), TakeOverError> {
    let _turn = driver.volumes.turn(id, TURN_PATIENCE).await?;
    // It may have been unpublished, or handed over, in the meantime.
    let Some(volume) = driver.volumes.get(id).filter(|volume| needs_care(volume)) else {
        return Ok(());
    };
    let care = async {
        if volume.is_held() {
            return to_current_agent(driver, &volume).await;
        }
        match returns::fetch(driver, &volume).await {
            Err(_) if remount::replaces(driver, &volume).await => Ok(()),
            fetched => Ok(fetched?),
        }
    };
    let done = tokio::select! {
        done = care => done,
        () = volume.ends() => Err(TakeOverError::Ending),
    };
    driver.silent.notify_one();
    done
}

async fn to_current_agent(driver: &Driver, volume: &Volume) -> Result<(), TakeOverError> {
    if volume.is_kept_by_silent() {
        return Err(TakeOverError::Silent(volume.spec.mode.server()));
    }
    let no_agent = TakeOverError::NoAgent(volume.spec.mode.server());
    let agent = driver.agent_for(volume).ok_or(no_agent)?;
    if volume.last_instance().is_some_and(|last| last == agent.instance())
        && goes_on(volume, &agent).await?
    {
        return Ok(());
    }
    let prepare = prepare(driver, volume).await?;
    let prepared = agent.prepare(prepare, PREPARE_DEADLINE).await?;
    // Held until it is known who answers from now on.
    let mut silence = volume.silence.lock().await;
    silence.pause().await?;
    if let Err(error) = give(volume, &agent).await {
        if !matches!(error, CallError::Refused(_)) {
            silence.begins_anew();
        }
        return Err(error.into());
    }
    tracing::info!(volume = %volume.id, instance = %agent.instance(), "taken over");
    let objects = prepared.object_count as usize;
    volume.shows(prepared.into());
    volume.served_by(agent, Some(objects));
    silence.ends();
    Ok(())
}

async fn prepare(driver: &Driver, volume: &Volume) -> Result<Prepare, TakeOverError> {
    let place = driver.kubelet.mount_point(&volume.target);
    Ok(match volume.spec.mode {
        Mode::Node => {
            let credentials = volume.credentials().ok_or(TakeOverError::NoToken)?;
            volume.prepare(&place, &credentials)
        }
        Mode::Sidecar => {
            let assignment = Some(assignment::current(driver, volume).await?);
            Prepare { assignment, ..volume.prepare(&place, &Credentials::none()) }
        }
    })
}

/// Whether an agent that served the volume before serves it still: the same process, connected anew, or the next
/// worker of the same supervisor, which serves what it was left and lacks what it could not restore.
async fn goes_on(volume: &Volume, agent: &Agent) -> Result<bool, TakeOverError> {
    let mut silence = volume.silence.lock().await;
    silence.pause().await?;
    let returned = match agent.give_back(&volume.id, returns::RETURN_DEADLINE).await {
        Ok((returned, _its_connection)) => returned,
        Err(CallError::Refused(refusal)) if returns::is_not_there(&refusal) => {
            silence.goes_on();
            return Ok(false);
        }
        Err(error) => return Err(error.into()),
    };
    volume.shows(returned.into());
    volume.served_by(agent.clone(), None);
    silence.ends();
    tracing::info!(volume = %volume.id, instance = %agent.instance(), "served on");
    Ok(true)
}

async fn give(volume: &Volume, agent: &Agent) -> Result<(), CallError> {
    let Some(connection) = volume.connection() else { return Err(CallError::Closed) };
    let resend = volume.init.can_resend();
    agent.serve(&volume.id, volume.init, resend, connection.as_fd(), SERVE_DEADLINE).await
}
