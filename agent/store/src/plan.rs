//! What one volume needs of its store: made by [`crate::grammar`], carried out by a store.
//!
//! Invariant: a plan holds only names that passed their checks and a store that its subject may use; it
//! holds no credential and no value. What every kind of store shares lies in [`VolumePlan`]; what only one
//! kind understands lies in [`PlanSource`].

mod namespace;
mod path;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use sotto_core::identity::{
    Audience, Namespace, PodUid, ServiceAccountName, StoreName, WorkloadIdentity,
};
use sotto_core::limits::Limits;
use sotto_core::names::ObjectPath;
use sotto_core::snapshot::{FileMode, Object};

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
        match &self.source {
            PlanSource::OpenBao(source) => {
                let pick = source.picks.get(object);
                let request = pick.and_then(|pick| source.requests.get(pick.request));
                request.is_some_and(|request| request.method == ReadMethod::Get)
            }
            // What a provider does for a Mount nobody knows; it is made to be asked again and again.
            PlanSource::Provider(_) => true,
        }
    }

    /// The plan of these objects alone, in the same order; nothing else is asked for.
    #[must_use]
    pub fn only(&self, objects: &BTreeSet<usize>) -> Self {
        let kept = objects.iter().filter_map(|index| self.objects.get(*index).cloned()).collect();
        let source = match &self.source {
            PlanSource::OpenBao(source) => PlanSource::OpenBao(source.only(objects)),
            PlanSource::Provider(source) => PlanSource::Provider(source.clone()),
        };
        Self { objects: kept, source, ..self.clone() }
    }

    /// The plan of the same objects as they were: each request asks for the version that `version` names for its
    /// objects (by path), as [`Object::version`] said it. `None` unless a KV version 2 engine has numbered all
    /// of them, or if there are none.
    #[must_use]
    pub fn at_versions<'a>(&self, version: impl Fn(&str) -> Option<&'a str>) -> Option<Self> {
        let source = self.source.openbao().filter(|source| !source.requests.is_empty())?;
        let mut requests = Vec::with_capacity(source.requests.len());
        for (index, request) in source.requests.iter().enumerate() {
            let objects = source.picks_of(index);
            let of_object = |(object, _): (usize, &Pick)| {
                version(self.objects.get(object)?.path.as_str())?.split_once('@')?.0.parse().ok()
            };
            let numbers: Option<BTreeSet<u64>> = objects.map(of_object).collect();
            // More than one: they were not of one response.
            let number = numbers.filter(|numbers| numbers.len() == 1)?.pop_first()?;
            let path = request.path.at_version(number)?;
            let is_read = request.method == ReadMethod::Get;
            requests.push(is_read.then(|| ReadRequest { path, ..request.clone() })?);
        }
        let source = PlanSource::OpenBao(OpenBaoPlan { requests, ..source.clone() });
        Some(Self { source, ..self.clone() })
    }

    /// The plan of the same volume once a fetch has brought `objects`: with their names, where the first
    /// answer gave them. From then on every fetch has one result for each of these, in this order.
    #[must_use]
    pub fn naming(self, objects: &[Object]) -> Self {
        let named = |object: &Object| ObjectPlan { path: object.path.clone(), mode: object.mode };
        match self.source {
            PlanSource::Provider(_) if self.objects.is_empty() => {
                Self { objects: objects.iter().map(named).collect(), ..self }
            }
            PlanSource::Provider(_) | PlanSource::OpenBao(_) => self,
        }
    }
}

impl OpenBaoPlan {
    fn only(&self, objects: &BTreeSet<usize>) -> Self {
        let mut requests = Vec::new();
        let mut places = BTreeMap::new();
        let mut picks = Vec::new();
        for pick in objects.iter().filter_map(|index| self.picks.get(*index)) {
            let request = *places.entry(pick.request).or_insert_with(|| {
                requests.push(self.requests[pick.request].clone());
                requests.len() - 1
            });
            picks.push(Pick { request, ..pick.clone() });
        }
        Self { login: self.login.clone(), requests, picks }
    }

    /// What is read out of one request's response: indexes into [`VolumePlan::objects`] with their picks.
    pub(crate) fn picks_of(&self, request: usize) -> impl Iterator<Item = (usize, &Pick)> {
        self.picks.iter().enumerate().filter(move |(_, pick)| pick.request == request)
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
    /// A provider of the Secrets Store CSI driver.
    Provider(ProviderPlan),
}

impl PlanSource {
    /// What to read from OpenBao or Vault, if that is its store's kind.
    #[must_use]
    pub fn openbao(&self) -> Option<&OpenBaoPlan> {
        match self {
            Self::OpenBao(source) => Some(source),
            Self::Provider(_) => None,
        }
    }
}

/// What a provider is asked with. Nothing of it is secret: the token comes from the session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderPlan {
    /// The class's parameters and what kubelet says of the pod, by their names.
    pub attributes: BTreeMap<String, String>,
    /// The pod.
    pub pod: PodUid,
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
