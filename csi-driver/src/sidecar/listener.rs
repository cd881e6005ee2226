//! A pod's socket: connections are taken, checked, and run until they end.
//!
//! Invariant: nothing is said to a process before the kernel has confirmed its user and its pod. A probe learns
//! whether the pod's secrets are served, and nothing else. Who is refused is logged, and told to the pod.

use std::error::Error;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use sotto_core::identity::{PodUid, VolumeId};
use sotto_handoff::handshake::{self, Asking, HandshakeError};
use sotto_handoff::link::{Answer, Handler, Link};
use sotto_handoff::message::{Code, Role, StateIs, frame::Body};
use sotto_handoff::packet::Connection;
use sotto_handoff::refusal::Refusal;
use sotto_handoff::socket::Listener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;

use super::directory;
use super::peer::{Admission, StrangerError};
use super::pods::{Claim, Taken};
use crate::broker::{self, Agent, Requests, Scope};
use crate::driver::{Driver, blocking};
use crate::notices;
use crate::unserved;
use crate::volume::{Mode, Volume};

/// Anybody in the pod who sees it may connect; who may stay is decided then.
const SOCKET_MODE: u32 = 0o666;
/// Of one pod at one time: its sidecar, its probe, and who is being refused.
const MAX_CONNECTIONS: usize = 4;
/// Requests of a sidecar that are worked on at one time.
const MAX_REQUESTS: usize = 8;
/// Pause after an accept that failed, e.g. for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// A probe has an answer long before.
const PROBE_DEADLINE: Duration = Duration::from_secs(5);

/// How long the end of the sidecar before may take to be noticed.
const END_PATIENCE: Duration = Duration::from_millis(200);
const END_LOOK: Duration = Duration::from_millis(10);

/// Another role.
#[derive(Debug, thiserror::Error)]
#[error("a pod's socket takes the pod's sidecar and its probe only")]
struct NoSidecar;

/// Opens the pod's socket, if it isn't open.
pub(super) async fn open(
    driver: &Arc<Driver>,
    pod: &PodUid,
    volume: Option<&VolumeId>,
) -> io::Result<()> {
    let Some(end) = driver.pods.add(pod, volume) else { return Ok(()) };
    let run_dir = driver.settings.run_dir.clone();
    let (uid, at) = (pod.clone(), directory::socket(&run_dir, pod));
    let listener = match blocking(move || directory::make(&run_dir, &uid)).await {
        Ok(()) => sotto_handoff::socket::listen(&at, SOCKET_MODE, None),
        Err(error) => Err(error),
    };
    match listener {
        Ok(listener) => {
            driver.drain.spawn(serve(Arc::clone(driver), pod.clone(), listener, end));
            // The pod's volume may have been waiting for its socket.
            driver.look_for_agents();
            Ok(())
        }
        Err(error) => {
            driver.pods.remove(pod);
            Err(error)
        }
    }
}

/// Closes the pod's socket and removes its directory; done already is done.
pub(super) async fn close(driver: &Driver, pod: &PodUid) -> io::Result<()> {
    driver.pods.remove(pod);
    let (run_dir, pod) = (driver.settings.run_dir.clone(), pod.clone());
    blocking(move || directory::remove(&run_dir, &pod)).await
}

async fn serve(driver: Arc<Driver>, pod: PodUid, listener: Listener, mut end: watch::Receiver<()>) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = end.changed() => return,
            () = driver.drain.begun() => return,
        };
        match (accepted, Arc::clone(&permits).try_acquire_owned()) {
            (Ok(connection), Ok(permit)) => {
                let (driver, pod, mut end) = (Arc::clone(&driver), pod.clone(), end.clone());
                let within = Arc::clone(&driver);
                within.drain.spawn(async move {
                    tokio::select! {
                        () = attend(&driver, &pod, connection, permit) => {}
                        _ = end.changed() => {}
                        () = driver.drain.begun() => {}
                    }
                });
            }
            (Ok(_), Err(_)) if !driver.pods.may_tell(&pod) => {}
            (Ok(_), Err(_)) => {
                tracing::warn!(%pod, "too many processes are connected to the pod's socket: one is turned away");
            }
            (Err(error), _) => {
                tracing::error!(%pod, %error, "a connection to the pod's socket can't be taken");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn attend(
    driver: &Arc<Driver>,
    pod: &PodUid,
    connection: Connection,
    _permit: OwnedSemaphorePermit,
) {
    if let Err(stranger) = admitted(driver, pod, &connection) {
        return match stranger {
            // A probe that was ended, as likely as not.
            StrangerError::Gone(_) => tracing::debug!(%pod, error = %stranger, "nobody came"),
            StrangerError::Peer(_)
            | StrangerError::Unseen
            | StrangerError::InNoPod(_)
            | StrangerError::OtherPod { .. } => refuse(driver, pod, &stranger),
        };
    }
    let asking = match handshake::asked(&connection).await {
        Ok(asking) => asking,
        Err(error) => return comes_to_nothing(pod, &error),
    };
    match asking.role() {
        Role::Probe => match asking.welcome(false).await {
            Ok(_) => answer_probe(driver, pod, connection).await,
            Err(error) => comes_to_nothing(pod, &error),
        },
        Role::Sidecar => match claim(driver, pod, asking.instance()).await {
            Ok(claim) => match asking.welcome(false).await {
                Ok(agreed) => serve_sidecar(driver, pod, connection, agreed, claim).await,
                Err(error) => comes_to_nothing(pod, &error),
            },
            Err(taken) => turn_away(driver, pod, asking, &taken).await,
        },
        Role::Unspecified | Role::Driver | Role::NodeAgent => {
            turn_away(driver, pod, asking, &NoSidecar).await;
        }
    }
}

/// The place of the one before is free as soon as its end was noticed.
async fn claim<'a>(driver: &'a Driver, pod: &PodUid, instance: &str) -> Result<Claim<'a>, Taken> {
    let end = Instant::now() + END_PATIENCE;
    loop {
        match driver.pods.claim(pod, instance) {
            Err(_) if Instant::now() < end => tokio::time::sleep(END_LOOK).await,
            claimed => return claimed,
        }
    }
}

async fn turn_away(driver: &Driver, pod: &PodUid, asking: Asking<'_>, why: &(dyn Error + Sync)) {
    refuse(driver, pod, why);
    let refusal = Refusal::new(Code::PermissionDenied, &why.to_string());
    if let Err(error) = asking.refuse(refusal).await {
        comes_to_nothing(pod, &error);
    }
}

fn comes_to_nothing(pod: &PodUid, error: &HandshakeError) {
    tracing::debug!(%pod, %error, "a connection to the pod's socket comes to nothing");
}

fn admitted(driver: &Driver, pod: &PodUid, connection: &Connection) -> Result<(), StrangerError> {
    let admission = Admission {
        pod: pod.clone(),
        uid: driver.settings.agent_uid,
        own_users: volumes(driver, pod).iter().any(|volume| volume.spec.own_users),
        development: driver.settings.development,
    };
    // A small file of the kernel's own: no disk is asked.
    admission.check(connection)
}

async fn serve_sidecar(
    driver: &Arc<Driver>,
    pod: &PodUid,
    connection: Connection,
    agreed: handshake::Agreed,
    claim: Claim<'_>,
) {
    let instance: Arc<str> = agreed.instance.as_str().into();
    let scope = Scope::Pod(pod.clone());
    let requests = Requests::new(Arc::clone(driver), Arc::clone(&instance), scope);
    let (link, task) = Link::start(connection, Arc::new(requests), MAX_REQUESTS);
    tracing::info!(%pod, %instance, software = agreed.software, "the pod's sidecar is connected");
    let agent = Agent::new(&instance, link);
    unserved::may_be_served(driver, &instance).await;
    claim.take(agent.clone());
    driver.look_for_agents();
    tokio::select! {
        never = broker::watch(driver, &agent) => match never {},
        end = task => tracing::info!(%pod, %instance, error = %end.0, "the link to the pod's sidecar ended"),
    }
    driver.look_for_agents();
}

/// Answers State until the probe leaves.
async fn answer_probe(driver: &Arc<Driver>, pod: &PodUid, connection: Connection) {
    let states = States { driver: Arc::clone(driver), pod: pod.clone() };
    let (_link, task) = Link::start(connection, Arc::new(states), 1);
    if tokio::time::timeout(PROBE_DEADLINE, task).await.is_err() {
        tracing::debug!(%pod, "a probe stays too long");
    }
}

struct States {
    driver: Arc<Driver>,
    pod: PodUid,
}

impl Handler for States {
    async fn handle(&self, body: Body, fd: Option<OwnedFd>) -> Result<Answer, Refusal> {
        drop(fd); // no request of a probe comes with one
        match body {
            Body::State(_) => Ok(Body::StateIs(self.state()).into()),
            _ => Err(Refusal::new(Code::PermissionDenied, "a probe asks for State only")),
        }
    }
}

impl States {
    fn state(&self) -> StateIs {
        let volumes = volumes(&self.driver, &self.pod);
        let unserved = volumes.iter().find(|volume| volume.server().is_none());
        let reason = match unserved {
            None if volumes.is_empty() => "the pod has no volume of secrets here".to_owned(),
            None => return StateIs { served: true, reason: String::new() },
            Some(volume) => {
                volume.trouble().unwrap_or_else(|| "nobody serves the volume yet".to_owned())
            }
        };
        StateIs { served: false, reason }
    }
}

fn volumes(driver: &Driver, pod: &PodUid) -> Vec<Arc<Volume>> {
    let mut volumes = driver.volumes.all();
    volumes
        .retain(|volume| volume.spec.mode == Mode::Sidecar && volume.spec.identity.pod_uid == *pod);
    volumes
}

fn refuse(driver: &Driver, pod: &PodUid, why: &dyn Error) {
    if !driver.pods.may_tell(pod) {
        return;
    }
    tracing::warn!(%pod, error = %why, "a process is refused at the pod's socket");
    match volumes(driver, pod).first() {
        Some(volume) => notices::handoff_refused(driver, &volume.spec, why),
        None => tracing::debug!(%pod, "the pod has no volume of secrets to tell it of"),
    }
}
