//! A kubelet's part: the one kit that publishes and unpublishes volumes, for the demo and all tests.
//!
//! It does what a kubelet 1.36 was seen to do (`facts/kubelet-csi.md`): makes the target's parent and not
//! the target, sends pod information and, to the drivers whose CSIDriver object asks for them, tokens; publishes
//! two or three times at a pod's start and then again and again, refreshes tokens at 80 % of their life, retries
//! with backoff, unpublishes. A pod's volumes are published and unpublished at the same time.

mod calls;
mod channel;
mod clock;
mod directories;
mod error;
mod manifest;
mod plugins;
mod pods;
mod probe;
mod publish;
mod registration;
mod request;
mod restart;
mod settings;
mod tokens;
mod unnamed_host;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sotto_core::clock::Clock;
use sotto_proto::csi::v1::node_client::NodeClient;

pub use calls::{Call, CallKind};
pub use clock::HandClock;
pub use error::KubeletError;
pub use manifest::{
    CsiDriver, CsiVolume, ManifestError, Mount, Pod, ProjectedToken, Sidecar, TokenPlace,
};
pub use registration::Registered;
pub use request::volume_id;
pub use settings::KubeletSettings;
pub use tokens::Mint;

use crate::random;
use calls::Calls;
use directories::Directories;
use error::in_directory;
use plugins::Plugins;
use tokens::Tokens;

/// kubelet's deadline for a call to a driver.
const CALL_DEADLINE: Duration = Duration::from_secs(120);

/// One node's kubelet.
pub struct Kubelet {
    settings: KubeletSettings,
    plugins: Plugins,
    tokens: Tokens,
    /// Volume ids that are mounted, or may be.
    to_unpublish: Mutex<BTreeSet<String>>,
    publishes: AtomicUsize,
    calls: Calls,
}

impl Kubelet {
    /// A kubelet without pods.
    #[must_use]
    pub fn new(settings: KubeletSettings) -> Self {
        let node = (settings.node_name.clone(), random::uuid());
        let tokens = Tokens::new(settings.issuer.clone(), Arc::clone(&settings.clock), node);
        Self {
            plugins: Plugins::new(settings.driver.clone(), settings.more_drivers.clone()),
            settings,
            tokens,
            to_unpublish: Mutex::default(),
            publishes: AtomicUsize::new(0),
            calls: Calls::default(),
        }
    }

    /// Where a driver's registration socket appears.
    #[must_use]
    pub fn registration_dir(&self) -> PathBuf {
        self.settings.directory.join("plugins_registry")
    }

    /// Waits for the registration socket of each driver and registers it. Returns what the first one said.
    ///
    /// # Errors
    /// Nobody answers within `deadline`, or what answers isn't the driver.
    pub async fn register(&self, deadline: Duration) -> Result<Registered, KubeletError> {
        let drivers = self.plugins.drivers();
        let answers = drivers.iter().map(|driver| self.register_one(&driver.name, deadline));
        let registered = futures::future::try_join_all(answers).await?;
        for (driver, registered) in drivers.iter().zip(&registered) {
            self.plugins.is_registered(&driver.name, registered.clone());
        }
        let nobody = || KubeletError::NotRegistered("there is no driver".to_owned());
        registered.into_iter().next().ok_or_else(nobody)
    }

    async fn register_one(
        &self,
        name: &str,
        deadline: Duration,
    ) -> Result<Registered, KubeletError> {
        let socket = self.registration_dir().join(format!("{name}-reg.sock"));
        let answer = async {
            loop {
                crate::wait::until(|| socket.exists()).await;
                match registration::register(&socket, name).await {
                    // The socket of a driver that was killed is still there.
                    Err(KubeletError::Unreachable) => tokio::task::yield_now().await,
                    answer => return answer,
                }
            }
        };
        let answer = tokio::time::timeout(deadline, answer).await;
        let late = format!("{name}: no answer within {deadline:?}");
        answer.map_err(|_| KubeletError::NotRegistered(late))?
    }

    /// A CSIDriver object was changed in the cluster: requests are built from this one from now on.
    pub fn apply(&self, driver: CsiDriver) {
        self.plugins.apply(driver);
    }

    /// Whether volumes of this driver are published here.
    #[must_use]
    pub fn has_driver(&self, name: &str) -> bool {
        self.plugins.has(name)
    }

    fn socket(&self) -> PathBuf {
        let registered = self.plugins.first_registered();
        registered.map_or_else(|| self.settings.socket.clone(), |driver| driver.socket)
    }

    fn socket_of(&self, volume: &CsiVolume) -> PathBuf {
        let (_, registered) = self.plugins.of(volume);
        registered.map_or_else(|| self.settings.socket.clone(), |driver| driver.socket)
    }

    /// Where a volume of a pod is mounted.
    #[must_use]
    pub fn target(&self, pod: &Pod, volume: &CsiVolume) -> PathBuf {
        Directories::new(&self.settings.directory, pod, volume).target()
    }

    /// Whether the driver's directory of a volume is there; an unserved mount is not touched.
    ///
    /// # Errors
    /// The directory above can't be listed.
    pub fn has_target(&self, pod: &Pod, volume: &CsiVolume) -> Result<bool, KubeletError> {
        Directories::new(&self.settings.directory, pod, volume).has_target().map_err(in_directory)
    }

    /// A token of a pod, as kubelet projects it into a container: the same one until 80 % of its life.
    #[must_use]
    pub fn token(&self, pod: &Pod, audience: &str, life: Duration) -> String {
        self.tokens.projected(pod, audience, life)
    }

    /// From now on tokens say what the function makes of them, e.g. another node or audience.
    pub fn mint_with(&self, mint: Arc<Mint>) {
        self.tokens.mint_with(mint);
    }

    /// From now on tokens are issued and refreshed by this clock.
    pub fn use_clock(&self, clock: Arc<dyn Clock>) {
        self.tokens.use_clock(clock);
    }

    /// A client of the first driver's Node service, for calls that the kit doesn't make.
    ///
    /// # Errors
    /// Nobody listens.
    pub async fn node(&self) -> Result<NodeClient<tonic::transport::Channel>, KubeletError> {
        client(&self.socket()).await
    }

    /// A client of the Node service of a volume's driver.
    ///
    /// # Errors
    /// Nobody listens.
    pub async fn node_of(
        &self,
        volume: &CsiVolume,
    ) -> Result<NodeClient<tonic::transport::Channel>, KubeletError> {
        client(&self.socket_of(volume)).await
    }

    fn to_unpublish(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.to_unpublish.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn client(socket: &Path) -> Result<NodeClient<tonic::transport::Channel>, KubeletError> {
    let channel = channel::connect(socket).await;
    channel.map(NodeClient::new).map_err(|_| KubeletError::Unreachable)
}

fn deadline<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(CALL_DEADLINE);
    request
}

#[cfg(test)]
mod tests;
