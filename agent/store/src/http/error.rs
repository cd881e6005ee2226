//! Why a request had no answer. Messages come from the system and from rustls, never from a peer's body.

use std::error::Error;
use std::io;
use std::time::Duration;

use rustls::AlertDescription;

/// Why a request had no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HttpError {
    /// Not in time.
    #[error("no answer within {0:?}")]
    Deadline(Duration),
    /// No connection.
    #[error("no connection: {0}")]
    Connect(String),
    /// The server isn't who it should be; nothing was sent to it.
    #[error("the server's certificate is not trusted: {0}")]
    Untrusted(String),
    /// The server can't speak the only version of TLS that we speak; nothing was sent to it.
    #[error("the server doesn't speak TLS 1.3")]
    NoTls13,
    /// The server wants another client certificate.
    #[error("the server refuses our client certificate")]
    ClientCertificateRefused,
    /// Any other failure of TLS.
    #[error("TLS failed: {0}")]
    Tls(String),
    /// The connection ended early. A server that refuses a client certificate may look like this.
    #[error("the connection ended before the answer: {0}")]
    Broken(String),
    /// Over the request's limit.
    #[error("the answer has more than {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: usize,
    },
}

impl HttpError {
    /// Whether the request certainly never reached the server, so that repeating it is safe.
    #[must_use]
    pub fn was_never_sent(&self) -> bool {
        match self {
            Self::Connect(_) | Self::Untrusted(_) | Self::NoTls13 => true,
            Self::Deadline(_)
            | Self::ClientCertificateRefused
            | Self::Tls(_)
            | Self::Broken(_)
            | Self::TooLarge { .. } => false,
        }
    }

    pub(super) fn is_about_certificates(&self) -> bool {
        matches!(self, Self::Untrusted(_) | Self::ClientCertificateRefused)
    }
}

pub(super) fn of_client(error: &hyper_util::client::legacy::Error) -> HttpError {
    match find_tls(error) {
        Some(tls) => of_tls(tls),
        None if error.is_connect() => HttpError::Connect(root_cause(error)),
        None => HttpError::Broken(root_cause(error)),
    }
}

pub(super) fn of_body(error: &hyper::Error) -> HttpError {
    find_tls(error).map_or_else(|| HttpError::Broken(root_cause(error)), of_tls)
}

fn of_tls(error: &rustls::Error) -> HttpError {
    match error {
        rustls::Error::InvalidCertificate(reason) => HttpError::Untrusted(reason.to_string()),
        rustls::Error::AlertReceived(AlertDescription::ProtocolVersion)
        | rustls::Error::PeerIncompatible(_) => HttpError::NoTls13,
        rustls::Error::AlertReceived(alert) if is_about_our_certificate(*alert) => {
            HttpError::ClientCertificateRefused
        }
        other => HttpError::Tls(other.to_string()),
    }
}

fn is_about_our_certificate(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::CertificateRequired
            | AlertDescription::NoCertificate
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
    )
}

fn find_tls<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(tls) = error.downcast_ref::<rustls::Error>() {
            return Some(tls);
        }
        // `source` of an io::Error skips the very error that it wraps.
        if let Some(inner) = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref)
            && let Some(tls) = find_tls(inner)
        {
            return Some(tls);
        }
        next = error.source();
    }
    None
}

fn root_cause(error: &(dyn Error + 'static)) -> String {
    let mut deepest = error;
    loop {
        // `source` of an io::Error skips the very error that it wraps.
        let inner = deepest.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let inner = inner.map(|inner| inner as &(dyn Error + 'static));
        match inner.or_else(|| deepest.source()) {
            Some(next) => deepest = next,
            None => break,
        }
    }
    match deepest.downcast_ref::<h2::Error>() {
        None => deepest.to_string(),
        // Its own text has what the peer wrote into a GOAWAY.
        Some(error) => match (error.get_io(), error.reason()) {
            (Some(io), _) => io.to_string(),
            (None, Some(reason)) => reason.description().to_owned(),
            (None, None) => "an HTTP/2 error".to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    #[test]
    fn a_tls_error_is_found_inside_nested_io_errors() {
        let tls = rustls::Error::AlertReceived(AlertDescription::CertificateRequired);
        let nested = io::Error::other(io::Error::other(tls));
        assert_eq!(find_tls(&nested).map(of_tls), Some(HttpError::ClientCertificateRefused));
        assert!(find_tls(&io::Error::other("plain")).is_none());
    }

    /// What a server writes into a GOAWAY, as an HTTP/2 connection's end.
    async fn goaway(words: &[u8]) -> h2::Error {
        let (client, mut server) = tokio::io::duplex(1 << 16);
        let (_requests, connection) = h2::client::handshake(client).await.unwrap();
        let mut frames = vec![0, 0, 0, 4, 0, 0, 0, 0, 0];
        let length = u8::try_from(8 + words.len()).unwrap();
        frames.extend([0, 0, length, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 11]);
        frames.extend(words);
        server.write_all(&frames).await.unwrap();
        connection.await.unwrap_err()
    }

    #[tokio::test]
    async fn a_servers_words_of_goodbye_are_not_passed_on() {
        let error = goaway(b"X-Vault-Token: hvs.canary").await;
        assert!(error.to_string().contains("canary"), "the library passes them on: {error}");
        let said = root_cause(&io::Error::other(error));
        assert!(!said.contains("canary") && !said.is_empty(), "{said}");
    }
}
