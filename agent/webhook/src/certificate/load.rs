//! A certificate and its key, from two PEM files.

use std::fs::File;
use std::hash::{DefaultHasher, Hasher};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::Files;

/// Largest PEM file, in bytes.
const MAX_FILE_BYTES: u64 = 256 << 10;

/// Why a pair can't be served.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file can't be read.
    #[error("{} can't be read: {source}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Not PEM, or empty.
    #[error("{} holds no {what} in PEM", file.display())]
    Pem {
        /// The file.
        file: PathBuf,
        /// What it should hold.
        what: &'static str,
    },
    /// The key isn't the certificate's, or of a kind that isn't supported.
    #[error("the certificate and the key don't fit together: {0}")]
    Pair(#[from] rustls::Error),
    /// Not an X.509 certificate.
    #[error("{} holds no X.509 certificate", .0.display())]
    NotX509(PathBuf),
}

/// A pair that can be served.
pub(super) struct Loaded {
    pub(super) key: Arc<CertifiedKey>,
    /// First second of validity, since 1970.
    pub(super) not_before: i64,
    /// Last second of validity, since 1970.
    pub(super) not_after: i64,
    /// Of both files: another one means that they changed.
    pub(super) fingerprint: u64,
}

pub(super) fn load(files: &Files) -> Result<Loaded, CertificateError> {
    let chain_pem = read(&files.certificate)?;
    let key_pem = read(&files.key)?;
    let pem = |file: &Path, what| CertificateError::Pem { file: file.to_owned(), what };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&chain_pem)
        .collect::<Result<_, _>>()
        .map_err(|_| pem(&files.certificate, "certificate"))?;
    let first = chain.first().ok_or_else(|| pem(&files.certificate, "certificate"))?;
    let (not_before, not_after) =
        validity(first).ok_or_else(|| CertificateError::NotX509(files.certificate.clone()))?;
    let key =
        PrivateKeyDer::from_pem_slice(&key_pem).map_err(|_| pem(&files.key, "private key"))?;
    let provider = CryptoProvider::get_default().expect("main installs a provider first");
    let key = CertifiedKey::from_der(chain, key, provider)?;
    let mut fingerprint = DefaultHasher::new();
    fingerprint.write(&chain_pem);
    fingerprint.write(&key_pem);
    Ok(Loaded { key: Arc::new(key), not_before, not_after, fingerprint: fingerprint.finish() })
}

fn validity(certificate: &CertificateDer<'_>) -> Option<(i64, i64)> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let validity = parsed.validity();
    Some((validity.not_before.timestamp(), validity.not_after.timestamp()))
}

fn read(file: &Path) -> Result<Vec<u8>, CertificateError> {
    let read = || {
        let mut bytes = Vec::new();
        File::open(file)?.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MAX_FILE_BYTES {
            return Err(io::Error::other(format!("it has more than {MAX_FILE_BYTES} bytes")));
        }
        Ok(bytes)
    };
    read().map_err(|source| CertificateError::Read { file: file.to_owned(), source })
}
