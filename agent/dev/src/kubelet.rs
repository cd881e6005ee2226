//! A kubelet's part: the one kit that publishes and unpublishes volumes, for the demo and all tests.
//!
//! It does what a kubelet 1.36 was seen to do (`facts/kubelet-csi.md`): makes the target's parent and not
//! the target, sends pod information and tokens, publishes two or three times at a pod's start and then
//! again and again, refreshes tokens at 80 % of their life, retries with backoff, unpublishes.

mod calls;
mod channel;
mod clock;
mod directories;
mod error;
mod manifest;
mod probe;
mod registration;
mod request;
mod restart;
mod settings;
mod tokens;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sotto_core::clock::Clock;
use sotto_proto::csi::v1::node_client::NodeClient;
use sotto_proto::csi::v1::{NodePublishVolumeRequest, NodeUnpublishVolumeRequest};
use tokio::time::Instant;

pub use calls::{Call, CallKind};
pub use clock::HandClock;
pub use error::KubeletError;
pub use manifest::{CsiDriver, CsiVolume, ManifestError, Pod, TokenPlace};
pub use registration::Registered;
pub use request::volume_id;
pub use settings::KubeletSettings;
pub use tokens::Mint;

use crate::random;
use calls::Calls;
use directories::Directories;
use error::{in_directory, refused};
use tokens::Tokens;

/// kubelet's deadline for a call to a driver.
const CALL_DEADLINE: Duration = Duration::from_secs(120);
const FIRST_BACKOFF: Duration = Duration::from_millis(500);
const LONGEST_BACKOFF: Duration = Duration::from_secs(32);
/// Publishes at a pod's start, the first included.
const PUBLISHES_AT_START: usize = 3;

/// One node's kubelet.
pub struct Kubelet {
    settings: KubeletSettings,
    /// The CSIDriver object as it is now.
    driver: Mutex<CsiDriver>,
    tokens: Tokens,
    registered: Mutex<Option<Registered>>,
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
            driver: Mutex::new(settings.driver.clone()),
            settings,
            tokens,
            registered: Mutex::default(),
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

    /// Waits for the driver's registration socket and registers the driver.
    ///
    /// # Errors
    /// Nobody answers within `deadline`, or what answers isn't the driver.
    pub async fn register(&self, deadline: Duration) -> Result<Registered, KubeletError> {
        let name = &self.driver().name;
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
        let late = |_| KubeletError::NotRegistered(format!("no answer within {deadline:?}"));
        let registered = answer.map_err(late)??;
        *self.registered.lock().unwrap_or_else(PoisonError::into_inner) = Some(registered.clone());
        Ok(registered)
    }

    /// The CSIDriver object was changed in the cluster: requests are built from this one from now on.
    pub fn apply(&self, driver: CsiDriver) {
        *self.driver.lock().unwrap_or_else(PoisonError::into_inner) = driver;
    }

    fn driver(&self) -> CsiDriver {
        self.driver.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn registered(&self) -> Option<Registered> {
        self.registered.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn socket(&self) -> PathBuf {
        self.registered().map_or_else(|| self.settings.socket.clone(), |driver| driver.socket)
    }

    /// Where a volume of a pod is mounted.
    #[must_use]
    pub fn target(&self, pod: &Pod, volume: &CsiVolume) -> PathBuf {
        Directories::new(&self.settings.directory, pod, volume).target()
    }

    /// From now on tokens say what the function makes of them, e.g. another node or audience.
    pub fn mint_with(&self, mint: Arc<Mint>) {
        self.tokens.mint_with(mint);
    }

    /// From now on tokens are issued and refreshed by this clock.
    pub fn use_clock(&self, clock: Arc<dyn Clock>) {
        self.tokens.use_clock(clock);
    }

    /// The next request for a volume, for a test to change and to send by [`Self::send`].
    #[must_use]
    pub fn request(&self, pod: &Pod, volume: &CsiVolume) -> NodePublishVolumeRequest {
        let driver = &self.driver();
        let in_secrets = match driver.tokens {
            TokenPlace::Secrets => true,
            TokenPlace::VolumeContext => false,
            TokenPlace::Moving => self.publishes.load(Ordering::Relaxed) % 2 == 1,
        };
        let target = self.target(pod, volume).display().to_string();
        let tokens = self.tokens.of(pod, driver);
        let mut request = request::publish(pod, volume, driver, target, tokens, in_secrets);
        if self.registered().is_some_and(|driver| !driver.mount_group) {
            request::without_group(&mut request);
        }
        request
    }

    /// Sends a request as it stands; makes no directory.
    ///
    /// # Errors
    /// The driver's answer.
    pub async fn send(&self, request: NodePublishVolumeRequest) -> Result<(), KubeletError> {
        self.publishes.fetch_add(1, Ordering::Relaxed);
        let (call, sent) = (calls::publish(&request), Instant::now());
        let answer = async {
            let answer = self.node().await?.node_publish_volume(deadline(request)).await;
            answer.map(drop).map_err(refused)
        };
        let answer = answer.await;
        self.calls.record(call, sent, &answer);
        answer
    }

    /// Publishes a volume once, as at a pod's start: directories, request, and on a final refusal the
    /// directories away again.
    ///
    /// # Errors
    /// Why it isn't mounted.
    pub async fn publish(&self, pod: &Pod, volume: &CsiVolume) -> Result<PathBuf, KubeletError> {
        self.driver().takes(volume)?;
        let directories = Directories::new(&self.settings.directory, pod, volume);
        directories.create(&self.settings.node_name, pod, volume).map_err(in_directory)?;
        let published = self.send(self.request(pod, volume)).await;
        let id = volume_id(pod, volume);
        match published {
            Ok(()) => {
                self.to_unpublish().insert(id);
                Ok(directories.target())
            }
            Err(error) if error.is_uncertain() => {
                self.to_unpublish().insert(id);
                Err(error)
            }
            Err(error) => {
                if directories.has_target().map_err(in_directory)? {
                    return Err(KubeletError::TargetLeft(directories.target()));
                }
                directories.remove().map_err(in_directory)?;
                Err(error)
            }
        }
    }

    /// Publishes a mounted volume again; an error changes nothing here (kubernetes#121271 is not repeated).
    ///
    /// # Errors
    /// The driver's answer.
    pub async fn republish(&self, pod: &Pod, volume: &CsiVolume) -> Result<(), KubeletError> {
        self.send(self.request(pod, volume)).await
    }

    /// Starts a pod: publishes all its volumes, with backoff until `patience` is over, then once or twice
    /// more. Returns the targets.
    ///
    /// # Errors
    /// The last error of the volume that could not be mounted.
    pub async fn start(&self, pod: &Pod, patience: Duration) -> Result<Vec<PathBuf>, KubeletError> {
        let mut targets = Vec::new();
        for volume in &pod.volumes {
            targets.push(self.publish_patiently(pod, volume, patience).await?);
        }
        for _ in 1..PUBLISHES_AT_START {
            self.sync(pod).await?;
        }
        Ok(targets)
    }

    async fn publish_patiently(
        &self,
        pod: &Pod,
        volume: &CsiVolume,
        patience: Duration,
    ) -> Result<PathBuf, KubeletError> {
        let give_up = Instant::now() + patience;
        let mut backoff = FIRST_BACKOFF;
        loop {
            match self.publish(pod, volume).await {
                Ok(target) => return Ok(target),
                Err(error) if Instant::now() + backoff > give_up => return Err(error),
                Err(error) => {
                    tracing::debug!(volume = volume.name, %error, "a publish is tried again");
                    tokio::time::sleep(backoff).await;
                    backoff = (backoff * 2).min(LONGEST_BACKOFF);
                }
            }
        }
    }

    /// Republishes every volume of a pod: what kubelet does every `syncFrequency`, if the CSIDriver object
    /// asks for it.
    ///
    /// # Errors
    /// The first error.
    pub async fn sync(&self, pod: &Pod) -> Result<(), KubeletError> {
        if self.driver().requires_republish {
            for volume in &pod.volumes {
                self.republish(pod, volume).await?;
            }
        }
        Ok(())
    }

    /// Republishes for ever; to be raced with whatever the caller waits for. Errors are logged.
    pub async fn sync_every(&self, pod: &Pod, frequency: Duration) {
        let mut ticks = tokio::time::interval(frequency);
        ticks.tick().await;
        loop {
            ticks.tick().await;
            if let Err(error) = self.sync(pod).await {
                tracing::warn!(pod = pod.name, %error, "a republish failed");
            }
        }
    }

    /// Unpublishes one volume and removes its directories; does nothing for what was refused for good.
    ///
    /// # Errors
    /// The driver refuses, or leaves its directory behind.
    pub async fn unpublish(&self, pod: &Pod, volume: &CsiVolume) -> Result<(), KubeletError> {
        let id = volume_id(pod, volume);
        let directories = Directories::new(&self.settings.directory, pod, volume);
        if !self.to_unpublish().contains(&id) {
            return Ok(());
        }
        self.send_unpublish(&id, &directories.target().display().to_string()).await?;
        if directories.has_target().map_err(in_directory)? {
            return Err(KubeletError::TargetLeft(directories.target()));
        }
        directories.remove().map_err(in_directory)?;
        self.to_unpublish().remove(&id);
        Ok(())
    }

    /// Sends NodeUnpublishVolume as it stands.
    ///
    /// # Errors
    /// The driver's answer.
    pub async fn send_unpublish(&self, id: &str, target_path: &str) -> Result<(), KubeletError> {
        let request = NodeUnpublishVolumeRequest {
            volume_id: id.to_owned(),
            target_path: target_path.to_owned(),
        };
        let sent = Instant::now();
        let answer = async {
            let answer = self.node().await?.node_unpublish_volume(deadline(request)).await;
            answer.map(drop).map_err(refused)
        };
        let answer = answer.await;
        self.calls.record((CallKind::Unpublish, id.to_owned()), sent, &answer);
        answer
    }

    /// Ends a pod: unpublishes its volumes.
    ///
    /// # Errors
    /// The first error; the rest of the volumes were tried as well.
    pub async fn stop(&self, pod: &Pod) -> Result<(), KubeletError> {
        let mut result = Ok(());
        for volume in &pod.volumes {
            let ended = self.unpublish(pod, volume).await;
            result = result.and(ended);
        }
        result
    }

    /// A client of the driver's Node service, for calls that the kit doesn't make.
    ///
    /// # Errors
    /// Nobody listens.
    pub async fn node(&self) -> Result<NodeClient<tonic::transport::Channel>, KubeletError> {
        let channel = channel::connect(&self.socket()).await;
        channel.map(NodeClient::new).map_err(|_| KubeletError::Unreachable)
    }

    fn to_unpublish(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.to_unpublish.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn deadline<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(CALL_DEADLINE);
    request
}

#[cfg(test)]
mod tests;
