//! The NodePublishVolume request, word for word as a kubelet 1.36 sent it (`facts/kubelet-csi.md`).

use aws_lc_rs::digest::{SHA256, digest};
use sotto_core::attributes::{
    EPHEMERAL, POD_NAME, POD_NAMESPACE, POD_UID, SERVICE_ACCOUNT, SERVICE_ACCOUNT_TOKENS,
};
use sotto_proto::csi::v1::volume_capability::{AccessMode, AccessType, MountVolume, access_mode};
use sotto_proto::csi::v1::{NodePublishVolumeRequest, VolumeCapability};

use super::manifest::{CsiDriver, CsiVolume, Pod};
use crate::random;

/// The volume id that kubelet makes for an inline volume: a hash of its name and the pod's uid.
#[must_use]
pub fn volume_id(pod: &Pod, volume: &CsiVolume) -> String {
    let named = format!("{}{}", volume.name, pod.uid);
    format!("csi-{}", random::to_hex(digest(&SHA256, named.as_bytes()).as_ref()))
}

/// The request; `in_secrets` says where the tokens travel.
pub(super) fn publish(
    pod: &Pod,
    volume: &CsiVolume,
    driver: &CsiDriver,
    target_path: String,
    tokens: Option<String>,
    in_secrets: bool,
) -> NodePublishVolumeRequest {
    let mut volume_context = volume.attributes.clone();
    let mut set = |key: &str, value: &str| volume_context.insert(key.to_owned(), value.to_owned());
    if driver.pod_info_on_mount {
        set(POD_NAME, &pod.name);
        set(POD_NAMESPACE, &pod.namespace);
        set(POD_UID, &pod.uid);
        set(SERVICE_ACCOUNT, &pod.service_account);
        set(EPHEMERAL, "true");
    }
    let mut secrets = volume.publish_secrets.clone();
    if let Some(tokens) = tokens {
        let place = if in_secrets { &mut secrets } else { &mut volume_context };
        place.insert(SERVICE_ACCOUNT_TOKENS.to_owned(), tokens);
    }
    NodePublishVolumeRequest {
        volume_id: volume_id(pod, volume),
        publish_context: Default::default(),
        staging_target_path: String::new(),
        target_path,
        volume_capability: Some(capability(pod)),
        readonly: volume.read_only,
        secrets,
        volume_context,
    }
}

fn capability(pod: &Pod) -> VolumeCapability {
    let mount = MountVolume {
        fs_type: String::new(),
        mount_flags: Vec::new(),
        volume_mount_group: pod.fs_group.map(|group| group.to_string()).unwrap_or_default(),
    };
    VolumeCapability {
        access_mode: Some(AccessMode { mode: access_mode::Mode::SingleNodeWriter.into() }),
        access_type: Some(AccessType::Mount(mount)),
    }
}

/// Without the pod's group: the driver does not say that it sets one.
pub(super) fn without_group(request: &mut NodePublishVolumeRequest) {
    let access = request.volume_capability.as_mut().and_then(|it| it.access_type.as_mut());
    if let Some(AccessType::Mount(mount)) = access {
        mount.volume_mount_group.clear();
    }
}
