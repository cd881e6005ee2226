//! Scrapes, answered over plain HTTP: nothing in them is a secret, a pod or a name that a tenant wrote.
//!
//! Invariant: an asker has a deadline, and few are answered at once; nothing but `GET /metrics` is.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use sotto_runtime::drain::Drain;
use sotto_runtime::metrics;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// Connections that are answered at once.
const MOST_CONNECTIONS: usize = 16;
/// How long one connection may last.
const CONNECTION_DEADLINE: Duration = Duration::from_secs(10);

/// Gives the text of a scrape.
pub type Scrape =
    Arc<dyn Fn() -> Pin<Box<dyn Future<Output = String> + Send>> + Send + Sync + 'static>;

/// Answers scrapes at the address until the drain begins.
///
/// # Errors
/// The address is taken.
pub async fn serve(address: SocketAddr, scrape: Scrape, drain: &Drain) -> std::io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    tracing::info!(%address, "metrics are answered");
    let ended = drain.clone();
    drain.spawn(async move {
        tokio::select! {
            () = accept(listener, scrape) => {}
            () = ended.begun() => {}
        }
    });
    Ok(())
}

async fn accept(listener: TcpListener, scrape: Scrape) {
    let permits = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let scrape = Arc::clone(&scrape);
                // Its owner is its deadline.
                tokio::spawn(async move {
                    let service = service_fn(|request| answer(request, Arc::clone(&scrape)));
                    let connection = hyper::server::conn::http1::Builder::new()
                        .timer(TokioTimer::new())
                        .header_read_timeout(CONNECTION_DEADLINE)
                        .serve_connection(TokioIo::new(stream), service);
                    let _ = tokio::time::timeout(CONNECTION_DEADLINE, connection).await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a scrape can't be taken");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

async fn answer(
    request: Request<Incoming>,
    scrape: Scrape,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let plain = |status, text: &'static str| {
        let mut response = Response::new(Full::from(text));
        *response.status_mut() = status;
        response
    };
    if request.uri().path() != "/metrics" {
        return Ok(plain(StatusCode::NOT_FOUND, "ask for /metrics\n"));
    }
    if request.method() != Method::GET {
        return Ok(plain(StatusCode::METHOD_NOT_ALLOWED, "GET only\n"));
    }
    let mut response = Response::new(Full::from(scrape().await));
    let kind = http::HeaderValue::from_static(metrics::CONTENT_TYPE);
    response.headers_mut().insert(CONTENT_TYPE, kind);
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    async fn asked(address: SocketAddr, line: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }

    #[tokio::test]
    async fn only_a_scrape_is_answered() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let drain = Drain::new();
        let scrape: Scrape = Arc::new(|| Box::pin(async { "sotto_volumes 1\n# EOF\n".to_owned() }));
        serve(free, scrape, &drain).await.unwrap();
        let text = asked(free, "GET /metrics").await;
        assert!(text.contains("openmetrics-text") && text.ends_with("# EOF\n"), "{text}");
        assert!(asked(free, "GET /").await.starts_with("HTTP/1.1 404"));
        assert!(asked(free, "POST /metrics").await.starts_with("HTTP/1.1 405"));
        drain.finish(Duration::from_secs(5)).await.unwrap();
        assert!(TcpStream::connect(free).await.is_err());
    }
}
