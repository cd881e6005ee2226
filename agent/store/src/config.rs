//! The administrator's list of stores, as written in `sotto-node`'s configuration file, and checked.
//!
//! Invariant: a [`StoreSettings`] exists only if every rule holds; all faults are found at once. There is
//! no key that turns verification off, and unknown keys are refused.

mod access;
mod entry;
mod origin;
mod provider;

use std::fmt;
use std::path::PathBuf;

use serde::Deserialize;
use sotto_core::identity::{Audience, IdentifierError, StoreName};

pub use access::AllowList;
pub use entry::{EntrySettings, StoreEntry};
pub use origin::{Origin, OriginError};
pub(crate) use provider::is_provider_name;
pub use provider::{PROVIDER_KIND, ProviderConfig, ProviderSettings};

use crate::http::TlsFiles;
use crate::plan::StoreNamespace;

/// One mistake in the configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct Fault {
    /// Where, e.g. `stores[0].address`.
    pub path: String,
    /// What is wrong and what to write instead.
    pub message: String,
}

impl Fault {
    pub(crate) fn new(path: &str, message: impl fmt::Display) -> Self {
        Self { path: path.to_owned(), message: message.to_string() }
    }

    /// The same fault, seen from further out: `address` in `stores[0]` is `stores[0].address`.
    #[must_use]
    pub fn within(self, outer: &str) -> Self {
        Self { path: format!("{outer}.{}", self.path), ..self }
    }
}

/// What serves a store; both speak the same protocol. The third kind is [`ProviderConfig`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreKind {
    /// OpenBao.
    OpenBao,
    /// HashiCorp Vault.
    Vault,
}

/// How a pod logs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuthMethod {
    /// The pod's token, checked by the store against the cluster's keys.
    Jwt,
    /// The pod's token, checked by the store through a TokenReview.
    Kubernetes,
    /// The node's client certificate: every pod of the node is the same to the store.
    Cert,
}

impl StoreKind {
    /// As in the configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::OpenBao => "openbao",
            Self::Vault => "vault",
        }
    }
}

impl AuthMethod {
    /// As in the configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.default_mount()
    }

    fn default_mount(self) -> &'static str {
        match self {
            Self::Jwt => "jwt",
            Self::Kubernetes => "kubernetes",
            Self::Cert => "cert",
        }
    }
}

/// `stores[]` of kind `openbao` or `vault` as written.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct StoreConfig {
    /// Its name in messages and audit records.
    pub name: String,
    /// What serves it.
    pub kind: StoreKind,
    /// `https://host[:port]`.
    pub address: String,
    /// Other nodes of it, the only hosts besides `address` that a redirect may name.
    #[serde(default)]
    pub standbys: Vec<String>,
    /// PEM file of the only CA it is believed by.
    pub ca: PathBuf,
    /// The name in its certificate, where that isn't the host of `address`.
    pub server_name: Option<String>,
    /// PEM file of our certificate, only together with `clientKey`.
    pub client_certificate: Option<PathBuf>,
    /// PEM file of its key.
    pub client_key: Option<PathBuf>,
    /// Namespace within the store (`X-Vault-Namespace`).
    pub namespace: Option<String>,
    /// How pods log in.
    pub auth: AuthConfig,
    /// Who may use it.
    pub allow: AllowConfig,
}

/// `stores[].auth` as written.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct AuthConfig {
    /// The method.
    pub method: AuthMethod,
    /// Where it is mounted in the store; the method's own name by default.
    pub mount: Option<String>,
    /// The role of classes that name none.
    pub role: Option<String>,
    /// The audience of the pods' tokens for this store.
    pub audience: String,
}

/// `stores[].allow` as written.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct AllowConfig {
    /// Whole namespaces; `*` means all.
    #[serde(default)]
    pub namespaces: Vec<String>,
    /// Single service accounts, `namespace/name`.
    #[serde(default)]
    pub service_accounts: Vec<String>,
}

/// One store of kind `openbao` or `vault`, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreSettings {
    /// Its name.
    pub name: StoreName,
    /// What serves it.
    pub kind: StoreKind,
    /// Its address.
    pub address: Origin,
    /// Its other nodes.
    pub standbys: Vec<Origin>,
    /// Whom we trust and who we are.
    pub tls: TlsFiles,
    /// Namespace within the store.
    pub namespace: Option<StoreNamespace>,
    /// How pods log in.
    pub method: AuthMethod,
    /// Where the method is mounted, without slashes around.
    pub mount: String,
    /// The role of classes that name none.
    pub role: Option<String>,
    /// The audience of the pods' tokens.
    pub audience: Audience,
    /// Who may use it.
    pub allow: AllowList,
}

impl StoreConfig {
    /// Every mistake in it; paths are relative to this store. Reads no file.
    #[must_use]
    pub fn validate(&self) -> Vec<Fault> {
        self.check().err().unwrap_or_default()
    }

    /// The checked settings. Reads no file.
    ///
    /// # Errors
    /// All faults at once.
    pub fn check(&self) -> Result<StoreSettings, Vec<Fault>> {
        let mut faults = Vec::new();
        let name = keep("name", name(&self.name), &mut faults);
        let address = keep("address", Origin::parse(&self.address), &mut faults);
        let standbys = self.standbys(&mut faults);
        self.check_pair(&mut faults);
        let namespace = self.namespace.as_deref().map(StoreNamespace::parse).transpose();
        let namespace = keep("namespace", namespace, &mut faults).flatten();
        let mount = keep("auth.mount", self.mount(), &mut faults);
        let audience =
            keep("auth.audience", Audience::parse(self.auth.audience.clone()), &mut faults);
        let allow = AllowList::check(&self.allow, self.auth.method, &mut faults);
        match (name, address, mount, audience, faults.is_empty()) {
            (Some(name), Some(address), Some(mount), Some(audience), true) => Ok(StoreSettings {
                name,
                kind: self.kind,
                address,
                standbys,
                tls: self.tls(),
                namespace,
                method: self.auth.method,
                mount,
                role: self.auth.role.clone().filter(|role| !role.is_empty()),
                audience,
                allow,
            }),
            _incomplete => Err(faults),
        }
    }

    fn tls(&self) -> TlsFiles {
        TlsFiles {
            ca: self.ca.clone().into(),
            client_certificate: self.client_certificate.clone(),
            client_key: self.client_key.clone(),
            server_name: self.server_name.clone(),
        }
    }

    fn standbys(&self, faults: &mut Vec<Fault>) -> Vec<Origin> {
        let parse = |(index, text): (usize, &String)| {
            keep(&format!("standbys[{index}]"), Origin::parse(text), faults)
        };
        self.standbys.iter().enumerate().filter_map(parse).collect()
    }

    fn check_pair(&self, faults: &mut Vec<Fault>) {
        let together = "a client certificate and its key are given together or not at all";
        match (&self.client_certificate, &self.client_key) {
            (Some(_), None) => faults.push(Fault::new("clientKey", together)),
            (None, Some(_)) => faults.push(Fault::new("clientCertificate", together)),
            (None, None) if self.auth.method == AuthMethod::Cert => faults.push(Fault::new(
                "clientCertificate",
                "auth method cert logs in with a client certificate: give one with its key",
            )),
            (None, None) | (Some(_), Some(_)) => {}
        }
    }

    fn mount(&self) -> Result<String, &'static str> {
        let mount = self.auth.mount.as_deref().unwrap_or(self.auth.method.default_mount());
        let mount = mount.trim_matches('/');
        let word = |part: &str| {
            !part.is_empty()
                && !part.starts_with('.')
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        };
        if mount.split('/').all(word) {
            Ok(mount.to_owned())
        } else {
            Err("not a mount path: write it as `bao auth list` shows it, e.g. jwt")
        }
    }
}

/// In lower case: only a provider's name is somebody else's choice.
fn name(text: &str) -> Result<StoreName, IdentifierError> {
    let name = StoreName::parse(text)?;
    if text.bytes().any(|byte| byte.is_ascii_uppercase() || byte == b'_') {
        let reason = "it has a character that is not allowed";
        return Err(IdentifierError { kind: "store name", reason });
    }
    Ok(name)
}

fn keep<T, E: fmt::Display>(
    path: &str,
    result: Result<T, E>,
    faults: &mut Vec<Fault>,
) -> Option<T> {
    result.map_err(|error| faults.push(Fault::new(path, error))).ok()
}

#[cfg(test)]
mod tests;
