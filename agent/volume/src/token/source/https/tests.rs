use super::*;
use crate::token::testing::{Signer, key_set};
use crate::token::{Keys, UrlKeys};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// A TLS server that gives one answer to whatever is asked.
struct Server {
    uri: Uri,
    ca: String,
    asked: Arc<AtomicUsize>,
}

async fn server(answer: String) -> Server {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(signing_key.serialize_der().into());
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    tokio::spawn(async move {
        let acceptor = TlsAcceptor::from(Arc::new(config));
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            if stream.read(&mut [0; 4096]).await.is_ok_and(|size| size > 0) {
                counted.fetch_add(1, Ordering::SeqCst);
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
            }
        }
    });
    let uri = format!("https://localhost:{port}/openid/v1/jwks").parse().unwrap();
    Server { uri, ca: cert.pem(), asked }
}

fn ok(body: &[u8]) -> String {
    let body = String::from_utf8(body.to_vec()).unwrap();
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

fn keys(server: &Server, ca: &str) -> (Keys, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ca.pem");
    std::fs::write(&file, ca).unwrap();
    let keys = HttpsKeys::new(server.uri.clone(), file).unwrap();
    (Keys::Url(UrlKeys::new(Box::new(keys))), directory)
}

#[tokio::test]
async fn keys_are_fetched_from_the_issuer() {
    let server = server(ok(&key_set(&[Signer::ec("a").jwk(), Signer::ec("b").jwk()]))).await;
    let (keys, _ca) = keys(&server, &server.ca);
    assert_eq!(keys.check().await, Ok(2));
}

#[tokio::test]
async fn an_issuer_of_another_ca_is_asked_nothing() {
    let trusted = server(ok(b"{}")).await;
    let other = server(ok(&key_set(&[Signer::ec("a").jwk()]))).await;
    let (keys, _ca) = keys(&other, &trusted.ca);
    let error = keys.check().await.unwrap_err().to_string();
    assert!(error.contains("not trusted"), "{error}");
    assert_eq!(other.asked.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let target = server(ok(&key_set(&[Signer::ec("a").jwk()]))).await;
    let answer =
        format!("HTTP/1.1 302 Found\r\nlocation: {}\r\ncontent-length: 0\r\n\r\n", target.uri);
    let server = server(answer).await;
    let (keys, _ca) = keys(&server, &(server.ca.clone() + &target.ca));
    let error = keys.check().await.unwrap_err().to_string();
    assert!(error.contains("302"), "{error}");
    assert_eq!(target.asked.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_key_set_over_the_limit_is_refused() {
    let server = server(ok(&vec![b' '; MAX_SET_BYTES + 1])).await;
    let (keys, _ca) = keys(&server, &server.ca);
    let error = keys.check().await.unwrap_err().to_string();
    assert!(error.contains("more than"), "{error}");
}
