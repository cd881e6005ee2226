//! Wiring: what is started in which order, and how the process leaves.
//!
//! Order: the run directory, the journal and the mount table first; then the agents' socket; then CSI; and
//! only when that answers, the registration by which kubelet begins to call.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sotto_handoff::socket::Listener;
use sotto_runtime::drain::DrainTimeout;

use crate::driver::{Driver, blocking};
use crate::journal::Journal;
use crate::registration::{Registration, socket_path};
use crate::run_dir::{self, RunDirError};
use crate::services::Services;
use crate::settings::Settings;
use crate::socket::{self, SocketName};
use crate::target::KubeletDir;
use crate::volume::{Mode, Volume};
use crate::{broker, reconcile, sidecar, takeover, unserved};

/// The agents' socket in the run directory.
const AGENT_SOCKET: &str = "node.sock";
const AGENT_SOCKET_MODE: u32 = 0o660;
/// On SIGTERM: until the calls at work have ended. Then, for `--hand-over-deadline`, until each volume has an
/// agent that holds its connection too. With the last step that is less than the 60 s of grace that the
/// manifests give.
const CALLS_DEADLINE: Duration = Duration::from_secs(25);
/// Volumes that are named in the log when they are lost.
const MOST_TOLD: usize = 1_000;
/// Between two looks at who is unserved.
const HAND_OVER_LOOK: Duration = Duration::from_millis(100);
/// At the end: until the links and the sockets have ended.
const DRAIN_DEADLINE: Duration = Duration::from_secs(10);

/// Why the driver can't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The run directory.
    #[error(transparent)]
    RunDir(#[from] RunDirError),
    /// The kubelet directory.
    #[error("the kubelet directory {0} can't be opened (--kubelet-dir)")]
    KubeletDir(PathBuf, #[source] io::Error),
    /// The journal or the mount table.
    #[error("the journal can't be brought into line with the mounts")]
    Reconcile(#[source] io::Error),
    /// A socket.
    #[error("no socket can be made at {0}")]
    Socket(PathBuf, #[source] io::Error),
}

impl StartError {
    /// Whether another command line would help.
    #[must_use]
    pub fn is_configuration(&self) -> bool {
        match self {
            Self::RunDir(_) | Self::KubeletDir(..) => true,
            Self::Reconcile(_) | Self::Socket(..) => false,
        }
    }
}

/// A running driver.
#[derive(Debug)]
pub struct App {
    driver: Arc<Driver>,
    registrations: Vec<SocketName>,
    /// Removed last: kubelet's calls fail on an absent socket sooner than on a silent one.
    _endpoints: Vec<SocketName>,
}

impl App {
    /// Starts everything; when it returns, kubelet and agents can connect.
    ///
    /// # Errors
    /// What is in the way.
    pub async fn start(settings: Settings) -> Result<Self, StartError> {
        run_dir::prepare(&settings.run_dir, settings.development)?;
        let kubelet = KubeletDir::open(&settings.kubelet_dir)
            .map_err(|error| StartError::KubeletDir(settings.kubelet_dir.clone(), error))?;
        let journal = Journal::open(&settings.run_dir).map_err(StartError::Reconcile)?;
        let driver = Arc::new(Driver::new(settings, kubelet, journal));
        let at_start = Arc::clone(&driver);
        blocking(move || reconcile::reconcile(&at_start)).await.map_err(StartError::Reconcile)?;

        let listener = agents_listener(&driver.settings)?;
        driver.drain.spawn(broker::serve(Arc::clone(&driver), listener));
        driver.drain.spawn(driver.tidy.clone().run(driver.drain.clone()));
        driver.drain.spawn(takeover::run(Arc::clone(&driver)));
        driver.drain.spawn(unserved::run(Arc::clone(&driver)));
        if driver.settings.sidecar.is_some() {
            sidecar::resume(&driver).await.map_err(StartError::Reconcile)?;
        }
        let (mut endpoints, mut registrations) = (Vec::new(), Vec::new());
        let plugins = plugins(&driver.settings);
        for plugin in &plugins {
            endpoints.push(serve(&driver, &plugin.endpoint, csi_services(&driver, plugin))?);
        }
        if let Some(directory) = driver.settings.registration_dir.clone() {
            for plugin in &plugins {
                let path = socket_path(&directory, &plugin.name);
                let services = csi_services(&driver, plugin);
                let services = services.with_registration(Registration::new(&plugin.name));
                registrations.push(serve(&driver, &path, services)?);
            }
        }
        let volumes = driver.volumes.count();
        tracing::info!(volumes, driver = driver.settings.driver_name, "ready");
        Ok(Self { driver, registrations, _endpoints: endpoints })
    }

    /// The driver's state.
    #[must_use]
    pub fn driver(&self) -> &Arc<Driver> {
        &self.driver
    }

    /// Ends in order: kubelet is told, calls at work end, volumes get another holder. Mounts stay.
    ///
    /// # Errors
    /// Calls or links that had not ended at their deadline.
    pub async fn leave(mut self) -> Result<(), DrainTimeout> {
        self.driver.leave();
        self.registrations.clear();
        let calls = self.driver.calls.finish(CALLS_DEADLINE).await;
        let mut passes = self.driver.unserved_count.subscribe();
        let handed_over = async {
            // The count of the last pass may be older than the end of an agent: ask the volumes themselves.
            while !takeover::unserved(&self.driver).is_empty() {
                let _ = tokio::time::timeout(HAND_OVER_LOOK, passes.changed()).await;
            }
        };
        let deadline = self.driver.settings.hand_over_deadline;
        if tokio::time::timeout(deadline, handed_over).await.is_err() {
            // What a silent agent holds isn't lost.
            let mut lost = takeover::unserved(&self.driver);
            lost.retain(|volume| !volume.is_kept_by_silent());
            tell_of_lost(&lost);
        }
        self.driver.drain.finish(DRAIN_DEADLINE).await.and(calls)
    }
}

/// Volumes that nobody else holds when this process ends.
fn tell_of_lost(volumes: &[Arc<Volume>]) {
    for volume in volumes.iter().take(MOST_TOLD) {
        tracing::error!(
            volume = %volume.id,
            pod = %volume.spec.identity,
            "{} doesn't serve the volume: its mount ends with this process, and its pod must be restarted",
            volume.spec.mode.server()
        );
    }
    if !volumes.is_empty() {
        tracing::error!(volumes = volumes.len(), "volumes are lost");
    }
}

fn agents_listener(settings: &Settings) -> Result<Listener, StartError> {
    let path = settings.run_dir.join(AGENT_SOCKET);
    let owner = (rustix::process::geteuid().as_raw(), settings.agent_gid);
    sotto_handoff::socket::listen(&path, AGENT_SOCKET_MODE, Some(owner))
        .map_err(|error| StartError::Socket(path, error))
}

/// One of the CSI drivers that this process is to kubelet.
struct Plugin {
    name: String,
    endpoint: PathBuf,
    mode: Mode,
}

fn plugins(settings: &Settings) -> Vec<Plugin> {
    let (name, endpoint) = (settings.driver_name.clone(), settings.endpoint.clone());
    let node = Plugin { name, endpoint, mode: Mode::Node };
    let sidecar = settings.sidecar.clone().map(|sidecar| Plugin {
        name: sidecar.name,
        endpoint: sidecar.endpoint,
        mode: Mode::Sidecar,
    });
    [node].into_iter().chain(sidecar).collect()
}

fn csi_services(driver: &Arc<Driver>, plugin: &Plugin) -> Services {
    Services::new(driver, &plugin.name, plugin.mode)
}

fn serve(driver: &Arc<Driver>, path: &Path, services: Services) -> Result<SocketName, StartError> {
    let (listener, name) =
        socket::listen(path).map_err(|error| StartError::Socket(path.to_owned(), error))?;
    let own_uid = rustix::process::geteuid().as_raw();
    let connections = Box::pin(socket::connections_of(listener, own_uid));
    driver.drain.spawn(services.serve(connections, driver.drain.clone()));
    Ok(name)
}
