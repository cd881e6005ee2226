//! An embedded store that speaks as much of OpenBao's and Vault's API as a pod needs: logins with pod
//! tokens, KV versions 1 and 2, policies, health; over mutual TLS 1.3, in memory, on loopback.
//!
//! Invariant: whoever comes without a certificate of the store's CA is refused by TLS. Statuses and error
//! bodies are those of OpenBao 2.7.2; `tests/stores_agree.rs` compares both. It shares no code with the
//! agents' client.

mod faults;
mod kv;
mod login;
mod policy;
mod reply;
mod route;
mod serve;
mod state;

use std::io;
use std::sync::Arc;

use serde_json::{Map, Value};
use tempfile::TempDir;
use tokio_rustls::TlsAcceptor;

pub use crate::https::Peer;
pub use faults::Fault;
pub use policy::{Capability, Policy};
pub use state::{AuthMethod, Operation, Recorded, Role};

use crate::https::Server;
use crate::issuer::Issuer;
use crate::pki::{Authority, Credential, PkiError};
use crate::test_store::{StoreAccess, TestStore};
use crate::tls::{self, TlsError};
use crate::{pki, random};
use kv::{Engine, Found, Kv2};
use serve::State;
use state::{Auth, Inner};

/// The common name of the store's certificate.
pub const SERVER_NAME: &str = "sotto-dev store";
/// The common name of the client certificate that it hands out.
pub const CLIENT_NAME: &str = "sotto-node";
/// The policy that [`Policy::pod`] is put under.
pub const POD_POLICY: &str = "pod";
/// The role of both auth mounts.
pub const ROLE: &str = "payments";

/// The store could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No certificate.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// No TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// No port of loopback, or no temporary directory.
    #[error("the development store can't be put on loopback")]
    Io(#[from] io::Error),
}

/// A store; it ends when it is dropped.
pub struct DevStore {
    server: Server,
    acceptor: TlsAcceptor,
    state: Arc<State>,
    access: StoreAccess,
    _files: TempDir,
}

impl DevStore {
    /// Starts one whose server certificate `authority` signs, which accepts the clients that `authority`
    /// signed, and believes the pod tokens of `issuer`.
    ///
    /// Mounts: `secret` (KV 2), `kv` (KV 1); auth mounts `jwt` and `kubernetes`, each with the role
    /// `payments`; the policy `pod`.
    ///
    /// # Errors
    /// No certificate, no port.
    pub async fn start(authority: &Authority, issuer: &Issuer) -> Result<Self, StoreError> {
        let ca = authority.certificate_pem();
        let acceptor = tls::acceptor(&authority.server(SERVER_NAME)?, Some(ca))?;
        let state = Arc::new(State::default());
        prepare(&mut state.lock(), issuer);
        let server = Server::start(acceptor.clone(), Arc::clone(&state)).await?;
        let files = tempfile::Builder::new().prefix("sotto-store-").tempdir()?;
        let access = StoreAccess::write(files.path(), authority, server.address())?;
        Ok(Self { server, acceptor, state, access, _files: files })
    }

    /// The token that may do everything.
    #[must_use]
    pub fn admin_token(&self) -> String {
        self.state.lock().admin_token.clone()
    }

    /// Mounts an auth method that believes `issuer`, without roles.
    pub fn mount_auth(&self, mount: &str, method: AuthMethod, issuer: &Issuer) {
        let auth = Auth { method, issuer: issuer.clone(), roles: Default::default() };
        self.state.lock().auth.insert(mount.to_owned(), auth);
    }

    /// Creates or replaces a role of a mounted auth method.
    pub fn put_role(&self, mount: &str, name: &str, role: Role) {
        if let Some(auth) = self.state.lock().auth.get_mut(mount) {
            auth.roles.insert(name.to_owned(), role);
        }
    }

    /// A role of a mounted auth method.
    #[must_use]
    pub fn role(&self, mount: &str, name: &str) -> Option<Role> {
        self.state.lock().auth.get(mount)?.roles.get(name).cloned()
    }

    /// Creates or replaces a policy.
    pub fn put_policy(&self, name: &str, policy: Policy) {
        self.state.lock().policies.insert(name.to_owned(), policy);
    }

    /// Writes a version of the secret `secret/<path>`; returns its number.
    pub fn seed(&self, path: &str, data: Map<String, Value>) -> u64 {
        self.with_secrets(|kv| kv.write(path, data).0)
    }

    /// Requests of this kind (none: all) meet the fault, `times` of them (none: until [`Self::heal`]).
    pub fn fail(&self, operation: Option<Operation>, fault: Fault, times: Option<usize>) {
        self.state.lock().faults.add(operation, fault, times);
    }

    /// Takes every fault back.
    pub fn heal(&self) {
        self.state.lock().faults.clear();
    }

    /// Nobody listens any more, and every connection is cut: an outage.
    pub fn go_dark(&self) {
        self.server.go_dark();
    }

    /// Listens again on the same port, with what it knew.
    ///
    /// # Errors
    /// The port is taken.
    pub async fn come_back(&self) -> io::Result<()> {
        self.server.come_back(self.acceptor.clone(), Arc::clone(&self.state)).await
    }

    /// Shows another certificate from now on, and takes clients that `client_ca` (PEM) signed. Connections are cut.
    ///
    /// # Errors
    /// It can't be used, or the port is taken.
    pub async fn show(&mut self, server: &Credential, client_ca: &str) -> Result<(), StoreError> {
        self.acceptor = tls::acceptor(server, Some(client_ca))?;
        self.go_dark();
        Ok(self.come_back().await?)
    }

    /// Every request so far, in order.
    #[must_use]
    pub fn requests(&self) -> Vec<Recorded> {
        self.state.lock().requests.clone()
    }

    /// Requests of one kind so far.
    #[must_use]
    pub fn count(&self, operation: Operation) -> usize {
        self.state.lock().requests.iter().filter(|it| it.operation == operation).count()
    }

    /// Store tokens that are alive.
    #[must_use]
    pub fn tokens(&self) -> usize {
        let now = std::time::Instant::now();
        self.state.lock().tokens.values().filter(|token| token.expires > now).count()
    }

    fn with_secrets<T>(&self, change: impl FnOnce(&mut Kv2) -> T) -> T {
        match self.state.lock().mounts.get_mut("secret") {
            Some(Engine::V2(kv)) => change(kv),
            Some(Engine::V1(_)) | None => unreachable!("the store was started with it"),
        }
    }
}

fn prepare(inner: &mut Inner, issuer: &Issuer) {
    inner.admin_token = format!("admin-{}", random::hex::<16>());
    inner.mounts.insert("secret".to_owned(), Engine::V2(Kv2::default()));
    inner.mounts.insert("kv".to_owned(), Engine::V1(Default::default()));
    inner.policies.insert(POD_POLICY.to_owned(), Policy::pod());
    for (mount, method) in [("jwt", AuthMethod::Jwt), ("kubernetes", AuthMethod::Kubernetes)] {
        let roles = [(ROLE.to_owned(), Role::of_namespace("payments"))].into();
        inner.auth.insert(mount.to_owned(), Auth { method, issuer: issuer.clone(), roles });
    }
}

impl StoreAccess {
    /// Writes the CA's certificate and a client certificate of `authority` into a directory.
    pub(crate) fn write(
        directory: &std::path::Path,
        authority: &Authority,
        address: std::net::SocketAddr,
    ) -> Result<Self, StoreError> {
        let ca = directory.join("ca.pem");
        pki::write_file(&ca, authority.certificate_pem(), 0o644)?;
        let client = authority.client(CLIENT_NAME)?.write(directory, "client")?;
        Ok(Self { address, ca, client })
    }
}

impl TestStore for DevStore {
    fn access(&self) -> &StoreAccess {
        &self.access
    }

    async fn write(&self, path: &str, data: Value) -> anyhow::Result<u64> {
        match data {
            Value::Object(data) => Ok(self.seed(path, data)),
            _ => anyhow::bail!("a secret is a map, not {data}"),
        }
    }

    async fn read(&self, path: &str, version: Option<u64>) -> anyhow::Result<(u16, Value)> {
        Ok(self.with_secrets(|kv| match kv.read(path, version.unwrap_or(0)) {
            Found::Nothing => (404, Value::Null),
            Found::Gone(data) => (404, data),
            Found::Value(data) => (200, data),
        }))
    }

    async fn write_v1(&self, path: &str, data: Value) -> anyhow::Result<()> {
        if let Some(Engine::V1(values)) = self.state.lock().mounts.get_mut("kv") {
            values.insert(path.to_owned(), data);
        }
        Ok(())
    }

    async fn delete(&self, path: &str, versions: &[u64]) -> anyhow::Result<()> {
        self.with_secrets(|kv| kv.delete(path, versions));
        Ok(())
    }

    async fn destroy(&self, path: &str, versions: &[u64]) -> anyhow::Result<()> {
        self.with_secrets(|kv| kv.destroy(path, versions));
        Ok(())
    }

    async fn forget(&self, path: &str) -> anyhow::Result<()> {
        self.with_secrets(|kv| kv.forget(path));
        Ok(())
    }

    async fn remove_policy(&self, name: &str) -> anyhow::Result<()> {
        self.state.lock().policies.remove(name);
        Ok(())
    }

    async fn restore_policy(&self) -> anyhow::Result<()> {
        self.put_policy(POD_POLICY, Policy::pod());
        Ok(())
    }

    async fn remove_role(&self, mount: &str, role: &str) -> anyhow::Result<()> {
        if let Some(auth) = self.state.lock().auth.get_mut(mount) {
            auth.roles.remove(role);
        }
        Ok(())
    }

    async fn revoke_tokens(&self) -> anyhow::Result<()> {
        self.state.lock().tokens.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
