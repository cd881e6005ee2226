//! One volume: published, published again, unpublished.

use sotto_proto::csi::v1::{NodePublishVolumeRequest, NodeUnpublishVolumeRequest};
use tokio::time::Instant;

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use super::directories::Directories;
use super::error::{in_directory, refused};
use super::{
    CallKind, CsiVolume, Kubelet, KubeletError, Pod, TokenPlace, calls, client, deadline, request,
    volume_id,
};

impl Kubelet {
    /// The next request for a volume, for a test to change and to send by [`Self::send`].
    #[must_use]
    pub fn request(&self, pod: &Pod, volume: &CsiVolume) -> NodePublishVolumeRequest {
        let (driver, registered) = self.plugins.of(volume);
        let in_secrets = match driver.tokens {
            TokenPlace::Secrets => true,
            TokenPlace::VolumeContext => false,
            TokenPlace::Moving => self.publishes.load(Ordering::Relaxed) % 2 == 1,
        };
        let target = self.target(pod, volume).display().to_string();
        let tokens = self.tokens.of(pod, &driver);
        let mut request = request::publish(pod, volume, &driver, target, tokens, in_secrets);
        if registered.is_some_and(|driver| !driver.mount_group) {
            request::without_group(&mut request);
        }
        request
    }

    /// Sends a request as it stands to the first driver; makes no directory.
    ///
    /// # Errors
    /// The driver's answer.
    pub async fn send(&self, request: NodePublishVolumeRequest) -> Result<(), KubeletError> {
        self.send_by(&self.socket(), request).await
    }

    /// As [`Self::send`], to the driver of a volume.
    ///
    /// # Errors
    /// The driver's answer.
    pub async fn send_for(
        &self,
        volume: &CsiVolume,
        request: NodePublishVolumeRequest,
    ) -> Result<(), KubeletError> {
        self.send_by(&self.socket_of(volume), request).await
    }

    async fn send_by(
        &self,
        socket: &Path,
        request: NodePublishVolumeRequest,
    ) -> Result<(), KubeletError> {
        self.publishes.fetch_add(1, Ordering::Relaxed);
        let (call, sent) = (calls::publish(&request), Instant::now());
        let answer = async {
            let answer = client(socket).await?.node_publish_volume(deadline(request)).await;
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
        self.plugins.of(volume).0.takes(volume)?;
        let directories = Directories::new(&self.settings.directory, pod, volume);
        directories.create(&self.settings.node_name, pod, volume).map_err(in_directory)?;
        let published = self.send_for(volume, self.request(pod, volume)).await;
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
        self.send_for(volume, self.request(pod, volume)).await
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
        let target = directories.target().display().to_string();
        self.unpublish_by(&self.socket_of(volume), &id, &target).await?;
        if directories.has_target().map_err(in_directory)? {
            return Err(KubeletError::TargetLeft(directories.target()));
        }
        directories.remove().map_err(in_directory)?;
        self.to_unpublish().remove(&id);
        Ok(())
    }

    /// Sends NodeUnpublishVolume as it stands to the first driver.
    ///
    /// # Errors
    /// The driver's answer.
    pub async fn send_unpublish(&self, id: &str, target_path: &str) -> Result<(), KubeletError> {
        self.unpublish_by(&self.socket(), id, target_path).await
    }

    async fn unpublish_by(
        &self,
        socket: &Path,
        id: &str,
        target_path: &str,
    ) -> Result<(), KubeletError> {
        let request = NodeUnpublishVolumeRequest {
            volume_id: id.to_owned(),
            target_path: target_path.to_owned(),
        };
        let sent = Instant::now();
        let answer = async {
            let answer = client(socket).await?.node_unpublish_volume(deadline(request)).await;
            answer.map(drop).map_err(refused)
        };
        let answer = answer.await;
        self.calls.record((CallKind::Unpublish, id.to_owned()), sent, &answer);
        answer
    }
}
