//! A floor: the least client that does what a publish or a refresh needs of the store: log in as the pod, read its secrets.
//!
//! hyper and rustls by hand over one HTTP/2 connection: nothing is shared with `sotto-store`, and nothing is checked,
//! counted, retried or wiped.

use std::sync::Arc;

use anyhow::{Context, ensure};
use futures::future::try_join_all;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use sotto_dev::store::ROLE;
use sotto_dev::test_store::StoreAccess;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// A connection that is open; clones share it.
#[derive(Clone)]
pub(crate) struct FloorClient {
    requests: SendRequest<Full<Bytes>>,
    authority: Arc<str>,
}

impl FloorClient {
    /// Connects with the client certificate that Sotto has. To be called on the runtime that asks.
    pub(crate) async fn connect(store: &StoreAccess) -> anyhow::Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(store.ca())?)?;
        let certificate = CertificateDer::from_pem_file(&store.client.certificate)?;
        let key = PrivateKeyDer::from_pem_file(&store.client.key)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots);
        let mut config = config.with_client_auth_cert(vec![certificate], key)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        let tcp = TcpStream::connect(store.address).await?;
        tcp.set_nodelay(true)?;
        let name = ServerName::from(store.address.ip());
        let tls = TlsConnector::from(Arc::new(config)).connect(name, tcp).await?;
        let (requests, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(tls)).await?;
        // It ends with the last handle.
        tokio::spawn(connection);
        Ok(Self { requests, authority: store.address.to_string().into() })
    }

    /// Logs in with a pod's token and reads these paths below `secret/data/`, all at once; returns the first value.
    pub(crate) async fn login_and_read(
        &self,
        pod_token: &str,
        paths: &[String],
    ) -> anyhow::Result<String> {
        let token = self.login(pod_token).await?;
        self.read(&token, paths).await
    }

    /// The store's token for a pod's.
    pub(crate) async fn login(&self, pod_token: &str) -> anyhow::Result<String> {
        let body = json!({ "role": ROLE, "jwt": pod_token }).to_string();
        let login = self.send(Method::POST, "auth/jwt/login", None, body).await?;
        let token = login["auth"]["client_token"].as_str().context("a login without a token")?;
        Ok(token.to_owned())
    }

    /// Reads these paths below `secret/data/`, all at once; returns the first value.
    pub(crate) async fn read(&self, token: &str, paths: &[String]) -> anyhow::Result<String> {
        let read = |path| self.send(Method::GET, path, Some(token), String::new());
        let paths: Vec<String> = paths.iter().map(|path| format!("secret/data/{path}")).collect();
        let answers = try_join_all(paths.iter().map(|path| read(path))).await?;
        let value = |answer: &Value| answer["data"]["data"]["password"].as_str().map(str::to_owned);
        answers.first().and_then(value).context("a secret without a value")
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: String,
    ) -> anyhow::Result<Value> {
        let mut request =
            Request::builder().method(method).uri(format!("https://{}/v1/{path}", self.authority));
        if let Some(token) = token {
            request = request.header("x-vault-token", token);
        }
        let answer = self.requests.clone().send_request(request.body(body.into())?).await?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        ensure!(status.is_success(), "the store answers {status} to {path}");
        Ok(serde_json::from_slice(&body)?)
    }
}
