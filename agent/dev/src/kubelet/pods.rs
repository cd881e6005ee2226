//! A pod's volumes: all of them at once, as kubelet's reconciler does, with backoff.

use std::path::PathBuf;
use std::time::Duration;

use futures::future::join_all;
use tokio::time::Instant;

use super::{CsiVolume, Kubelet, KubeletError, Pod};

const FIRST_BACKOFF: Duration = Duration::from_millis(500);
const LONGEST_BACKOFF: Duration = Duration::from_secs(32);
/// Publishes at a pod's start, the first included, where the CSIDriver object asks for republishes.
const PUBLISHES_AT_START: usize = 3;

impl Kubelet {
    /// Starts a pod: publishes all its volumes at the same time, with backoff until `patience` is over, then once
    /// or twice more. Returns the targets, in the order of the volumes.
    ///
    /// # Errors
    /// The last error of the first volume that could not be mounted.
    pub async fn start(&self, pod: &Pod, patience: Duration) -> Result<Vec<PathBuf>, KubeletError> {
        let publishes = pod.volumes.iter().map(|it| self.publish_patiently(pod, it, patience));
        let targets: Result<Vec<_>, _> = join_all(publishes).await.into_iter().collect();
        for _ in 1..PUBLISHES_AT_START {
            self.sync(pod).await?;
        }
        targets
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

    /// Republishes every volume of a pod whose CSIDriver object asks for it: what kubelet does every
    /// `syncFrequency`.
    ///
    /// # Errors
    /// The first error.
    pub async fn sync(&self, pod: &Pod) -> Result<(), KubeletError> {
        for volume in &pod.volumes {
            if self.plugins.of(volume).0.requires_republish {
                self.republish(pod, volume).await?;
            }
        }
        Ok(())
    }

    /// What a kubelet that was restarted does with a pod: it publishes every volume again, whatever the CSIDriver
    /// object says, at the same time.
    ///
    /// # Errors
    /// The first error.
    pub async fn reconstruct(&self, pod: &Pod) -> Result<(), KubeletError> {
        join_all(pod.volumes.iter().map(|it| self.republish(pod, it))).await.into_iter().collect()
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

    /// Ends a pod: unpublishes its volumes, all at the same time.
    ///
    /// # Errors
    /// The first error; the rest of the volumes were tried as well.
    pub async fn stop(&self, pod: &Pod) -> Result<(), KubeletError> {
        join_all(pod.volumes.iter().map(|it| self.unpublish(pod, it))).await.into_iter().collect()
    }
}
