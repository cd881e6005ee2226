//! A volume that is mounted here: what the journal keeps of it, and what only this process knows.
//!
//! Invariant: [`VolumeSpec`] and what the journal holds contain no token; the freshest token is kept in
//! wiped memory only, for the agent that takes the volume over.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sotto_core::fuse_init::Negotiated;
use sotto_core::identity::{ClassName, VolumeId, WorkloadIdentity};
use sotto_handoff::message::{Assignment, Prepare};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::broker::Agent;
use crate::credentials::Credentials;
use crate::notices;
use crate::shown::Shown;
use crate::target::TargetPath;
use crate::unserved::Silence;

/// How long an agent keeps a generation that it has turned from.
const GRACE: Duration = Duration::from_secs(30);
/// Most of them that the next agent is told of.
const MOST_OLDER: usize = 2;

/// Who serves a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// sotto-node, with the pod's token that kubelet sends.
    #[default]
    Node,
    /// The pod's own sidecar: kubelet sends no token.
    Sidecar,
}

impl Mode {
    /// Whom a message means.
    #[must_use]
    pub fn server(self) -> &'static str {
        match self {
            Self::Node => "sotto-node",
            Self::Sidecar => "the pod's sidecar",
        }
    }
}

/// What kubelet said about a volume, checked; without tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeSpec {
    /// The pod.
    pub identity: WorkloadIdentity,
    /// Its SecretProviderClass.
    pub class: ClassName,
    /// Group that owns the files.
    pub mount_group: Option<u32>,
    /// Chosen by the pod's author, in milliseconds.
    pub refresh_ms: Option<u64>,
    /// Chosen by the pod's author, in milliseconds.
    pub max_stale_ms: Option<u64>,
    /// Whether objects that the store doesn't have are left out.
    pub optional: bool,
    /// Who serves it.
    #[serde(default)]
    pub mode: Mode,
    /// The pod has a user namespace of its own.
    #[serde(default)]
    pub own_users: bool,
    /// The SELinux context of the mount.
    #[serde(default)]
    pub selinux_context: Option<String>,
}

impl VolumeSpec {
    /// The request to the agent, but for the time that it has. `known` is what the mount shows already.
    #[must_use]
    pub fn prepare(
        &self,
        id: &VolumeId,
        target: &Path,
        credentials: &Credentials,
        known: Prepare,
    ) -> Prepare {
        Prepare {
            volume_id: id.as_str().to_owned(),
            pod: Some(notices::pod(self)),
            secret_provider_class: self.class.as_str().to_owned(),
            mount_group: self.mount_group,
            service_account_tokens: credentials.tokens.expose().to_vec(),
            publish_secrets: credentials.publish_secrets.expose().to_vec(),
            target_path: target.display().to_string(),
            optional: self.optional,
            refresh_ms: self.refresh_ms,
            max_stale_ms: self.max_stale_ms,
            ..known
        }
    }
}

/// A mounted volume.
#[derive(Debug)]
pub struct Volume {
    /// Its id.
    pub id: VolumeId,
    /// Where it is mounted.
    pub target: TargetPath,
    /// What kubelet said.
    pub spec: VolumeSpec,
    /// What was agreed upon with the kernel.
    pub init: Negotiated,
    /// What is done while nobody serves; locked while the connection is being given to an agent.
    pub(crate) silence: tokio::sync::Mutex<Silence>,
    /// When sotto-node may be asked about its class again.
    pub(crate) may_ask: tokio::sync::Mutex<Instant>,
    /// Held while a process asks the mount for its health, until that process is gone.
    pub(crate) health: Arc<tokio::sync::Mutex<()>>,
    /// Held while a helper makes the file-system operations of a rotation: one at a time.
    pub(crate) operations: Arc<tokio::sync::Mutex<()>>,
    state: Mutex<State>,
    is_ending: watch::Sender<bool>,
    is_nudged: AtomicBool,
}

/// A volume is being unpublished: nothing may keep its turn. Dropped, that is over.
#[derive(Debug)]
pub(crate) struct Ending(Arc<Volume>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.is_ending.send_replace(false);
    }
}

#[derive(Default)]
struct State {
    connection: Option<Arc<OwnedFd>>,
    credentials: Option<Arc<Credentials>>,
    /// What the pod's sidecar is to serve, and when sotto-node said so.
    assignment: Option<(Instant, Assignment)>,
    server: Option<Agent>,
    objects: usize,
    shown: Shown,
    /// What was shown before, and until when; the oldest first.
    older: VecDeque<(Instant, Shown)>,
    /// What an agent wants to turn to, or wanted: the mount may show it.
    wanted: Option<Shown>,
    /// The highest number that was wanted.
    last: u64,
    trouble: Option<String>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("server", &self.server).finish_non_exhaustive()
    }
}

impl Volume {
    /// A volume that nobody serves yet. `connection` is its FUSE connection; `None` if an earlier driver
    /// process mounted it and took its fd along.
    #[must_use]
    pub fn new(
        id: VolumeId,
        target: TargetPath,
        spec: VolumeSpec,
        init: Negotiated,
        connection: Option<OwnedFd>,
    ) -> Self {
        let state = State { connection: connection.map(Arc::new), ..State::default() };
        Self {
            id,
            target,
            spec,
            init,
            silence: tokio::sync::Mutex::default(),
            may_ask: tokio::sync::Mutex::new(Instant::now()),
            health: Arc::default(),
            operations: Arc::default(),
            state: Mutex::new(state),
            is_ending: watch::Sender::new(false),
            is_nudged: AtomicBool::new(false),
        }
    }

    /// The FUSE connection, if this process holds it.
    #[must_use]
    pub fn connection(&self) -> Option<Arc<OwnedFd>> {
        self.with(|state| state.connection.clone())
    }

    /// Holds this device of the volume's connection from now on, in the place of another one if need be.
    pub(crate) fn hold(&self, connection: OwnedFd) {
        self.with(|state| state.connection = Some(Arc::new(connection)));
    }

    /// Whether this process holds the connection.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.with(|state| state.connection.is_some())
    }

    /// Whether this process holds the connection, and nobody serves it.
    #[must_use]
    pub fn needs_agent(&self) -> bool {
        self.is_held() && self.server().is_none()
    }

    /// Begins the volume's end: whoever works on it gives up.
    pub(crate) fn ending(self: &Arc<Self>) -> Ending {
        self.is_ending.send_replace(true);
        Ending(Arc::clone(self))
    }

    /// Waits for the volume's end to begin.
    pub(crate) async fn ends(&self) {
        // The sender is ours: it lives.
        let _ = self.is_ending.subscribe().wait_for(|ending| *ending).await;
    }

    /// Whoever looks for its next server is not to wait any longer.
    pub(crate) fn nudge(&self) {
        self.is_nudged.store(true, Ordering::Release);
    }

    /// Whether it was nudged since this was last asked.
    pub(crate) fn take_nudge(&self) -> bool {
        self.is_nudged.swap(false, Ordering::AcqRel)
    }

    /// Keeps the freshest credentials; the older ones are wiped.
    pub fn keep_credentials(&self, credentials: Credentials) {
        self.nudge();
        self.with(|state| state.credentials = Some(Arc::new(credentials)));
    }

    /// The freshest credentials.
    #[must_use]
    pub fn credentials(&self) -> Option<Arc<Credentials>> {
        self.with(|state| state.credentials.clone())
    }

    /// Keeps what the pod's sidecar is to serve.
    pub(crate) fn keep_assignment(&self, assignment: Assignment) {
        self.with(|state| state.assignment = Some((Instant::now(), assignment)));
    }

    /// The pod's sidecar is to serve nothing, as far as is known.
    pub(crate) fn forget_assignment(&self) {
        self.with(|state| state.assignment = None);
    }

    /// What the pod's sidecar is to serve, and how long ago sotto-node said so.
    pub(crate) fn assignment(&self) -> Option<(Duration, Assignment)> {
        self.with(|state| {
            state.assignment.as_ref().map(|(since, said)| (since.elapsed(), said.clone()))
        })
    }

    /// Notes that `agent` serves, and how many objects where it said so.
    pub fn served_by(&self, agent: Agent, objects: Option<usize>) {
        self.with(|state| {
            state.server = Some(agent);
            state.objects = objects.unwrap_or(state.objects);
            state.trouble = None;
        });
    }

    /// Notes what the mount shows.
    pub fn shows(&self, shown: Shown) {
        self.with(|state| {
            if shown.generation >= state.shown.generation {
                state.wanted.take_if(|wanted| wanted.generation <= shown.generation);
                let before = std::mem::replace(&mut state.shown, shown);
                if before.generation != 0 && before.generation < state.shown.generation {
                    state.older.push_back((Instant::now() + GRACE, before));
                    let excess = state.older.len().saturating_sub(MOST_OLDER);
                    state.older.drain(..excess);
                }
            }
        });
    }

    /// Notes that an agent wants to turn to this generation. Until it is known whether it came to that, the mount
    /// may show the one or the other, and the number is used in any case.
    pub fn may_show(&self, wanted: Shown) {
        self.with(|state| {
            state.last = state.last.max(wanted.generation);
            if wanted.generation > state.shown.generation {
                state.wanted = Some(wanted);
            }
        });
    }

    /// The request to an agent that takes the mount over, but for the time that it has. `place` is where it is.
    #[must_use]
    pub fn prepare(&self, place: &Path, credentials: &Credentials) -> Prepare {
        let (shown, wanted, last, older) = self.with(|state| {
            state.older.retain(|(until, _)| *until > Instant::now());
            let older: Vec<_> = state.older.iter().map(|(_, it)| it.clone().into()).collect();
            (state.shown.clone(), state.wanted.clone(), state.last, older)
        });
        let Shown { generation, layout, content, objects } = shown;
        let (last_generation, wanted) = (generation.max(last), wanted.map(Into::into));
        let known = Prepare {
            generation,
            layout,
            content,
            objects,
            last_generation,
            wanted,
            older,
            ..Prepare::default()
        };
        self.spec.prepare(&self.id, place, credentials, known)
    }

    /// Notes that the agent doesn't know the volume.
    pub fn not_served(&self) {
        self.with(|state| state.server = None);
    }

    /// Notes what kubelet is told when it asks for the volume's condition; `None`: all is well.
    pub fn set_trouble(&self, trouble: Option<String>) {
        self.with(|state| state.trouble = trouble);
    }

    /// What is wrong, if anything.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.with(|state| state.trouble.clone())
    }

    /// The agent that serves, if it answers.
    #[must_use]
    pub fn server(&self) -> Option<Agent> {
        self.with(|state| state.server.clone()).filter(Agent::answers)
    }

    /// Whether this link's agent was the last to serve.
    pub(crate) fn is_served_by(&self, agent: &Agent) -> bool {
        self.with(|state| state.server.as_ref().is_some_and(|server| server.is(agent)))
    }

    /// Whether the agent that serves is linked and doesn't answer: it holds the connection, and will go on.
    pub(crate) fn is_kept_by_silent(&self) -> bool {
        let kept = |server: &Agent| server.is_live() && !server.answers();
        self.with(|state| state.server.as_ref().is_some_and(kept))
    }

    /// The instance that served last, alive or not.
    #[must_use]
    pub fn last_instance(&self) -> Option<Arc<str>> {
        self.with(|state| state.server.as_ref().map(Agent::instance))
    }

    /// How many objects the agent holds.
    #[must_use]
    pub fn objects(&self) -> usize {
        self.with(|state| state.objects)
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
