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

/// The sum of a counter's lines that have this label, such as `result="unchanged"`.
#[must_use]
pub fn sum(text: &str, name: &str, label: &str) -> f64 {
    let has_label = |rest: &str| rest.starts_with('{') && rest.contains(label);
    let wanted = |line: &&str| line.strip_prefix(name).is_some_and(has_label);
    let values = text.lines().filter(wanted).filter_map(|line| line.rsplit_once(' '));
    values.filter_map(|(_, value)| value.parse::<f64>().ok()).sum()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_is_of_one_label_at_all_others_and_of_no_other_name() {
        let text = "a_total{s=\"x y\",r=\"u\"} 3\na_total{s=\"z\",r=\"u\"} 4\n\
                    a_total{s=\"z\",r=\"v\"} 5\na_totals{s=\"z\",r=\"u\"} 6\nb 7\n";
        assert!((sum(text, "a_total", "r=\"u\"") - 7.0).abs() < f64::EPSILON);
        assert!(sum(text, "c", "r=\"u\"").abs() < f64::EPSILON);
    }
}
