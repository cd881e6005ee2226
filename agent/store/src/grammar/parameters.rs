//! `spec.parameters`: their names in the two dialects.

use std::collections::BTreeMap;

use crate::text;

const ROLE: &str = "roleName";
const AUDIENCE: &str = "audience";
const OBJECTS: &str = "objects";
/// What the reference driver merges into the parameters.
const KUBELET_PREFIX: &str = "csi.storage.k8s.io/";

pub(super) const ADDRESS: &str = "Address";
pub(super) const NAMESPACE: &str = "Namespace";
pub(super) const SKIP_VERIFY: &str = "SkipTLSVerify";
pub(super) const SERVER_NAME: &str = "TLSServerName";
pub(super) const KUBERNETES_MOUNT: &str = "KubernetesMountPath";
pub(super) const AUTH_MOUNT: &str = "AuthMountPath";
/// Files of the provider's own container, which decide whom it trusts and who it is.
pub(super) const TRUST: &[&str] =
    &["CACertPath", "CADirectory", "CAPem", "TLSClientCertPath", "TLSClientKeyPath"];

/// Which prefixes parameters have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    Vault,
    OpenBao,
}

impl Dialect {
    pub(super) fn of(provider: &str) -> Option<Self> {
        match provider {
            "vault" => Some(Self::Vault),
            "openbao" => Some(Self::OpenBao),
            _not_served => None,
        }
    }

    /// The first one that a class uses wins.
    fn prefixes(self) -> &'static [&'static str] {
        match self {
            Self::Vault => &["vault"],
            Self::OpenBao => &["bao", "openbao", "vault"],
        }
    }
}

/// One parameter: its full name and its value.
pub(super) struct Parameter<'a> {
    pub(super) name: String,
    pub(super) value: &'a str,
}

/// The parameters of a class. An empty value is as good as none.
pub(super) struct Parameters<'a> {
    all: &'a BTreeMap<String, String>,
    dialect: Dialect,
}

impl<'a> Parameters<'a> {
    pub(super) fn new(all: &'a BTreeMap<String, String>, dialect: Dialect) -> Self {
        Self { all, dialect }
    }

    pub(super) fn role(&self) -> Option<&'a str> {
        self.plain(ROLE)
    }

    pub(super) fn audience(&self) -> Option<&'a str> {
        self.plain(AUDIENCE)
    }

    pub(super) fn objects(&self) -> Option<&'a str> {
        self.plain(OBJECTS)
    }

    /// The first of `<prefix><suffix>` that is given.
    pub(super) fn prefixed(&self, suffix: &str) -> Option<Parameter<'a>> {
        self.every(suffix).next()
    }

    /// All of `<prefix><suffix>` that are given: for what must not be hidden behind another prefix.
    pub(super) fn every(&self, suffix: &str) -> impl Iterator<Item = Parameter<'a>> {
        self.dialect.prefixes().iter().filter_map(move |prefix| {
            let name = format!("{prefix}{suffix}");
            self.plain(&name).map(|value| Parameter { value, name })
        })
    }

    /// The name of a parameter for a message: with the first prefix.
    pub(super) fn name_of(&self, suffix: &str) -> String {
        format!("{}{suffix}", self.dialect.prefixes()[0])
    }

    /// A warning for each parameter that nobody reads.
    pub(super) fn unknown(&self) -> Vec<String> {
        let unknown = self.all.keys().filter(|name| !self.is_known(name));
        unknown
            .map(|name| format!("parameter {:?} is unknown and was ignored", text::excerpt(name)))
            .collect()
    }

    fn is_known(&self, name: &str) -> bool {
        let suffixes = [ADDRESS, NAMESPACE, SKIP_VERIFY, SERVER_NAME, KUBERNETES_MOUNT, AUTH_MOUNT];
        let known = |suffix: &str| suffixes.contains(&suffix) || TRUST.contains(&suffix);
        [ROLE, AUDIENCE, OBJECTS].contains(&name)
            || name.starts_with(KUBELET_PREFIX)
            || self.dialect.prefixes().iter().filter_map(|p| name.strip_prefix(p)).any(known)
    }

    fn plain(&self, name: &str) -> Option<&'a str> {
        self.all.get(name).map(|value| value.trim()).filter(|value| !value.is_empty())
    }
}
