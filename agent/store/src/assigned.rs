//! One store as a sidecar is given it: from the administrator's settings to a message, and back to a store.
//!
//! Invariant: what comes back has passed the same checks as the configuration file; who may use the store was
//! decided where the allow list is, so that a sidecar's store admits its own pod and nobody else. No key and no
//! credential is in the message: the client certificate is the pod's own. Called by `sotto-node` and by the
//! sidecar.

use std::path::PathBuf;
use std::sync::Arc;

use sotto_core::identity::StoreName;
use sotto_proto::handoff::v1::AssignedStore;

use crate::config::{
    AllowConfig, AuthConfig, AuthMethod, Fault, StoreConfig, StoreKind, StoreSettings,
};
use crate::http::{TlsError, TrustedCa};
use crate::plan::{Subject, VolumePlan};
use crate::stores::Stores;

/// The pod's own certificate and key, read again when they change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientFiles {
    /// PEM certificate chain.
    pub certificate: PathBuf,
    /// PEM private key.
    pub key: PathBuf,
}

/// Why a store can't be given to a sidecar.
#[derive(Debug, thiserror::Error)]
pub enum AssignError {
    /// It is of kind provider, or there is none of that name.
    #[error(
        "store {0} is of kind provider, which is reached through a socket of the node: a sidecar can't use it; \
         give the pod a volume of the node's driver instead (node mode)"
    )]
    Provider(StoreName),
    /// Its CA can't be read now.
    #[error("the CA of store {store} can't be given to a sidecar: {source}")]
    Ca {
        /// The store.
        store: StoreName,
        /// Why.
        source: TlsError,
    },
}

impl Stores {
    /// The plan's store for a sidecar. Reads the CA's file, so it blocks.
    ///
    /// # Errors
    /// A sidecar can't use the store, or its CA can't be read.
    pub fn assign(&self, plan: &VolumePlan) -> Result<AssignedStore, AssignError> {
        let settings =
            self.remote(&plan.store).ok_or_else(|| AssignError::Provider(plan.store.clone()))?;
        let ca = settings.tls.ca.read();
        let ca = ca.map_err(|source| AssignError::Ca { store: plan.store.clone(), source })?;
        let is_default =
            self.default_settings().is_some_and(|default| default.name == settings.name);
        Ok(AssignedStore {
            name: settings.name.to_string(),
            kind: settings.kind.name().to_owned(),
            address: settings.address.to_string(),
            standbys: settings.standbys.iter().map(ToString::to_string).collect(),
            ca,
            server_name: settings.tls.server_name.clone().unwrap_or_default(),
            namespace: settings.namespace.as_ref().map(ToString::to_string).unwrap_or_default(),
            auth_method: settings.method.name().to_owned(),
            auth_mount: settings.mount.clone(),
            role: settings.role.clone().unwrap_or_default(),
            audience: settings.audience.to_string(),
            is_default,
        })
    }

    /// The store that a sidecar was given, for its own pod. Reads the client certificate's files, so it blocks.
    ///
    /// # Errors
    /// All faults at once.
    pub fn assigned(
        store: &AssignedStore,
        client: Option<&ClientFiles>,
        subject: &Subject,
    ) -> Result<Self, Vec<Fault>> {
        let settings = settings(store, client, subject)?;
        Self::only(settings, store.is_default).map_err(|fault| vec![fault])
    }
}

fn settings(
    store: &AssignedStore,
    client: Option<&ClientFiles>,
    subject: &Subject,
) -> Result<StoreSettings, Vec<Fault>> {
    let mut faults = Vec::new();
    let kinds = [StoreKind::OpenBao, StoreKind::Vault];
    let kind = known("kind", &store.kind, kinds, StoreKind::name, &mut faults);
    let methods = [AuthMethod::Jwt, AuthMethod::Kubernetes, AuthMethod::Cert];
    let method = known("auth.method", &store.auth_method, methods, AuthMethod::name, &mut faults);
    if method == Some(AuthMethod::Cert) && client.is_none() {
        let message = "the store's auth method cert needs a client certificate, and the sidecar has none: have the \
                       webhook mount one (clientCertificate), or use another method";
        faults.push(Fault::new("auth.method", message));
    }
    let (Some(kind), Some(method), true) = (kind, method, faults.is_empty()) else {
        return Err(faults);
    };
    let given = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    let config = StoreConfig {
        name: store.name.clone(),
        kind,
        address: store.address.clone(),
        standbys: store.standbys.clone(),
        // Replaced below: the certificates came with the message.
        ca: PathBuf::new(),
        server_name: given(&store.server_name),
        client_certificate: client.map(|files| files.certificate.clone()),
        client_key: client.map(|files| files.key.clone()),
        namespace: given(&store.namespace),
        auth: AuthConfig {
            method,
            mount: given(&store.auth_mount),
            role: given(&store.role),
            audience: store.audience.clone(),
        },
        allow: AllowConfig { namespaces: Vec::new(), service_accounts: vec![subject.to_string()] },
    };
    let mut settings = config.check()?;
    settings.tls.ca = TrustedCa::Given(Arc::from(store.ca.as_slice()));
    Ok(settings)
}

fn known<T: Copy>(
    path: &str,
    text: &str,
    all: impl IntoIterator<Item = T>,
    name: fn(T) -> &'static str,
    faults: &mut Vec<Fault>,
) -> Option<T> {
    let found = all.into_iter().find(|one| name(*one) == text);
    if found.is_none() {
        let message = format!("{text:?} is not known to this version: upgrade the sidecar's image");
        faults.push(Fault::new(path, message));
    }
    found
}

#[cfg(test)]
mod tests;
