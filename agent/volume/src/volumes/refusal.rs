//! Errors turned into what the driver is told: one table, without a default.
//!
//! The driver hands code and message on to kubelet, which shows the message in the pod's event and tries
//! again whatever the code is.

use sotto_core::snapshot::SnapshotError;
use sotto_handoff::message::Code;
use sotto_handoff::refusal::Refusal;
use sotto_store::grammar::PlanError;
use sotto_store::{FileFault, ObjectError, ProviderError, StoreError};

use super::error::VolumeError;
use super::request::RequestError;
use crate::classes::ClassError;
use crate::cluster::ReviewFault;
use crate::token::{TokenMapError, VerifyError};

pub(super) fn of(error: &VolumeError) -> Refusal {
    Refusal::new(code(error), &error.to_string())
}

fn code(error: &VolumeError) -> Code {
    match error {
        VolumeError::Request(error) => request(error),
        VolumeError::Class(error) => class(error),
        // A list speaks with the code of its first.
        VolumeError::Plan { errors, .. } => errors.first().map_or(Code::InvalidArgument, plan),
        VolumeError::Tokens(error) => tokens(error),
        VolumeError::Verify(error) => verify(error),
        VolumeError::Review(ReviewFault::Refused(_)) => Code::Unauthenticated,
        VolumeError::Review(ReviewFault::Unavailable(_)) => Code::Unavailable,
        VolumeError::Login(error) => store(error),
        VolumeError::Objects(faults) => {
            faults.first().map_or(Code::Internal, |fault| object(&fault.error))
        }
        VolumeError::Snapshot(error) => snapshot(error),
        VolumeError::Deadline { .. } => Code::DeadlineExceeded,
        VolumeError::Released(_)
        | VolumeError::Ending(_)
        | VolumeError::ShuttingDown
        | VolumeError::NotReady(_) => Code::Unavailable,
        VolumeError::TooManyVolumes { .. } | VolumeError::Busy(_) => Code::ResourceExhausted,
        VolumeError::KnownOtherwise(_) | VolumeError::OtherAudience { .. } => {
            Code::FailedPrecondition
        }
        VolumeError::Unknown(_) => Code::NotFound,
        VolumeError::NoConnection => Code::InvalidArgument,
        VolumeError::Attach { .. } | VolumeError::NoSuchStore(_) => Code::Internal,
    }
}

fn request(error: &RequestError) -> Code {
    match error {
        RequestError::NoPod | RequestError::Identifier(_) => Code::InvalidArgument,
        RequestError::OtherNode { .. } => Code::FailedPrecondition,
    }
}

fn class(error: &ClassError) -> Code {
    match error {
        ClassError::Unknown { .. } => Code::NotFound,
        ClassError::Unusable { .. } => Code::InvalidArgument,
        ClassError::Unavailable { .. } => Code::Unavailable,
    }
}

fn plan(error: &PlanError) -> Code {
    match error {
        PlanError::OtherNamespace { .. } | PlanError::NotAllowed { .. } => Code::PermissionDenied,
        PlanError::NoDefaultStore { .. } | PlanError::ProviderNotConfigured(_) => {
            Code::FailedPrecondition
        }
        PlanError::TooManyObjects { .. } => Code::ResourceExhausted,
        PlanError::Provider(_)
        | PlanError::UnknownStore { .. }
        | PlanError::VerificationOff(_)
        | PlanError::Trust(_)
        | PlanError::ServerName { .. }
        | PlanError::Mount { .. }
        | PlanError::TwoMounts(..)
        | PlanError::BadStoreNamespace { .. }
        | PlanError::OtherStoreNamespace { .. }
        | PlanError::Audience { .. }
        | PlanError::NoRole(_)
        | PlanError::BadRole
        | PlanError::NoObjects
        | PlanError::NotObjects(_)
        | PlanError::Object { .. } => Code::InvalidArgument,
    }
}

fn tokens(error: &TokenMapError) -> Code {
    match error {
        TokenMapError::Absent | TokenMapError::NoToken { .. } => Code::FailedPrecondition,
        TokenMapError::NotAMap => Code::InvalidArgument,
    }
}

fn verify(error: &VerifyError) -> Code {
    match error {
        VerifyError::Keys(_) => Code::Unavailable,
        VerifyError::NotAToken
        | VerifyError::TooLong(_)
        | VerifyError::NotSigned
        | VerifyError::SharedKey(_)
        | VerifyError::UnsupportedAlgorithm(_)
        | VerifyError::Critical
        | VerifyError::NoKeyId
        | VerifyError::UnknownKey(_)
        | VerifyError::UnusableKey { .. }
        | VerifyError::Algorithm { .. }
        | VerifyError::Signature
        | VerifyError::MissingClaim(_)
        | VerifyError::MalformedClaim(_)
        | VerifyError::Issuer { .. }
        | VerifyError::Audience { .. }
        | VerifyError::Expired { .. }
        | VerifyError::NotYetValid { .. } => Code::Unauthenticated,
        VerifyError::Namespace
        | VerifyError::ServiceAccount
        | VerifyError::PodName
        | VerifyError::PodUid
        | VerifyError::Node
        | VerifyError::Subject => Code::PermissionDenied,
    }
}

fn store(error: &StoreError) -> Code {
    match error {
        StoreError::Unreachable { .. }
        | StoreError::Sealed { .. }
        | StoreError::NotActive { .. }
        | StoreError::Unavailable { .. }
        | StoreError::RateLimited { .. } => Code::Unavailable,
        StoreError::Deadline { .. } => Code::DeadlineExceeded,
        StoreError::Untrusted { .. }
        | StoreError::ClientCertificateRefused { .. }
        | StoreError::RedirectRefused { .. } => Code::FailedPrecondition,
        StoreError::NoSuchRole { .. } => Code::NotFound,
        StoreError::LoginRefused { .. } => Code::PermissionDenied,
        StoreError::TokenRefused { .. } => Code::Unauthenticated,
        StoreError::TooLarge { .. } => Code::ResourceExhausted,
        StoreError::NoSuchLease { .. }
        | StoreError::Malformed { .. }
        | StoreError::Unexpected { .. }
        | StoreError::OtherLogin { .. } => Code::Internal,
        StoreError::Provider(error) => provider(error),
    }
}

fn provider(error: &ProviderError) -> Code {
    match error {
        ProviderError::Unavailable { .. } | ProviderError::Limited { .. } => Code::Unavailable,
        ProviderError::Deadline { .. } => Code::DeadlineExceeded,
        ProviderError::NotInstalled { .. } | ProviderError::WritesFilesItself { .. } => {
            Code::FailedPrecondition
        }
        ProviderError::LoginRefused { .. } => Code::Unauthenticated,
        ProviderError::Denied { .. } => Code::PermissionDenied,
        ProviderError::NotFound { .. } => Code::NotFound,
        ProviderError::Rejected { .. } => Code::InvalidArgument,
        ProviderError::AnswerTooLarge { .. }
        | ProviderError::TooManyFiles { .. }
        | ProviderError::VolumeTooLarge { .. } => Code::ResourceExhausted,
        ProviderError::File { fault: FileFault::TooLarge { .. }, .. } => Code::ResourceExhausted,
        ProviderError::Failed { .. }
        | ProviderError::FailedWithCode { .. }
        | ProviderError::NoVersions { .. }
        | ProviderError::NoExpiry { .. }
        | ProviderError::File { .. } => Code::Internal,
    }
}

fn object(error: &ObjectError) -> Code {
    match error {
        ObjectError::Denied { .. } => Code::PermissionDenied,
        ObjectError::NoSuchSecret { .. }
        | ObjectError::NoDataSegment { .. }
        | ObjectError::Deleted { .. }
        | ObjectError::Destroyed { .. }
        | ObjectError::NoSuchKey { .. } => Code::NotFound,
        ObjectError::NoData { .. }
        | ObjectError::BadEncoding { .. }
        | ObjectError::Rejected { .. } => Code::InvalidArgument,
        ObjectError::TooLarge { .. } | ObjectError::VolumeTooLarge { .. } => {
            Code::ResourceExhausted
        }
        ObjectError::Store(error) => store(error),
    }
}

fn snapshot(error: &SnapshotError) -> Code {
    match error {
        SnapshotError::Empty => Code::NotFound,
        SnapshotError::TooManyObjects { .. }
        | SnapshotError::ObjectTooLarge { .. }
        | SnapshotError::VolumeTooLarge { .. }
        | SnapshotError::TooManyNodes(_) => Code::ResourceExhausted,
        SnapshotError::Duplicate { .. }
        | SnapshotError::FileIsDirectory { .. }
        | SnapshotError::InodeCollision(..) => Code::InvalidArgument,
    }
}
