//! The other peer: `bao proxy`, which an application asks over HTTP for each secret, without a login of its own. It
//! listens on a unix socket, its fastest way in.
//!
//! It keeps tokens and leases; what KV has it asks the store for each time.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use sotto_dev::bao::Bao;
use sotto_dev::pki;
use sotto_dev::process::{Program, Running};
use sotto_dev::test_store::TestStore;
use sotto_tests::scene::Scene;
use tempfile::TempDir;
use tokio::net::UnixStream;

use super::{START_DEADLINE, START_POLL, TMPFS, put_token, store_and_login};

/// A running proxy.
pub(crate) struct Proxy {
    process: Running,
    directory: TempDir,
}

impl Proxy {
    /// Starts one, and waits until it answers with the secret at this path.
    pub(crate) async fn start(scene: &Scene<Bao>, path: &str) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("sotto-proxy-").tempdir_in(TMPFS)?;
        let at = directory.path();
        put_token(scene, at)?;
        let config = at.join("proxy.hcl");
        let mut text = store_and_login(scene.store().access(), at);
        text.push_str(&listener(&socket(at)));
        pki::write_file(&config, &text, 0o600)?;
        let arguments = ["proxy".to_owned(), format!("-config={}", config.display())];
        let program = Program::new("bao proxy", Bao::installed_at()).arguments(arguments);
        let proxy = Self { process: Running::start(program).await?, directory };
        let answered = async {
            while proxy.first(path).await.is_err() {
                tokio::time::sleep(START_POLL).await;
            }
        };
        let in_time = tokio::time::timeout(START_DEADLINE, answered).await.is_ok();
        ensure!(in_time, "bao proxy answers nothing; it says:\n{}", proxy.process.log().tail());
        Ok(proxy)
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Where an application connects.
    pub(crate) fn socket(&self) -> PathBuf {
        socket(self.directory.path())
    }

    async fn first(&self, path: &str) -> anyhow::Result<String> {
        Asking::at(&self.socket()).await?.read(path).await
    }

    /// Ends it.
    pub(crate) async fn end(self) -> anyhow::Result<()> {
        self.process.end().await.map(drop).context("bao proxy does not end")
    }
}

/// A connection that an application keeps.
pub(crate) struct Asking(SendRequest<Empty<Bytes>>);

impl Asking {
    /// To be called on the runtime that asks.
    pub(crate) async fn at(socket: &Path) -> anyhow::Result<Self> {
        let stream = UnixStream::connect(socket).await?;
        let (requests, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        // It ends with the handle.
        tokio::spawn(connection);
        Ok(Self(requests))
    }

    /// The value of a secret below `secret/data/`.
    pub(crate) async fn read(&mut self, path: &str) -> anyhow::Result<String> {
        let request = Request::get(format!("/v1/secret/data/{path}")).header("host", "proxy");
        self.0.ready().await?;
        let answer = self.0.send_request(request.body(Empty::new())?).await?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        ensure!(status.is_success(), "bao proxy answers {status} to {path}");
        let body: Value = serde_json::from_slice(&body)?;
        let value = body["data"]["data"]["password"].as_str().context("no value")?;
        Ok(value.to_owned())
    }
}

fn socket(at: &Path) -> PathBuf {
    at.join("proxy.sock")
}

fn listener(socket: &Path) -> String {
    format!(
        r#"api_proxy {{
  use_auto_auth_token = true
}}
cache {{
}}
listener "unix" {{
  address     = "{}"
  tls_disable = true
}}
"#,
        socket.display()
    )
}
