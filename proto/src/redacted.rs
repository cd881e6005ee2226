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
}

#[cfg(test)]
mod tests {
    use crate::{csi, handoff};

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
            handoff::v1::Token { volume_id: String::new(), service_account_tokens: canary.into() };
        let printed = format!("{publish:?} {frame:?} {token:?}");
        assert!(printed.contains("redacted"));
        assert!(
            !printed.contains(canary) && !printed.contains(&format!("{:?}", canary.as_bytes()))
        );
    }
}
