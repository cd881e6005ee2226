//! A small HTTPS client of our own for writes to a store and for tests; one connection a request.
//!
//! It shares nothing with the agents' client: a bug there must not hide one here.

use std::net::SocketAddr;
use std::time::Duration;

use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::pki::Credential;
use crate::tls::{self, TlsError};

const REQUEST_DEADLINE: Duration = Duration::from_secs(10);

/// A request got no answer.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// No connection, or TLS refused.
    #[error("no connection to {0}")]
    Connect(SocketAddr, #[source] std::io::Error),
    /// The connection ended before the answer was complete.
    #[error("the connection to {0} ended without a whole answer")]
    Http(SocketAddr, #[source] hyper::Error),
    /// Nothing in time.
    #[error("{0} did not answer within {REQUEST_DEADLINE:?}")]
    Deadline(SocketAddr),
    /// A path or a header that HTTP can't carry.
    #[error("the request can't be written")]
    Request(#[from] http::Error),
}

/// A client of one server.
#[derive(Clone)]
pub struct HttpsClient {
    address: SocketAddr,
    connector: TlsConnector,
}

/// An answer, whole.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body; not JSON (or empty): null.
    pub body: Value,
}

impl Reply {
    /// The `errors` of a store's answer, joined.
    #[must_use]
    pub fn errors(&self) -> String {
        let errors = self.body["errors"].as_array();
        let texts = errors.into_iter().flatten().filter_map(Value::as_str);
        texts.collect::<Vec<_>>().join("; ")
    }
}

impl HttpsClient {
    /// A client that trusts `ca` and shows `credential`.
    ///
    /// # Errors
    /// The CA or the credential can't be used.
    pub fn new(
        address: SocketAddr,
        ca: &str,
        credential: Option<&Credential>,
    ) -> Result<Self, TlsError> {
        Ok(Self { address, connector: tls::connector(ca, credential)? })
    }

    /// Sends one request, with the store token where there is one.
    ///
    /// # Errors
    /// No answer came; a refusal is an answer.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: Option<&Value>,
    ) -> Result<Reply, RequestError> {
        let text = body.map(Value::to_string).unwrap_or_default();
        let mut request =
            Request::builder().method(method).uri(path).header("host", self.address.to_string());
        if let Some(token) = token {
            request = request.header("x-vault-token", token);
        }
        self.exchange(request.body(Full::new(Bytes::from(text)))?).await
    }

    /// Sends a request as it stands.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Reply, RequestError> {
        tokio::time::timeout(REQUEST_DEADLINE, self.exchange_for_ever(request))
            .await
            .map_err(|_| RequestError::Deadline(self.address))?
    }

    async fn exchange_for_ever(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<Reply, RequestError> {
        let refused = |error| RequestError::Connect(self.address, error);
        let stream = TcpStream::connect(self.address).await.map_err(refused)?;
        // Headers and body are two records: the second must not wait for the first one's acknowledgement (40 ms).
        stream.set_nodelay(true).map_err(refused)?;
        let name = ServerName::from(self.address.ip());
        let stream = self.connector.connect(name, stream).await.map_err(refused)?;
        let cut = |error| RequestError::Http(self.address, error);
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(cut)?;
        let exchange = async {
            let (parts, body) = sender.send_request(request).await?.into_parts();
            let body = body.collect().await?.to_bytes();
            let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
            Ok(Reply { status: parts.status.as_u16(), headers: parts.headers, body })
        };
        // Both are driven here, so no task outlives the request.
        let mut connection = std::pin::pin!(connection);
        let mut exchange = std::pin::pin!(exchange);
        let answer = tokio::select! {
            biased;
            answer = &mut exchange => answer,
            ended = &mut connection => match ended {
                Ok(()) => exchange.await,
                Err(error) => Err(error),
            },
        };
        answer.map_err(cut)
    }
}
