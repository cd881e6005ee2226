//! The issuer over HTTPS: discovery, JWKS, TokenReview.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use http::Method;
use serde_json::{Value, json};

use super::Issuer;
use crate::https::{Answer, Call, Server, Service};
use crate::pki::Authority;
use crate::{random, tls};

/// The issuer could not be put on a port.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// No certificate.
    #[error(transparent)]
    Pki(#[from] crate::pki::PkiError),
    /// No TLS.
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
    /// No port of loopback.
    #[error("no port on loopback")]
    Listen(#[source] io::Error),
}

/// An issuer that answers over HTTPS on loopback; it ends when it is dropped.
pub struct IssuerServer {
    server: Server,
    service: Arc<IssuerService>,
    ca_pem: String,
}

struct IssuerService {
    issuer: Issuer,
    reviewer_token: String,
    requests: std::sync::atomic::AtomicUsize,
}

impl Issuer {
    /// Serves it on a port of loopback, with a certificate of `authority`; no client certificate is asked for.
    ///
    /// # Errors
    /// No certificate or no port.
    pub async fn serve(&self, authority: &Authority) -> Result<IssuerServer, ServeError> {
        let acceptor = tls::acceptor(&authority.server("sotto-dev issuer")?, None)?;
        let service = Arc::new(IssuerService {
            issuer: self.clone(),
            reviewer_token: format!("reviewer-{}", random::hex::<16>()),
            requests: Default::default(),
        });
        let server =
            Server::start(acceptor, Arc::clone(&service)).await.map_err(ServeError::Listen)?;
        Ok(IssuerServer { server, service, ca_pem: authority.certificate_pem().to_owned() })
    }
}

impl IssuerServer {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// `https://127.0.0.1:<port>`: an API server's address, for a store's kubernetes auth method.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://{}", self.server.address())
    }

    /// Where the JWKS is.
    #[must_use]
    pub fn jwks_url(&self) -> String {
        format!("{}/openid/v1/jwks", self.url())
    }

    /// The CA of its certificate, PEM.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// The bearer token that may ask for TokenReviews.
    #[must_use]
    pub fn reviewer_token(&self) -> &str {
        &self.service.reviewer_token
    }

    /// Requests answered so far.
    #[must_use]
    pub fn requests(&self) -> usize {
        self.service.requests.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Nobody listens any more: an outage.
    pub fn go_dark(&self) {
        self.server.go_dark();
    }
}

impl Service for IssuerService {
    async fn answer(&self, call: Call) -> io::Result<Answer> {
        self.requests.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Ok(match (&call.method, call.path.as_str()) {
            (&Method::GET, "/.well-known/openid-configuration") => {
                json_answer(200, "application/json", &self.discovery(&call))
            }
            (&Method::GET, "/openid/v1/jwks") => {
                json_answer(200, "application/jwk-set+json", &self.issuer.jwks())
            }
            (&Method::POST, "/apis/authentication.k8s.io/v1/tokenreviews") => self.review(&call),
            _ => failure(404, "NotFound"),
        })
    }
}

impl IssuerService {
    fn discovery(&self, call: &Call) -> Value {
        let host = call.header("host").unwrap_or("127.0.0.1");
        json!({
            "issuer": self.issuer.name(),
            "jwks_uri": format!("https://{host}/openid/v1/jwks"),
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": self.issuer.algorithms(),
        })
    }

    fn review(&self, call: &Call) -> Answer {
        let bearer = format!("Bearer {}", self.reviewer_token);
        if call.header("authorization") != Some(bearer.as_str()) {
            return failure(401, "Unauthorized");
        }
        match serde_json::from_slice(&call.body) {
            Ok(review) => json_answer(201, "application/json", &self.issuer.review(&review)),
            Err(_) => failure(400, "BadRequest"),
        }
    }
}

fn json_answer(status: u16, content_type: &str, body: &Value) -> Answer {
    let headers = vec![("content-type", content_type.to_owned())];
    Answer { status, headers, body: body.to_string().into() }
}

fn failure(status: u16, reason: &str) -> Answer {
    let body = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "reason": reason, "code": status});
    json_answer(status, "application/json", &body)
}
