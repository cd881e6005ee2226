//! TLS 1.3 for the development servers and their client; nothing older is spoken.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::server::WebPkiClientVerifier;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::pki::Credential;

const VERSIONS: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS13];

/// A TLS configuration could not be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The CA's PEM can't be read.
    #[error("the CA's certificate can't be read")]
    Ca(#[source] rustls::pki_types::pem::Error),
    /// The CA's certificate can't be trusted.
    #[error("rustls refuses the CA, the certificate or the key")]
    Rustls(#[from] rustls::Error),
    /// No client could ever be verified.
    #[error("client certificates can't be verified by this CA")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// Accepts connections as the owner of `credential`; with `client_ca`, only from clients that it signed.
///
/// # Errors
/// The CA or the credential can't be used.
pub fn acceptor(credential: &Credential, client_ca: Option<&str>) -> Result<TlsAcceptor, TlsError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(VERSIONS)?;
    let builder = match client_ca {
        None => builder.with_no_client_auth(),
        Some(ca) => {
            let roots = Arc::new(roots(ca)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build()?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let (chain, key) = credential.to_rustls();
    let mut config = builder.with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Connects to servers that `ca` signed, as the owner of `credential` where there is one.
///
/// # Errors
/// The CA or the credential can't be used.
pub fn connector(ca: &str, credential: Option<&Credential>) -> Result<TlsConnector, TlsError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(VERSIONS)?
        .with_root_certificates(roots(ca)?);
    let config = match credential {
        None => builder.with_no_client_auth(),
        Some(credential) => {
            let (chain, key) = credential.to_rustls();
            builder.with_client_auth_cert(chain, key)?
        }
    };
    Ok(TlsConnector::from(Arc::new(config)))
}

fn roots(ca: &str) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca.as_bytes()) {
        roots.add(certificate.map_err(TlsError::Ca)?)?;
    }
    Ok(roots)
}
