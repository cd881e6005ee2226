//! A certificate of our own, for clusters without cert-manager: a CA for `caBundle`, and the pair.
//!
//! Invariant: the CA's key is never written: it signs once and is dropped, so nobody can sign for that CA
//! again. A renewal is another CA; `caBundle` may hold the old and the new one together.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};

/// Clocks of nodes differ; a certificate that isn't valid yet would fail every call.
const BACKDATED: Duration = Duration::from_secs(300);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const CA_FILE: &str = "ca.pem";
const CERTIFICATE_FILE: &str = "tls.crt";
const KEY_FILE: &str = "tls.key";

/// Why no certificate was made.
#[derive(Debug, thiserror::Error)]
pub enum MakeError {
    /// A name that a certificate can't hold.
    #[error("no certificate can be made for {0}: {1}")]
    Certificate(String, rcgen::Error),
    /// A file can't be written; an existing one is never replaced.
    #[error("{} can't be written: {source}", file.display())]
    Write {
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A new CA with one certificate.
pub struct Made {
    /// The CA's certificate, PEM: the webhook configuration's `caBundle`.
    pub ca_pem: String,
    /// The server's certificate, PEM.
    pub certificate_pem: String,
    key_pem: String,
}

/// Makes a CA and a server certificate for `names`, valid for `days`.
///
/// # Errors
/// A name can't stand in a certificate.
pub fn make(names: &[String], days: u32) -> Result<Made, MakeError> {
    pair(names, days).map_err(|error| MakeError::Certificate(names.join(", "), error))
}

fn pair(names: &[String], days: u32) -> Result<Made, rcgen::Error> {
    let mut ca = params("sotto-webhook CA", &[], days)?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let ca_key = KeyPair::generate()?;
    let ca_pem = ca.self_signed(&ca_key)?.pem();
    let issuer = Issuer::new(ca, ca_key);
    let mut server = params("sotto-webhook", names, days)?;
    server.use_authority_key_identifier_extension = true;
    server.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate()?;
    let certificate_pem = server.signed_by(&key, &issuer)?.pem();
    Ok(Made { ca_pem, certificate_pem, key_pem: key.serialize_pem() })
}

fn params(name: &str, names: &[String], days: u32) -> Result<CertificateParams, rcgen::Error> {
    let now = SystemTime::now();
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = (now - BACKDATED).into();
    params.not_after = (now + DAY * days).into();
    Ok(params)
}

impl Made {
    /// Writes `ca.pem`, `tls.crt` and `tls.key` into a directory; the key for its owner alone.
    ///
    /// # Errors
    /// One of them is there already, or the directory can't be written.
    pub fn write(&self, directory: &Path) -> Result<(), MakeError> {
        for (name, content, mode) in [
            (CA_FILE, &self.ca_pem, 0o644),
            (CERTIFICATE_FILE, &self.certificate_pem, 0o644),
            (KEY_FILE, &self.key_pem, 0o600),
        ] {
            let file = directory.join(name);
            let mut options = OpenOptions::new();
            options.write(true).create_new(true).mode(mode);
            options
                .open(&file)
                .and_then(|mut open| open.write_all(content.as_bytes()))
                .map_err(|source| MakeError::Write { file, source })?;
        }
        Ok(())
    }
}
