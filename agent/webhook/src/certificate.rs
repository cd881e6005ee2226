//! The serving certificate: read from files, reloaded when they change, made by hand where nothing else
//! makes one.
//!
//! Invariants: a pair that doesn't fit together, as halfway through a renewal, is never served: the one before
//! stays. Whatever writes the files (cert-manager, a Secret, later a leader of the replicas that also patches
//! `caBundle`) needs no restart. Called by [`crate::app`] and [`crate::server`].

mod load;
mod make;

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use sotto_runtime::drain::Drain;

use load::Loaded;

pub use load::CertificateError;
pub use make::{Made, MakeError, make};

/// Where the pair is.
#[derive(Debug, Clone)]
pub struct Files {
    /// The certificate and its intermediates, PEM.
    pub certificate: PathBuf,
    /// The private key, PEM.
    pub key: PathBuf,
}

/// The pair that is served now.
pub struct Certificate {
    files: Files,
    current: ArcSwap<Loaded>,
    /// What was complained about last, so that it is logged once.
    complaint: Mutex<Option<String>>,
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").field("files", &self.files).finish_non_exhaustive()
    }
}

impl Certificate {
    /// Reads the files. Blocks; the crypto provider must be installed.
    ///
    /// # Errors
    /// The pair can't be served.
    pub fn load(files: Files) -> Result<Self, CertificateError> {
        let loaded = load::load(&files)?;
        let complaint = Mutex::new(None);
        Ok(Self { files, current: ArcSwap::from_pointee(loaded), complaint })
    }

    /// Reads the files again, if they changed. Blocks. Whether another pair is served now.
    pub fn reload(&self) -> bool {
        let read = load::load(&self.files);
        let mut complaint = self.complaint.lock().unwrap_or_else(PoisonError::into_inner);
        match read {
            Ok(loaded) => {
                *complaint = None;
                let changed = loaded.fingerprint != self.current.load().fingerprint;
                if changed {
                    tracing::info!(not_after = loaded.not_after, "another certificate is served");
                    self.current.store(Arc::new(loaded));
                }
                changed
            }
            Err(error) => {
                let error = error.to_string();
                if complaint.as_ref() != Some(&error) {
                    tracing::warn!(error, "the certificate before is still served");
                    *complaint = Some(error);
                }
                false
            }
        }
    }

    /// Looks at the files every `interval` until the drain begins. By reading, not by inotify: a mounted
    /// Secret is replaced by a rename of a link two directories above the file.
    pub async fn watch(self: Arc<Self>, interval: Duration, drain: Drain) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(interval) => {}
                () = drain.begun() => return,
            }
            let certificate = Arc::clone(&self);
            if tokio::task::spawn_blocking(move || certificate.reload()).await.is_err() {
                tracing::error!("reading the certificate panicked");
            }
        }
    }

    /// Whether the served certificate is valid at `now`.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, now: SystemTime) -> Result<(), String> {
        let seconds = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |it| it.as_secs());
        let now = i64::try_from(seconds).unwrap_or(i64::MAX);
        let current = self.current.load();
        if now < current.not_before {
            Err("the certificate is not valid yet".to_owned())
        } else if now > current.not_after {
            Err("the certificate has expired".to_owned())
        } else {
            Ok(())
        }
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.load().key))
    }
}

#[cfg(test)]
mod tests;
