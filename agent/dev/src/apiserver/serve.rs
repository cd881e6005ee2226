//! Connections, and the order of checks before an answer: bearer, record, fault, permission.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;

use http::{Request, Response, header};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::faults::Fault;
use super::request::Recorded;
use super::respond::{self, Body};
use super::state::State;

/// Accepts until the task is aborted, which ends every connection too.
pub(super) async fn accept(listener: TcpListener, acceptor: TlsAcceptor, state: Arc<State>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                let (acceptor, state) = (acceptor.clone(), Arc::clone(&state));
                connections.spawn(async move {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        connection(TokioIo::new(stream), state).await;
                    }
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection<S>(stream: S, state: Arc<State>)
where
    S: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let service = service_fn(move |request| answer(Arc::clone(&state), request));
    // A client that goes away, or a fault that cuts the connection, ends here as an error.
    if let Err(error) =
        hyper::server::conn::http1::Builder::new().serve_connection(stream, service).await
    {
        tracing::debug!(%error, "a connection ended");
    }
}

async fn answer(state: Arc<State>, request: Request<Incoming>) -> io::Result<Response<Body>> {
    let authorization = request.headers().get(header::AUTHORIZATION);
    let expected = format!("Bearer {}", state.bearer);
    if authorization.is_none_or(|given| given.as_bytes() != expected.as_bytes()) {
        return Ok(respond::status(401, "Unauthorized", "Unauthorized"));
    }
    let (parts, body) = request.into_parts();
    let Some(mut recorded) = Recorded::parse(&parts.method, parts.uri.path(), parts.uri.query())
    else {
        return Ok(respond::status(404, "NotFound", "not an API path"));
    };
    let content_type = parts.headers.get(header::CONTENT_TYPE);
    recorded.content_type =
        content_type.and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    recorded.body = serde_json::from_slice(&body).unwrap_or(Value::Null);
    match state.record(&recorded) {
        None => {}
        Some(Fault::Status(code)) => return Ok(respond::status(code, "Fault", "a planned fault")),
        Some(Fault::RetryAfter { code, seconds }) => {
            return Ok(respond::retry_after(code, seconds));
        }
        Some(Fault::Slow(time)) => tokio::time::sleep(time).await,
        Some(Fault::Hang) => {
            let never: Infallible = std::future::pending().await;
            match never {}
        }
        Some(Fault::Disconnect) => return Err(io::ErrorKind::ConnectionReset.into()),
        Some(Fault::Garbage) => return Ok(respond::text(200, "<html>not JSON</html>")),
    }
    if !state.read(|inner| inner.permissions.as_ref().is_none_or(|it| it.allow(&recorded))) {
        let (verb, resource) = (recorded.verb, &recorded.resource);
        let message = format!("{resource} is forbidden: cannot {verb} resource {resource}");
        return Ok(respond::status(403, "Forbidden", &message));
    }
    Ok(respond::to(state, recorded))
}
