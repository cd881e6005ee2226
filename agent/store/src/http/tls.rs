//! The files that say whom we trust and who we are, and the TLS configuration made of them.
//!
//! Invariant: a configuration trusts exactly the certificates of the CA file (no system roots), speaks
//! TLS 1.3 only, and has a client certificate only together with its key.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use sotto_core::secret::SecretBytes;

/// Characters of a line in PEM.
const PEM_LINE: usize = 64;
/// Largest TLS file, in bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// The only CA that servers are believed by, as PEM certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrustedCa {
    /// In a file, which is read again when it changes.
    File(PathBuf),
    /// As they came, from whoever may say so: a sidecar's, from sotto-node.
    Given(Arc<[u8]>),
}

impl From<PathBuf> for TrustedCa {
    fn from(file: PathBuf) -> Self {
        Self::File(file)
    }
}

impl TrustedCa {
    /// The certificates in PEM, as they are now; they can be used. Nothing else that the file holds, such as a key, is
    /// in it. Blocks.
    ///
    /// # Errors
    /// They can't be read, or aren't certificates.
    pub fn read(&self) -> Result<Vec<u8>, TlsError> {
        let certificates = certificates(TlsFile::Ca, &self.place(), &self.text()?)?;
        Ok(certificates.iter().map(pem).collect::<String>().into_bytes())
    }

    fn text(&self) -> Result<SecretBytes, TlsError> {
        match self {
            Self::File(path) => read(TlsFile::Ca, path),
            Self::Given(text) => Ok(SecretBytes::new(text.to_vec())),
        }
    }

    /// What messages call it.
    pub(super) fn place(&self) -> PathBuf {
        match self {
            Self::File(path) => path.clone(),
            Self::Given(_) => PathBuf::from("the store's CA"),
        }
    }
}

/// Where a client's trust and identity lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The only CA that servers are believed by.
    pub ca: TrustedCa,
    /// PEM certificate chain that we show, only together with `client_key`.
    pub client_certificate: Option<PathBuf>,
    /// PEM private key of `client_certificate`.
    pub client_key: Option<PathBuf>,
    /// The name that servers' certificates must have, where it isn't the host of the address.
    pub server_name: Option<String>,
}

/// Which of the files an error is about; shown as its key in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsFile {
    /// [`TlsFiles::ca`].
    Ca,
    /// [`TlsFiles::client_certificate`].
    ClientCertificate,
    /// [`TlsFiles::client_key`].
    ClientKey,
    /// [`TlsFiles::server_name`].
    ServerName,
}

impl fmt::Display for TlsFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ca => "ca",
            Self::ClientCertificate => "clientCertificate",
            Self::ClientKey => "clientKey",
            Self::ServerName => "serverName",
        })
    }
}

/// Why TLS files can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Not readable.
    #[error("{} can't be read: {source}", path.display())]
    Read {
        /// Which one.
        file: TlsFile,
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Readable, but without what it is for.
    #[error("{} is not what it should be: expected {expected} in PEM", path.display())]
    NotPem {
        /// Which one.
        file: TlsFile,
        /// Where.
        path: PathBuf,
        /// What it should hold.
        expected: &'static str,
    },
    /// A certificate without a key, or a key without a certificate.
    #[error("a client certificate and its key are given together or not at all")]
    HalfAPair(TlsFile),
    /// rustls refuses them, e.g. a key that isn't the certificate's.
    #[error("the client certificate and its key can't be used: {0}")]
    Pair(rustls::Error),
    /// No TLS 1.3 in the crypto library.
    #[error("TLS 1.3 can't be set up: {0}")]
    Protocol(rustls::Error),
    /// Neither a DNS name nor an address.
    #[error("{0:?} is neither a DNS name nor an IP address")]
    ServerName(String),
}

impl TlsError {
    /// Which file it is about.
    #[must_use]
    pub fn file(&self) -> TlsFile {
        match self {
            Self::Read { file, .. } | Self::NotPem { file, .. } | Self::HalfAPair(file) => *file,
            Self::Pair(_) => TlsFile::ClientKey,
            Self::Protocol(_) => TlsFile::Ca,
            Self::ServerName(_) => TlsFile::ServerName,
        }
    }
}

/// A digest of all files, to see that they changed.
pub(super) type Fingerprint = [u8; 32];

/// What the files held at one moment.
pub(super) struct Contents {
    ca: Vec<CertificateDer<'static>>,
    pair: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    fingerprint: Fingerprint,
}

impl TlsFiles {
    pub(super) fn read(&self) -> Result<Contents, TlsError> {
        let mut digest = digest::Context::new(&digest::SHA256);
        let text = noted(self.ca.text()?, &mut digest);
        let ca = certificates(TlsFile::Ca, &self.ca.place(), &text)?;
        let pair = match (&self.client_certificate, &self.client_key) {
            (Some(certificate), Some(key)) => {
                let file = TlsFile::ClientCertificate;
                let text = noted(read(file, certificate)?, &mut digest);
                let chain = certificates(file, certificate, &text)?;
                let text = noted(read(TlsFile::ClientKey, key)?, &mut digest);
                Some((chain, private_key(key, &text)?))
            }
            (None, None) => None,
            (Some(_), None) => return Err(TlsError::HalfAPair(TlsFile::ClientCertificate)),
            (None, Some(_)) => return Err(TlsError::HalfAPair(TlsFile::ClientKey)),
        };
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(digest.finish().as_ref());
        Ok(Contents { ca, pair, fingerprint })
    }

    /// The client key's file, to derive other keys from; `None` if there is none that can be read.
    pub(crate) fn client_secret(&self) -> Option<SecretBytes> {
        let path = self.client_key.as_ref()?;
        read(TlsFile::ClientKey, path).ok()
    }

    pub(super) fn fixed_server_name(&self) -> Result<Option<ServerName<'static>>, TlsError> {
        let parse = |name: &String| {
            ServerName::try_from(name.clone()).map_err(|_| TlsError::ServerName(name.clone()))
        };
        self.server_name.as_ref().map(parse).transpose()
    }
}

impl Contents {
    pub(super) fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    pub(super) fn client_config(&self) -> Result<ClientConfig, TlsError> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(self.ca.iter().cloned());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(TlsError::Protocol)?
            .with_root_certificates(roots);
        match &self.pair {
            Some((chain, key)) => builder
                .with_client_auth_cert(chain.clone(), key.clone_key())
                .map_err(TlsError::Pair),
            None => Ok(builder.with_no_client_auth()),
        }
    }
}

fn read(file: TlsFile, path: &Path) -> Result<SecretBytes, TlsError> {
    let whole = || -> io::Result<Vec<u8>> {
        let opened = File::open(path)?;
        if opened.metadata()?.len() > MAX_FILE_BYTES {
            return Err(io::Error::other("it has more than 1 MiB"));
        }
        let mut text = Vec::with_capacity(64 << 10);
        opened.take(MAX_FILE_BYTES).read_to_end(&mut text)?;
        Ok(text)
    };
    let text = whole().map(SecretBytes::new);
    text.map_err(|source| TlsError::Read { file, path: path.to_owned(), source })
}

fn noted(text: SecretBytes, digest: &mut digest::Context) -> SecretBytes {
    digest.update(&(text.len() as u64).to_be_bytes());
    digest.update(text.expose());
    text
}

fn certificates(
    file: TlsFile,
    path: &Path,
    text: &SecretBytes,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.expose()).collect();
    let usable = |der: &CertificateDer<'_>| RootCertStore::empty().add(der.clone().into_owned());
    match parsed {
        Ok(chain) if !chain.is_empty() && (chain.iter().all(|der| usable(der).is_ok())) => {
            Ok(chain)
        }
        Ok(_) | Err(_) => {
            Err(TlsError::NotPem { file, path: path.to_owned(), expected: "certificates" })
        }
    }
}

fn pem(certificate: &CertificateDer<'_>) -> String {
    let text = STANDARD.encode(certificate);
    let lines: Vec<&str> =
        text.as_bytes().chunks(PEM_LINE).filter_map(|it| std::str::from_utf8(it).ok()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

fn private_key(path: &Path, text: &SecretBytes) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(text.expose()).map_err(|_| TlsError::NotPem {
        file: TlsFile::ClientKey,
        path: path.to_owned(),
        expected: "a private key",
    })
}
