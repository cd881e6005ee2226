//! What all calls share, and how they work with the file system.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sotto_runtime::drain::Drain;
use sotto_runtime::metrics::{self, DriverMetrics, Sample};
use sotto_runtime::tidy::Tidy;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::Instant;

use crate::broker::{Agent, Broker};
use crate::journal::Journal;
use crate::settings::Settings;
use crate::sidecar::Pods;
use crate::target::KubeletDir;
use crate::volume::{Mode, Volume};
use crate::volumes::Volumes;

/// Longest time that a group of file-system calls may take: a disk that doesn't answer.
const FILE_SYSTEM_DEADLINE: Duration = Duration::from_secs(20);

/// Helper processes at one time, those that hang included.
const MAX_HELPERS: usize = 16;

/// The driver's state, shared by its services and tasks.
#[derive(Debug)]
pub struct Driver {
    /// What the administrator said.
    pub settings: Settings,
    /// Where targets lie.
    pub kubelet: Arc<KubeletDir>,
    /// What is mounted.
    pub volumes: Volumes,
    /// What survives this process.
    pub journal: Arc<Journal>,
    /// Who serves.
    pub broker: Broker,
    /// Pods with a sidecar of their own.
    pub pods: Pods,
    /// Owner of the calls at work, which end before anything else does.
    pub calls: Drain,
    /// Owner of every other task.
    pub drain: Drain,
    /// For the take-over: a volume needs an agent.
    pub(crate) unserved: Notify,
    /// For those who wait on a volume: it may have lost its agent, or have one.
    pub(crate) silent: Notify,
    /// How many volumes had no agent when it was last looked at.
    pub(crate) unserved_count: watch::Sender<usize>,
    /// Places for helper processes; one that hangs keeps its own. Sidecars, which tenants run, take none of
    /// sotto-node's.
    helpers: [Arc<Semaphore>; 2],
    /// Places for processes that ask mounts for their health.
    pub(crate) askers: Arc<Semaphore>,
    /// What is counted.
    pub metrics: DriverMetrics,
    /// Who is told of volumes that came and went: their requests leave free memory.
    pub(crate) tidy: Tidy,
    leaving: AtomicBool,
    started: Instant,
}

impl Driver {
    /// A driver with no volume.
    #[must_use]
    pub fn new(settings: Settings, kubelet: KubeletDir, journal: Journal) -> Self {
        Self {
            settings,
            kubelet: Arc::new(kubelet),
            volumes: Volumes::default(),
            journal: Arc::new(journal),
            broker: Broker::default(),
            pods: Pods::default(),
            calls: Drain::new(),
            drain: Drain::new(),
            unserved: Notify::new(),
            silent: Notify::new(),
            unserved_count: watch::Sender::new(0),
            helpers: std::array::from_fn(|_| Arc::new(Semaphore::new(MAX_HELPERS))),
            askers: Arc::new(Semaphore::new(MAX_HELPERS)),
            metrics: DriverMetrics::default(),
            tidy: Tidy::default(),
            leaving: AtomicBool::new(false),
            started: Instant::now(),
        }
    }

    /// A volume may have lost its agent.
    pub fn look_for_agents(&self) {
        self.unserved.notify_one();
        self.silent.notify_one();
    }

    /// Places for the helper processes of volumes that are served so.
    pub(crate) fn helpers_of(&self, mode: Mode) -> &Arc<Semaphore> {
        match mode {
            Mode::Node => &self.helpers[0],
            Mode::Sidecar => &self.helpers[1],
        }
    }

    /// Who may be given the volume now.
    #[must_use]
    pub fn agent_for(&self, volume: &Volume) -> Option<Agent> {
        match volume.spec.mode {
            Mode::Node => self.broker.current(),
            Mode::Sidecar => self.pods.current(&volume.spec.identity.pod_uid),
        }
    }

    /// Who may have the volume's connection.
    #[must_use]
    pub fn agents_of(&self, volume: &Volume) -> Vec<Agent> {
        match volume.spec.mode {
            Mode::Node => self.broker.live(),
            Mode::Sidecar => self.pods.linked(&volume.spec.identity.pod_uid).into_iter().collect(),
        }
    }

    /// Whether each volume of an earlier process has its connection back, or the time for that is over: a
    /// dead mount's never comes.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.started.elapsed() >= self.settings.return_patience
            || self.volumes.all().iter().all(|volume| volume.is_held())
    }

    /// The metrics as text.
    #[must_use]
    pub fn scrape(&self) -> String {
        let volumes = self.volumes.all();
        let unserved = volumes.iter().filter(|volume| volume.needs_agent()).count();
        let gauge = |name, help, label, value: usize| Sample {
            name,
            help,
            label,
            read: Box::new(move || value as f64),
        };
        let help = "Mounted volumes";
        let served = volumes.len() - unserved;
        let limit = self.settings.max_volumes;
        metrics::text(&self.metrics.registry(vec![
            gauge("volumes", help, Some(("state", "served")), served),
            gauge("volumes", help, Some(("state", "unserved")), unserved),
            gauge("volumes_limit", "Most volumes at one time", None, limit),
        ]))
    }

    /// From now on nothing new is mounted.
    pub fn leave(&self) {
        self.leaving.store(true, Ordering::Relaxed);
    }

    /// Whether the process is about to end.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Relaxed)
    }
}

/// Makes file-system calls on a thread that may block. Their effects happen even if the caller goes away
/// or the deadline passes.
///
/// # Errors
/// The calls' own, or that they took too long.
pub(crate) async fn blocking<T, E>(
    calls: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, E>
where
    T: Send + 'static,
    E: From<io::Error> + Send + 'static,
{
    let done = tokio::task::spawn_blocking(calls);
    match tokio::time::timeout(FILE_SYSTEM_DEADLINE, done).await {
        Ok(Ok(result)) => result,
        Ok(Err(error)) => Err(io::Error::other(error).into()),
        Err(_) => {
            let what = "the file system did not answer within 20 s";
            Err(io::Error::new(io::ErrorKind::TimedOut, what).into())
        }
    }
}
