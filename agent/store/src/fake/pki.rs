//! A certificate authority of the test's own.

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};

use crate::http::TlsFiles;

pub(crate) struct Pki {
    issuer: Issuer<'static, KeyPair>,
    der: CertificateDer<'static>,
    pem: String,
}

/// A certificate with its key.
pub(crate) struct Identity {
    pub(crate) der: CertificateDer<'static>,
    pem: String,
    key: KeyPair,
}

impl Pki {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        let (der, pem) = (certificate.der().clone(), certificate.pem());
        Self { issuer: Issuer::new(params, key), der, pem }
    }

    /// For a server at 127.0.0.1, or for a client.
    pub(crate) fn identity(&self) -> Identity {
        self.issue(SanType::IpAddress(Ipv4Addr::LOCALHOST.into()))
    }

    /// For a server of that name only.
    pub(crate) fn named(&self, name: &str) -> Identity {
        self.issue(SanType::DnsName(name.try_into().unwrap()))
    }

    fn issue(&self, name: SanType) -> Identity {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![name];
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Identity { der: certificate.der().clone(), pem: certificate.pem(), key }
    }

    /// A server that requires client certificates of this authority.
    pub(crate) fn mutual(&self) -> ServerConfig {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(self.roots(), provider);
        let verifier = verifier.build().unwrap();
        let identity = self.identity();
        builder(&rustls::version::TLS13)
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![identity.der.clone()], identity.key())
            .unwrap()
    }

    /// A server that asks for no client certificate.
    pub(crate) fn one_way(
        &self,
        identity: &Identity,
        version: &'static SupportedProtocolVersion,
    ) -> ServerConfig {
        builder(version)
            .with_no_client_auth()
            .with_single_cert(vec![identity.der.clone()], identity.key())
            .unwrap()
    }

    fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).unwrap();
        Arc::new(roots)
    }

    pub(crate) fn write_ca(&self, folder: &Path) {
        std::fs::write(folder.join("ca.pem"), &self.pem).unwrap();
    }

    /// The files of a client that trusts this authority and has that identity of it.
    pub(crate) fn files(&self, folder: &Path, client: &Identity) -> TlsFiles {
        self.write_ca(folder);
        client.write_certificate(folder);
        client.write_key(folder);
        TlsFiles {
            ca: folder.join("ca.pem").into(),
            client_certificate: Some(folder.join("tls.crt")),
            client_key: Some(folder.join("tls.key")),
            server_name: None,
        }
    }
}

impl Identity {
    fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.key.serialize_der()))
    }

    pub(crate) fn write_certificate(&self, folder: &Path) {
        std::fs::write(folder.join("tls.crt"), &self.pem).unwrap();
    }

    pub(crate) fn write_key(&self, folder: &Path) {
        std::fs::write(folder.join("tls.key"), self.key.serialize_pem()).unwrap();
    }
}

fn builder(
    version: &'static SupportedProtocolVersion,
) -> rustls::ConfigBuilder<ServerConfig, rustls::WantsVerifier> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    ServerConfig::builder_with_provider(provider).with_protocol_versions(&[version]).unwrap()
}
