//! Why a volume isn't published or unpublished.

use std::io;
use std::path::PathBuf;

use tonic::Code;

/// A volume could not be published or unpublished.
#[derive(Debug, Clone, thiserror::Error)]
pub enum KubeletError {
    /// The kubelet's own directories.
    #[error("the kubelet can't use its directory: {0}")]
    Directory(String),
    /// Nobody listens on the driver's socket.
    #[error("the driver can't be reached")]
    Unreachable,
    /// What the pod's event would show.
    #[error("{message}")]
    Refused {
        /// The gRPC code.
        code: Code,
        /// The message, word for word.
        message: String,
    },
    /// The driver said OK but left its directory behind.
    #[error("the driver left {0} behind")]
    TargetLeft(PathBuf),
    /// The CSIDriver object doesn't offer what the pod asks for.
    #[error("the CSIDriver object doesn't offer it: {0}")]
    NotOffered(String),
    /// What registered itself isn't the driver.
    #[error("the driver is not registered: {0}")]
    NotRegistered(String),
}

impl KubeletError {
    /// Whether kubelet can't know if the volume is mounted, and so will unpublish it later.
    #[must_use]
    pub fn is_uncertain(&self) -> bool {
        match self {
            Self::Unreachable => true,
            Self::Refused { code, .. } => matches!(
                code,
                Code::Cancelled
                    | Code::DeadlineExceeded
                    | Code::Unavailable
                    | Code::ResourceExhausted
                    | Code::Aborted
            ),
            Self::Directory(_)
            | Self::TargetLeft(_)
            | Self::NotOffered(_)
            | Self::NotRegistered(_) => false,
        }
    }

    /// The gRPC code; that of an error of kubelet's own is `Unknown`.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Refused { code, .. } => *code,
            Self::Unreachable => Code::Unavailable,
            Self::Directory(_)
            | Self::TargetLeft(_)
            | Self::NotOffered(_)
            | Self::NotRegistered(_) => Code::Unknown,
        }
    }

    /// What kubelet writes as the pod's event `FailedMount`; the driver's words are the end of it.
    #[must_use]
    pub fn event(&self, volume: &str) -> String {
        match self {
            Self::Refused { code, message } => format!(
                "MountVolume.SetUp failed for volume \"{volume}\" : rpc error: code = {code:?} desc = {message}"
            ),
            other => format!("MountVolume.SetUp failed for volume \"{volume}\" : {other}"),
        }
    }
}

pub(super) fn refused(status: tonic::Status) -> KubeletError {
    KubeletError::Refused { code: status.code(), message: status.message().to_owned() }
}

pub(super) fn in_directory(error: io::Error) -> KubeletError {
    KubeletError::Directory(error.to_string())
}
