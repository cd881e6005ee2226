//! Trust and credentials: what is refused before anything is sent.

use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine as _;
use rustls::pki_types::PrivatePkcs8KeyDer;
use serde_json::{Value, json};
use sotto_core::identity::Audience;
use sotto_core::secret::SecretString;
use sotto_dev::apiserver::FakeApiServer;
use sotto_kubernetes::api_error::ApiError;
use sotto_kubernetes::client::{Cluster, ConnectError, Source};
use sotto_kubernetes::token_review::{ReviewError, TokenReviewer};

use crate::kit::{LONG, connect_with};

async fn changed(change: impl FnOnce(&mut Value)) -> Result<Cluster, ConnectError> {
    let server = FakeApiServer::start().await.unwrap();
    let mut kubeconfig: Value = serde_json::from_str(&server.kubeconfig()).unwrap();
    change(&mut kubeconfig);
    connect_with(&kubeconfig.to_string()).await
}

fn cluster_of(kubeconfig: &mut Value) -> &mut Value {
    &mut kubeconfig["clusters"][0]["cluster"]
}

async fn review(cluster: &Cluster) -> ReviewError {
    let token = SecretString::new("a.pods.token".to_owned());
    let reviewer = TokenReviewer::new(cluster, LONG);
    reviewer.review(&token, &Audience::parse("bao").unwrap()).await.unwrap_err()
}

#[tokio::test]
async fn verification_cannot_be_turned_off() {
    let insecure = changed(|config| {
        cluster_of(config)["insecure-skip-tls-verify"] = json!(true);
    });
    assert!(matches!(insecure.await.err(), Some(ConnectError::Unverified)));
}

#[tokio::test]
async fn the_systems_trust_roots_are_no_fallback() {
    let without_ca = changed(|config| {
        cluster_of(config).as_object_mut().unwrap().remove("certificate-authority-data");
    });
    assert!(matches!(without_ca.await.err(), Some(ConnectError::NoAuthority)));
}

#[tokio::test]
async fn an_address_without_tls_or_behind_a_proxy_is_refused() {
    let plain = changed(|config| cluster_of(config)["server"] = json!("http://127.0.0.1:1"));
    assert!(matches!(plain.await.err(), Some(ConnectError::Plain(_))));
    let proxy = changed(|config| cluster_of(config)["proxy-url"] = json!("http://127.0.0.1:1"));
    assert!(matches!(proxy.await.err(), Some(ConnectError::Proxy)));
}

#[tokio::test]
async fn a_kubeconfig_that_is_not_there_or_says_nothing_is_named() {
    let nowhere = Source::Kubeconfig("/nowhere/config".into());
    let error = Cluster::connect(&nowhere).await.err().unwrap().to_string();
    assert!(error.contains("/nowhere/config"), "{error}");
    assert!(matches!(connect_with("{}").await.err(), Some(ConnectError::Kubeconfig { .. })));
}

#[tokio::test]
async fn a_server_with_another_ca_gets_no_request() {
    let server = FakeApiServer::start().await.unwrap();
    let impostor = FakeApiServer::start().await.unwrap();
    let mut kubeconfig: Value = serde_json::from_str(&server.kubeconfig()).unwrap();
    cluster_of(&mut kubeconfig)["server"] = json!(impostor.url());
    let cluster = connect_with(&kubeconfig.to_string()).await.unwrap();
    let error = review(&cluster).await;
    assert!(error.to_string().contains("certificate"), "{error}");
    assert!(error.is_outage(), "it may be the right server again later");
    assert!(impostor.requests().is_empty());
}

#[tokio::test]
async fn a_server_that_speaks_tls_1_2_only_gets_no_request() {
    let (address, ca) = old_server().await;
    let ca = base64::engine::general_purpose::STANDARD.encode(ca);
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "old",
        "clusters": [{"name": "old", "cluster":
            {"server": format!("https://{address}"), "certificate-authority-data": ca}}],
        "users": [{"name": "old", "user": {"token": "t"}}],
        "contexts": [{"name": "old", "context": {"cluster": "old", "user": "old"}}],
    });
    let cluster = connect_with(&kubeconfig.to_string()).await.unwrap();
    let error = review(&cluster).await.to_string();
    assert!(error.contains("ProtocolVersion"), "{error}");
}

/// Whoever gets through its handshake ends the test.
async fn old_server() -> (SocketAddr, String) {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()).into();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            assert!(acceptor.accept(stream).await.is_err(), "TLS 1.2 was spoken");
        }
    });
    (address, made.cert.pem())
}

#[tokio::test]
async fn a_credential_that_is_not_accepted_is_told_from_a_refused_token() {
    let server = FakeApiServer::start().await.unwrap();
    let mut kubeconfig: Value = serde_json::from_str(&server.kubeconfig()).unwrap();
    kubeconfig["users"][0]["user"]["token"] = json!("another");
    let cluster = connect_with(&kubeconfig.to_string()).await.unwrap();
    assert_eq!(review(&cluster).await, ReviewError::Api(ApiError::Unauthorized));
}

#[tokio::test]
async fn a_client_can_be_made_before_the_server_is_there() {
    let server = FakeApiServer::absent().await.unwrap();
    let cluster = connect_with(&server.kubeconfig()).await.unwrap();
    assert_eq!(cluster.address(), format!("{}/", server.url()));
    let error = review(&cluster).await;
    assert!(matches!(&error, ReviewError::Api(ApiError::Unreachable(_))), "{error}");
    server.come_back().await.unwrap();
    assert!(matches!(review(&cluster).await, ReviewError::Unauthenticated { .. }));
}
