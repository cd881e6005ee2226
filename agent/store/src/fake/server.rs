//! The server itself. It ends, with all its connections, when it is dropped.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use futures::stream;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// One request, as it arrived.
#[derive(Clone)]
pub(crate) struct Seen {
    pub(crate) method: Method,
    pub(crate) target: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
    pub(crate) client: Option<CertificateDer<'static>>,
    pub(crate) connection: usize,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

/// One answer.
#[derive(Clone, Default)]
pub(crate) struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: String,
    in_chunks: bool,
    never: bool,
}

impl Reply {
    pub(crate) fn new(status: u16, body: impl Into<String>) -> Self {
        Self { status, body: body.into(), ..Self::default() }
    }

    pub(crate) fn ok(body: &str) -> Self {
        Self::new(200, body)
    }

    pub(crate) fn never() -> Self {
        Self { never: true, ..Self::default() }
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Without saying beforehand how long it is.
    pub(crate) fn in_chunks(mut self) -> Self {
        self.in_chunks = true;
        self
    }

    async fn into_response(self) -> Response<BoxBody<Bytes, Infallible>> {
        if self.never {
            return std::future::pending().await;
        }
        let mut response = Response::builder().status(self.status);
        for (name, value) in self.headers {
            response = response.header(name, value);
        }
        let body = if self.in_chunks {
            let chunks: Vec<_> =
                self.body.as_bytes().chunks(1 << 10).map(Bytes::copy_from_slice).collect();
            let frames = chunks.into_iter().map(|chunk| Ok::<_, Infallible>(Frame::data(chunk)));
            StreamBody::new(stream::iter(frames)).boxed()
        } else {
            Full::new(Bytes::from(self.body)).boxed()
        };
        response.body(body).unwrap()
    }
}

type Answer = dyn Fn(&Seen) -> Reply + Send + Sync;

pub(crate) struct FakeServer {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    _tasks: JoinSet<()>,
}

struct Shared {
    seen: Arc<Mutex<Vec<Seen>>>,
    answer: Box<Answer>,
}

impl FakeServer {
    /// Speaks HTTP/2, and HTTP/1.1 to who wants.
    pub(crate) async fn start(
        config: ServerConfig,
        answer: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::with_protocols(config, &[b"h2", b"http/1.1"], answer).await
    }

    pub(crate) async fn with_protocols(
        mut config: ServerConfig,
        protocols: &[&[u8]],
        answer: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) -> Self {
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::new(Shared { seen: Arc::clone(&seen), answer: Box::new(answer) });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, TlsAcceptor::from(Arc::new(config)), shared));
        Self { address, seen, _tasks: tasks }
    }

    pub(crate) fn address(&self) -> String {
        format!("https://{}", self.address)
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// `METHOD target` of all requests so far.
    pub(crate) fn log(&self) -> Vec<String> {
        self.seen().iter().map(|seen| format!("{} {}", seen.method, seen.target)).collect()
    }
}

async fn accept(listener: TcpListener, tls: TlsAcceptor, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    for number in 0.. {
        let Ok((tcp, _)) = listener.accept().await else { return };
        connections.spawn(serve(tcp, tls.clone(), number, Arc::clone(&shared)));
    }
}

async fn serve(tcp: TcpStream, tls: TlsAcceptor, connection: usize, shared: Arc<Shared>) {
    let Ok(stream) = tls.accept(tcp).await else { return };
    let client = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let client = client.map(|certificate| certificate.clone().into_owned());
    let service = service_fn(move |request| {
        let (client, shared) = (client.clone(), Arc::clone(&shared));
        async move { Ok::<_, Infallible>(answer(request, client, connection, &shared).await) }
    });
    let builder = auto::Builder::new(TokioExecutor::new());
    let _ended_by_the_client = builder.serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(
    request: Request<Incoming>,
    client: Option<CertificateDer<'static>>,
    connection: usize,
    shared: &Shared,
) -> Response<BoxBody<Bytes, Infallible>> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let seen = Seen {
        method: head.method,
        target: head.uri.path_and_query().unwrap().to_string(),
        headers: head.headers,
        body: String::from_utf8_lossy(&body).into_owned(),
        client,
        connection,
    };
    shared.seen.lock().unwrap().push(seen.clone());
    (shared.answer)(&seen).into_response().await
}
