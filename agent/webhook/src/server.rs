//! HTTPS for the API server: TLS 1.3, HTTP/1.1, one path.
//!
//! Invariants: a connection, a handshake, a request and a body are bounded in number, time or size; a request
//! that was accepted is answered before the process ends. HTTP/1.1 alone, since the API server speaks it to
//! webhooks, so that its calls are spread over the replicas. Called by [`crate::app`].

mod respond;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use sotto_runtime::drain::Drain;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use crate::certificate::Certificate;
use crate::settings::Settings;
use respond::Responder;

/// Connections at a time; the next one waits to be accepted.
const MAX_CONNECTIONS: usize = 128;
/// How long a handshake may take.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(5);
/// How long a connection may be idle. Longer than the API server keeps one (90 s), which so is the one that
/// closes: it can't know of a request that crosses our close.
const IDLE_DEADLINE: Duration = Duration::from_secs(120);
/// After an error of accept: out of file descriptors, for instance; not a busy loop.
const PAUSE: Duration = Duration::from_millis(10);

/// A bound server.
pub struct Server {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    responder: Arc<Responder>,
    drain: Drain,
}

/// A server that can't be started.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The address can't be bound.
    #[error("{0} can't be listened on: {1}")]
    Bind(SocketAddr, std::io::Error),
    /// TLS can't be set up.
    #[error("TLS can't be set up: {0}")]
    Tls(#[from] rustls::Error),
}

impl Server {
    /// Binds `address`.
    ///
    /// # Errors
    /// The address is taken, or TLS can't be set up.
    pub async fn bind(
        address: SocketAddr,
        certificate: Arc<Certificate>,
        settings: Settings,
        drain: Drain,
    ) -> Result<Self, ServerError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_no_client_auth()
            .with_cert_resolver(certificate);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let listener =
            TcpListener::bind(address).await.map_err(|error| ServerError::Bind(address, error))?;
        let responder = Arc::new(Responder::new(settings));
        Ok(Self { listener, acceptor: TlsAcceptor::from(Arc::new(config)), responder, drain })
    }

    /// What it is bound to.
    ///
    /// # Errors
    /// The kernel doesn't say.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until the drain begins; its connections belong to the drain.
    pub async fn run(self) {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let accepted = tokio::select! {
                accepted = accept(&self.listener, &places) => accepted,
                () = self.drain.begun() => return,
            };
            let (stream, place) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection was not accepted");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let (acceptor, drain) = (self.acceptor.clone(), self.drain.clone());
            let responder = Arc::clone(&self.responder);
            self.drain.spawn(async move {
                if let Err(error) = connection(stream, acceptor, responder, drain).await {
                    tracing::debug!(error, "a connection ended");
                }
                drop(place);
            });
        }
    }
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> std::io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.map_err(std::io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, place))
}

async fn connection(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    responder: Arc<Responder>,
    drain: Drain,
) -> Result<(), String> {
    let handshake = tokio::time::timeout(HANDSHAKE_DEADLINE, acceptor.accept(stream));
    let stream = handshake
        .await
        .map_err(|_| "the handshake took too long".to_owned())?
        .map_err(|error| error.to_string())?;
    let service = service_fn(move |request| {
        let responder = Arc::clone(&responder);
        async move { Ok::<_, std::convert::Infallible>(responder.respond(request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE_DEADLINE)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = drain.begun() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    ended.map_err(|error| error.to_string())
}
