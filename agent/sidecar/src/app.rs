//! The parts of the sidecar put together; logic knows neither this nor `main`.

use std::fmt::Display;
use std::io::BufWriter;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use sotto_core::clock::{Clock, SystemClock};
use sotto_handoff::message::Role;
use sotto_runtime::drain::Drain;
use sotto_runtime::memory::LockedMemory;
use sotto_supervisor::worker::ALIVE_INTERVAL;
use sotto_supervisor::{Keeper, TakenUp};
use sotto_volume::audit::AuditLog;
use sotto_volume::driver::DriverCalls;
use sotto_volume::driver::link::{DriverLink, Endpoint, Leave, Unobserved};
use sotto_volume::volumes::ServedOn;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::arguments::Settings;
use crate::beginning::Beginning;
use crate::requests::Requests;
use crate::serving::{Parts, Serving};
use crate::withdrawal::Withdrawal;

/// Threads for what blocks: files, the start of a server, its invalidations.
const BLOCKING_THREADS: usize = 4;
/// How long such a thread is kept without work.
const KEPT_IDLE: Duration = Duration::from_secs(2);
/// How long the driver may take to hear that this process ends.
const LEAVE_PATIENCE: Duration = Duration::from_secs(2);
/// How long revocations may take beyond that; all together well within 30 s, a pod's grace period.
const DRAIN_DEADLINE: Duration = Duration::from_secs(12);
/// How long the rest of the audit log may take to be written.
const FLUSH_DEADLINE: Duration = Duration::from_secs(3);

/// Why the worker ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// By a signal: everything is released.
    Finished,
    /// The pod may not have its secrets any more: everything is released, and another worker waits.
    Withdrawn,
}

/// Runs the sidecar until SIGTERM or SIGINT, or until the pod may not have its secrets any more.
///
/// # Errors
/// A part could not be started.
pub fn run(settings: Settings, driver_uid: u32, taken: TakenUp) -> anyhow::Result<Ended> {
    // One thread: what it does between two refreshes is to wait.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_keep_alive(KEPT_IDLE)
        .enable_all()
        .build()
        .context("the runtime could not be started")?;
    let ended = runtime.block_on(serve(settings, driver_uid, taken))?;
    // Not for what blocks for ever: the server of a volume ends with the process.
    runtime.shutdown_timeout(Duration::from_millis(500));
    Ok(ended)
}

async fn serve(settings: Settings, driver_uid: u32, mut taken: TakenUp) -> anyhow::Result<Ended> {
    // Before anything takes time: a signal that comes early must not be lost.
    let mut signals = Signals::take().context("signals can't be received")?;
    sotto_supervisor::release_signals().context("signals can't be received")?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let audit = AuditLog::start(BufWriter::new(std::io::stdout()), Arc::clone(&clock))?;
    let drain = Drain::new();
    let (links, driver) = DriverCalls::channel();
    let withdrawal = Withdrawal::default();
    let memory = Arc::new(LockedMemory::new());
    let requests = Requests::new(Parts {
        token: settings.token,
        client: settings.client,
        keeper: taken.keeper.clone(),
        withdrawal: withdrawal.clone(),
        memory: Arc::clone(&memory) as _,
        audit: audit.clone(),
        clock,
        driver,
        drain: drain.clone(),
    });
    resume(&requests, &mut taken, &memory, &audit).await?;
    // The first such word is that it serves what it was left.
    drain.spawn(say_alive(taken.keeper.clone(), drain.clone()));
    let leave = Leave::default();
    let endpoint = Endpoint {
        socket: settings.socket,
        uid: driver_uid,
        role: Role::Sidecar,
        instance: taken.instance,
    };
    let standby = watch::Sender::new(None).subscribe();
    let link = DriverLink::new(
        endpoint,
        requests.clone(),
        links,
        Unobserved,
        standby,
        leave.clone(),
        drain.clone(),
    );
    drain.spawn(link.run());
    tracing::info!("started");
    let ended = tokio::select! {
        () = signals.next() => Ended::Finished,
        () = withdrawal.withdrawn() => Ended::Withdrawn,
    };
    requests.end();
    tracing::info!("ending: what was fetched is revoked and wiped");
    release(&requests, &leave).await;
    finish(&drain, &audit).await;
    Ok(ended)
}

/// A native sidecar is told to end after the application's last container has.
async fn release(requests: &Requests, leave: &Leave) {
    let Some(serving) = requests.serving().await else { return };
    tokio::join!(serving.volumes.release_all(), leave.ask(LEAVE_PATIENCE));
}

async fn finish(drain: &Drain, audit: &AuditLog) {
    if let Err(error) = drain.finish(DRAIN_DEADLINE).await {
        tracing::warn!(%error, "ending without them");
    }
    if !audit.flush(FLUSH_DEADLINE).await {
        tracing::warn!("the end of the audit log was not written in time");
    }
}

/// Serves on what a former worker served; what can't be is let go, and the driver hands it out anew.
///
/// # Errors
/// Something is served and can't be gone on with: the process must end, and the next one isn't left it.
async fn resume(
    requests: &Requests,
    taken: &mut TakenUp,
    memory: &LockedMemory,
    audit: &AuditLog,
) -> anyhow::Result<()> {
    let kept = std::mem::take(&mut taken.kept);
    let volumes: Vec<String> = kept.keys().cloned().collect();
    let served = ServedOn::begin(kept, &taken.keeper, memory, audit);
    let Some(left) = served.settings() else { return Ok(()) };
    let abandoned = |reason: &dyn Display| {
        forget(&taken.keeper, &volumes);
        anyhow::anyhow!("the volume of an earlier worker can't be gone on with: {reason}")
    };
    let beginning = Beginning::read(left).map_err(|error| abandoned(&error))?;
    let serving = requests.resume(&beginning).await.map_err(|refusal| abandoned(&refusal))?;
    let former = former(&serving, &served).await;
    let restored = serving.volumes.restore(served, former)?;
    tracing::info!(restored, "the volume of an earlier worker is served on");
    Ok(())
}

/// Settings of logins that the earlier worker had gone over from, and had yet to revoke.
async fn former(serving: &Serving, served: &ServedOn) -> Vec<Arc<sotto_volume::volumes::Settings>> {
    let mut former = Vec::new();
    for left in served.former_settings() {
        match serving.classes.candidates().left(left).await {
            Ok(settings) => former.push(settings),
            Err(error) => tracing::warn!(%error, "where a former login was made is not known"),
        }
    }
    former
}

fn forget(keeper: &Keeper, volumes: &[String]) {
    for volume in volumes {
        if let Err(error) = keeper.forget(volume) {
            tracing::warn!(volume, %error, "the supervisor could not be told");
        }
    }
}

/// Tells the supervisor that this process doesn't hang.
async fn say_alive(keeper: Keeper, drain: Drain) {
    let mut ticks = tokio::time::interval(ALIVE_INTERVAL);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = drain.begun() => return,
        }
        if let Err(error) = keeper.alive() {
            tracing::warn!(%error, "the supervisor can't be told that this process lives");
        }
    }
}

/// Ask the process to end.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn take() -> std::io::Result<Self> {
        let (terminate, interrupt) = (SignalKind::terminate(), SignalKind::interrupt());
        Ok(Self { terminate: signal(terminate)?, interrupt: signal(interrupt)? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
