//! A Prometheus scrape, as plain HTTP on loopback.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

/// An address that nobody has at this moment, for `metrics.address`.
///
/// # Errors
/// No port.
pub fn free_address() -> std::io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}

/// What is answered there.
///
/// # Errors
/// Nobody answers.
pub async fn scrape(address: SocketAddr) -> anyhow::Result<String> {
    crate::files::blocking(move || {
        let mut stream = TcpStream::connect(address)?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text).map(|_| text)
    })
    .await
}
