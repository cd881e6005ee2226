//! Why a store or one object of it failed: what a pod's event will show.
//!
//! Invariant: messages name the store, the path and what to do; they never carry a value or a token. A
//! store's own words are in them only through `text::reason`.

use std::time::Duration;

use http::StatusCode;
use sotto_core::identity::StoreName;

use crate::plan::{Encoding, Subject};
use crate::provider::ProviderError;

/// Why a store as a whole failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "a variant's text says what its fields are")]
pub enum StoreError {
    /// No connection, or it broke.
    #[error(
        "store {store} is unreachable: {reason}; check its address, its health and the network"
    )]
    Unreachable { store: StoreName, reason: String },
    /// It isn't who it should be. Nothing was sent to it.
    #[error(
        "store {store} is not trusted: {reason}; check the store's ca and serverName. Nothing was sent"
    )]
    Untrusted { store: StoreName, reason: String },
    /// It refuses the client certificate.
    #[error(
        "store {store} refuses our client certificate; check clientCertificate, clientKey and the CA that the store expects"
    )]
    ClientCertificateRefused { store: StoreName },
    /// It was too slow.
    #[error("store {store} gave no answer within {deadline:?}; check its health and the network")]
    Deadline { store: StoreName, deadline: Duration },
    /// It is sealed.
    #[error("store {store} is sealed; unseal it")]
    Sealed { store: StoreName },
    /// It has no active node, or one that is still getting ready.
    #[error("store {store} has no active node at the moment: {reason}; check its health")]
    NotActive { store: StoreName, reason: String },
    /// It, or what is in front of it, is down.
    #[error("store {store} is unavailable (status {status}); check its health")]
    Unavailable { store: StoreName, status: StatusCode, retry_after: Option<Duration> },
    /// It limits our requests.
    #[error(
        "store {store} limits the rate of requests; asked again later: if that lasts, raise its rate limit"
    )]
    RateLimited { store: StoreName, retry_after: Option<Duration> },
    /// The login's role isn't there.
    #[error("store {store} has no role {role:?} at auth/{mount}; create it or correct roleName")]
    NoSuchRole { store: StoreName, role: String, mount: String },
    /// Any other refusal of a login.
    #[error(
        "store {store} refuses the login of {subject} at auth/{mount}: {reason}; compare the role there with the pod's namespace, service account and token audience"
    )]
    LoginRefused { store: StoreName, subject: Subject, mount: String, reason: String },
    /// The store's token is no longer good, nor was the next.
    #[error(
        "store {store} no longer accepts the token of {subject}; check the life and the number of uses that its role gives"
    )]
    TokenRefused { store: StoreName, subject: Subject },
    /// The lease is over.
    #[error("store {store} no longer knows the lease")]
    NoSuchLease { store: StoreName },
    /// It sends us elsewhere than to the same path on a configured host.
    #[error(
        "store {store} redirects to {target}; only the same path on one of the store's configured hosts is followed: add the host to standbys if it is the store's"
    )]
    RedirectRefused { store: StoreName, target: String },
    /// Its answer is over the limit.
    #[error(
        "the answer of store {store} has more than {limit} bytes; read a smaller secret or raise limits.objectBytes"
    )]
    TooLarge { store: StoreName, limit: usize },
    /// Its answer isn't what the API promises.
    #[error(
        "the answer of store {store} can't be read; check that its address is an OpenBao or Vault server"
    )]
    Malformed { store: StoreName },
    /// A status that says nothing certain.
    #[error("store {store} answers with status {status}: {reason}; check the store's log")]
    Unexpected { store: StoreName, status: StatusCode, reason: String },
    /// The plan is another pod's, or of another login.
    #[error("the login at store {store} is not that of {subject}: log in first")]
    OtherLogin { store: StoreName, subject: Subject },
    /// A provider of the Secrets Store CSI driver.
    #[error(transparent)]
    Provider(#[from] ProviderError),
}

/// Why one object could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "a variant's text says what its fields are")]
pub enum ObjectError {
    /// The store's policy says no.
    #[error(
        "store {store} refuses {subject}: policy denies {path}; allow it by a policy of the pod's role, or correct secretPath"
    )]
    Denied { store: StoreName, subject: Subject, path: String },
    /// Nothing there.
    #[error("no such secret at {path} (store {store})")]
    NoSuchSecret { store: StoreName, path: String },
    /// Nothing there, because the path lacks its `data`.
    #[error(
        "no such secret at {path} (store {store}): this is a KV version 2 engine, write secretPath: {suggestion}"
    )]
    NoDataSegment { store: StoreName, path: String, suggestion: String },
    /// Its newest, or the named, version was deleted.
    #[error("the secret at {path} (store {store}) is deleted; undelete it or write a new version")]
    Deleted { store: StoreName, path: String },
    /// Its newest, or the named, version was destroyed.
    #[error("the secret at {path} (store {store}) is destroyed; write a new version")]
    Destroyed { store: StoreName, path: String },
    /// An answer, but without data.
    #[error("{path} (store {store}) answers without data; check secretPath and method")]
    NoData { store: StoreName, path: String },
    /// A secret, but without that key.
    #[error(
        "the secret at {path} (store {store}) has no key {key:?}; correct secretKey or add the key"
    )]
    NoSuchKey { store: StoreName, path: String, key: String },
    /// Not written as the class says.
    #[error(
        "the value of {key:?} at {path} (store {store}) is not {encoding}; correct encoding or the value"
    )]
    BadEncoding { store: StoreName, path: String, key: String, encoding: Encoding },
    /// The store doesn't take the request.
    #[error(
        "store {store} doesn't accept the request for {path}: {reason}; correct secretPath, method or secretArgs"
    )]
    Rejected { store: StoreName, path: String, reason: String },
    /// Over the limit of one object.
    #[error(
        "the object has {bytes} bytes: at most {limit}; make the value smaller, or ask the administrator to raise limits.objectBytes"
    )]
    TooLarge { bytes: usize, limit: usize },
    /// Over the limit of all objects together.
    #[error(
        "the volume's objects have more than {limit} bytes in all; take some out, or ask the administrator to raise limits.volumeBytes"
    )]
    VolumeTooLarge { limit: usize },
    /// The store as a whole.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl StoreError {
    /// Whether the store says for certain that this pod gets nothing: its role is gone. To be confirmed
    /// once.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::NoSuchRole { .. } => true,
            Self::Provider(error) => error.is_refusal(),
            _nothing_certain => false,
        }
    }

    /// Whether nothing is certain: the last good values stay in use.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        !self.is_refusal()
    }

    /// The pause that the store asked for.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after, .. } | Self::Unavailable { retry_after, .. } => {
                *retry_after
            }
            Self::Unreachable { .. }
            | Self::Untrusted { .. }
            | Self::ClientCertificateRefused { .. }
            | Self::Deadline { .. }
            | Self::Sealed { .. }
            | Self::NotActive { .. }
            | Self::NoSuchRole { .. }
            | Self::LoginRefused { .. }
            | Self::TokenRefused { .. }
            | Self::NoSuchLease { .. }
            | Self::RedirectRefused { .. }
            | Self::TooLarge { .. }
            | Self::Malformed { .. }
            | Self::Unexpected { .. }
            | Self::OtherLogin { .. }
            | Self::Provider(_) => None,
        }
    }

    /// Whether no other pod would be answered either: the store, or the way to it, is down or too busy.
    #[must_use]
    pub fn is_of_the_whole_store(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::Untrusted { .. }
            | Self::ClientCertificateRefused { .. }
            | Self::Deadline { .. }
            | Self::Sealed { .. }
            | Self::NotActive { .. }
            | Self::Unavailable { .. }
            | Self::RateLimited { .. } => true,
            Self::Unexpected { status, .. } => status.is_server_error(),
            Self::Provider(error) => error.is_of_the_whole_provider(),
            Self::NoSuchRole { .. }
            | Self::LoginRefused { .. }
            | Self::TokenRefused { .. }
            | Self::NoSuchLease { .. }
            | Self::RedirectRefused { .. }
            | Self::TooLarge { .. }
            | Self::Malformed { .. }
            | Self::OtherLogin { .. } => false,
        }
    }

    /// Whether asking the store for another object now would fail in the same way.
    pub(crate) fn ends_a_fetch(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::Untrusted { .. }
            | Self::ClientCertificateRefused { .. }
            | Self::Deadline { .. }
            | Self::Sealed { .. }
            | Self::NotActive { .. }
            | Self::Unavailable { .. }
            | Self::RateLimited { .. }
            | Self::NoSuchRole { .. }
            | Self::LoginRefused { .. }
            | Self::TokenRefused { .. }
            | Self::OtherLogin { .. }
            // One call brings all.
            | Self::Provider(_) => true,
            Self::NoSuchLease { .. }
            | Self::RedirectRefused { .. }
            | Self::TooLarge { .. }
            | Self::Malformed { .. }
            | Self::Unexpected { .. } => false,
        }
    }
}

impl ObjectError {
    /// Whether the store says for certain that this pod doesn't get this object: policy, deletion. To be
    /// confirmed once before it counts.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Denied { .. } => true,
            Self::Store(error) => error.is_refusal(),
            Self::BadEncoding { .. }
            | Self::Rejected { .. }
            | Self::NoData { .. }
            | Self::TooLarge { .. }
            | Self::VolumeTooLarge { .. } => false,
            Self::NoSuchSecret { .. }
            | Self::NoDataSegment { .. }
            | Self::Deleted { .. }
            | Self::Destroyed { .. }
            | Self::NoSuchKey { .. } => true,
        }
    }

    /// Whether the object isn't there, so that an optional one may be left out.
    #[must_use]
    pub fn is_absence(&self) -> bool {
        match self {
            Self::NoSuchSecret { .. }
            | Self::NoDataSegment { .. }
            | Self::Deleted { .. }
            | Self::Destroyed { .. }
            | Self::NoSuchKey { .. } => true,
            Self::Denied { .. }
            | Self::NoData { .. }
            | Self::BadEncoding { .. }
            | Self::Rejected { .. }
            | Self::TooLarge { .. }
            | Self::VolumeTooLarge { .. }
            | Self::Store(_) => false,
        }
    }

    /// Whether nothing is certain: the last good value stays in use.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        !self.is_refusal()
    }

    /// The pause that the store asked for.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Store(error) => error.retry_after(),
            Self::Denied { .. }
            | Self::NoSuchSecret { .. }
            | Self::NoDataSegment { .. }
            | Self::Deleted { .. }
            | Self::Destroyed { .. }
            | Self::NoData { .. }
            | Self::NoSuchKey { .. }
            | Self::BadEncoding { .. }
            | Self::Rejected { .. }
            | Self::TooLarge { .. }
            | Self::VolumeTooLarge { .. } => None,
        }
    }
}
