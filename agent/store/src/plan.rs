//! What one volume needs of its store: made by [`crate::grammar`], carried out by a store.
//!
//! Invariant: a plan holds only names that passed their checks and a store that its subject may use; it
//! holds no credential and no value. What every kind of store shares lies in [`VolumePlan`]; what only one
//! kind understands lies in [`PlanSource`].

mod namespace;
mod path;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use sotto_core::identity::{Audience, Namespace, ServiceAccountName, StoreName, WorkloadIdentity};
use sotto_core::limits::Limits;
use sotto_core::names::ObjectPath;
use sotto_core::snapshot::FileMode;

pub use namespace::{NamespaceError, StoreNamespace};
pub use path::{MAX_SECRET_PATH_BYTES, SecretPath, SecretPathError};

/// The service account that secrets are fetched as; shown as `payments/checkout`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subject {
    /// Its namespace.
    pub namespace: Namespace,
    /// Its name.
    pub service_account: ServiceAccountName,
}

impl From<&WorkloadIdentity> for Subject {
    fn from(identity: &WorkloadIdentity) -> Self {
        Self {
            namespace: identity.namespace.clone(),
            service_account: identity.service_account.clone(),
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.service_account)
    }
}

/// What one volume needs.
#[derive(Debug, Clone, PartialEq)]
pub struct VolumePlan {
    /// The store.
    pub store: StoreName,
    /// The audience that the pod's token must have.
    pub audience: Audience,
    /// Whom the secrets are fetched as.
    pub subject: Subject,
    /// The files, in the class's order. Empty for a kind of store that names them only in its answer.
    pub objects: Vec<ObjectPlan>,
    /// How large they may be.
    pub limits: Limits,
    /// What was ignored in the class: for an event, not a failure.
    pub warnings: Vec<String>,
    /// What only the store's kind understands.
    pub source: PlanSource,
}

impl VolumePlan {
    /// Whether asking for this object again only reads: no new credential, certificate or the like.
    #[must_use]
    pub fn is_read(&self, object: usize) -> bool {
        let PlanSource::OpenBao(source) = &self.source;
        let pick = source.picks.get(object);
        let request = pick.and_then(|pick| source.requests.get(pick.request));
        request.is_some_and(|request| request.method == ReadMethod::Get)
    }

    /// The plan of these objects alone, in the same order; nothing else is asked for.
    #[must_use]
    pub fn only(&self, objects: &BTreeSet<usize>) -> Self {
        let PlanSource::OpenBao(source) = &self.source;
        let mut requests = Vec::new();
        let mut places = BTreeMap::new();
        let mut picks = Vec::new();
        for pick in objects.iter().filter_map(|index| source.picks.get(*index)) {
            let request = *places.entry(pick.request).or_insert_with(|| {
                requests.push(source.requests[pick.request].clone());
                requests.len() - 1
            });
            picks.push(Pick { request, ..pick.clone() });
        }
        let kept = objects.iter().filter_map(|index| self.objects.get(*index).cloned());
        let source = OpenBaoPlan { login: source.login.clone(), requests, picks };
        Self { objects: kept.collect(), source: PlanSource::OpenBao(source), ..self.clone() }
    }
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectPlan {
    /// Its path in the volume.
    pub path: ObjectPath,
    /// Its permission bits, where the class names them.
    pub mode: Option<FileMode>,
}

/// The part of a plan that one kind of store understands.
#[derive(Debug, Clone, PartialEq)]
pub enum PlanSource {
    /// OpenBao or Vault.
    OpenBao(OpenBaoPlan),
}

/// What to read from OpenBao or Vault.
#[derive(Debug, Clone, PartialEq)]
pub struct OpenBaoPlan {
    /// How to log in.
    pub login: LoginPlan,
    /// The requests; no two are the same, so that what belongs together is of one response.
    pub requests: Vec<ReadRequest>,
    /// What each of [`VolumePlan::objects`] is, in the same order.
    pub picks: Vec<Pick>,
}

impl OpenBaoPlan {
    /// What is read out of one request's response: indexes into [`VolumePlan::objects`] with their picks.
    pub(crate) fn picks_of(&self, request: usize) -> impl Iterator<Item = (usize, &Pick)> {
        self.picks.iter().enumerate().filter(move |(_, pick)| pick.request == request)
    }
}

/// How to log in to OpenBao or Vault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginPlan {
    /// The role; only the cert method does without.
    pub role: Option<String>,
    /// Where the auth method is mounted.
    pub mount: String,
    /// Namespace within the store.
    pub namespace: Option<StoreNamespace>,
}

/// The methods that a class may read with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadMethod {
    /// Read.
    Get,
    /// Create or update, as Vault's clients write it.
    Put,
    /// The same as PUT to a store.
    Post,
}

/// One request; objects with the same one share its response.
#[derive(Debug, Clone, PartialEq)]
pub struct ReadRequest {
    /// GET, PUT or POST.
    pub method: ReadMethod,
    /// What is read.
    pub path: SecretPath,
    /// The JSON body; never with GET.
    pub args: Option<serde_json::Map<String, serde_json::Value>>,
}

/// What one object is within its request's response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pick {
    /// Index into [`OpenBaoPlan::requests`].
    pub request: usize,
    /// The key of the value; `None` is the whole response as JSON.
    pub key: Option<String>,
    /// How the value is written in the store.
    pub encoding: Encoding,
}

/// How a value is written in the store; the file has it decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encoding {
    /// As it is.
    #[default]
    Utf8,
    /// Base64, standard alphabet, padded.
    Base64,
    /// Hexadecimal.
    Hex,
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Utf8 => "utf-8",
            Self::Base64 => "base64",
            Self::Hex => "hex",
        })
    }
}
