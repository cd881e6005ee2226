//! The one HTTPS client: TLS 1.3 only, one pinned CA, our client certificate, one pool of connections.
//!
//! Invariants: nothing of a request is sent before the server's certificate was verified against that CA
//! alone; verification can't be turned off; redirects are answers, never followed; each answer is bounded
//! in size and time. The identity of a caller lies in a request's headers, never in a connection.
//! Called by the stores, and by `volume` for the issuer's signing keys.

mod body;
mod error;
mod tls;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ::http::{HeaderMap, Method, Request, StatusCode, Uri};
use arc_swap::ArcSwap;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use sotto_core::secret::SecretBytes;
use tokio::time::Instant;

pub use body::wiped;
pub use error::HttpError;
pub use tls::{TlsError, TlsFile, TlsFiles, TrustedCa};

use tls::{Contents, Fingerprint};

/// Longest wait for one TCP connection.
const CONNECT_DEADLINE: Duration = Duration::from_secs(4);
/// How long a connection may be silent before its end is probed.
const PROBE_AFTER: Duration = Duration::from_secs(20);
/// How long a probe or sent data may stay unanswered before the connection is given up.
const PROBE_DEADLINE: Duration = Duration::from_secs(10);
/// How long an unused connection is kept.
const IDLE: Duration = Duration::from_secs(30);
/// Most unused connections kept to one host. HTTP/2 needs one; with HTTP/1.1 as many as there are requests at once, or
/// each beat of refreshes would make new ones.
pub const MAX_IDLE: usize = 64;
/// How often the TLS files are looked at, at most.
const RELOAD_INTERVAL: Duration = Duration::from_secs(1);

/// One request.
#[derive(Clone)]
pub struct Outgoing {
    /// Its method.
    pub method: Method,
    /// Absolute, `https`.
    pub uri: Uri,
    /// Its headers; those that carry a credential are marked sensitive by the caller.
    pub headers: HeaderMap,
    /// Its body, if any: made by [`wiped`] where it carries a secret.
    pub body: Bytes,
    /// Longest time until the whole answer is here.
    pub deadline: Duration,
    /// Largest body of the answer, in bytes.
    pub max_bytes: usize,
}

/// One whole answer.
pub struct Incoming {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: SecretBytes,
}

type Connections = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// Connections made with one state of the TLS files.
struct Wire {
    connections: Connections,
    fingerprint: Fingerprint,
}

/// The last look at the TLS files.
struct Look {
    at: Instant,
    trouble: Option<String>,
}

/// A client for one set of TLS files, which it reloads when they change.
pub struct HttpsClient {
    files: TlsFiles,
    wire: ArcSwap<Wire>,
    look: Mutex<Look>,
}

impl HttpsClient {
    /// Reads the files. Call it before serving: it blocks.
    ///
    /// # Errors
    /// Which file can't be used, and why.
    pub fn new(files: TlsFiles) -> Result<Self, TlsError> {
        let wire = Wire::make(&files, &files.read()?)?;
        let look = Mutex::new(Look { at: Instant::now(), trouble: None });
        Ok(Self { files, wire: ArcSwap::from_pointee(wire), look })
    }

    /// Sends one request and waits for the whole answer, whatever its status.
    ///
    /// # Errors
    /// No trusted server, no answer in time, or one that is too large.
    pub async fn send(&self, request: Outgoing) -> Result<Incoming, HttpError> {
        let deadline = request.deadline;
        match tokio::time::timeout(deadline, self.exchange(&request)).await {
            Ok(answer) => answer,
            Err(_) => Err(HttpError::Deadline(deadline)),
        }
    }

    async fn exchange(&self, request: &Outgoing) -> Result<Incoming, HttpError> {
        if self.look_is_due() {
            self.reload().await;
        }
        let answer = self.wire.load_full().exchange(request).await;
        match answer {
            // The files may have changed since the last look; the server processed nothing.
            Err(error) if error.is_about_certificates() && self.reload().await => {
                self.wire.load_full().exchange(request).await
            }
            answer => answer,
        }
    }

    fn look_is_due(&self) -> bool {
        let mut look = self.look.lock().unwrap_or_else(PoisonError::into_inner);
        let due = look.at.elapsed() >= RELOAD_INTERVAL;
        if due {
            look.at = Instant::now();
        }
        due
    }

    /// Whether new files came into use. Files that can't be used (half-written, not a pair) leave the
    /// old ones in use.
    async fn reload(&self) -> bool {
        let files = self.files.clone();
        let known = self.wire.load().fingerprint;
        let read = tokio::task::spawn_blocking(move || {
            let contents = files.read()?;
            let changed = contents.fingerprint() != known;
            changed.then(|| Wire::make(&files, &contents)).transpose()
        });
        let (changed, trouble) = match read.await {
            Ok(Ok(None)) => (false, None),
            Ok(Ok(Some(wire))) => {
                self.wire.store(Arc::new(wire));
                tracing::info!(ca = %self.files.ca.place().display(), "TLS files changed; in use now");
                (true, None)
            }
            Ok(Err(error)) => (false, Some(error.to_string())),
            Err(ended) => (false, Some(ended.to_string())),
        };
        self.note(trouble);
        changed
    }

    /// Says each trouble once, not once a second.
    fn note(&self, trouble: Option<String>) {
        let mut look = self.look.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(text) = trouble.as_ref().filter(|_| trouble != look.trouble) {
            tracing::warn!(reason = %text, "TLS files can't be used; the former ones stay in use");
        }
        look.trouble = trouble;
    }
}

impl Wire {
    fn make(files: &TlsFiles, contents: &Contents) -> Result<Self, TlsError> {
        let connections = connections(contents.client_config()?, files.fixed_server_name()?);
        Ok(Self { connections, fingerprint: contents.fingerprint() })
    }

    async fn exchange(&self, request: &Outgoing) -> Result<Incoming, HttpError> {
        let mut message = Request::builder()
            .method(request.method.clone())
            .uri(request.uri.clone())
            .body(Full::new(request.body.clone()))
            .map_err(|error| HttpError::Connect(error.to_string()))?;
        message.headers_mut().extend(request.headers.clone());
        let answer = self.connections.request(message).await;
        let (head, body) = answer.map_err(|error| error::of_client(&error))?.into_parts();
        let body = body::collect(body, request.max_bytes).await?;
        Ok(Incoming { status: head.status, headers: head.headers, body })
    }
}

fn connections(config: ClientConfig, server_name: Option<ServerName<'static>>) -> Connections {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT_DEADLINE));
    tcp.set_keepalive(Some(PROBE_AFTER));
    tcp.set_tcp_user_timeout(Some(PROBE_DEADLINE));
    let mut tls = HttpsConnectorBuilder::new().with_tls_config(config).https_only();
    if let Some(name) = server_name {
        tls = tls.with_server_name_resolver(FixedServerNameResolver::new(name));
    }
    Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(MAX_IDLE)
        .http2_keep_alive_interval(PROBE_AFTER)
        .http2_keep_alive_timeout(PROBE_DEADLINE)
        .build(tls.enable_all_versions().wrap_connector(tcp))
}

#[cfg(test)]
mod tests;
