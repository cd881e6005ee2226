//! Volumes that nobody serves: who waits there is made killable at once, and has an error once
//! `request_deadline` passed, until an agent attaches.
//!
//! Invariant: nothing is answered while an agent that answers pings is linked for the volume, nor while the connection is being
//! given to one: [`Silence`] is locked for that time, and the answering has ended, its device closed, before
//! `Serve` is sent. The connection itself is never aborted. The device that answers is this process's own
//! (`FUSE_DEV_IOC_CLONE`), never the one that is shared with agents, whose mode stays blocking.
//!
//! | kernel | what an agent had read and not answered when it went |
//! |---|---|
//! | 6.9 and later | sent again (RESEND): its caller is killable, and served by the next agent, or has the error at the deadline |
//! | before | lost: its caller has ECONNABORTED as soon as the last holder of the device it was read from is gone, so this process gives up its own for a clone |

mod answer;
mod answering;
mod device;

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::driver::{Driver, blocking};
use crate::volume::Volume;
use answering::Answering;
pub(crate) use answering::StillAnswering;

/// After a failure to begin, e.g. for want of file descriptors.
const RETRY_PAUSE: Duration = Duration::from_secs(5);

/// What is done about one volume while nobody serves it.
#[derive(Debug, Default)]
pub(crate) struct Silence {
    since: Option<Instant>,
    /// What `since` was before somebody was linked who may serve already.
    doubted: Option<Instant>,
    answering: Option<Answering>,
}

/// Whether `device` is on a FUSE connection whose INIT was answered.
///
/// # Errors
/// It isn't, or no device can be opened to find out.
pub(crate) fn on_a_connection(device: impl AsFd) -> io::Result<()> {
    device::cloned(device, device::Mode::NonBlocking).map(drop)
}

/// Looks after every volume that nobody serves, until the drain begins.
pub(crate) async fn run(driver: Arc<Driver>) {
    let mut agents = driver.broker.changes();
    loop {
        let next = look(&driver).await;
        tokio::select! {
            _ = agents.changed() => {}
            () = driver.silent.notified() => {}
            () = sleep_until(next) => {}
            () = driver.drain.begun() => return,
        }
    }
}

/// Returns when to look again.
async fn look(driver: &Driver) -> Option<Instant> {
    let mut next = None;
    for volume in driver.volumes.all() {
        // Locked: the connection is being given to an agent, and whoever does that tells how it ended.
        let Ok(mut silence) = volume.silence.try_lock() else { continue };
        let due = silence.look(driver, &volume).await;
        next = [next, due].into_iter().flatten().min();
    }
    next
}

/// An agent that served volumes before is linked again, as a new worker of its supervisor is within milliseconds of
/// serving them: nobody is answered in its place, and the deadline begins anew, whatever becomes of this link.
/// Otherwise workers that are killed one after the other would be taken for nobody.
pub(crate) async fn may_be_served(driver: &Driver, instance: &str) {
    for volume in driver.volumes.all() {
        if !volume.needs_agent() || volume.last_instance().as_deref() != Some(instance) {
            continue;
        }
        // Locked: it is being given to an agent.
        let Ok(mut silence) = volume.silence.try_lock() else { continue };
        if silence.since.is_none() {
            continue;
        }
        match silence.pause().await {
            Ok(()) => (silence.doubted, silence.since) = (silence.since, Some(Instant::now())),
            Err(error) => tracing::warn!(volume = %volume.id, %error, "its answers go on"),
        }
    }
}

/// Waits until then; for ever without a time.
pub(crate) async fn sleep_until(until: Option<Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until).await,
        None => std::future::pending().await,
    }
}

impl Silence {
    /// Nobody is answered by this process when it returns; the connection may be given away.
    ///
    /// # Errors
    /// The answering did not end.
    pub(crate) async fn pause(&mut self) -> Result<(), StillAnswering> {
        if let Some(answering) = &mut self.answering {
            answering.stop().await?;
        }
        self.answering = None;
        Ok(())
    }

    /// An agent serves.
    pub(crate) fn ends(&mut self) {
        (self.since, self.doubted) = (None, None);
    }

    /// The agent that was thought to serve doesn't.
    pub(crate) fn goes_on(&mut self) {
        self.since = self.doubted.take().or(self.since);
    }

    /// An agent was asked to serve and gave no answer: it may have begun to, so it has the whole time again.
    pub(crate) fn begins_anew(&mut self) {
        self.since = Some(Instant::now());
    }

    async fn look(&mut self, driver: &Driver, volume: &Volume) -> Option<Instant> {
        if !volume.needs_agent() {
            self.ends();
            return match self.pause().await {
                Ok(()) => None,
                Err(error) => Some(later(volume, &error)),
            };
        }
        let since = match self.since {
            Some(since) => since,
            None => {
                if let Err(error) = free_waiting(volume).await {
                    tracing::warn!(volume = %volume.id, %error, "who waits for it isn't freed");
                }
                *self.since.insert(Instant::now())
            }
        };
        let due = since + driver.settings.request_deadline;
        if Instant::now() < due {
            return Some(due);
        }
        self.answer(driver, volume).await.err().map(|error| later(volume, &error))
    }

    async fn answer(&mut self, driver: &Driver, volume: &Volume) -> io::Result<()> {
        // One that ended by itself has found the connection's end: there is nobody left to answer.
        if self.answering.is_some() {
            return Ok(());
        }
        let Some(connection) = volume.connection() else { return Ok(()) };
        let device =
            blocking(move || device::cloned(&connection, device::Mode::NonBlocking)).await?;
        let can_resend = volume.init.can_resend();
        self.answering = Some(Answering::start(
            &driver.drain,
            &volume.id,
            device,
            can_resend,
            driver.metrics.unserved_answers.clone(),
        )?);
        tracing::warn!(
            volume = %volume.id,
            deadline = ?driver.settings.request_deadline,
            "nobody has served the volume for this long: its readers get errors until somebody does"
        );
        Ok(())
    }
}

/// Frees those whose requests an agent had read and not answered.
async fn free_waiting(volume: &Volume) -> io::Result<()> {
    let Some(connection) = volume.connection() else { return Ok(()) };
    if volume.init.can_resend() {
        return device::resend(&connection);
    }
    let device = blocking(move || device::cloned(&connection, device::Mode::Blocking)).await?;
    volume.hold(device);
    Ok(())
}

fn later(volume: &Volume, error: &dyn std::error::Error) -> Instant {
    tracing::error!(volume = %volume.id, %error, "those that wait for the volume are not answered");
    Instant::now() + RETRY_PAUSE
}
