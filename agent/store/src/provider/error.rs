//! Why a provider delivered nothing: what a pod's event will show.
//!
//! Invariant: a provider's own words are in a message only through `text`, without what was sent to it.

use std::time::Duration;

use sotto_core::identity::StoreName;
use sotto_core::names::ObjectPathError;
use tonic::Code;

use super::attributes::TARGET_PREFIX;
use super::client::{CallError, MAX_ANSWER_BYTES};
use crate::plan::Subject;
use crate::text;

/// Why a provider delivered nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "a variant's text says what its fields are")]
pub enum ProviderError {
    /// No socket.
    #[error(
        "provider {provider} is not installed on this node: no socket {provider}.sock in {directories}; install it, or correct the store's directories"
    )]
    NotInstalled { provider: StoreName, directories: String },
    /// No connection, it broke, or the provider says that it, or its store, is down.
    #[error("provider {provider} is unavailable: {reason}; check its pod on this node")]
    Unavailable { provider: StoreName, reason: String },
    /// It was too slow.
    #[error(
        "provider {provider} gave no answer within {deadline:?}; check its pod on this node and the store behind it"
    )]
    Deadline { provider: StoreName, deadline: Duration },
    /// It, or its store, limits requests.
    #[error("provider {provider} is at a limit: {reason}; asked again later")]
    Limited { provider: StoreName, reason: String },
    /// It can't log in as the pod.
    #[error("provider {provider} can't log in as {subject}: {reason}")]
    LoginRefused { provider: StoreName, subject: Subject, reason: String },
    /// Its store says no.
    #[error("provider {provider} refuses {subject}: {reason}")]
    Denied { provider: StoreName, subject: Subject, reason: String },
    /// Its store hasn't got it.
    #[error("provider {provider} does not find what the class asks for: {reason}")]
    NotFound { provider: StoreName, reason: String },
    /// It doesn't understand the class.
    #[error(
        "provider {provider} does not accept the class: {reason}; correct the class's parameters"
    )]
    Rejected { provider: StoreName, reason: String },
    /// Any other status.
    #[error("provider {provider} failed: {reason}")]
    Failed { provider: StoreName, reason: String },
    /// An answer with an error in it.
    #[error("provider {provider} failed with error code {code}; its log says more")]
    FailedWithCode { provider: StoreName, code: String },
    /// Over 4 MiB.
    #[error(
        "the answer of provider {provider} is larger than {} MiB; ask for fewer or smaller objects in one class",
        MAX_ANSWER_BYTES >> 20
    )]
    AnswerTooLarge { provider: StoreName },
    /// Against the protocol.
    #[error(
        "the answer of provider {provider} names no object versions; use a provider version that does"
    )]
    NoVersions { provider: StoreName },
    /// An old one, or one that was told to.
    #[error(
        "provider {provider} writes files itself instead of returning them, which can't work with Sotto's mount: use a provider version, or a setting of it, that returns files"
    )]
    WritesFilesItself { provider: StoreName },
    /// Over the limit of files.
    #[error("provider {provider} returns {count} files: at most {limit}")]
    TooManyFiles { provider: StoreName, count: usize, limit: usize },
    /// Over the limit of all files together.
    #[error("the files of provider {provider} have more than {limit} bytes in all")]
    VolumeTooLarge { provider: StoreName, limit: usize },
    /// One file can't be in a volume. Indexes count from 0, as in the answer.
    #[error("provider {provider} returns file {index} ({name}), which can't be: {fault}")]
    File { provider: StoreName, index: usize, name: String, fault: FileFault },
    /// Not a token of Kubernetes.
    #[error("the pod's token for provider {provider} says no time of expiry (exp)")]
    NoExpiry { provider: StoreName },
}

/// What is wrong with one file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "a variant's text says what its fields are")]
pub enum FileFault {
    /// A name that can't be a file.
    #[error(transparent)]
    Path(#[from] ObjectPathError),
    /// A name that is there already.
    #[error("file {first} has the same name")]
    Duplicate { first: usize },
    /// Bits that can't be a file's.
    #[error("its mode is {0}, with bits other than permissions (0777 is 511)")]
    Mode(i32),
    /// Over the limit of one object.
    #[error("it has {bytes} bytes: at most {limit}")]
    TooLarge { bytes: usize, limit: usize },
}

impl ProviderError {
    /// Whether the store behind it says for certain that this pod gets nothing. To be confirmed once.
    pub(crate) fn is_refusal(&self) -> bool {
        // NotFound is of some object, nobody knows which: not a reason to take all of them away.
        matches!(self, Self::Denied { .. })
    }

    /// Whether no other pod would be answered either.
    pub(crate) fn is_of_the_whole_provider(&self) -> bool {
        matches!(
            self,
            Self::NotInstalled { .. }
                | Self::Unavailable { .. }
                | Self::Deadline { .. }
                | Self::Limited { .. }
        )
    }
}

/// Who asked, and what must not come back in words.
pub(super) struct Asker<'a> {
    pub(super) provider: &'a StoreName,
    pub(super) directories: String,
    pub(super) subject: &'a Subject,
    pub(super) deadline: Duration,
    pub(super) sent: Vec<&'a str>,
}

impl Asker<'_> {
    /// Reads the table.
    pub(super) fn error(&self, error: &CallError) -> ProviderError {
        let provider = self.provider.clone();
        let status = match error {
            CallError::NoSocket => {
                let directories = self.directories.clone();
                return ProviderError::NotInstalled { provider, directories };
            }
            CallError::Broken(reason) => {
                return ProviderError::Unavailable { provider, reason: reason.clone() };
            }
            CallError::Deadline => {
                return ProviderError::Deadline { provider, deadline: self.deadline };
            }
            CallError::TooLarge => return ProviderError::AnswerTooLarge { provider },
            CallError::Refused(_) if touches_target(error) => {
                return ProviderError::WritesFilesItself { provider };
            }
            CallError::Refused(status) => status,
        };
        let (subject, reason) = (self.subject.clone(), self.reason(status.message()));
        match status.code() {
            Code::Unavailable | Code::Aborted | Code::Cancelled | Code::DeadlineExceeded => {
                ProviderError::Unavailable { provider, reason }
            }
            Code::ResourceExhausted => ProviderError::Limited { provider, reason },
            Code::Unauthenticated => ProviderError::LoginRefused { provider, subject, reason },
            Code::PermissionDenied => ProviderError::Denied { provider, subject, reason },
            Code::NotFound => ProviderError::NotFound { provider, reason },
            Code::InvalidArgument
            | Code::FailedPrecondition
            | Code::OutOfRange
            | Code::AlreadyExists
            | Code::Unimplemented => ProviderError::Rejected { provider, reason },
            Code::Ok | Code::Unknown | Code::Internal | Code::DataLoss => {
                ProviderError::Failed { provider, reason }
            }
        }
    }

    /// An answer's `error.code`.
    pub(super) fn failed_with(&self, code: &str) -> ProviderError {
        ProviderError::FailedWithCode { provider: self.provider.clone(), code: self.reason(code) }
    }

    fn reason(&self, words: &str) -> String {
        text::reason(&[words.to_owned()], &self.sent)
    }
}

/// Whether it wanted to write or read where the files would have been.
pub(super) fn touches_target(error: &CallError) -> bool {
    match error {
        CallError::Refused(status) => status.message().contains(TARGET_PREFIX),
        CallError::NoSocket | CallError::Broken(_) | CallError::Deadline | CallError::TooLarge => {
            false
        }
    }
}
