//! TLS to the API server: aws-lc-rs by name, 1.3 only, the cluster's CA and no other.
//!
//! kube's own setting would take the process's default provider, allow 1.2, fall back to the system's
//! trust roots and obey `insecure-skip-tls-verify`.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use kube::client::ConfigExt as _;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::ConnectError;

/// How often the CA's file is looked at, when a connection is made.
const RELOAD_INTERVAL: Duration = Duration::from_secs(60);

/// Encrypts what `tcp` connects.
pub(super) fn connector(
    config: &kube::Config,
    tcp: HttpConnector,
) -> Result<HttpsConnector<HttpConnector>, ConnectError> {
    let tls = client_config(config)?;
    let mut builder = HttpsConnectorBuilder::new().with_tls_config(tls).https_only();
    if let Some(name) = &config.tls_server_name {
        let name = ServerName::try_from(name.clone()).map_err(|error| unusable(&error))?;
        builder = builder.with_server_name_resolver(FixedServerNameResolver::new(name));
    }
    Ok(builder.enable_http1().wrap_connector(tcp))
}

fn client_config(config: &kube::Config) -> Result<ClientConfig, ConnectError> {
    if config.accept_invalid_certs {
        return Err(ConnectError::Unverified);
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| unusable(&error))?;
    let builder = match (&config.root_cert_file, &config.root_cert) {
        (Some(path), _) => {
            let verifier = Reloading::new(path.clone(), provider)?;
            builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
        }
        (None, Some(certificates)) => {
            let roots = roots(certificates.iter().map(|der| CertificateDer::from(der.clone())))?;
            builder.with_root_certificates(roots)
        }
        (None, None) => return Err(ConnectError::NoAuthority),
    };
    let user = &config.auth_info;
    if user.client_certificate.is_none() && user.client_certificate_data.is_none() {
        return Ok(builder.with_no_client_auth());
    }
    let by_kube = config.rustls_client_config().map_err(|error| unusable(&error))?;
    Ok(builder.with_client_cert_resolver(by_kube.client_auth_cert_resolver))
}

fn roots(
    certificates: impl Iterator<Item = CertificateDer<'static>>,
) -> Result<RootCertStore, ConnectError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate).map_err(|error| unusable(&error))?;
    }
    if roots.is_empty() { Err(ConnectError::NoAuthority) } else { Ok(roots) }
}

fn unusable(error: &(dyn std::error::Error + 'static)) -> ConnectError {
    ConnectError::Certificates(crate::text::chain(error))
}

/// Verifies by the CA in a file, which the cluster may replace while we run. A file that can't be read
/// leaves the last good CA in force.
#[derive(Debug)]
struct Reloading {
    path: PathBuf,
    provider: Arc<CryptoProvider>,
    loaded: RwLock<(Arc<WebPkiServerVerifier>, Instant)>,
}

impl Reloading {
    fn new(path: PathBuf, provider: Arc<CryptoProvider>) -> Result<Self, ConnectError> {
        let loaded = RwLock::new((load(&path, &provider)?, Instant::now()));
        Ok(Self { path, provider, loaded })
    }

    fn current(&self) -> Arc<WebPkiServerVerifier> {
        self.current_after(RELOAD_INTERVAL)
    }

    fn current_after(&self, interval: Duration) -> Arc<WebPkiServerVerifier> {
        {
            let loaded = self.loaded.read().unwrap_or_else(PoisonError::into_inner);
            if loaded.1.elapsed() < interval {
                return Arc::clone(&loaded.0);
            }
        }
        let mut loaded = self.loaded.write().unwrap_or_else(PoisonError::into_inner);
        match load(&self.path, &self.provider) {
            Ok(fresh) => loaded.0 = fresh,
            Err(error) => tracing::warn!(%error, "the API server's CA was not read again"),
        }
        loaded.1 = Instant::now();
        Arc::clone(&loaded.0)
    }
}

fn load(
    path: &Path,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<WebPkiServerVerifier>, ConnectError> {
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unusable(&error))?;
    let roots = Arc::new(roots(certificates.into_iter())?);
    WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(provider))
        .build()
        .map_err(|error| unusable(&error))
}

impl ServerCertVerifier for Reloading {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.current().verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        )
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.current().verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.current().verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.current().supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sotto_dev::apiserver::FakeApiServer;

    fn verifier(path: &Path) -> Result<Reloading, ConnectError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        Reloading::new(path.to_owned(), provider)
    }

    #[tokio::test]
    async fn a_new_ca_is_taken_and_a_broken_file_leaves_the_last_good_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.crt");
        let server = FakeApiServer::start().await.unwrap();
        std::fs::write(&path, server.ca_pem()).unwrap();
        let verifier = verifier(&path).unwrap();
        let first = verifier.current();
        assert!(Arc::ptr_eq(&first, &verifier.current()), "the file is looked at once a minute");
        std::fs::write(&path, FakeApiServer::start().await.unwrap().ca_pem()).unwrap();
        let second = verifier.current_after(Duration::ZERO);
        assert!(!Arc::ptr_eq(&first, &second));
        for broken in ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            std::fs::write(&path, broken).unwrap();
            assert!(Arc::ptr_eq(&second, &verifier.current_after(Duration::ZERO)));
        }
        std::fs::remove_file(&path).unwrap();
        assert!(Arc::ptr_eq(&second, &verifier.current_after(Duration::ZERO)));
    }

    #[test]
    fn a_ca_file_without_a_certificate_is_refused_at_start() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.crt");
        assert!(matches!(verifier(&path).err(), Some(ConnectError::Certificates(_))));
        std::fs::write(&path, "").unwrap();
        assert!(verifier(&path).is_err());
    }
}
