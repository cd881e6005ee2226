//! A certificate authority for one development machine: server certificates for loopback, client certificates.
//!
//! Invariant: keys are made here and nowhere else, live for a day, and are written with mode 0600 only.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

const LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);
/// Clocks of one machine agree; this is for readers that round down.
const BACKDATED: Duration = Duration::from_secs(60);

/// A certificate could not be made.
#[derive(Debug, thiserror::Error)]
#[error("a certificate for {name:?} could not be made")]
pub struct PkiError {
    name: String,
    #[source]
    source: rcgen::Error,
}

/// A CA.
pub struct Authority {
    certificate_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// What a certificate says about its owner.
#[derive(Debug, Clone)]
pub struct CertificateSpec {
    /// The subject's common name.
    pub common_name: String,
    /// DNS names and IP addresses of the subject.
    pub alternative_names: Vec<String>,
    /// For a server or for a client.
    pub usage: Usage,
    /// First moment of validity.
    pub not_before: SystemTime,
    /// Last moment of validity.
    pub not_after: SystemTime,
}

/// Which end of a connection a certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    /// The server's.
    Server,
    /// The client's.
    Client,
}

impl CertificateSpec {
    /// A server on loopback, valid for a day.
    #[must_use]
    pub fn server(common_name: &str) -> Self {
        let mut spec = Self::client(common_name);
        spec.usage = Usage::Server;
        spec.alternative_names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
        spec
    }

    /// A client, valid for a day.
    #[must_use]
    pub fn client(common_name: &str) -> Self {
        let now = SystemTime::now();
        Self {
            common_name: common_name.to_owned(),
            alternative_names: Vec::new(),
            usage: Usage::Client,
            not_before: now - BACKDATED,
            not_after: now + LIFETIME,
        }
    }

    fn params(&self) -> Result<CertificateParams, rcgen::Error> {
        let mut params = CertificateParams::new(self.alternative_names.clone())?;
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, self.common_name.as_str());
        params.not_before = self.not_before.into();
        params.not_after = self.not_after.into();
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![match self.usage {
            Usage::Server => ExtendedKeyUsagePurpose::ServerAuth,
            Usage::Client => ExtendedKeyUsagePurpose::ClientAuth,
        }];
        Ok(params)
    }
}

impl Authority {
    /// A new CA that nobody trusts yet.
    ///
    /// # Errors
    /// No key or certificate could be made.
    pub fn new(name: &str) -> Result<Self, PkiError> {
        Self::make(name).map_err(|source| PkiError { name: name.to_owned(), source })
    }

    fn make(name: &str) -> Result<Self, rcgen::Error> {
        let mut params = CertificateSpec::client(name).params()?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.extended_key_usages = Vec::new();
        params.use_authority_key_identifier_extension = false;
        let key = KeyPair::generate()?;
        let certificate_pem = params.self_signed(&key)?.pem();
        Ok(Self { certificate_pem, issuer: Issuer::new(params, key) })
    }

    /// The CA's certificate, PEM.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// A certificate and its new key.
    ///
    /// # Errors
    /// A name isn't one that a certificate can hold.
    pub fn issue(&self, spec: &CertificateSpec) -> Result<Credential, PkiError> {
        let make = || {
            let key = KeyPair::generate()?;
            let certificate = spec.params()?.signed_by(&key, &self.issuer)?;
            Ok(Credential { certificate_pem: certificate.pem(), der: certificate.into(), key })
        };
        make().map_err(|source| PkiError { name: spec.common_name.clone(), source })
    }

    /// A certificate for a server on 127.0.0.1 and localhost.
    ///
    /// # Errors
    /// As [`Self::issue`].
    pub fn server(&self, common_name: &str) -> Result<Credential, PkiError> {
        self.issue(&CertificateSpec::server(common_name))
    }

    /// A certificate for a client.
    ///
    /// # Errors
    /// As [`Self::issue`].
    pub fn client(&self, common_name: &str) -> Result<Credential, PkiError> {
        self.issue(&CertificateSpec::client(common_name))
    }
}

/// A certificate with its private key.
pub struct Credential {
    certificate_pem: String,
    der: CertificateDer<'static>,
    key: KeyPair,
}

/// Where a credential was written.
#[derive(Debug, Clone)]
pub struct CredentialFiles {
    /// The certificate, PEM, mode 0644.
    pub certificate: PathBuf,
    /// The key, PKCS#8 PEM, mode 0600.
    pub key: PathBuf,
}

impl Credential {
    /// The certificate, PEM.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The private key, PKCS#8 PEM.
    #[must_use]
    pub fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    /// The chain and key as rustls takes them.
    #[must_use]
    pub fn to_rustls(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let key = PrivatePkcs8KeyDer::from(self.key.serialize_der());
        (vec![self.der.clone()], key.into())
    }

    /// Writes `<stem>.crt` and `<stem>.key` into a directory, replacing both.
    ///
    /// # Errors
    /// The directory can't be written.
    pub fn write(&self, directory: &Path, stem: &str) -> io::Result<CredentialFiles> {
        let certificate = directory.join(format!("{stem}.crt"));
        let key = directory.join(format!("{stem}.key"));
        write_file(&certificate, &self.certificate_pem, 0o644)?;
        write_file(&key, &self.key.serialize_pem(), 0o600)?;
        Ok(CredentialFiles { certificate, key })
    }
}

/// Writes a file that has its mode from its first byte on, and appears whole.
///
/// # Errors
/// The directory can't be written.
pub fn write_file(path: &Path, content: &str, mode: u32) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
    file.write_all(content.as_bytes())?;
    std::fs::rename(new, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn keys_are_written_for_their_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let client = Authority::new("ca").unwrap().client("sotto-node").unwrap();
        let files = client.write(folder.path(), "client").unwrap();
        let mode = |path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(files.key), mode(files.certificate)), (0o600, 0o644));
    }

    #[test]
    fn a_credential_is_replaced_by_writing_again() {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new("ca").unwrap();
        let first = authority.client("a").unwrap().write(folder.path(), "client").unwrap();
        let before = std::fs::read_to_string(&first.certificate).unwrap();
        let second = authority.client("a").unwrap().write(folder.path(), "client").unwrap();
        assert_eq!(first.certificate, second.certificate);
        assert_ne!(before, std::fs::read_to_string(&second.certificate).unwrap());
    }
}
