//! NodePublishVolume, once its request is checked.
//!
//! Invariant: nothing is mounted before the agent holds the volume's secrets; a publish that fails leaves
//! neither mount nor directory; the target of a mount that is there already is not touched.
//!
//! | step | a crash after it leaves | the next publish |
//! |---|---|---|
//! | `Prepare` | secrets with the agent | prepares again |
//! | detached mount, `Serve` | nothing: the mount ends with the process, and so does the agent's session | again |
//! | journal entry, directory | both, without a mount; removed at start | again |
//! | attached | the mount, served | finds it |

mod republish;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use sotto_core::fuse_init::IdMapping;
use sotto_core::identity::VolumeId;
use sotto_handoff::link::CallError;
use sotto_handoff::message::{Prepare, Prepared};
use tokio::time::Instant;

use crate::broker::{Agent, NoAgent};
use crate::driver::{Driver, blocking};
use crate::journal::Entry;
use crate::mount::{self, Fresh, MountError, Options};
use crate::mountinfo;
use crate::node::checks::{Content, Invalid, Publish};
use crate::notices;
use crate::sidecar::{self, AssignmentError};
use crate::target::{Parent, TargetPath};
use crate::volume::{Mode, Volume, VolumeSpec};
use crate::volumes::Busy;

/// All of it; kubelet gives up after 2 min.
const PUBLISH_DEADLINE: Duration = Duration::from_secs(110);
/// Kept of it for the steps after `Prepare`.
const MOUNT_RESERVE: Duration = Duration::from_secs(20);
/// How long a call waits for another one of the same volume.
const TURN_PATIENCE: Duration = Duration::from_secs(10);
/// `Serve` only starts a thread.
const SERVE_DEADLINE: Duration = Duration::from_secs(10);
/// `Release` after a failure; the agent notices by itself too.
const UNDO_DEADLINE: Duration = Duration::from_secs(5);

/// Why a volume isn't published. The text is what the pod's event shows.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// Another call works on it.
    #[error(transparent)]
    Busy(#[from] Busy),
    /// The process is about to end.
    #[error("the driver is being replaced: kubelet will try again")]
    Leaving,
    /// The node's limit.
    #[error(
        "this node has {0} volumes mounted, which is its limit (open files of sotto-csi): raise that limit, or run the pod elsewhere"
    )]
    Full(usize),
    /// What a first publish needs is wrong or missing.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The volume is mounted elsewhere.
    #[error("the volume is mounted at another target path: {0}")]
    OtherTarget(TargetPath),
    /// The mount table.
    #[error("the mount table can't be read: {0}")]
    MountTable(#[source] io::Error),
    /// The target's place.
    #[error("the target path {0} can't be used: {1}")]
    Target(TargetPath, #[source] io::Error),
    /// Nobody to serve it.
    #[error(transparent)]
    NoAgent(#[from] NoAgent),
    /// The agent refused, and its reason is the whole text, or did not answer.
    #[error("{}", agents_answer(.0))]
    Agent(#[from] CallError),
    /// sotto-node refused to say what the pod's sidecar is to serve, or did not answer.
    #[error(transparent)]
    Assignment(#[from] AssignmentError),
    /// One would be the application's.
    #[error(
        "the pod has another handoff volume: only the sidecar mounts one, and the webhook adds it; remove the other"
    )]
    SecondHandoff,
    /// The pod's socket.
    #[error("no socket can be made for the pod's sidecar: {0}")]
    Handoff(#[source] io::Error),
    /// No mount could be made.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// The mount could not be attached.
    #[error("the volume can't be mounted at its target: {0}")]
    Attach(#[source] io::Error),
    /// The journal.
    #[error("the driver's journal can't be written: {0}")]
    Journal(#[source] io::Error),
}

pub(crate) fn agents_answer(error: &CallError) -> String {
    match error {
        CallError::Refused(refusal) => refusal.to_string(),
        CallError::Deadline(_) | CallError::Closed | CallError::Packet(_) | CallError::Unknown => {
            format!("sotto-node gave no answer: {error}")
        }
    }
}

/// Where a fresh mount goes.
pub(crate) enum Place {
    /// Onto a directory that is made for it.
    New(Arc<Parent>),
    /// Onto a dead mount of the same volume.
    OverDead,
}

/// What mountinfo shows at a target.
enum Seen {
    Nothing,
    Ours,
    Foreign { fs_type: String },
}

/// Publishes a volume, or finds that it is published.
///
/// # Errors
/// Why it isn't; nothing is left then.
pub async fn publish(driver: &Driver, request: Publish) -> Result<(), PublishError> {
    let deadline = Instant::now() + PUBLISH_DEADLINE;
    let Publish { id, target, mode, content } = request;
    let _turn = match driver.volumes.turn(&id, TURN_PATIENCE).await {
        Ok(turn) => turn,
        // A take-over has its turn. An error on a mounted volume would cost the pod its directory.
        Err(busy) => {
            return republish::keep(driver, &id, &target, content).ok_or_else(|| busy.into());
        }
    };
    match look(driver, &id, &target).await? {
        Seen::Ours if mode == Mode::Sidecar => {
            sidecar::publish::again(driver, &id, &target, content).await;
        }
        Seen::Ours => {
            if let Some(content) = republish::refresh(driver, &id, content).await {
                republish::revive(driver, &id, &target, content, deadline).await;
            }
        }
        Seen::Foreign { fs_type } => {
            tracing::warn!(
                volume = %id, %target, fs_type,
                "something that this driver did not mount is on the target: it is left as it is"
            );
            if let Ok(content) = content {
                notices::foreign_mount(driver, &content.spec, &fs_type);
            }
        }
        Seen::Nothing => first(driver, id, target, content?, deadline).await?,
    }
    Ok(())
}

async fn look(driver: &Driver, id: &VolumeId, target: &TargetPath) -> Result<Seen, PublishError> {
    let place = driver.kubelet.mount_point(target);
    let (kubelet, at, wanted) = (Arc::clone(&driver.kubelet), target.clone(), id.clone());
    blocking(move || {
        // The mount table of a full node takes longer to read than all the rest of a publish.
        if let Ok(parent) = kubelet.open_parent(&at)
            && parent.is_mounted()? == Some(false)
        {
            return Ok(Seen::Nothing);
        }
        let mounts = mountinfo::read()?;
        Ok(match mountinfo::top_at(&mounts, &place) {
            None => Seen::Nothing,
            Some(mount) if mount::volume_of(mount).as_ref() == Some(&wanted) => Seen::Ours,
            Some(mount) => Seen::Foreign { fs_type: mount.fs_type.clone() },
        })
    })
    .await
    .map_err(PublishError::MountTable)
}

async fn first(
    driver: &Driver,
    id: VolumeId,
    target: TargetPath,
    content: Content,
    deadline: Instant,
) -> Result<(), PublishError> {
    if driver.is_leaving() {
        return Err(PublishError::Leaving);
    }
    match driver.volumes.get(&id) {
        Some(known) if known.target != target => {
            return Err(PublishError::OtherTarget(known.target.clone()));
        }
        // Somebody unmounted it behind our back.
        Some(_) => drop(driver.volumes.remove(&id)),
        None => {}
    }
    if driver.volumes.count() >= driver.settings.max_volumes {
        return Err(PublishError::Full(driver.volumes.count()));
    }
    let parent = open_parent(driver, &target).await?;
    if content.spec.mode == Mode::Sidecar {
        return sidecar::publish::first(driver, (id, target), content.spec, parent).await;
    }
    let agent = driver.broker.wait(driver.settings.agent_patience).await?;
    let place = Place::New(Arc::clone(&parent));
    let made = fetch_and_mount(driver, &agent, (&id, &target, place), content, deadline).await;
    if made.is_err() {
        undo(driver, &agent, &id, parent).await;
    }
    made
}

pub(crate) async fn open_parent(
    driver: &Driver,
    target: &TargetPath,
) -> Result<Arc<Parent>, PublishError> {
    let (kubelet, path) = (Arc::clone(&driver.kubelet), target.clone());
    blocking(move || kubelet.open_parent(&path))
        .await
        .map(Arc::new)
        .map_err(|error| PublishError::Target(target.clone(), error))
}

async fn fetch_and_mount(
    driver: &Driver,
    agent: &Agent,
    (id, target, place): (&VolumeId, &TargetPath, Place),
    content: Content,
    deadline: Instant,
) -> Result<(), PublishError> {
    let Content { mut spec, credentials } = content;
    let patience = deadline.saturating_duration_since(Instant::now() + MOUNT_RESERVE);
    let place_of = driver.kubelet.mount_point(target);
    let prepared: Prepared = agent
        .prepare(spec.prepare(id, &place_of, &credentials, Prepare::default()), patience)
        .await?;

    spec.own_users = prepared.own_users;
    let fresh = create(driver, id, &spec).await?;
    let (connection, init) = (fresh.connection.as_fd(), fresh.negotiated);
    agent.serve(id, init, false, connection, SERVE_DEADLINE).await?;

    let connection = attach(driver, fresh, (id, target, place), &spec).await?;
    let volume = Volume::new(id.clone(), target.clone(), spec, init, Some(connection));
    volume.keep_credentials(credentials);
    let objects = prepared.object_count as usize;
    volume.shows(prepared.into());
    volume.served_by(agent.clone(), Some(objects));
    driver.volumes.insert(volume);
    // Its agent may have died in this very moment.
    driver.look_for_agents();
    driver.tidy.soon();
    tracing::info!(volume = %id, %target, objects, "published");
    Ok(())
}

/// A mount that nobody sees yet.
pub(crate) async fn create(
    driver: &Driver,
    id: &VolumeId,
    spec: &VolumeSpec,
) -> Result<Fresh, PublishError> {
    let resend = driver.settings.resend;
    let id_mapping = if spec.own_users { IdMapping::Allowed } else { IdMapping::Off };
    let options = Options { id_mapping, context: spec.selinux_context.clone(), resend };
    let volume = id.clone();
    Ok(blocking(move || Fresh::create(&volume, &options)).await?)
}

/// The journal's entry, the directory, the mount, in this order. Returns the connection.
pub(crate) async fn attach(
    driver: &Driver,
    fresh: Fresh,
    (id, target, place): (&VolumeId, &TargetPath, Place),
    spec: &VolumeSpec,
) -> Result<OwnedFd, PublishError> {
    let entry = Entry::new(id.clone(), target.relative(), spec.clone(), fresh.negotiated);
    let (journal, kubelet) = (Arc::clone(&driver.journal), Arc::clone(&driver.kubelet));
    let at = target.clone();
    blocking(move || {
        journal.record(&entry).map_err(PublishError::Journal)?;
        let directory = match place {
            Place::New(parent) => parent.make_target(),
            Place::OverDead => kubelet.open_mounted(&at),
        };
        fresh.attach(&directory.map_err(PublishError::Attach)?).map_err(PublishError::Attach)
    })
    .await
}

/// For `blocking`, when a step is not answered in time.
impl From<io::Error> for PublishError {
    fn from(error: io::Error) -> Self {
        Self::Attach(error)
    }
}

/// Leaves no trace of a publish that failed. kubelet doesn't always call NodeUnpublishVolume after one.
async fn undo(driver: &Driver, agent: &Agent, id: &VolumeId, parent: Arc<Parent>) {
    unmake(driver, id, parent).await;
    give_up(agent, id).await;
}

/// Takes entry and directory away.
pub(crate) async fn unmake(driver: &Driver, id: &VolumeId, parent: Arc<Parent>) {
    let (journal, volume) = (Arc::clone(&driver.journal), id.clone());
    let removed = blocking(move || {
        journal.forget(&volume)?;
        parent.remove_target()
    });
    if let Err(error) = removed.await {
        tracing::warn!(volume = %id, %error, "a failed publish left something behind");
    }
}

/// The agent is told that a volume it prepared won't be mounted.
async fn give_up(agent: &Agent, id: &VolumeId) {
    if let Err(error) = agent.release(id, UNDO_DEADLINE).await {
        tracing::debug!(volume = %id, %error, "the agent did not release a failed volume");
    }
}
