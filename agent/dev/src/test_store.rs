//! What the tests that run on the embedded store and on the real server need of both.

use std::net::SocketAddr;
use std::path::Path;

use serde_json::Value;

use crate::pki::CredentialFiles;

/// Where a store is and how it is trusted.
#[derive(Debug, Clone)]
pub struct StoreAccess {
    /// Its socket.
    pub address: SocketAddr,
    /// The CA of its certificate, PEM.
    pub ca: std::path::PathBuf,
    /// A client certificate that it accepts.
    pub client: CredentialFiles,
}

impl StoreAccess {
    /// `https://127.0.0.1:<port>`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// The CA's file.
    #[must_use]
    pub fn ca(&self) -> &Path {
        &self.ca
    }
}

/// A store that tests may write to. Auth mounts `jwt` and `kubernetes` have the role `payments` (namespace
/// `payments`, audience `bao`); the policy `pod` lets each pod read `secret/data/<ns>/<sa>/*`.
pub trait TestStore: Send + Sync {
    /// Where it is.
    fn access(&self) -> &StoreAccess;

    /// Writes a version of the KV 2 secret `secret/<path>`; returns its number.
    fn write(&self, path: &str, data: Value) -> impl Future<Output = anyhow::Result<u64>> + Send;

    /// The answer of `secret/data/<path>` as the administrator sees it: status and body.
    fn read(
        &self,
        path: &str,
        version: Option<u64>,
    ) -> impl Future<Output = anyhow::Result<(u16, Value)>> + Send;

    /// Writes a value of KV version 1, `kv/<path>`.
    fn write_v1(&self, path: &str, data: Value) -> impl Future<Output = anyhow::Result<()>> + Send;

    /// Deletes versions; they could be undeleted.
    fn delete(
        &self,
        path: &str,
        versions: &[u64],
    ) -> impl Future<Output = anyhow::Result<()>> + Send;

    /// Destroys versions.
    fn destroy(
        &self,
        path: &str,
        versions: &[u64],
    ) -> impl Future<Output = anyhow::Result<()>> + Send;

    /// Deletes a secret with its metadata: versions restart at 1.
    fn forget(&self, path: &str) -> impl Future<Output = anyhow::Result<()>> + Send;

    /// Removes a policy: tokens that had it lose what it allowed at once.
    fn remove_policy(&self, name: &str) -> impl Future<Output = anyhow::Result<()>> + Send;

    /// Puts the policy `pod` back.
    fn restore_policy(&self) -> impl Future<Output = anyhow::Result<()>> + Send;

    /// Removes a role of an auth mount.
    fn remove_role(
        &self,
        mount: &str,
        role: &str,
    ) -> impl Future<Output = anyhow::Result<()>> + Send;

    /// Revokes every token that a login has given.
    fn revoke_tokens(&self) -> impl Future<Output = anyhow::Result<()>> + Send;
}
