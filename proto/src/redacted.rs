//! `Debug` for messages that carry a token or a secret: it says which message, and nothing of its content.
//! Generation leaves their derived `Debug` out (`skip_debug`).

use std::fmt;

macro_rules! redacted {
    ($($message:path => $name:literal),* $(,)?) => {$(
        impl fmt::Debug for $message {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!($name, " { redacted }"))
            }
        }
    )*};
}

redacted! {
    crate::csi::v1::NodePublishVolumeRequest => "NodePublishVolumeRequest",
    crate::csi::v1::NodeStageVolumeRequest => "NodeStageVolumeRequest",
    crate::csi::v1::NodeExpandVolumeRequest => "NodeExpandVolumeRequest",
    crate::handoff::v1::Prepare => "Prepare",
    crate::handoff::v1::Token => "Token",
    crate::handoff::v1::Returned => "Returned",
    crate::deposit::v1::Volume => "Volume",
    crate::deposit::v1::Generation => "Generation",
    crate::deposit::v1::Object => "Object",
    crate::deposit::v1::Lease => "Lease",
    crate::provider::v1alpha1::MountRequest => "MountRequest",
    crate::provider::v1alpha1::File => "File",
}

#[cfg(test)]
mod tests {
    use crate::{csi, deposit, handoff, provider};

    #[test]
    fn a_token_is_not_printed() {
        let canary = "canary-token";
        let publish = csi::v1::NodePublishVolumeRequest {
            secrets: [("k".to_owned(), canary.to_owned())].into(),
            ..Default::default()
        };
        let prepare =
            handoff::v1::Prepare { service_account_tokens: canary.into(), ..Default::default() };
        let frame = handoff::v1::Frame {
            request: 1,
            answer: false,
            body: Some(handoff::v1::frame::Body::Prepare(prepare)),
        };
        let token =
            handoff::v1::Token { service_account_tokens: canary.into(), ..Default::default() };
        let returned =
            handoff::v1::Returned { service_account_tokens: canary.into(), ..Default::default() };
        let mount = provider::v1alpha1::MountRequest {
            attributes: canary.to_owned(),
            secrets: canary.to_owned(),
            ..Default::default()
        };
        let file = provider::v1alpha1::File { contents: canary.into(), ..Default::default() };
        let mounted = provider::v1alpha1::MountResponse { files: vec![file], ..Default::default() };
        let object = deposit::v1::Object { value: canary.into(), ..Default::default() };
        let generation = deposit::v1::Generation { objects: vec![object], ..Default::default() };
        let lease = deposit::v1::Lease { id: canary.to_owned(), ..Default::default() };
        let left = deposit::v1::Volume {
            generations: vec![generation.clone()],
            leases: vec![lease.clone()],
            pod_token: canary.to_owned(),
            session: canary.into(),
            ..Default::default()
        };
        let left = format!("{left:?} {generation:?} {lease:?}");
        let printed =
            format!("{left} {publish:?} {frame:?} {token:?} {returned:?} {mount:?} {mounted:?}");
        assert!(printed.contains("redacted"));
        assert!(
            !printed.contains(canary) && !printed.contains(&format!("{:?}", canary.as_bytes()))
        );
    }
}
