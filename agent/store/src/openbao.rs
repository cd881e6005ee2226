//! OpenBao and Vault: one client for both, after `facts/openbao.md`.
//!
//! | module | owns |
//! |---|---|
//! | `caller` | one request: hosts, headers, failover, redirects, deadlines |
//! | `status` | the table from a status and a body to what it means |
//! | `login` | jwt, kubernetes, cert |
//! | `fetch` | the objects of one volume, in parallel |
//! | `response` | what an answer's JSON holds for one object |
//! | `carried` | a session as bytes, for the next process |
//! | `session` | one pod's login over time: renewals, leases, the end |
//! | `versions` | the key of versions of what the store doesn't number |
//!
//! Invariant: a store token goes into one header of requests to hosts that were verified, nowhere else.

mod caller;
mod carried;
mod fetch;
mod login;
mod response;
mod session;
mod status;
mod versions;

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use futures::FutureExt;
use futures::future::BoxFuture;
use sotto_core::identity::{Audience, StoreName};
use sotto_core::secret::SecretString;
use tokio::time::Instant;

use crate::config::{AuthMethod, StoreSettings};
use crate::error::StoreError;
use crate::http::HttpsClient;
use crate::plan::{LoginPlan, VolumePlan};
use crate::session::{SecretStore, StoreSession};

use caller::Caller;
use session::{OpenBaoSession, Owner};

/// How long each thing may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timing {
    /// One request to one host.
    pub(crate) exchange: Duration,
    /// A login, a renewal, a revocation, with every host tried.
    pub(crate) call: Duration,
    /// All objects of a volume.
    pub(crate) fetch: Duration,
    /// Pause before all hosts are tried a second time.
    pub(crate) pause: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            exchange: Duration::from_secs(10),
            call: Duration::from_secs(20),
            fetch: Duration::from_secs(30),
            pause: Duration::from_millis(250),
        }
    }
}

/// One configured OpenBao or Vault.
#[derive(Clone)]
pub(crate) struct OpenBao {
    shared: Arc<Shared>,
}

/// What all sessions at one store share; nothing of any pod.
struct Shared {
    name: StoreName,
    audience: Audience,
    method: AuthMethod,
    /// Where it is, and for whom tokens are.
    place: String,
    caller: Caller,
    timing: Timing,
    /// For versions of values that the store doesn't number.
    versions: hmac::Key,
}

impl Shared {
    /// What a login's tokens are good for: they are shown nowhere else, whatever the configuration says later.
    fn good_for(&self, login: &LoginPlan) -> String {
        let LoginPlan { role, mount, namespace } = login;
        let role = role.as_deref().unwrap_or_default();
        let namespace = namespace.as_ref().map(ToString::to_string).unwrap_or_default();
        format!("{}, role {role:?} of {mount:?} in {namespace:?}", self.place)
    }
}

impl OpenBao {
    pub(crate) fn new(settings: &StoreSettings, https: HttpsClient) -> Self {
        Self::with_timing(settings, https, Timing::default())
    }

    pub(crate) fn with_timing(
        settings: &StoreSettings,
        https: HttpsClient,
        timing: Timing,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                name: settings.name.clone(),
                audience: settings.audience.clone(),
                method: settings.method,
                place: format!(
                    "{} {} at {} by {} for {}",
                    settings.kind.name(),
                    settings.name,
                    settings.address,
                    settings.method.name(),
                    settings.audience
                ),
                caller: Caller::new(settings, https, timing),
                timing,
                versions: versions::key(&settings.tls),
            }),
        }
    }

    async fn session(
        &self,
        plan: &VolumePlan,
        jwt: &SecretString,
    ) -> Result<StoreSession, StoreError> {
        let source = plan.source.openbao().filter(|_| plan.store == self.shared.name);
        let Some(source) = source else {
            let (store, subject) = (self.shared.name.clone(), plan.subject.clone());
            return Err(StoreError::OtherLogin { store, subject });
        };
        let owner = Owner { subject: plan.subject.clone(), login: source.login.clone() };
        let until = Instant::now() + self.shared.timing.call;
        let token = self.shared.log_in(&owner, jwt, until).await?;
        Ok(Box::new(OpenBaoSession::new(Arc::clone(&self.shared), owner, jwt, token)))
    }
}

impl SecretStore for OpenBao {
    fn name(&self) -> &StoreName {
        &self.shared.name
    }

    fn audience(&self) -> &Audience {
        &self.shared.audience
    }

    fn resume(
        &self,
        plan: &VolumePlan,
        jwt: &SecretString,
        carried: &[u8],
    ) -> Option<StoreSession> {
        let source = plan.source.openbao().filter(|_| plan.store == self.shared.name)?;
        let owner = Owner { subject: plan.subject.clone(), login: source.login.clone() };
        let tokens = carried::read(&self.shared.good_for(&owner.login), carried)?;
        let session = OpenBaoSession::resumed(Arc::clone(&self.shared), owner, jwt, tokens)?;
        Some(Box::new(session))
    }

    fn login<'a>(
        &'a self,
        plan: &'a VolumePlan,
        jwt: &'a SecretString,
    ) -> BoxFuture<'a, Result<StoreSession, StoreError>> {
        self.session(plan, jwt).boxed()
    }
}

#[cfg(test)]
mod tests;
