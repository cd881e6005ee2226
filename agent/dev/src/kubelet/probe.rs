//! What kubelet asks about a driver and its volumes without changing anything.

use sotto_proto::csi::v1::identity_client::IdentityClient;
use sotto_proto::csi::v1::{NodeGetVolumeStatsRequest, NodeGetVolumeStatsResponse, ProbeRequest};

use super::error::refused;
use super::{CsiVolume, Kubelet, KubeletError, Pod, channel, deadline, volume_id};

impl Kubelet {
    /// Whether the driver answers Probe with ready.
    pub async fn driver_is_ready(&self) -> bool {
        let Ok(channel) = channel::connect(&self.socket()).await else { return false };
        let probe = IdentityClient::new(channel).probe(deadline(ProbeRequest {})).await;
        probe.is_ok_and(|answer| answer.into_inner().ready.unwrap_or(true))
    }

    /// Asks for a volume's usage and condition, as kubelet does about every minute.
    ///
    /// # Errors
    /// The driver's answer.
    pub async fn stats(
        &self,
        pod: &Pod,
        volume: &CsiVolume,
    ) -> Result<NodeGetVolumeStatsResponse, KubeletError> {
        let request = NodeGetVolumeStatsRequest {
            volume_id: volume_id(pod, volume),
            volume_path: self.target(pod, volume).display().to_string(),
            staging_target_path: String::new(),
        };
        let answer = self.node_of(volume).await?.node_get_volume_stats(deadline(request)).await;
        Ok(answer.map_err(refused)?.into_inner())
    }
}
