//! An HTTPS server on loopback, HTTP/1.1 and HTTP/2, for the embedded store and the issuer.
//!
//! Invariant: loopback only. Connections belong to the server's task and end with it.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use crate::port::Port;

/// Larger than anything that a test writes on purpose.
const LARGEST_BODY_BYTES: usize = 32 << 20;

/// What TLS agreed on, as the server saw it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Peer {
    /// e.g. `TLSv1_3`.
    pub protocol: String,
    /// e.g. `TLS13_AES_256_GCM_SHA384`.
    pub cipher_suite: String,
    /// e.g. `X25519MLKEM768`.
    pub key_exchange: String,
    /// The common name of the client's certificate.
    pub client: Option<String>,
}

/// A request, whole.
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) peer: Arc<Peer>,
}

impl Call {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

/// An answer, whole.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Bytes,
}

/// What answers the requests. An error cuts the connection.
pub(crate) trait Service: Send + Sync + 'static {
    fn answer(&self, call: Call) -> impl Future<Output = io::Result<Answer>> + Send;
}

/// A server; it ends, with its connections, when it is dropped.
pub(crate) struct Server {
    port: Port,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Server {
    pub(crate) async fn start<S: Service>(
        acceptor: TlsAcceptor,
        service: Arc<S>,
    ) -> io::Result<Self> {
        let port = Port::reserve()?;
        let task = tokio::spawn(accept(port.listen()?, acceptor, service));
        Ok(Self { port, task: Mutex::new(Some(task)) })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Nobody listens any more, and every connection is cut.
    pub(crate) fn go_dark(&self) {
        if let Some(task) = &*self.task.lock().unwrap_or_else(PoisonError::into_inner) {
            task.abort();
        }
    }

    /// Listens again on the same port.
    pub(crate) async fn come_back<S: Service>(
        &self,
        acceptor: TlsAcceptor,
        service: Arc<S>,
    ) -> io::Result<()> {
        self.go_dark();
        let old = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(old) = old {
            // It ends by being aborted; until then it would take connections, too.
            drop(old.await);
        }
        let task = tokio::spawn(accept(self.port.listen()?, acceptor, service));
        *self.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(task);
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.go_dark();
    }
}

async fn accept<S: Service>(listener: TcpListener, acceptor: TlsAcceptor, service: Arc<S>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                let (acceptor, service) = (acceptor.clone(), Arc::clone(&service));
                connections.spawn(async move {
                    if let Err(error) = connection(stream, acceptor, service).await {
                        tracing::debug!(%error, "a connection ended");
                    }
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

type ConnectionError = Box<dyn std::error::Error + Send + Sync>;

async fn connection<S: Service>(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    service: Arc<S>,
) -> Result<(), ConnectionError> {
    stream.set_nodelay(true)?;
    let stream = acceptor.accept(stream).await?;
    let peer = Arc::new(peer(stream.get_ref().1));
    let service =
        service_fn(move |request| exchange(Arc::clone(&service), Arc::clone(&peer), request));
    Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await
}

async fn exchange<S: Service>(
    service: Arc<S>,
    peer: Arc<Peer>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, ConnectionError> {
    let (parts, body) = request.into_parts();
    let call = Call {
        method: parts.method,
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        headers: parts.headers,
        body: Limited::new(body, LARGEST_BODY_BYTES).collect().await?.to_bytes(),
        peer,
    };
    let answer = service.answer(call).await?;
    let mut response = Response::builder().status(answer.status);
    for (name, value) in answer.headers {
        response = response.header(name, value);
    }
    Ok(response.body(Full::new(answer.body))?)
}

fn peer(connection: &rustls::ServerConnection) -> Peer {
    let or_unknown = |text: Option<String>| text.unwrap_or_else(|| "unknown".to_owned());
    let certificate = connection.peer_certificates().and_then(|chain| chain.first());
    Peer {
        protocol: or_unknown(connection.protocol_version().map(|it| format!("{it:?}"))),
        cipher_suite: or_unknown(
            connection.negotiated_cipher_suite().map(|it| format!("{:?}", it.suite())),
        ),
        key_exchange: or_unknown(
            connection.negotiated_key_exchange_group().map(|it| format!("{:?}", it.name())),
        ),
        client: certificate.and_then(|der| common_name(der)),
    }
}

fn common_name(der: &[u8]) -> Option<String> {
    let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
    let name = certificate.subject().iter_common_name().next()?;
    name.as_str().ok().map(str::to_owned)
}
