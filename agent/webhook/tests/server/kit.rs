//! A running server with certificates of its own, and a client that believes one CA.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use sotto_runtime::drain::Drain;
use sotto_webhook::certificate::{Certificate, Files, Made, make};
use sotto_webhook::server::Server;
use sotto_webhook::settings::Settings;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const DEADLINE: Duration = Duration::from_secs(10);
const RELOAD_INTERVAL: Duration = Duration::from_millis(20);

pub(crate) struct Kit {
    pub(crate) ca: String,
    pub(crate) address: SocketAddr,
    folder: TempDir,
    drain: Drain,
}

fn certificate() -> Made {
    make(&["localhost".to_owned()], 1).unwrap()
}

pub(crate) fn stranger() -> String {
    certificate().ca_pem
}

impl Kit {
    pub(crate) async fn start() -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        let made = certificate();
        made.write(folder.path()).unwrap();
        let files = Files {
            certificate: folder.path().join("tls.crt"),
            key: folder.path().join("tls.key"),
        };
        let certificate = Arc::new(Certificate::load(files).unwrap());
        let settings =
            Settings::parse("agent: { image: registry.example/a:1 }\ntoken: { audience: bao }");
        let drain = Drain::new();
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let server =
            Server::bind(address, Arc::clone(&certificate), settings.unwrap(), drain.clone())
                .await
                .unwrap();
        let address = server.address().unwrap();
        drain.spawn(certificate.watch(RELOAD_INTERVAL, drain.clone()));
        drain.spawn(server.run());
        Self { ca: made.ca_pem, address, folder, drain }
    }

    /// Replaces the files, one after the other, and returns the new CA.
    pub(crate) fn renew(&self) -> String {
        let made = certificate();
        let new = tempfile::tempdir_in(self.folder.path()).unwrap();
        made.write(new.path()).unwrap();
        for name in ["tls.crt", "tls.key"] {
            std::fs::rename(new.path().join(name), self.folder.path().join(name)).unwrap();
        }
        made.ca_pem
    }

    pub(crate) async fn connect(&self, ca: &str) -> io::Result<TlsStream<TcpStream>> {
        connect(self.address, ca).await
    }

    pub(crate) async fn post(&self, content_type: &str, body: &str) -> (StatusCode, Value) {
        self.post_by(&self.ca, content_type, body).await
    }

    pub(crate) async fn post_by(
        &self,
        ca: &str,
        content_type: &str,
        body: &str,
    ) -> (StatusCode, Value) {
        let mut request = Request::post("/mutate").header("host", "localhost");
        if !content_type.is_empty() {
            request = request.header("content-type", content_type);
        }
        let request = request.body(Full::new(Bytes::from(body.to_owned()))).unwrap();
        let (status, bytes) = self.send(ca, request).await;
        (status, serde_json::from_slice(&bytes).unwrap_or_default())
    }

    pub(crate) async fn request(&self, method: &str, path: &str, body: &str) -> StatusCode {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost")
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body.to_owned())))
            .unwrap();
        self.send(&self.ca, request).await.0
    }

    async fn send(&self, ca: &str, request: Request<Full<Bytes>>) -> (StatusCode, Bytes) {
        let call = async {
            let stream = TokioIo::new(self.connect(ca).await.unwrap());
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(stream).await.unwrap();
            tokio::spawn(connection);
            let response = sender.send_request(request).await.unwrap();
            let status = response.status();
            (status, response.into_body().collect().await.unwrap().to_bytes())
        };
        tokio::time::timeout(DEADLINE, call).await.unwrap()
    }

    /// Sends the ClientHello of a client that knows TLS 1.2 only, written by hand: ours can't make one.
    pub(crate) async fn greet_with_tls_1_2(&self) -> io::Result<()> {
        let mut hello = vec![3, 3];
        hello.extend([7; 32]);
        // No session; one cipher suite, ECDHE-ECDSA-AES128-GCM-SHA256; no compression; no extensions.
        hello.extend([0, 0, 2, 0xc0, 0x2b, 1, 0, 0, 0]);
        let mut message = vec![1, 0, 0, u8::try_from(hello.len()).unwrap()];
        message.extend(hello);
        let mut record = vec![22, 3, 1, 0, u8::try_from(message.len()).unwrap()];
        record.extend(message);
        let mut stream = TcpStream::connect(self.address).await?;
        stream.write_all(&record).await?;
        let mut kind = [0];
        stream.read_exact(&mut kind).await?;
        // 21 is an alert, 22 would be the ServerHello.
        if kind == [21] { Err(io::ErrorKind::ConnectionRefused.into()) } else { Ok(()) }
    }

    pub(crate) async fn finish(self) {
        self.drain.finish(DEADLINE).await.unwrap();
    }
}

pub(crate) async fn connect(address: SocketAddr, ca: &str) -> io::Result<TlsStream<TcpStream>> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca.as_bytes()) {
        roots.add(certificate.unwrap()).unwrap();
    }
    let mut config =
        rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

/// The head of the next response.
pub(crate) async fn head(stream: &mut TlsStream<TcpStream>) -> String {
    let mut head = Vec::new();
    let read = async {
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
        }
        io::Result::Ok(())
    };
    let _ = tokio::time::timeout(DEADLINE, read).await.unwrap();
    String::from_utf8(head).unwrap()
}

pub(crate) fn review(uid: &str) -> String {
    json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": uid,
            "operation": "CREATE",
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "object": {
                "metadata": {
                    "labels": {"sotto.dev/inject": "true"},
                    "annotations": {"sotto.dev/secret-provider-class": "db"},
                },
                "spec": {"containers": [{"name": "app"}]},
            },
        },
    })
    .to_string()
}
