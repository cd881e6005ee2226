//! The peers, beside the same store as their users run them in a sidecar, with jwt auto-auth and mutual TLS: `bao agent`,
//! one template a secret, files on a tmpfs; and in [`proxy`] `bao proxy`.
//!
//! Invariant: a peer and its files end with it.

pub(crate) mod proxy;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use sotto_dev::bao::Bao;
use sotto_dev::issuer::PodTokenSpec;
use sotto_dev::pki;
use sotto_dev::process::{Program, Running};
use sotto_dev::store::ROLE;
use sotto_dev::test_store::{StoreAccess, TestStore};
use sotto_tests::scene::Scene;
use tempfile::TempDir;

use crate::volumes::ACCOUNT;

/// A tmpfs on every Linux.
const TMPFS: &str = "/dev/shm";
const START_DEADLINE: Duration = Duration::from_secs(30);
/// A hundredth of what its start takes.
const START_POLL: Duration = Duration::from_millis(1);
const TOKEN_LIFE: Duration = Duration::from_secs(3600);

/// A running agent.
pub(crate) struct Peer {
    process: Running,
    directory: TempDir,
}

impl Peer {
    /// Starts one with so many files, each of the secret whose path `path` says, and waits for all of them.
    pub(crate) async fn start(
        scene: &Scene<Bao>,
        secrets: usize,
        path: impl Fn(usize) -> String,
    ) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("sotto-peer-").tempdir_in(TMPFS)?;
        let at = directory.path();
        put_token(scene, at)?;
        let config = at.join("agent.hcl");
        let paths: Vec<String> = (0..secrets).map(path).collect();
        let text = configuration(scene.store().access(), at, &paths);
        pki::write_file(&config, &text, 0o600)?;
        std::fs::create_dir(at.join("files"))?;
        let arguments = ["agent".to_owned(), format!("-config={}", config.display())];
        let program = Program::new("bao agent", Bao::installed_at()).arguments(arguments);
        let peer = Self { process: Running::start(program).await?, directory };
        peer.rendered(secrets).await?;
        Ok(peer)
    }

    /// Where its files are.
    pub(crate) fn files(&self) -> PathBuf {
        self.directory.path().join("files")
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// The moment of its exec.
    pub(crate) fn executed(&self) -> Instant {
        self.process.executed()
    }

    /// Ends it.
    pub(crate) async fn end(self) -> anyhow::Result<()> {
        self.process.end().await.map(drop).context("bao agent does not end")
    }

    async fn rendered(&self, secrets: usize) -> anyhow::Result<()> {
        let all = async {
            while !(0..secrets).all(|it| self.files().join(format!("s{it}")).is_file()) {
                tokio::time::sleep(START_POLL).await;
            }
        };
        let in_time = tokio::time::timeout(START_DEADLINE, all).await.is_ok();
        ensure!(
            in_time,
            "bao agent renders nothing; its last lines:\n{}",
            self.process.log().tail()
        );
        Ok(())
    }
}

/// The pod's token, which auto-auth reads.
fn put_token(scene: &Scene<Bao>, at: &Path) -> anyhow::Result<()> {
    let mut token = PodTokenSpec::new("payments", ACCOUNT, "peer-0", "node-1");
    token.lifetime = TOKEN_LIFE;
    Ok(pki::write_file(&at.join("token"), &scene.issuer().mint(&token), 0o600)?)
}

/// Store and login of both peers: HCL, one attribute a line (it misreads several on one line).
fn store_and_login(store: &StoreAccess, at: &Path) -> String {
    let (url, at) = (store.url(), at.display());
    let (ca, certificate, key) =
        (store.ca().display(), store.client.certificate.display(), store.client.key.display());
    format!(
        r#"vault {{
  address     = "{url}"
  ca_cert     = "{ca}"
  client_cert = "{certificate}"
  client_key  = "{key}"
}}
auto_auth {{
  method "jwt" {{
    mount_path = "auth/jwt"
    config = {{
      path                      = "{at}/token"
      role                      = "{ROLE}"
      remove_jwt_after_reading  = false
    }}
  }}
}}
"#
    )
}

fn configuration(store: &StoreAccess, at: &Path, paths: &[String]) -> String {
    let mut text = store_and_login(store, at);
    text.push_str(
        r#"template_config {
  static_secret_render_interval = "1s"
  exit_on_retry_failure         = false
}
"#,
    );
    let at = at.display();
    for (secret, path) in paths.iter().enumerate() {
        let _ = write!(
            text,
            r#"template {{
  destination          = "{at}/files/s{secret}"
  perms                = "0400"
  error_on_missing_key = true
  contents             = "{{{{ with secret \"secret/data/{path}\" }}}}{{{{ .Data.data.password }}}}{{{{ end }}}}"
}}
"#
        );
    }
    text
}
