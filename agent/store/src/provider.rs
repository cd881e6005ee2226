//! Providers of the Secrets Store CSI driver: `v1alpha1.CSIDriverProvider` over a unix socket of the node.
//!
//! | module | owns |
//! |---|---|
//! | [`sockets`] | how its socket is reached |
//! | `client` | one call, its deadline and size limit |
//! | `attributes` | what a provider is told: parameters, pod, token, secrets |
//! | `files` | an answer's files, checked, and their versions |
//! | `error` | the table from an answer to what it means |
//! | `session` | one pod's part: token, secrets, versions of the last answer |
//!
//! Invariants: a provider gets the token for its own audience and no other; it is given no path that can be
//! written or read; what it answers is checked as strictly as what a tenant writes.

mod attributes;
mod client;
mod error;
mod files;
mod session;
pub(crate) mod sockets;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use aws_lc_rs::{hmac, rand};
use futures::FutureExt;
use futures::future::BoxFuture;
use sotto_core::identity::{Audience, StoreName};
use sotto_core::secret::SecretString;

use crate::config::ProviderSettings;
use crate::error::StoreError;
use crate::plan::{PlanSource, VolumePlan};
use crate::session::{SecretStore, StoreSession};

pub use error::{FileFault, ProviderError};

use session::ProviderSession;
use sockets::{Directories, ProviderSockets};

/// How long one fetch may take, as long as one from OpenBao.
const FETCH: Duration = Duration::from_secs(30);

/// One configured provider.
pub(crate) struct Provider {
    shared: Arc<Shared>,
}

/// What all sessions at one provider share; nothing of any pod.
struct Shared {
    settings: ProviderSettings,
    sockets: Arc<dyn ProviderSockets>,
    fetch_deadline: Duration,
    /// Digests of contents in versions: keyed, as a plain digest of a short secret would give it away.
    digests: hmac::Key,
    /// It takes what it has told already from the files that the reference driver wrote; we have none, so
    /// it isn't told what we have.
    reads_files: AtomicBool,
}

impl Provider {
    /// One whose socket this process may connect to.
    pub(crate) fn new(settings: &ProviderSettings) -> Self {
        Self::with_deadline(settings, FETCH)
    }

    /// One that is reached through others.
    pub(crate) fn through(settings: &ProviderSettings, sockets: Arc<dyn ProviderSockets>) -> Self {
        Self::made(settings, sockets, FETCH)
    }

    pub(crate) fn with_deadline(settings: &ProviderSettings, fetch_deadline: Duration) -> Self {
        let sockets = Arc::new(Directories(settings.directories.clone()));
        Self::made(settings, sockets, fetch_deadline)
    }

    fn made(
        settings: &ProviderSettings,
        sockets: Arc<dyn ProviderSockets>,
        fetch_deadline: Duration,
    ) -> Self {
        let digests = hmac::Key::generate(hmac::HMAC_SHA256, &rand::SystemRandom::new())
            .expect("the system's random source, or no TLS would work either");
        let (settings, reads_files) = (settings.clone(), AtomicBool::new(false));
        let shared = Shared { settings, sockets, fetch_deadline, digests, reads_files };
        Self { shared: Arc::new(shared) }
    }

    /// No call: a provider logs in within each Mount.
    fn session(&self, plan: &VolumePlan, jwt: &SecretString) -> Result<StoreSession, StoreError> {
        match &plan.source {
            PlanSource::Provider(source) if plan.store == self.shared.settings.name => {
                let shared = Arc::clone(&self.shared);
                Ok(Box::new(ProviderSession::new(shared, plan.subject.clone(), source, jwt)))
            }
            PlanSource::Provider(_) | PlanSource::OpenBao(_) => {
                let (store, subject) = (self.shared.settings.name.clone(), plan.subject.clone());
                Err(StoreError::OtherLogin { store, subject })
            }
        }
    }
}

impl SecretStore for Provider {
    fn name(&self) -> &StoreName {
        &self.shared.settings.name
    }

    fn audience(&self) -> &Audience {
        &self.shared.settings.audience
    }

    fn resume(
        &self,
        plan: &VolumePlan,
        jwt: &SecretString,
        _carried: &[u8],
    ) -> Option<StoreSession> {
        // There is no login to carry: the next call begins anew.
        self.session(plan, jwt).ok()
    }

    fn login<'a>(
        &'a self,
        plan: &'a VolumePlan,
        jwt: &'a SecretString,
    ) -> BoxFuture<'a, Result<StoreSession, StoreError>> {
        std::future::ready(self.session(plan, jwt)).boxed()
    }
}

#[cfg(test)]
mod tests;
