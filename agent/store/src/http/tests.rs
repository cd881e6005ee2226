use std::path::Path;

use super::*;
use crate::fake::{FakeServer, Identity, Pki, Reply};

fn request(server: &FakeServer) -> Outgoing {
    let mut headers = HeaderMap::new();
    headers.insert("x-vault-token", "hvs.secret".parse().unwrap());
    Outgoing {
        method: Method::POST,
        uri: format!("{}/v1/x", server.address()).parse().unwrap(),
        headers,
        body: wiped(SecretBytes::new(b"body".to_vec())),
        deadline: Duration::from_secs(5),
        max_bytes: 4 << 10,
    }
}

/// A client whose files lie in a folder of its own.
struct Bench {
    pki: Pki,
    folder: tempfile::TempDir,
    identity: Identity,
    client: HttpsClient,
}

impl Bench {
    fn new() -> Self {
        let (pki, folder) = (Pki::new(), tempfile::tempdir().unwrap());
        let identity = pki.identity();
        let client = HttpsClient::new(pki.files(folder.path(), &identity)).unwrap();
        Self { pki, folder, identity, client }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    async fn serve(&self, reply: Reply) -> FakeServer {
        FakeServer::start(self.pki.mutual(), move |_| reply.clone()).await
    }
}

fn text(answer: Result<Incoming, HttpError>) -> String {
    String::from_utf8(answer.unwrap().body.expose().to_vec()).unwrap()
}

fn error(answer: Result<Incoming, HttpError>) -> HttpError {
    answer.map(|answer| answer.status).unwrap_err()
}

#[tokio::test]
async fn a_request_arrives_whole_with_our_certificate() {
    let bench = Bench::new();
    let server = bench.serve(Reply::ok("fine")).await;
    assert_eq!(text(bench.client.send(request(&server)).await), "fine");
    let seen = &server.seen()[0];
    assert_eq!((seen.target.as_str(), seen.body.as_str()), ("/v1/x", "body"));
    assert_eq!(seen.header("x-vault-token"), Some("hvs.secret"));
    assert_eq!(seen.client, Some(bench.identity.der.clone()));
}

#[tokio::test]
async fn one_connection_serves_many_requests_over_either_protocol() {
    let bench = Bench::new();
    for protocol in [b"h2".as_slice(), b"http/1.1"] {
        let server =
            FakeServer::with_protocols(bench.pki.mutual(), &[protocol], |_| Reply::ok("fine"))
                .await;
        for _ in 0..20 {
            bench.client.send(request(&server)).await.unwrap();
        }
        assert!(server.seen().iter().all(|seen| seen.connection == 0));
    }
}

#[tokio::test]
async fn a_server_of_another_ca_is_refused_and_sees_no_token() {
    let bench = Bench::new();
    let other = Pki::new();
    let server =
        FakeServer::start(other.one_way(&other.identity(), &rustls::version::TLS13), |_| {
            Reply::ok("gotcha")
        })
        .await;
    let error = error(bench.client.send(request(&server)).await);
    assert!(matches!(error, HttpError::Untrusted(_)), "{error:?}");
    assert!(error.was_never_sent());
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn a_server_with_another_name_is_refused_unless_the_administrator_names_it() {
    let mut bench = Bench::new();
    let config = bench.pki.one_way(&bench.pki.named("bao.example"), &rustls::version::TLS13);
    let server = FakeServer::start(config, |_| Reply::ok("fine")).await;
    let error = error(bench.client.send(request(&server)).await);
    assert!(matches!(error, HttpError::Untrusted(_)), "{error:?}");
    let mut files = bench.pki.files(bench.path(), &bench.identity);
    files.server_name = Some("bao.example".to_owned());
    bench.client = HttpsClient::new(files).unwrap();
    assert_eq!(text(bench.client.send(request(&server)).await), "fine");
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn a_server_that_speaks_only_tls_1_2_is_refused() {
    let bench = Bench::new();
    let config = bench.pki.one_way(&bench.pki.identity(), &rustls::version::TLS12);
    let server = FakeServer::start(config, |_| Reply::ok("old")).await;
    assert_eq!(error(bench.client.send(request(&server)).await), HttpError::NoTls13);
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn without_a_client_certificate_a_server_that_requires_one_refuses_us() {
    let bench = Bench::new();
    let server = bench.serve(Reply::ok("fine")).await;
    let mut files = bench.pki.files(bench.path(), &bench.identity);
    (files.client_certificate, files.client_key) = (None, None);
    let error = error(HttpsClient::new(files).unwrap().send(request(&server)).await);
    // With TLS 1.3 the refusal comes after the handshake, and races with the request's own bytes.
    assert!(
        matches!(error, HttpError::ClientCertificateRefused | HttpError::Broken(_)),
        "{error:?}"
    );
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn a_new_client_certificate_is_used_without_a_restart_once_its_key_is_there() {
    let bench = Bench::new();
    let server = bench.serve(Reply::ok("fine")).await;
    bench.client.send(request(&server)).await.unwrap();
    let next = bench.pki.identity();
    next.write_certificate(bench.path());
    assert!(!bench.client.reload().await, "a certificate without its key came into use");
    bench.client.send(request(&server)).await.unwrap();
    next.write_key(bench.path());
    let renewed = async {
        while server.seen().last().unwrap().client.as_ref() != Some(&next.der) {
            bench.client.send(request(&server)).await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(10), renewed).await.expect("reloaded");
    let seen = server.seen();
    assert!(seen[..2].iter().all(|seen| seen.client.as_ref() == Some(&bench.identity.der)));
}

#[tokio::test]
async fn a_new_ca_is_used_at_the_first_handshake_that_needs_it() {
    let bench = Bench::new();
    let next = Pki::new();
    let config = next.one_way(&next.identity(), &rustls::version::TLS13);
    let server = FakeServer::start(config, |_| Reply::ok("fine")).await;
    assert!(matches!(error(bench.client.send(request(&server)).await), HttpError::Untrusted(_)));
    next.write_ca(bench.path());
    assert_eq!(text(bench.client.send(request(&server)).await), "fine");
}

#[tokio::test]
async fn an_answer_over_the_limit_is_refused_announced_or_not() {
    let bench = Bench::new();
    for (bytes, fits) in [(4 << 10, true), ((4 << 10) + 1, false)] {
        for reply in [Reply::ok(&"x".repeat(bytes)), Reply::ok(&"x".repeat(bytes)).in_chunks()] {
            let server = bench.serve(reply).await;
            match bench.client.send(request(&server)).await {
                Ok(answer) => assert!(fits && answer.body.len() == bytes),
                Err(error) => {
                    assert!(!fits);
                    assert_eq!(error, HttpError::TooLarge { limit: 4 << 10 });
                }
            }
        }
    }
}

#[tokio::test]
async fn a_server_that_never_answers_costs_the_deadline_and_no_more() {
    let bench = Bench::new();
    let server = bench.serve(Reply::never()).await;
    let deadline = Duration::from_millis(100);
    let request = Outgoing { deadline, ..request(&server) };
    assert_eq!(error(bench.client.send(request).await), HttpError::Deadline(deadline));
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_is_not_followed() {
    let bench = Bench::new();
    let server = bench.serve(Reply::new(307, "").header("location", "/v1/elsewhere")).await;
    let answer = bench.client.send(request(&server)).await.unwrap();
    assert_eq!(answer.status, StatusCode::TEMPORARY_REDIRECT);
    assert_eq!(server.log(), ["POST /v1/x"]);
}

#[tokio::test]
async fn plain_http_is_never_spoken() {
    let bench = Bench::new();
    let server = bench.serve(Reply::ok("fine")).await;
    let mut request = request(&server);
    request.uri = request.uri.to_string().replace("https", "http").parse().unwrap();
    assert!(matches!(error(bench.client.send(request).await), HttpError::Connect(_)));
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn a_port_where_nobody_listens_is_no_connection() {
    let bench = Bench::new();
    let server = bench.serve(Reply::ok("fine")).await;
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let uri = format!("https://{closed}/").parse().unwrap();
    let error = error(bench.client.send(Outgoing { uri, ..request(&server) }).await);
    assert!(matches!(&error, HttpError::Connect(reason) if reason.contains("refused")), "{error}");
}

#[test]
fn files_that_are_not_what_they_should_be_are_named() {
    let bench = Bench::new();
    let files = bench.pki.files(bench.path(), &bench.identity);
    let fault = |files: &TlsFiles| HttpsClient::new(files.clone()).err().unwrap();
    let missing = TlsFiles { ca: bench.path().join("none").into(), ..files.clone() };
    assert_eq!(fault(&missing).file(), TlsFile::Ca);
    let swapped = TlsFiles { ca: bench.path().join("tls.key").into(), ..files.clone() };
    assert!(fault(&swapped).to_string().contains("expected certificates in PEM"));
    let half = TlsFiles { client_key: None, ..files.clone() };
    assert_eq!(fault(&half).file(), TlsFile::ClientCertificate);
    let name = TlsFiles { server_name: Some("not a name".to_owned()), ..files.clone() };
    assert_eq!(fault(&name).file(), TlsFile::ServerName);
    bench.pki.identity().write_key(bench.path());
    assert_eq!(fault(&files).file(), TlsFile::ClientKey);
}

/// aws-lc's generator of noise costs each process 40 ms at its first handshake: see `.cargo/config.toml`.
#[test]
fn random_numbers_take_no_noise_of_the_processors_timing() {
    let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    // With spaces: as it is it would be found in this very text.
    let has = |name: &str| {
        let name = name.replace(' ', "_");
        own.windows(name.len()).any(|bytes| bytes == name.as_bytes())
    };
    assert!(has("CTR DRBG generate"), "no symbol of aws-lc is seen");
    assert!(!has("jent entropy collector alloc"), "built without .cargo/config.toml");
}
