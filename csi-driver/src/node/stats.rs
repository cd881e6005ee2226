//! NodeGetVolumeStats, from what the driver knows. The mount is never asked: a stat of a volume that nobody
//! serves doesn't return.

use sotto_proto::csi::v1::{
    NodeGetVolumeStatsResponse, VolumeCondition, VolumeUsage, volume_usage::Unit,
};

use crate::volume::Volume;

/// Usage counts objects as inodes; values and their sizes never pass through the driver.
pub(super) fn of(volume: &Volume) -> NodeGetVolumeStatsResponse {
    let objects = i64::try_from(volume.objects()).unwrap_or(i64::MAX);
    let usage =
        VolumeUsage { available: 0, total: objects, used: objects, unit: Unit::Inodes.into() };
    NodeGetVolumeStatsResponse { usage: vec![usage], volume_condition: Some(condition(volume)) }
}

/// A socket has no size and no condition.
pub(super) fn of_handoff() -> NodeGetVolumeStatsResponse {
    let usage = VolumeUsage { available: 0, total: 1, used: 1, unit: Unit::Inodes.into() };
    let condition = VolumeCondition { abnormal: false, message: "the sidecar's socket".to_owned() };
    NodeGetVolumeStatsResponse { usage: vec![usage], volume_condition: Some(condition) }
}

fn condition(volume: &Volume) -> VolumeCondition {
    if let Some(message) = volume.trouble() {
        return VolumeCondition { abnormal: true, message };
    }
    match (volume.is_held(), volume.server()) {
        (_, Some(_)) => VolumeCondition { abnormal: false, message: "served".to_owned() },
        (true, None) => VolumeCondition {
            abnormal: true,
            message: format!(
                "{} doesn't serve the volume: reads wait until it does",
                volume.spec.mode.server()
            ),
        },
        (false, None) => VolumeCondition {
            abnormal: false,
            message: "mounted before the driver's last restart".to_owned(),
        },
    }
}
