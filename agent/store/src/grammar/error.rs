//! Why a class can't be served: what its author reads in the pod's event.

use sotto_core::identity::{Audience, Namespace, StoreName};
use sotto_core::names::ObjectPathError;

use super::permission::PermissionError;
use crate::plan::{NamespaceError, SecretPathError, StoreNamespace, Subject};

/// One fault of a class. Texts of its author are excerpts, printed escaped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "a variant's text says what its fields are")]
pub enum PlanError {
    /// Not a name that a provider can have.
    #[error(
        "provider {0:?} is not served here: use openbao, vault, or a configured provider's name"
    )]
    Provider(String),
    /// The administrator configured no such provider.
    #[error(
        "provider {0} is not configured: ask the administrator to add a store of kind provider named {0}"
    )]
    ProviderNotConfigured(String),
    /// A pod uses classes of its own namespace only.
    #[error(
        "the class is of namespace {class}, the pod of {pod}: a pod uses classes of its own namespace"
    )]
    OtherNamespace { class: Namespace, pod: Namespace },
    /// An address that the administrator didn't configure.
    #[error(
        "parameter {parameter}: {address:?} is not a configured store: {}",
        which_addresses(known)
    )]
    UnknownStore { parameter: String, address: String, known: Vec<String> },
    /// Neither an address nor a default.
    #[error(
        "no store: the class names none and the administrator set no default; add parameter {parameter}: {}",
        which_addresses(known)
    )]
    NoDefaultStore { parameter: String, known: Vec<String> },
    /// Not on the store's list.
    #[error("store {store} may not be used by {subject}: ask the administrator to add namespace {} to its allow list", subject.namespace)]
    NotAllowed { store: StoreName, subject: Subject },
    /// Verification can't be turned off.
    #[error(
        "parameter {0}: verification can't be turned off; remove it, the administrator has set the CA that the store is verified with"
    )]
    VerificationOff(String),
    /// Trust is the administrator's.
    #[error(
        "parameter {0}: the administrator decides whom a store is trusted by and which certificate is shown to it; remove it"
    )]
    Trust(String),
    /// Another name than the administrator's.
    #[error(
        "parameter {parameter}: the administrator decides the name in the certificate of store {store}; remove it"
    )]
    ServerName { parameter: String, store: StoreName },
    /// Another mount than the administrator's.
    #[error(
        "parameter {parameter}: store {store} logs in at {expected:?}, not {given:?}; correct or remove it"
    )]
    Mount { parameter: String, store: StoreName, given: String, expected: String },
    /// Two mounts.
    #[error("parameters {0} and {1}: only one of them")]
    TwoMounts(String, String),
    /// Not a namespace of a store.
    #[error("parameter {parameter}: {source}")]
    BadStoreNamespace { parameter: String, source: NamespaceError },
    /// Outside of the administrator's.
    #[error(
        "parameter {parameter}: store {store} is for namespace {expected} and those beneath it; correct or remove it"
    )]
    OtherStoreNamespace { parameter: String, store: StoreName, expected: StoreNamespace },
    /// Another audience than the administrator's.
    #[error(
        "parameter audience: tokens for store {store} have audience {expected}, not {given:?}; correct or remove it"
    )]
    Audience { store: StoreName, given: String, expected: Audience },
    /// No role.
    #[error(
        "parameter roleName is missing: name the role to log in with (store {0} has no default role)"
    )]
    NoRole(StoreName),
    /// A role that can't be one.
    #[error("parameter roleName: write at most 256 printable characters")]
    BadRole,
    /// No objects.
    #[error("parameter objects is missing or empty: list at least one object")]
    NoObjects,
    /// YAML that isn't, or of another shape.
    #[error("parameter objects is not a YAML list of objects: {0}")]
    NotObjects(String),
    /// Too many.
    #[error(
        "parameter objects has {count} objects: at most {limit}; use several volumes, or ask the administrator to raise limits.objects"
    )]
    TooManyObjects { count: usize, limit: usize },
    /// A fault of one object. Indexes count from 0.
    #[error("object {index} ({name}): {fault}")]
    Object { index: usize, name: String, fault: ObjectFault },
}

/// What is wrong with one object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "a variant's text says what its fields are")]
pub enum ObjectFault {
    /// No name.
    #[error("objectName is missing: name the file")]
    NoName,
    /// A name that can't be a file.
    #[error("objectName: {0}")]
    Name(#[from] ObjectPathError),
    /// A name that is there already.
    #[error("objectName is the same as that of object {first}: give each its own")]
    Duplicate { first: usize },
    /// A name that is a file for one object and a directory for another.
    #[error(
        "objectName needs {conflict:?} both as a file and as a directory: rename it or object {other}"
    )]
    FileIsDirectory { conflict: String, other: usize },
    /// Nothing to read.
    #[error("secretPath is missing: write e.g. secret/data/payments/db")]
    NoPath,
    /// A path that can't be read.
    #[error(transparent)]
    Path(#[from] SecretPathError),
    /// A method that isn't one of three.
    #[error("method {0:?}: write GET, PUT or POST")]
    Method(String),
    /// An encoding that isn't one of three.
    #[error("encoding {0:?}: write utf-8, base64 or hex")]
    Encoding(String),
    /// Bits that can't be a file's.
    #[error("filePermission {0}")]
    Permission(#[from] PermissionError),
}

fn which_addresses(known: &[String]) -> String {
    match known {
        [] => "ask the administrator for a store that this namespace may use".to_owned(),
        known => format!("use {}, or ask the administrator to add it", known.join(" or ")),
    }
}
