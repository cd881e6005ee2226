//! A real OpenBao server (`.tools/bao`) over mutual TLS 1.3, in memory, on loopback.
//!
//! Invariant: it ends with its [`Bao`]. Its keys are in a temporary directory of mode 0700.

mod config;
mod setup;

pub use setup::jwt_role;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::client::{HttpsClient, RequestError};
use crate::issuer::Issuer;
use crate::pki::{self, Authority, PkiError};
use crate::process::{ProcessError, Program, Running};
use crate::random;
use crate::store::StoreError;
use crate::test_store::{StoreAccess, TestStore};
use crate::tls::TlsError;

/// It takes 150 ms on an idle machine.
const START_DEADLINE: Duration = Duration::from_secs(60);
const START_POLL: Duration = Duration::from_millis(20);

/// The real server could not be started or prepared.
#[derive(Debug, thiserror::Error)]
pub enum BaoError {
    /// It was never installed.
    #[error("{0} is not there: run `make tools` (tests/tools/install-bao)")]
    NotInstalled(PathBuf),
    /// Its files could not be written.
    #[error("the server's directory can't be written")]
    Files(#[from] io::Error),
    /// No certificate.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// No TLS for the administrator's client.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The files for its clients could not be written.
    #[error(transparent)]
    Access(#[from] StoreError),
    /// It did not start, or ended.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// It does not answer.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// It never became healthy.
    #[error("OpenBao was not healthy within {START_DEADLINE:?}; its last lines:\n{0}")]
    Unhealthy(String),
    /// It refused what an administrator asked.
    #[error("OpenBao refuses {path} with {status}: {errors}")]
    Refused {
        /// What was asked.
        path: String,
        /// The HTTP status.
        status: u16,
        /// Its errors.
        errors: String,
    },
}

/// A running server.
pub struct Bao {
    process: Running,
    program: Program,
    client: HttpsClient,
    access: StoreAccess,
    admin_token: String,
    _directory: TempDir,
    _storage: Option<TempDir>,
}

impl Bao {
    /// Where `make tools` puts the executable.
    #[must_use]
    pub fn installed_at() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.tools/bao")
    }

    /// Starts it with a server certificate of `authority`, for clients that `authority` signed, and prepares
    /// it as the embedded store is: KV 2 at `secret`, KV 1 at `kv`, the jwt method with the issuer's keys,
    /// role `payments`, policy `pod`.
    ///
    /// # Errors
    /// It isn't installed, or does not start.
    pub async fn start(authority: &Authority, issuer: &Issuer) -> Result<Self, BaoError> {
        Self::launch((authority, authority), issuer, None).await
    }

    /// As [`Self::start`], with storage that outlives the process, so that it may be killed. Not on a disk.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_durable(authority: &Authority, issuer: &Issuer) -> Result<Self, BaoError> {
        let storage = tempfile::Builder::new().prefix("sotto-bao-").tempdir_in("/dev/shm")?;
        Self::launch((authority, authority), issuer, Some(storage)).await
    }

    /// As [`Self::start`], for clients that another authority signed.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_for(
        authority: &Authority,
        clients: &Authority,
        issuer: &Issuer,
    ) -> Result<Self, BaoError> {
        Self::launch((authority, clients), issuer, None).await
    }

    async fn launch(
        (authority, clients): (&Authority, &Authority),
        issuer: &Issuer,
        storage: Option<TempDir>,
    ) -> Result<Self, BaoError> {
        let path = Self::installed_at();
        if !path.exists() {
            return Err(BaoError::NotInstalled(path));
        }
        let directory = tempfile::Builder::new().prefix("sotto-bao-").tempdir()?;
        let at = directory.path();
        authority.server("bao.sotto-dev.invalid")?.write(at, "server")?;
        std::fs::write(at.join("unseal.key"), random::bytes::<32>())?;
        let address = free_port()?;
        let mut access = StoreAccess::write(at, clients, address)?;
        access.ca = at.join("server-ca.pem");
        pki::write_file(&access.ca, authority.certificate_pem(), 0o644)?;
        let admin_token = format!("admin-{}", random::hex::<16>());
        let config = at.join("bao.hcl");
        let text = config::server(at, storage.as_ref().map(TempDir::path), address, &admin_token);
        pki::write_file(&config, &text, 0o600)?;
        let arguments = ["server".to_owned(), format!("-config={}", config.display())];
        let program = Program::new("bao", path).arguments(arguments);
        let process = Running::start(program.clone()).await?;
        let administrator = clients.client("administrator")?;
        let client = HttpsClient::new(address, authority.certificate_pem(), Some(&administrator))?;
        let (_directory, _storage) = (directory, storage);
        let bao = Self { process, program, client, access, admin_token, _directory, _storage };
        bao.healthy().await?;
        bao.prepare(issuer).await?;
        Ok(bao)
    }

    /// Starts it again, at the same address, and waits until it is healthy. The old process is killed. It knows
    /// what it knew if its storage is durable.
    ///
    /// # Errors
    /// It does not start.
    pub async fn restart(&mut self) -> Result<(), BaoError> {
        self.process.kill().await?;
        self.process = Running::start(self.program.clone()).await?;
        self.healthy().await
    }

    /// The token that may do everything.
    #[must_use]
    pub fn admin_token(&self) -> &str {
        &self.admin_token
    }

    /// The administrator's client, for requests that may be refused.
    #[must_use]
    pub fn client(&self) -> &HttpsClient {
        &self.client
    }

    /// Seals it: from now on it answers 503. It can't be unsealed again.
    ///
    /// # Errors
    /// As [`Self::admin`].
    pub async fn seal(&self) -> Result<(), BaoError> {
        self.admin(Method::POST, "sys/seal", None).await.map(drop)
    }

    /// The process, for faults.
    #[must_use]
    pub fn process(&self) -> &Running {
        &self.process
    }

    async fn healthy(&self) -> Result<(), BaoError> {
        let wait = async {
            loop {
                let health = self.client.send(Method::GET, "/v1/sys/health", None, None).await;
                if health.is_ok_and(|reply| reply.status == 200) {
                    return;
                }
                // Nothing tells when a foreign process begins to listen.
                tokio::time::sleep(START_POLL).await;
            }
        };
        tokio::select! {
            () = wait => Ok(()),
            _ = self.process.wait(START_DEADLINE) => {
                Err(BaoError::Unhealthy(self.process.log().tail()))
            }
        }
    }
}

/// A port that nobody has at this moment; the server can't be told to choose one and say which.
pub(crate) fn free_port() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

impl TestStore for Bao {
    fn access(&self) -> &StoreAccess {
        &self.access
    }

    async fn write(&self, path: &str, data: Value) -> anyhow::Result<u64> {
        let body = json!({"data": data});
        let answer = self.admin(Method::POST, &format!("secret/data/{path}"), Some(body)).await?;
        answer["data"]["version"].as_u64().ok_or_else(|| anyhow::anyhow!("no version: {answer}"))
    }

    async fn read(&self, path: &str, version: Option<u64>) -> anyhow::Result<(u16, Value)> {
        let version = version.map(|it| format!("?version={it}")).unwrap_or_default();
        let path = format!("/v1/secret/data/{path}{version}");
        let reply = self.client.send(Method::GET, &path, Some(&self.admin_token), None).await?;
        Ok((reply.status, reply.body["data"].clone()))
    }

    async fn write_v1(&self, path: &str, data: Value) -> anyhow::Result<()> {
        self.admin(Method::POST, &format!("kv/{path}"), Some(data)).await?;
        Ok(())
    }

    async fn delete(&self, path: &str, versions: &[u64]) -> anyhow::Result<()> {
        let body = json!({"versions": versions});
        self.admin(Method::POST, &format!("secret/delete/{path}"), Some(body)).await?;
        Ok(())
    }

    async fn destroy(&self, path: &str, versions: &[u64]) -> anyhow::Result<()> {
        let body = json!({"versions": versions});
        self.admin(Method::POST, &format!("secret/destroy/{path}"), Some(body)).await?;
        Ok(())
    }

    async fn forget(&self, path: &str) -> anyhow::Result<()> {
        self.admin(Method::DELETE, &format!("secret/metadata/{path}"), None).await?;
        Ok(())
    }

    async fn remove_policy(&self, name: &str) -> anyhow::Result<()> {
        self.admin(Method::DELETE, &format!("sys/policies/acl/{name}"), None).await?;
        Ok(())
    }

    async fn restore_policy(&self) -> anyhow::Result<()> {
        Ok(self.put_pod_policy().await?)
    }

    async fn remove_role(&self, mount: &str, role: &str) -> anyhow::Result<()> {
        self.admin(Method::DELETE, &format!("auth/{mount}/role/{role}"), None).await?;
        Ok(())
    }

    async fn revoke_tokens(&self) -> anyhow::Result<()> {
        for mount in ["jwt", "kubernetes"] {
            let path = format!("sys/leases/revoke-prefix/auth/{mount}/login");
            self.admin(Method::POST, &path, Some(json!({"sync": true}))).await?;
        }
        Ok(())
    }
}
